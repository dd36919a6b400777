"""What the prediction log costs: a server that writes one beside a server that does not, and the log's two ends alone.

Both servers have the same small model and default settings, and are loaded in turn, never at once: as fast as wrk asks,
and at half of that by a fixed schedule. Then the same while PostgreSQL is frozen.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import machine, open_loop, postgres, wrk
from benchmarks.logged import WRITTEN, LoggedServer, LogLoop
from benchmarks.postgres import Database
from benchmarks.processes import ProgramError
from benchmarks.report import Comparison, Leg, Report
from benchmarks.rounds import Options, interleave
from benchmarks.small_model import bodies_for
from benchmarks.targets import Measurement, ModelLoop, Server, server_settings

CONCURRENCIES = (16, 64)
HALF_LOAD_CONNECTIONS = 64  # so many that the schedule need not wait for one
# A server without a log, and one with; twice, as a machine drifts.
WELL, FROZEN = ("no log", "log"), ("no log, again", "log, PostgreSQL frozen")
RECORDS, QUICK_RECORDS = 300_000, 5_000
APPENDS, QUICK_APPENDS, APPENDS_PER_S = 200_000, 5_000, 5_000
SHIPMENTS = 3
# From the project's acceptance.
CPU_MAX, P99_MAX, ROWS_PER_S_MIN = 1.1, 1.1, 30_000
# Whose processor time a request is charged with; what comes after it is stated apart.
SERVING = ("front", "worker")

Legs = dict[tuple[str, int | None], Leg]


def run(model: Path, options: Options) -> Report:
    """Measure; raises what starting or loading raises."""
    report = Report(
        "The prediction log",
        unit="request",
        machine=machine.describe(),
        settings={
            "rounds": options.rounds,
            "seconds": options.seconds,
            "model": model.name,
            "server": server_settings(),
            "postgres": postgres.SETTINGS,
        },
    )
    with postgres.running() as database:
        serving(model, database, options, report)
        alone(database, options, report)
    report.notes.append(
        "CPU ms by role: shipper and PostgreSQL until all rows of a leg are in the table, a row; the rest a request"
    )
    return report


# ---------------------------------------------------------------------------------------------- two servers


def serving(model: Path, database: Database, options: Options, report: Report) -> None:
    """Load both servers in turn, with PostgreSQL well and frozen."""
    with ModelLoop(model) as loop:
        bodies = wrk.Bodies.write(options.scratch / "bodies", bodies_for(loop.contract), "application/json")
    with ExitStack() as ended:
        off = ended.enter_context(Server(model, DATABASE_URL="", PREDICTION_LOG_DIR=""))
        on = ended.enter_context(LoggedServer(model, database, options.scratch / "spool"))
        for warmed in (on, off):
            warmed.load("/predict", CONCURRENCIES[-1], 1, bodies)
        rate = off.load("/predict", CONCURRENCIES[-1], options.seconds, bodies).requests_per_s / 2
        options.say(f"half load is {rate:,.0f}/s")
        report.facts["half load, requests/s"] = round(rate)
        report.comparisons += pairs({WELL[0]: off, WELL[1]: on}, rate, bodies, options, report)
        options.say(f"an idle server with a log, {options.idle_seconds:g} s")
        report.usage = on.usage(options.idle_seconds)
        on.is_frozen = True
        with database.frozen():
            report.comparisons += pairs({FROZEN[0]: off, FROZEN[1]: on}, rate, bodies, options, report)
        on.is_frozen = False
        on.drained()
        (written,) = on.counted(WRITTEN)
        if written != database.rows():
            raise ProgramError(f"{written:,.0f} rows were written, {database.rows():,} are in the table")


def pairs(
    servers: dict[str, Server], rate: float, bodies: wrk.Bodies, options: Options, report: Report
) -> list[Comparison]:
    """Rounds of both servers, by name; their legs go into the report."""
    legs: dict[Any, Any] = {}
    for c in CONCURRENCIES:
        for name, server in servers.items():
            legs[name, c] = partial(server.load, "/predict", c, options.seconds, bodies)
    for name, server in servers.items():
        legs[f"{name}, half load", None] = partial(half_load, server, rate, bodies, options)
    found = interleave(legs, options)
    report.legs += found.values()
    return compare(found, *servers)


def half_load(server: Server, rate: float, bodies: wrk.Bodies, options: Options) -> Measurement:
    """What a fixed schedule finds: twice as long as wrk, since of few requests the 99th percentile is a guess."""
    load = partial(
        open_loop.run,
        f"{server.url}/predict",
        rate=rate,
        seconds=options.seconds * 2,
        connections=HALF_LOAD_CONNECTIONS,
        bodies=bodies,
    )
    return server.under(load)


def compare(legs: Legs, without: str, with_log: str) -> list[Comparison]:
    """One server over the other, round by round."""
    places: list[tuple[str, str, int | None, float | None]] = [
        *(("", f"c={c}", c, CPU_MAX) for c in CONCURRENCIES),
        (", half load", "half load", None, None),
    ]
    cpu = [
        Comparison(
            f"{with_log} / {without}, CPU per request of fronts and worker, {where}",
            ratios(cpu_ms(legs[without + more, c]), cpu_ms(legs[with_log + more, c])),
            "x",
            limit,
            confidence=True,
        )
        for more, where, c, limit in places
    ]
    p99 = [legs[f"{name}, half load", None].values("p99_ms") for name in (without, with_log)]
    return [*cpu, Comparison(f"{with_log} / {without}, p99 at half load", ratios(*p99), "x", P99_MAX, confidence=True)]


def ratios(without: list[float], with_log: list[float]) -> list[float]:
    """What the log makes of a figure, pair by pair."""
    return [one / max(other, 1e-9) for one, other in zip(with_log, without, strict=True)]


def cpu_ms(leg: Leg) -> list[float]:
    """Processor time a request of those who serve it, each round."""
    return [sum(one.cpu_ms_by_role[role] for role in SERVING) for one in leg.rounds]


# ---------------------------------------------------------------------------------------------- the log alone


def alone(database: Database, options: Options, report: Report) -> None:
    """Appends at the pace of a busy server, and the way of a full spool to the table; nothing else runs."""
    records = QUICK_APPENDS if options.quick else APPENDS
    options.say(f"{records:,} appends, {APPENDS_PER_S:,} a second")
    with LogLoop(options.scratch / "appends") as loop:
        took = loop.append(records, APPENDS_PER_S)
    report.facts["one append, µs"] = (
        f"p50 {took['p50_us']:.1f}, p99 {took['p99_us']:.1f}, p99.9 {took['p999_us']:.1f}, the longest "
        f"{took['max_us']:,.0f} of {records:,}"
    )
    rates, shipper_us, postgres_us = [], [], []
    for number in range(1 if options.quick else SHIPMENTS):
        with LogLoop(options.scratch / f"shipment{number}") as loop:
            records = QUICK_RECORDS if options.quick else RECORDS
            loop.append(records, 0)
            before = database.cpu_seconds()
            shipped = loop.ship(database.url)
        rows = shipped["rows"]
        if rows != records:
            raise ProgramError(f"{rows:,} of {records:,} rows were shipped")
        rates.append(rows / shipped["seconds"])
        shipper_us.append(shipped["cpu_seconds"] * 1e6 / rows)
        postgres_us.append((database.cpu_seconds() - before) * 1e6 / rows)
        options.say(f"shipping {rows:,} rows: {rates[-1]:,.0f}/s")
    report.comparisons += [
        Comparison("shipping alone, rows/s", rates, "", ROWS_PER_S_MIN, at_least=True),
        Comparison("shipping alone, the shipper's CPU a row", shipper_us, " µs"),
        Comparison("shipping alone, PostgreSQL's CPU a row", postgres_us, " µs"),
    ]
