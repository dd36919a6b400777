"""Measures the server under load, beside what it is made of and beside others. `scripts/bench` sets up and runs this.

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

from benchmarks import (
    batching,
    correctness,
    idle,
    installing,
    log_cost,
    peers,
    pictures,
    plots,
    scoring,
    small_model,
    tensors,
    wide,
    wrk,
)
from benchmarks.modes import MODES, Mode
from benchmarks.processes import SIGNALS, ProgramError
from benchmarks.report import Report
from benchmarks.rounds import Options

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".bench"
DUMMY = ROOT / "models" / "dummy_model.keras"


def main() -> int:
    """Measure what was asked for; the exit code."""
    given = arguments()
    if sys.platform != "linux":
        return fail("measures through Linux's /proc; there is none here")
    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        if given.install_peers is None and not given.correctness and not given.score:
            wrk.find()
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            return measure(given, Path(scratch))
    except (wrk.WrkError, ProgramError) as error:
        return fail(str(error))
    except subprocess.CalledProcessError as error:
        return fail(f"{Path(error.cmd[-1]).name} could not be made:\n{error.stderr.decode()[-2000:]}")


def measure(given: argparse.Namespace, scratch: Path) -> int:
    """One of the measurements, its result printed and kept."""
    mode = mode_of(given)
    options = mode.options(given, scratch, lambda text: print(f"bench: {text}", file=sys.stderr, flush=True))
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    if given.install_peers is not None:
        failed = installing.install(peers.chosen(given.install_peers), options)
        return fail(f"not installed: {', '.join(failed)}", 1) if failed else 0
    path = given.json or CACHE / mode.file
    if given.correctness or given.score:
        what = correctness if given.correctness else scoring
        account = what.run(model_of(given), options)
        keep(account, path)
        print(what.to_text(account))
        return 0 if account["passed"] else 1
    report = reported(mode, given, options)
    result = report.to_json()
    keep(result, path)
    for plot in plots.draw(result, path.with_suffix("")):
        options.say(f"drawn: {plot}")
    return show(report, markdown=given.markdown)


def reported(mode: Mode, given: argparse.Namespace, options: Options) -> Report:
    """The measurement of a mode."""
    if mode.name == "peers":
        return peers.run(model_of(given), given.peers, options)
    if mode.name == "peers-images":
        return peers.run_pictures(pictures.model(CACHE, options), given.peers, options)
    if mode.name == "images":
        return pictures.run(CACHE, model_of(given), options)
    if mode.name == "tensors":
        return tensors.run(CACHE, pictures.model(CACHE, options), options)
    if mode.name == "rows":
        return wide.run(CACHE, model_of(given), options)
    if mode.name == "batching":
        return batching.run(CACHE, model_of(given), options)
    if mode.name == "idle":
        return idle.run(model_of(given), options)
    if mode.name == "log":
        return log_cost.run(model_of(given), options)
    return small_model.run(model_of(given), options)


def mode_of(given: argparse.Namespace) -> Mode:
    """What the command line asks for."""
    if given.peers is not None:
        return MODES["peers-images" if given.images else "peers"]
    return next((mode for name, mode in MODES.items() if getattr(given, name.replace("-", "_"), None)), MODES["small"])


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
        description="Measure the server under load, interleaved with what it is made of: an ordinary WSGI server and "
        "our own loop that answer a constant, and the bare model. Everything runs on this machine, on loopback, and "
        "shares its cores.",
        epilog="The server's settings come from the environment (BATCH_MAX_SIZE=16 scripts/bench), and where the "
        "peers are installed (BENCH_PEERS, default .bench/peers).",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--peers", nargs="*", metavar="NAME", help="beside other servers instead, all that are installed or these"
    )
    what.add_argument("--install-peers", nargs="*", metavar="NAME", help="install them; measure nothing")
    what.add_argument(
        "--batching", action="store_true", help="three models, loads and arrivals, beside fixed batch settings, instead"
    )
    what.add_argument("--idle", action="store_true", help="1,000 idle connections, memory and start instead")
    what.add_argument(
        "--rows", action="store_true", help="many rows in a request, and small ones beside large, instead"
    )
    what.add_argument(
        "--log", action="store_true", help="what the prediction log costs, with a real PostgreSQL, instead"
    )
    what.add_argument("--tensors", action="store_true", help="large tensors as JSON and as bytes (/v2) instead")
    what.add_argument("--correctness", action="store_true", help="compare 10,000 answers with the model alone instead")
    what.add_argument("--score", action="store_true", help="1,000,000 rows through the command score instead")
    parser.add_argument(
        "--images", action="store_true", help="MobileNetV2 and JPEGs instead of a small model; also with --peers"
    )
    parser.add_argument("--model", metavar="PATH", help="of one vector and one number (models/dummy_model.keras)")
    small, log = MODES["small"], MODES["log"]
    parser.add_argument(
        "--rounds", type=positive, metavar="N", help=f"of each leg (default {small.rounds}, --log {log.rounds})"
    )
    parser.add_argument("--seconds", type=positive, metavar="N", help=f"of one leg (default {small.seconds})")
    parser.add_argument("--quick", action="store_true", help="a smoke test: one short round; its figures mean little")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the result goes (default .bench/latest….json)")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    given = parser.parse_args()
    others = ("install_peers", "batching", "idle", "rows", "log", "tensors", "correctness", "score")
    if given.images and any(getattr(given, name) not in (None, False) for name in others):
        parser.error("--images goes alone or with --peers")
    return given


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
