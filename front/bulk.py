"""Many rows at once, as arrays: the way into the batches for whoever has a file of them. No JSON, the same checks.

Owns what becomes of rows that the model cannot answer: each is found and told of, and costs the others nothing. What is
asked of the inputs is for models.bulk to say. Knows no files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from batching.errors import DeadlineExceeded, ItemFailed, NoWorker, QueueFull
from batching.items import Outcome, Target, outputs_of
from front.catalog import Entry
from models.contract import Contract
from models.errors import BadOutput
from models.tensors import Array, fits, to_json

ANSWER_S = 120.0  # for one call; whoever sends a file waits rather than fails
RECOVERY_S = 120.0  # for a worker that has to be replaced
RECOVERY_LOOK_S = 0.1
_NOT_FINITE = "the model answered with NaN or an infinity"


class Caller(Protocol):
    """What is needed of a batching.blocking.BlockingClient."""

    @property
    def view(self) -> Any: ...

    def call(
        self, target: Target, items: Sequence[tuple[int, Sequence[Array]]], deadline: float, priority: int = 0
    ) -> list[Outcome]: ...


class Answered(NamedTuple):
    """What came of some rows. kept: the places of those that have an answer, ascending; None: all have.

    outputs: of these, in the contract's order. failures: why the others have none, by place.
    """

    kept: Array | None
    outputs: list[Array]
    failures: dict[int, Exception]


class Bulk:
    """One version of one model, to be asked about many rows. Safe to use from many threads."""

    def __init__(self, client: Caller, entry: Entry) -> None:
        self._client = client
        self._stopped = threading.Event()
        self.entry = entry

    @property
    def contract(self) -> Contract:
        """What it takes and gives. Raises RuntimeError while no worker has said."""
        return self.entry.compiled_for(None).contract

    def stop(self) -> None:
        """Wait for no worker from now on."""
        self._stopped.set()

    def compute(self, arrays: Sequence[Array]) -> Answered:
        """The answers to rows that fit the contract's inputs; see models.bulk for whether they do.

        Raises NoWorker, QueueFull or DeadlineExceeded when there is no worker for RECOVERY_S.
        """
        rows = len(arrays[0])
        try:
            outputs = self._called(arrays, rows)
        except (ItemFailed, BadOutput) as error:
            if rows == 1:
                return Answered(np.empty(0, np.intp), [], {0: error})
            half = rows // 2
            first = self.compute([array[:half] for array in arrays])
            return _joined(first, self.compute([array[half:] for array in arrays]), half, rows)
        return self._finite(outputs, rows)

    def _called(self, arrays: Sequence[Array], rows: int) -> list[Array]:
        give_up = time.monotonic() + RECOVERY_S
        while True:
            try:
                (outputs,) = outputs_of(
                    self._client.call(self.entry.target, [(rows, arrays)], time.monotonic() + ANSWER_S)
                )
            except (NoWorker, QueueFull, DeadlineExceeded):
                if time.monotonic() > give_up or self._stopped.wait(RECOVERY_LOOK_S):
                    raise
                continue
            self._check(outputs, rows)
            return outputs

    def _check(self, outputs: Sequence[Array], rows: int) -> None:
        promised = self.contract.outputs
        if len(outputs) != len(promised):
            raise BadOutput(f"the model answered with {len(outputs)} outputs, its contract has {len(promised)}")
        for output, tensor in zip(outputs, promised, strict=True):
            if not fits(output.shape, (rows, *tensor.shape)):
                raise BadOutput(f"the model answered with shape {output.shape}, expected {(rows, *tensor.shape)}")
            to_json(output[:0])  # a dtype that nobody could be told of

    def _finite(self, outputs: list[Array], rows: int) -> Answered:
        """Without the rows that a request would be refused for."""
        floats = [output for output in outputs if output.dtype.kind == "f"]
        if self.contract.null_for_nan or all(np.isfinite(output).all() for output in floats):
            return Answered(None, outputs, {})
        good = np.ones(rows, bool)
        for output in floats:
            good &= np.isfinite(output.reshape(rows, -1)).all(axis=1)
        kept = np.flatnonzero(good)
        bad: dict[int, Exception] = {int(row): BadOutput(_NOT_FINITE) for row in np.flatnonzero(~good)}
        return Answered(kept, [output[kept] for output in outputs], bad)


def _joined(first: Answered, second: Answered, half: int, rows: int) -> Answered:
    """Both halves of some rows as one."""
    failures = {**first.failures, **{half + place: error for place, error in second.failures.items()}}
    kept = np.array([place for place in range(rows) if place not in failures], np.intp)
    both = [one.outputs for one in (first, second) if one.outputs]
    try:
        outputs = [np.concatenate(parts) for parts in zip(*both, strict=True)]
    except ValueError:  # outputs whose sizes differ from row to row cannot be one array
        lone = BadOutput("the model answered with other shapes for other rows")
        return Answered(np.empty(0, np.intp), [], {**dict.fromkeys(range(rows), lone), **failures})
    return Answered(kept, outputs, failures)
