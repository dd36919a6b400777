"""A model before it serves: its own examples, and requests that others have sent, go the way of every request.

An example's answer must be the promised one; a logged request must be answered, and how far its answer is from the one
before is told. Owns what "the promised one" means. Knows nothing of TensorFlow: a model is whatever runs arrays.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson

from models.contract import Contract, Example
from models.dialects import native
from models.dialects.dialect import Call, nothing
from models.errors import BadInput, BadOutput, LoadError, TooLarge, UnsupportedMedia
from models.schema import Compiled, compile_contract
from models.tensors import Array
from models.wording import clip

log = logging.getLogger("inference.models")

# An example is the operator's own: only what no request could have is refused.
NO_LIMIT = 1 << 31
_SHOWN_CHARACTERS = 60
# Reading a large log takes its time, but not for ever.
PATIENCE_S, LOOK_S = 60.0, 0.05
# Answers closer than this are the same: batched or compiled differently, a model's last bits differ.
SAME = 1e-5


class Runnable(Protocol):
    """What is rehearsed: arrays in the contract's order in, the same out."""

    def run(self, inputs: Sequence[Array]) -> list[Array]: ...


class _Candidate(NamedTuple):
    """The version as its requests will see it."""

    name: str
    version: str
    compiled: Compiled
    state: str = "LOADING"
    reason: str | None = None
    signatures: Mapping[str, Compiled] = {}
    costs: Mapping[str, float] = {}
    calibration: Mapping[str, Any] | None = None


def rehearse(model: Runnable, contract: Contract) -> None:
    """Run every example. Raises LoadError with the first that fails, and in what."""
    if not contract.examples:
        return
    candidate = _Candidate(contract.name, contract.version, compile_contract(contract))
    for index, example in enumerate(contract.examples):
        refusal = f"it does not answer its own example {index} as promised"
        with _trying(contract, f"its own example {index}", refusal):
            fault = _fault(model, candidate, example)
        if fault is not None:
            raise LoadError(f"{refusal}: {fault}")


def replay(model: Runnable, contract: Contract, path: Path) -> None:
    """Run logged requests: each line of the file is a JSON object with an instance and the outputs it had.

    That a new version answers otherwise is what it was made for, so it is logged; that it cannot answer is a LoadError.
    Another process writes the file meanwhile; what is not there in time is done without.
    """
    give_up = time.monotonic() + PATIENCE_S
    while not path.exists():
        if time.monotonic() > give_up:
            log.error("there are no logged requests to try %s version %s on", contract.name, contract.version)
            return
        time.sleep(LOOK_S)
    candidate = _Candidate(contract.name, contract.version, compile_contract(contract))
    lines = path.read_bytes().splitlines()
    changed, largest = 0, 0.0
    for line in lines:
        logged = orjson.loads(line)
        with _trying(contract, "a logged request", "it does not answer a logged request"):
            answer = _answer(model, candidate, "predict", {"instances": [logged["instance"]]})
        difference = _distance(answer["predictions"][0], logged["outputs"])
        changed += difference is None or difference > SAME
        largest = max(largest, difference or 0.0)
    log.info(
        "%s version %s answers %d logged requests, %d of them otherwise than before (by %.3g at most)",
        contract.name, contract.version, len(lines), changed, largest,
    )  # fmt: skip


@contextmanager
def _trying(contract: Contract, what: str, refusal: str) -> Iterator[None]:
    """One request. Raises LoadError: `refusal` and why, or, where the model itself fails, that it fails on `what`."""
    try:
        yield
    except (BadInput, BadOutput, TooLarge, UnsupportedMedia) as error:
        raise LoadError(f"{refusal}: {error}") from None
    except Exception as error:
        log.exception("%s version %s fails on %s", contract.name, contract.version, what)
        raise LoadError(f"it fails on {what}; the server's log has the details") from error


def _distance(found: Any, before: Any) -> float | None:
    """The largest difference of two answers' numbers; None where they are of different form."""
    try:
        a, b = np.asarray(found, float).ravel(), np.asarray(before, float).ravel()
    except (ValueError, TypeError):
        return 0.0 if found == before else None
    return float(np.abs(a - b).max(initial=0.0)) if a.shape == b.shape else None


def _answer(model: Runnable, candidate: _Candidate, action: str, body: Any) -> Any:
    call = Call(action, orjson.dumps(body), nothing, NO_LIMIT, NO_LIMIT, NO_LIMIT)
    request = native.parse(candidate, call)
    outputs = [model.run(item.arrays) for item in request.items]
    return orjson.loads(native.render(candidate.compiled, request, outputs).body)


def _fault(model: Runnable, candidate: _Candidate, example: Example) -> str | None:
    """What is wrong with the answer; of several ways to ask, the one that comes nearest."""
    fault: str | None = None
    for action in _actions(candidate.compiled.contract, example):
        answer = _answer(model, candidate, action, example.request)
        fault = None if example.answer is None else _difference(answer, example.answer, example.tolerance, "")
        if fault is None:
            break
    return fault


def _actions(contract: Contract, example: Example) -> list[str]:
    """The routes that may have given the answer: the answer's form says which, but for /advanced_predict."""
    is_picture = contract.image is not None and isinstance(example.request, dict) and "image" in example.request
    if is_picture or (isinstance(example.answer, dict) and {"predicted_class", "top"} & example.answer.keys()):
        return ["classify"]
    return ["predict", "advanced"] if contract.routes else ["predict"]


def _difference(found: Any, promised: Any, tolerance: float, where: str) -> str | None:
    """Where an answer is another than promised; it may hold more than that."""
    if isinstance(promised, dict) and isinstance(found, dict):
        for key, value in promised.items():
            if key not in found:
                return f"there is no {where}{key}"
            if (fault := _difference(found[key], value, tolerance, f"{where}{key} ")) is not None:
                return fault
        return None
    if isinstance(promised, list) and isinstance(found, list) and len(promised) == len(found):
        faults = (_difference(*pair, tolerance, where) for pair in zip(found, promised, strict=True))
        return next((fault for fault in faults if fault is not None), None)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (found, promised))
    is_same = abs(found - promised) <= tolerance * (1 + abs(promised)) if numbers else found == promised
    return None if is_same else f"{where}is {_shown(found)}, not {_shown(promised)}"


def _shown(value: Any) -> str:
    return clip(orjson.dumps(value).decode(), _SHOWN_CHARACTERS)
