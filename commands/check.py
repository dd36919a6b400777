"""`inference_server.py check`: whether a model can be served, what it takes, how fast it is, and what makes it faster.

Owns the exit codes and what is looked at; the words are commands.check_page's. The model runs in processes of its own
(models.calibration_probe), so whatever is wrong with it is told and harms nobody; what is measured of candidates is
models.calibration_search's affair.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from batching.batch import warm_up_sizes
from batching.child import environment
from batching.client import Target
from commands import check_page, exits, terminal
from commands.parsing import Parser
from commands.parsing import parser as parser_of
from front.catalog import Entry
from front.settings import SECRETS, Settings
from models import calibration
from models.calibration_probe import Lost, Probe
from models.calibration_search import search
from models.contract import Contract
from models.dialects import native
from models.dialects.dialect import Call, nothing
from models.errors import BadInput, LoadError, TooLarge
from models.repository import ModelReference, at
from models.schema import Compiled, compile_contract

ENTRY = Path(__file__).resolve().parent.parent / "inference_server.py"
MEASURE = "--measure"  # how this program starts itself for a process that measures
# Loading a large model takes minutes; measuring a candidate must end.
LOAD_S, CANDIDATE_S = 600.0, 300.0


def main(arguments: Sequence[str]) -> int:
    """Check, and say what came of it; the exit code."""
    if list(arguments) == [MEASURE]:
        from models import calibration_child

        return calibration_child.main()
    given = parser().parse_args(list(arguments))
    try:
        settings = Settings.from_environment()
        references = at(given.model, None, allow_h5=settings.allow_h5).all()
    except ValueError as error:
        terminal.complain(str(error))
        return exits.USAGE
    except LoadError as error:
        terminal.complain(error.reason)
        return exits.WRONG
    newest = {one.name: one for one in references}  # versions ascend
    checked = []
    for one in newest.values():
        with terminal.waiting(f"checking {one.name} version {one.version}"):
            found = _checked(one, settings)
        if given.calibrate and found["ok"]:
            _calibrate(one, settings, found)
        checked.append(found)
    if given.json:
        terminal.say_json({"ok": all(one["ok"] for one in checked), "models": checked})
    else:
        page = terminal.Page()
        for found in checked:
            check_page.show(page, found)
    return exits.OK if all(one["ok"] for one in checked) else exits.WRONG


def parser() -> Parser:
    """What it takes."""
    made = parser_of(
        "check",
        "Load a model as the server would, in a process of its own, run its contract's examples, and say what it "
        "takes, what it refuses and why, and how fast it is.",
        ("check model.keras", "check models/saved --json", "check model.keras --calibrate"),
    )
    made.add_argument("model", metavar="MODEL", help="a model or a folder of models; of each its newest version")
    made.add_argument(
        "--calibrate",
        action="store_true",
        help="also measure what makes it faster on this machine (XLA, threads), which should have nothing else to do "
        "for about a minute, and keep it in CALIBRATION_DIR for the next start of a server",
    )
    made.add_argument("--json", action="store_true", help="print it as JSON")
    return made


def _checked(reference: ModelReference, settings: Settings) -> dict[str, Any]:
    """What is known of a version afterwards, JSON-safe."""
    result: dict[str, Any] = {"name": reference.name, "version": reference.version, "ok": False, "reason": None}
    try:
        if reference.refusal is not None:
            raise Lost(reference.refusal)
        result |= _measured(reference, settings)
        result["ok"] = True
    except (Lost, LoadError) as error:
        result["reason"] = _reason(error)
    return result


def _calibrate(reference: ModelReference, settings: Settings, checked: dict[str, Any]) -> None:
    """Add what came of it to what is known."""
    try:
        checked |= _calibrated(reference, settings, checked)
    except (Lost, LoadError) as error:
        checked |= {"ok": False, "reason": _reason(error)}


def _reason(error: Lost | LoadError) -> str:
    return error.reason if isinstance(error, LoadError) else str(error)


def _options(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in asdict(settings).items() if name not in SECRETS}


def _probe(reference: ModelReference, options: dict[str, Any], limit_s: float) -> Probe:
    entry = [sys.executable, str(ENTRY), "check", MEASURE]
    return Probe(entry, environment(), reference.to_json(), options, limit_s)


def _measured(reference: ModelReference, settings: Settings) -> dict[str, Any]:
    started = time.monotonic()
    options = _options(settings)
    together = {**options, "together": [reference.to_json()]}  # as in a server that has nothing else
    with _probe(reference, together, LOAD_S) as probe:
        took_s = time.monotonic() - started
        contract = Contract.from_json(probe.description)
        compiled = compile_contract(contract)
        limit = min(settings.batch_max_size, contract.max_rows or settings.batch_max_size)
        sizes = warm_up_sizes(limit)
        seconds = probe.ask("warm", sizes=sizes, budget_s=settings.warm_up_budget_s)["seconds"]
        found = calibration.settled(reference, settings.calibration_dir, probe.tensorflow)
    return {
        "seconds_to_load": round(took_s, 2),
        "tensorflow": probe.tensorflow,
        "contract": contract.to_json(),
        "json_schema": compiled.json_schema,
        "sample": compiled.sample,
        "examples": len(contract.examples),
        "batch_seconds": seconds,
        "refused": [{"body": body, "message": message} for body, message in refusals(compiled)],
        "calibration": None if found is None else found.to_json(),
    }


def _calibrated(reference: ModelReference, settings: Settings, measured: dict[str, Any]) -> dict[str, Any]:
    """What came of the candidates; kept for the next start. measured: what `_measured` said."""
    options = _options(settings)
    del options["calibration_dir"]  # each is measured as itself, whatever was found before
    with terminal.bar() as bar:
        done = 0

        def say(words: str) -> None:
            nonlocal done
            done += 1
            bar.done(done, words, None)

        def start(threads: int | None) -> Probe:
            return _probe(reference, {**options, "intra_op_threads": threads}, CANDIDATE_S)

        found = search(
            start,
            [int(rows) for rows in measured["batch_seconds"]] or [1],
            threads=settings.intra_op_threads,
            cores=calibration.cores(),
            budget_s=settings.warm_up_budget_s,
            say=say,
        )
    folder = calibration.folder_of(settings.calibration_dir)
    try:
        path = calibration.write(folder, calibration.key_of(reference, measured["tensorflow"]), found.calibration)
    except OSError as error:
        raise Lost(f"what was measured cannot be kept in {folder} ({error.strerror}): see CALIBRATION_DIR") from None
    return {
        "calibration": found.calibration.to_json(),
        "candidates": [asdict(finding) for finding in found.findings],
        "kept": str(path),
    }


# -- what would be refused ---------------------------------------------------------------------------------------------


def refusals(compiled: Compiled) -> list[tuple[Any, str]]:
    """Bodies like the sample but for one thing, and what a caller would hear."""
    contract = compiled.contract
    entry = Entry(contract.name, contract.version, "READY", None, Target("", 0, 0), compiled, {})
    found = []
    for body in _spoilt(compiled.sample):
        call = Call("predict", json.dumps(body).encode(), nothing, *(1 << 31,) * 3)
        try:
            native.parse(entry, call)
        except (BadInput, TooLarge) as error:
            found.append((body, str(error)))
    return found


def _spoilt(sample: Any) -> Iterator[Any]:
    yield {}
    if isinstance(sample, dict):
        yield {**sample, "no_such_key": 0}
        for key, value in sample.items():
            yield {**sample, key: _with_text(value)}
            if isinstance(value, list) and value:
                yield {**sample, key: value[:-1]}
            return


def _with_text(value: Any) -> Any:
    """The same with a word for the first number, or a number for the first word."""
    if isinstance(value, list) and value:
        return [_with_text(value[0]), *value[1:]]
    if isinstance(value, dict) and value:
        key = next(iter(value))
        return {**value, key: _with_text(value[key])}
    return 1 if isinstance(value, str) else "text"
