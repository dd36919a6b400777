"""Rounds: every leg once in each, so that a machine that drifts drifts under all of them alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import processes
from benchmarks.report import Leg
from benchmarks.targets import Measurement

CONCURRENCIES = (1, 16, 64)

Say = Callable[[str], None]
Legs = Mapping[tuple[str, int | None], Callable[[], Measurement]]
"""(name, concurrency) -> how to measure it once."""


@dataclass(frozen=True)
class Options:
    """How long to measure, and where.

    seconds, loop_seconds: of one leg in one round, by wrk and by a loop in a process of its own. quick: shorten the
    probes too. scratch: a folder that goes when the run is over. say: tells of progress.
    """

    rounds: int
    seconds: int
    loop_seconds: float
    idle_seconds: float
    quick: bool
    scratch: Path
    say: Say


def interleave(legs: Legs, options: Options) -> dict[tuple[str, int | None], Leg]:
    """All legs, round by round; every second round goes backwards, so that no leg always follows the same other."""
    found: dict[tuple[str, int | None], list[Measurement]] = {key: [] for key in legs}
    for number in range(options.rounds):
        order = list(legs)[:: -1 if number % 2 else 1]
        for name, concurrency in order:
            one = watched(legs[name, concurrency])
            found[name, concurrency].append(one)
            at = "" if concurrency is None else f", c={concurrency}"
            options.say(f"round {number + 1} of {options.rounds}: {name}{at}: {one.requests_per_s:,.1f}/s")
    return {(name, concurrency): Leg(name, concurrency, rounds) for (name, concurrency), rounds in found.items()}


def watched(measure: Callable[[], Measurement]) -> Measurement:
    """A measurement, and how much it was disturbed."""
    started, others = time.monotonic(), processes.others_cpu_seconds()
    one = measure()
    others_s, elapsed_s = processes.others_cpu_seconds() - others, time.monotonic() - started
    return replace(one, others_cpu_percent=max(others_s * 100 / elapsed_s / len(os.sched_getaffinity(0)), 0.0))


def ratios(one: Leg, other: Leg) -> list[float]:
    """`one`'s requests per second over `other`'s, round by round: what a drift does to both cancels out."""
    pairs = zip(one.rounds, other.rounds, strict=True)
    return [mine.requests_per_s / max(theirs.requests_per_s, 1e-9) for mine, theirs in pairs]
