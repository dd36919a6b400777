"""Measures the server under load, beside what it is made of. `scripts/bench` sets up and runs this.

Owns the command line and where results go; `benchmarks` does the measuring. Exit codes: 0; 1 when a request had no
answer or a wrong one; 2 when nothing could be measured. Missing a target is no failure: figures hang on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks import correctness, log_cost, pictures, small_model, tensors, wrk
from benchmarks.processes import SIGNALS, ProgramError
from benchmarks.report import Report
from benchmarks.rounds import Options

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".bench"
DUMMY = ROOT / "models" / "dummy_model.keras"
ROUNDS, SECONDS, PICTURE_SECONDS, IDLE_SECONDS = 5, 3, 10, 5.0
# Ratios near 1 need many pairs, and short ones where the machine drifts within seconds.
LOG_ROUNDS, LOG_SECONDS = 20, 1
# A quick leg with 64 pictures under way has to be long enough for one batch of them.
QUICK_PICTURE_SECONDS, QUICK_LOOP_SECONDS, QUICK_IDLE_SECONDS = 4, 0.2, 0.5


def main() -> int:
    """Measure what was asked for; the exit code."""
    given = arguments()
    if sys.platform != "linux":
        return fail("measures through Linux's /proc; there is none here")
    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        if not given.correctness:
            wrk.find()
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            return measure(given, Path(scratch))
    except (wrk.WrkError, ProgramError) as error:
        return fail(str(error))
    except subprocess.CalledProcessError as error:
        return fail(f"{Path(error.cmd[-1]).name} could not be made:\n{error.stderr.decode()[-2000:]}")


def measure(given: argparse.Namespace, scratch: Path) -> int:
    """One of the five measurements, its result printed and kept."""
    full, quick = (PICTURE_SECONDS, QUICK_PICTURE_SECONDS) if given.images else (SECONDS, 1)
    seconds = given.seconds or (quick if given.quick else LOG_SECONDS if given.log else full)
    options = Options(
        rounds=given.rounds or (1 if given.quick else LOG_ROUNDS if given.log else ROUNDS),
        seconds=seconds,
        loop_seconds=QUICK_LOOP_SECONDS if given.quick else seconds,
        idle_seconds=QUICK_IDLE_SECONDS if given.quick else IDLE_SECONDS,
        quick=given.quick,
        scratch=scratch,
        say=lambda text: print(f"bench: {text}", file=sys.stderr, flush=True),
    )
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    if given.correctness:
        account = correctness.run(model_of(given), options)
        keep(account, given.json or CACHE / "latest-correctness.json")
        print(correctness.to_text(account))
        return 0 if account["passed"] else 1
    if given.images:
        name, report = "latest-images.json", pictures.run(CACHE, options)
    elif given.tensors:
        mobilenet = pictures.model(CACHE, options)
        name, report = "latest-tensors.json", tensors.run(CACHE, mobilenet, options)
    elif given.log:
        name, report = "latest-log.json", log_cost.run(model_of(given), options)
    else:
        name, report = "latest.json", small_model.run(model_of(given), options)
    keep(report.to_json(), given.json or CACHE / name)
    return show(report, markdown=given.markdown)


def show(report: Report, *, markdown: bool) -> int:
    """Print it; 1 when a request had no answer."""
    print(report.to_markdown() if markdown else report.to_text())
    if report.errors:
        return fail(f"{report.errors:,} requests had no answer", 1)
    return 0


def model_of(given: argparse.Namespace) -> Path:
    """The model to serve; the dummy model is made where it is missing."""
    if given.model is not None:
        return Path(given.model).absolute()
    if not DUMMY.exists():
        maker = ROOT / "scripts" / "create_dummy_model.py"
        subprocess.run([sys.executable, str(maker), str(DUMMY)], check=True, capture_output=True)
    return DUMMY


def keep(result: dict[str, Any], path: Path) -> None:
    """Write the result, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(result, indent=2) + "\n")
    unfinished.replace(path)


def stop(number: int, _frame: FrameType | None) -> None:
    """Ctrl-C or SIGTERM: unwind, so that every program we started is ended. A second one does not disturb that."""
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    sys.exit(128 + number)


def fail(reason: str, code: int = 2) -> int:
    """Say why, in one line where that is enough."""
    print(f"bench: {reason}", file=sys.stderr)
    return code


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure the server under load, interleaved with an ordinary WSGI server that answers a constant "
        "and with the bare model. Everything runs on this machine, on loopback, and shares its cores.",
        epilog="The server's settings come from the environment (BATCH_MAX_SIZE=16 scripts/bench).",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--images", action="store_true", help="MobileNetV2 and JPEGs instead of a small model")
    what.add_argument(
        "--log", action="store_true", help="what the prediction log costs, with a real PostgreSQL, instead"
    )
    what.add_argument("--tensors", action="store_true", help="large tensors as JSON and as bytes (/v2) instead")
    what.add_argument("--correctness", action="store_true", help="compare 10,000 answers with the model alone instead")
    parser.add_argument("--model", metavar="PATH", help="of one vector and one number (models/dummy_model.keras)")
    parser.add_argument(
        "--rounds", type=positive, metavar="N", help=f"of each leg (default {ROUNDS}, --log {LOG_ROUNDS})"
    )
    defaults = f"default {SECONDS}, --images {PICTURE_SECONDS}, --log {LOG_SECONDS}"
    parser.add_argument("--seconds", type=positive, metavar="N", help=f"of one leg ({defaults})")
    parser.add_argument("--quick", action="store_true", help="a smoke test: one short round; its figures mean little")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the result goes (default .bench/latest….json)")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    return parser.parse_args()


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
