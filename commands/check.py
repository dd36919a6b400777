"""`inference_server.py check`: whether a model can be served, what it takes, how fast it is, and what makes it faster.

Owns the words and exit codes. The model runs in processes of its own (models.calibration_probe), so whatever is wrong
with it is told and harms nobody; what is measured of candidates is models.calibration_search's affair.
"""

from __future__ import annotations

import argparse
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
from commands import terminal
from front.catalog import Entry
from front.settings import SECRETS, Settings
from models import calibration
from models.calibration_probe import Lost, Probe
from models.calibration_search import Finding, search
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
_SHOWN_CHARACTERS = 300


def main(arguments: Sequence[str]) -> int:
    """Check, and say what came of it; the exit code."""
    if list(arguments) == [MEASURE]:
        from models import calibration_child

        return calibration_child.main()
    given = _parse(arguments)
    try:
        settings = Settings.from_environment()
        references = at(given.model, None, allow_h5=settings.allow_h5).all()
    except ValueError as error:
        terminal.complain(str(error))
        return terminal.USAGE
    except LoadError as error:
        terminal.complain(error.reason)
        return terminal.WRONG
    newest = {one.name: one for one in references}  # versions ascend
    checked = [_checked(one, settings, calibrate=given.calibrate) for one in newest.values()]
    if given.json:
        terminal.say_json({"ok": all(one["ok"] for one in checked), "models": checked})
    else:
        page = terminal.Page()
        for one in checked:
            _show(page, one)
    return terminal.OK if all(one["ok"] for one in checked) else terminal.WRONG


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="inference_server.py check",
        description="Load a model as the server would, in a process of its own, run its contract's examples, and say "
        "what it takes, what it refuses and how fast it is. Ends with 0 where it can be served, 1 where not. Settings "
        "come from the environment.",
    )
    parser.add_argument("model", metavar="MODEL", help="a model or a folder of models; of each its newest version")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="also measure what makes it faster on this machine (XLA, threads), which should have nothing else to do "
        "for about a minute, and keep it in CALIBRATION_DIR for the next start of a server",
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser.parse_args(list(arguments))


def _checked(reference: ModelReference, settings: Settings, *, calibrate: bool) -> dict[str, Any]:
    """What is known of a version afterwards, JSON-safe."""
    result: dict[str, Any] = {"name": reference.name, "version": reference.version, "ok": False, "reason": None}
    try:
        if reference.refusal is not None:
            raise Lost(reference.refusal)
        result |= _measured(reference, settings)
        if calibrate:
            result |= _calibrated(reference, settings, result)
        result["ok"] = True
    except (Lost, LoadError) as error:
        result["reason"] = error.reason if isinstance(error, LoadError) else str(error)
    return result


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


# -- words -------------------------------------------------------------------------------------------------------------


def _show(page: terminal.Page, one: dict[str, Any]) -> None:
    title = f"{one['name']} version {one['version']}"
    if "contract" not in one:
        page.heading(f"{title} cannot be served: {one['reason']}")
        return
    page.heading(f"{title} can be served; it was loaded in {one['seconds_to_load']} s")
    contract = one["contract"]
    for what in ("inputs", "outputs"):
        page.heading(what.capitalize())
        page.rows([(each["name"], each["dtype"], _shape(each["shape"])) for each in contract[what]])
    page.heading(f"A body for POST /predict/{one['name']}")
    page.rows([(_shown(one["sample"]) if one["sample"] is not None else "too long to show; pictures go to /classify",)])
    if one["examples"]:
        page.rows([(f"{terminal.number(one['examples'], 'example')} of its contract answered as promised",)])
    if one["refused"]:
        page.heading("Refused")
        page.rows([(_shown(each["body"]), each["message"]) for each in one["refused"]])
    _show_batches(page, one)
    _show_calibration(page, one)
    if one["reason"] is not None:
        page.heading(f"It was not calibrated: {one['reason']}")


def _show_batches(page: terminal.Page, one: dict[str, Any]) -> None:
    page.heading("Batches")
    if not one["batch_seconds"]:
        page.rows([("it takes no rows that we can think of, so it is served cold",)])
        return
    lines = [("rows", "ms a call", "rows/s")]
    for rows, seconds in one["batch_seconds"].items():
        lines.append((str(rows), f"{seconds * 1000:.3f}", f"{int(rows) / seconds:,.0f}"))
    page.rows(lines)


def _show_calibration(page: terminal.Page, one: dict[str, Any]) -> None:
    found = one.get("calibration")
    if found is None:
        page.heading("Not calibrated: check --calibrate measures what makes it faster here")
        return
    page.heading(f"Calibrated {found['measured_at']}")
    for finding in one.get("candidates", ()):
        page.rows([_words_of(Finding(**finding))])
    sizes = ", ".join(map(str, found["sizes"]))
    page.rows(
        [
            ("call", f"XLA for batches of {sizes}" if sizes else "plain"),
            ("threads", "TensorFlow's choice" if found["threads"] is None else str(found["threads"])),
            ("gain", f"{found['gain']:.2f} times the rows/s, at batches of {found['best_rows']}"),
            ("two at once", "not measured" if found["two_at_once"] is None else f"{found['two_at_once']:.2f} times"),
        ]
    )


def _words_of(finding: Finding) -> tuple[str, str, str]:
    ratios = ", ".join(f"{ratio:.2f} at {rows}" for rows, ratio in finding.ratios.items())
    return finding.name, "taken" if finding.chosen else f"not taken: {finding.fault or 'another is quicker'}", ratios


def _shape(sizes: Sequence[int | None]) -> str:
    return "x".join("any" if size is None else str(size) for size in sizes) or "one value"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
