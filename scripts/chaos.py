"""Plays tricks on a server under load and says what came of it. `scripts/chaos` sets up and runs this.

Owns the command line, the progress line and the verdict. Exit codes: 0; 1 when anything hung, leaked, was answered
wrong or was lost; 2 when it could not be played. The seed fixes what is asked and what is done, though not when.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from chaotic.asking import TIMEOUT_S, Asker, held_out_pictures
from chaotic.tricks import Tricks

from models.repository import find
from tests.faults.asking import counted
from tests.faults.base import assert_base, base, faulty_server, until_ready
from tests.faults.connection import Asked
from tests.faults.load import Load, assert_logged_once, quantile, warm_up
from tests.harness import ROOT, Server, wait_until

REQUESTS, CLIENTS = 10_000, 32
# Each client's pause after an answer, so that the requests meet more than a handful of tricks.
PAUSE_S = 0.1
DIGITS = ROOT / ".cache" / "demo_models" / "digits"
QUIET_S = 30.0
LATE_S = 2.0
LOG_CHARACTERS = 8000
SETTINGS: dict[str, Any] = {"workers": 2, "standby": 1, "fronts": 2, "drain_timeout_s": 10.0}
NUMBERS = [{"name": "plain", "kind": "poison", "seconds": 0.005}, {"name": "fatal", "kind": "crash", "size": 2}]


class Play(NamedTuple):
    """How it is played. between_s: seconds from one trick to the next. starts: workers that are ready at first."""

    models: list[dict[str, Any]]
    settings: dict[str, Any]
    asker: Asker
    between_s: tuple[float, float]
    starts: int


def main() -> int:
    """Play; the exit code."""
    given = arguments()
    if given.digits and not DIGITS.is_dir():
        print(f"chaos: {DIGITS.parent} is not there: scripts/create_demo_models.py --out it makes it", file=sys.stderr)
        return 2
    play = with_digits(given.seed) if given.digits else with_numbers(given.seed)
    with tempfile.TemporaryDirectory() as spool:
        settings = {**SETTINGS, **play.settings, "prediction_log_dir": spool}
        with faulty_server(play.models, **settings) as server:
            until_ready(server, play.starts)
            warm = warm_up(server.url, play.asker.plain)
            before = base(server)
            begun = time.monotonic()
            asked, tricks = run(server, play, given)
            seconds = time.monotonic() - begun
            troubles = found(asked, tricks, play.asker)
            troubles += failing(lambda: settled(server), "left behind")
            warm += warm_up(server.url, play.asker.plain)  # for fronts that are new
            troubles += failing(lambda: assert_base(server, before), "leaked")
            log = server.log
        troubles += failing(lambda: assert_logged_once(Path(spool), warm + asked), "log")
    print(summary(asked, tricks, play.asker, seconds, given.seed))
    print("\n".join(f"FAILED: {trouble}" for trouble in troubles) or "nothing hung, leaked, was wrong or was lost")
    if troubles:
        sys.stderr.write(f"The end of the server's log:\n{log[-LOG_CHARACTERS:]}")
    return 1 if troubles else 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Plays tricks on a server under load and says what came of it.")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="what is asked and done; default: the time")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="how many; default: %(default)s")
    parser.add_argument("--seconds", type=float, help="for so long instead")
    parser.add_argument("--digits", action="store_true", help="with the digits model and TensorFlow, not fake models")
    return parser.parse_args()


def with_numbers(seed: int) -> Play:
    """Fake models that start in half a second."""
    settings = {"default_model": "plain", "predict_timeout_ms": TIMEOUT_S * 1e3, "batch_limit_ms": 500.0}
    return Play(NUMBERS, settings, Asker(seed, []), (0.2, 1.5), SETTINGS["workers"] + SETTINGS["standby"])


def with_digits(seed: int) -> Play:
    """A real model, whose workers take seconds to start: fewer of them, and fewer tricks."""
    models = [one.to_json() for one in find(str(DIGITS), None)]
    settings = {"workers": 1, "predict_timeout_ms": 4 * TIMEOUT_S * 1e3, "batch_limit_ms": 3000.0}
    return Play(models, settings, Asker(seed, held_out_pictures()), (3.0, 12.0), 1 + SETTINGS["standby"])


def run(server: Server, play: Play, given: argparse.Namespace) -> tuple[list[Asked], Counter[tuple[str, str]]]:
    """All requests, and the tricks that were played meanwhile."""
    tricks = Tricks(server, given.seed, play.between_s)
    limit = None if given.seconds else given.requests
    with Load(server.url, CLIENTS, make=play.asker.ask, pause_s=PAUSE_S, limit=limit) as load:
        tricks.start()
        begun = time.monotonic()
        try:
            while load.is_asking and not (given.seconds and time.monotonic() - begun > given.seconds):
                progress(load.asked, tricks.played, limit)
                time.sleep(0.2)
        finally:
            tricks.end()
        asked = load.finish()
    progress(asked, tricks.played, limit)
    sys.stderr.write("\n")
    return asked, tricks.played


def progress(asked: list[Asked], played: Counter[tuple[str, str]], limit: int | None) -> None:
    """One line, again and again."""
    told = Counter(str(one.status or one.fault) for one in list(asked))
    words = ", ".join(f"{status}: {number:,}" for status, number in told.most_common(6))
    of = f" of {limit:,}" if limit else ""
    sys.stderr.write(f"\r{len(asked):,}{of} requests, {played.total()} tricks; {words}   ")
    sys.stderr.flush()


# -- the verdict -------------------------------------------------------------------------------------------------------


def found(asked: list[Asked], played: Counter[tuple[str, str]], asker: Asker) -> list[str]:
    """What is wrong with what was answered."""
    hung = [one for one in asked if one.fault == "hung"]
    wrong = [one for one in asked if one.trouble]
    foreign = [one for one in asked if one.status and str(one.status) not in asker.kinds[one.kind].answers]
    late = [one for one in asked if one.late_s > LATE_S]
    lost = [one for one in asked if one.fault in ("broken", "unaccepted")]
    blamed = [one for one in foreign if one.code == "PREDICT_FAILED worker_crashed"]
    # With a front go the requests that it held, at most one of each client.
    allowed_lost = CLIENTS * played["kill", "front"]
    # Two tricks in a row on whoever computes the same input alone look as if it was the input's doing.
    allowed_blamed = sum(number for (_, whom), number in played.items() if whom == "worker") // 2
    foreign = [one for one in foreign if one not in blamed]
    listed = {"hung": hung, "wrong": wrong, "not an answer to its kind": foreign, "late": late}
    listed["lost"] = lost if len(lost) > allowed_lost else []
    listed["blamed for nothing"] = blamed if len(blamed) > allowed_blamed else []
    return [f"{len(ones)} {what}: {ones[:3]}" for what, ones in listed.items() if ones]


def failing(check: Any, what: str) -> list[str]:
    """What a check complains of."""
    try:
        check()
    except AssertionError as error:
        return [f"{what}: {'; '.join([str(error), *getattr(error, '__notes__', [])])}"]
    return []


def settled(server: Server) -> None:
    """Hold that it is ready again, with nothing under way and nobody stopped."""
    wait_until(lambda: counted(server.url, "inference_in_flight") == 0, QUIET_S, "nothing is under way")
    until_ready(server, 0)
    wait_until(lambda: not stopped(server), QUIET_S, "whoever was stopped has been replaced")


def stopped(server: Server) -> list[int]:
    """Children that a signal holds."""
    found = []
    for pid in server.children():
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                found.append(pid)
    return found


def summary(asked: list[Asked], played: Counter[tuple[str, str]], asker: Asker, seconds: float, seed: int) -> str:
    """The table: a line for each kind of request."""
    lines = [f"{len(asked):,} requests in {seconds:.0f} s, seed {seed}"]
    lines += [", ".join(f"{number} x {what} a {whom}" for (what, whom), number in sorted(played.items()))]
    lines += [f"{'kind':<12}{'asked':>8}{'p50 ms':>9}{'p99 ms':>9}  answers"]
    for kind in asker.kinds:
        ones = [one for one in asked if one.kind == kind]
        times = [one.seconds for one in ones if one.status]
        told = Counter(f"{one.status or one.fault} {one.code}".strip() for one in ones)
        words = ", ".join(f"{status}: {number:,}" for status, number in sorted(told.items()))
        p50, p99 = (1e3 * quantile(times, part) for part in (0.5, 0.99))
        lines.append(f"{kind:<12}{len(ones):>8,}{p50:>9.1f}{p99:>9.1f}  {words}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
