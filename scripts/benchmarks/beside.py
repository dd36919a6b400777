"""The server beside other servers, with the same model: each is started in its turn and loaded in pairs of legs.

Ours is up all the time. A pair is one leg of a peer's and one of ours, at once one after the other, so that a machine
that drifts does so under both; who goes first changes from pair to pair. A peer's processes are there while ours is
measured, and the other way round: what they use idle is the other's loss.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from benchmarks import machine, wrk
from benchmarks.processes import ProgramError
from benchmarks.report import Comparison, Leg, Report
from benchmarks.rounds import Options, watched
from benchmarks.targets import Measurement, Server, server_settings

OURS = "ours"

Pairs = dict[tuple[str, int], list[tuple[Measurement, Measurement]]]


@dataclass(frozen=True)
class Limits:
    """What ours over theirs has to be, where that is a target. p50: at c=1; cpu: at the highest concurrency."""

    rate_min: float | None = None
    p99_max: float | None = None
    p50_max: float | None = None
    cpu_max: float | None = None


class Running(Protocol):
    """A neighbour that is up, and was seen to answer right. seconds_to_ready: until its first answer."""

    seconds_to_ready: float

    def load(self, connections: int, seconds: int, bodies: wrk.Bodies) -> Measurement:
        """One leg."""


class Neighbour(Protocol):
    """What ours is measured beside."""

    name: str
    note: str
    limits: Limits
    bodies: wrk.Bodies

    def start(self) -> AbstractContextManager[Running]:
        """Bring it up. Raises ProgramError where it does not come up, or answers wrong."""


class Ours:
    """Our server and what is asked of it."""

    def __init__(self, server: Server, path: str, bodies: wrk.Bodies) -> None:
        self._server, self._path, self._bodies = server, path, bodies

    def load(self, connections: int, seconds: int) -> Measurement:
        """One leg."""
        return self._server.load(self._path, connections, seconds, self._bodies)


def measure(
    ours: Ours,
    neighbours: Sequence[Neighbour],
    concurrencies: Sequence[int],
    options: Options,
    report: Report,
) -> None:
    """Rounds of all neighbours; legs and comparisons go into the report, and who failed into its notes."""
    pairs: Pairs = defaultdict(list)
    ready: dict[str, list[float]] = defaultdict(list)
    failed: dict[str, str] = {}
    ours.load(concurrencies[-1], 1)
    for number in range(options.rounds):
        for neighbour in neighbours[:: -1 if number % 2 else 1]:
            if neighbour.name in failed:
                continue
            try:
                with neighbour.start() as running:
                    ready[neighbour.name].append(running.seconds_to_ready)
                    running.load(concurrencies[-1], 1, neighbour.bodies)
                    for c in concurrencies[:: -1 if number % 2 else 1]:
                        theirs_first = (number + concurrencies.index(c)) % 2 == 1
                        pair = _pair(ours, neighbour, running, c, options, theirs_first=theirs_first)
                        pairs[neighbour.name, c].append(pair)
                        told = f"{pair[1].requests_per_s:,.1f}/s, ours {pair[0].requests_per_s:,.1f}/s"
                        options.say(f"round {number + 1} of {options.rounds}: {neighbour.name}, c={c}: {told}")
            except (ProgramError, OSError) as error:
                failed[neighbour.name] = str(error).strip().splitlines()[-1][:200]
                options.say(f"{neighbour.name} is left out: {failed[neighbour.name]}")
    report.legs += legs(pairs, concurrencies)
    for neighbour in neighbours:
        if neighbour.name in ready:
            report.comparisons += compare(neighbour, pairs, concurrencies)
    report.facts["seconds to ready"] = {name: round(min(seconds), 1) for name, seconds in ready.items()}
    report.notes += [f"{one.name}: {one.note}" for one in neighbours if one.note and one.name in ready]
    report.notes += [f"{name} FAILED: {reason}" for name, reason in failed.items()]


def _pair(
    ours: Ours, neighbour: Neighbour, running: Running, c: int, options: Options, *, theirs_first: bool
) -> tuple[Measurement, Measurement]:
    """(ours, theirs)."""

    def of_ours() -> Measurement:
        return watched(lambda: ours.load(c, options.seconds))

    def of_theirs() -> Measurement:
        return watched(lambda: running.load(c, options.seconds, neighbour.bodies))

    if theirs_first:
        theirs = of_theirs()
        return of_ours(), theirs
    mine = of_ours()
    return mine, of_theirs()


def legs(pairs: Pairs, concurrencies: Sequence[int]) -> list[Leg]:
    """A leg of each, ours with all its measurements."""
    names = list(dict.fromkeys(name for name, _ in pairs))
    made = [Leg(OURS, c, [mine for name in names for mine, _ in pairs[name, c]]) for c in concurrencies if names]
    for name in names:
        made += [
            Leg(name, c, [replace(theirs, cpu_ms_by_role={}) for _, theirs in pairs[name, c]], is_ours=False)
            for c in concurrencies
        ]
    return made


def compare(neighbour: Neighbour, pairs: Pairs, concurrencies: Sequence[int]) -> list[Comparison]:
    """Ours over theirs, pair by pair. Where they answered nothing there is nothing to divide by."""
    name, limits = neighbour.name, neighbour.limits
    made: list[Comparison] = []

    def over(c: int, figure: Callable[[Measurement], float]) -> list[float]:
        answered = ((mine, theirs) for mine, theirs in pairs[name, c] if theirs.requests_per_s)
        return [figure(mine) / max(figure(theirs), 1e-9) for mine, theirs in answered]

    for c in concurrencies:
        rates, what = over(c, lambda one: one.requests_per_s), f"ours / {name}, requests/s at c={c}"
        made.append(Comparison(what, rates, "x", limits.rate_min, at_least=True, confidence=True))
    for c in concurrencies:
        p99 = over(c, lambda one: one.p99_ms)
        made.append(Comparison(f"ours / {name}, p99 at c={c}", p99, "x", limits.p99_max, confidence=True))
    if 1 in concurrencies:
        p50 = over(1, lambda one: one.p50_ms)
        made.append(Comparison(f"ours / {name}, p50 at c=1", p50, "x", limits.p50_max, confidence=True))
    most = concurrencies[-1]
    cpu, what = over(most, lambda one: one.cpu_ms_per_request), f"ours / {name}, CPU a request at c={most}"
    made.append(Comparison(what, cpu, "x", limits.cpu_max, confidence=True))
    return [one for one in made if one.values]


def begin(title: str, unit: str, model: str, settings: dict[str, str], options: Options) -> Report:
    """A report with nothing in it yet."""
    return Report(
        title,
        unit=unit,
        machine=machine.describe(),
        settings={
            "rounds": options.rounds,
            "seconds": options.seconds,
            "model": model,
            "server": {**server_settings(), **settings},
        },
    )
