"""Batching without knobs: our default beside fixed sizes and waits, for three models, three loads and two arrivals.

A fixed setting is our own server with BATCH_MAX_SIZE and BATCH_MAX_WAIT_MS set. All servers of a model run at once and
are loaded in turn, with the same capacity and the same seeds; every request carries the deadline.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path

from benchmarks import arrivals, shapes, wrk
from benchmarks.beside import begin
from benchmarks.cells import OURS, Cell, Seen, good_in, tables
from benchmarks.open_loop import Generator, Order, order_of
from benchmarks.report import Comparison, Report
from benchmarks.rounds import Options
from benchmarks.small_model import bodies_for
from benchmarks.targets import ModelLoop, Server

SIZES, WAITS_MS = (16, 64), (0, 1, 3, 10, 30)
QUICK_SETTINGS = ((64, 30),)
LOADS, QUICK_LOADS = (0.1, 0.5, 0.9), (0.9,)
PROCESSES = (arrivals.POISSON, arrivals.BURSTY)
DEADLINE_MS = 100.0
# Phases of bursts in a second of `--seconds`: as many at the high rate as at the low one.
PHASES = 4
# So many that what is due hardly waits for a connection; and as many as keep the server busy.
CONNECTIONS, BUSY_CONNECTIONS = 512, 64
# What is offered to find the capacity: more than any server of this kind answers.
FLOOD_PER_S, FLOOD_S = 50_000, 1.0
FLOODS, QUICK_FLOODS = 3, 1  # the best counts: a disturbance only ever makes slower
# More is taken for no model's capacity: in a burst at 0.9 of it the generator could not keep to its schedule on a core
# that it shares. A model that takes next to nothing is limited by HTTP anyway, whatever its batches.
CAPACITY_MAX = 6_000.0
# That the models are what they are called: of a call with 64 rows, what the rows cost.
ROWS_SHARE_FIXED_MAX, ROWS_SHARE_BY_ROW_MIN = 0.5, 0.5
COST_S, QUICK_COST_S = 0.5, 0.1
NO_ANSWER_MS = 10_000.0


def run(cache: Path, small: Path, options: Options) -> Report:
    """Measure; raises what starting or loading raises. cache: where the models are kept from run to run."""
    report = begin("Batching without knobs", "request", small.name, {}, options)
    models = {"small": small, **{kind: shapes.model(kind, cache) for kind in (shapes.FIXED, shapes.BY_ROW)}}
    cells: list[Cell] = []
    shares: dict[str, float] = {}
    late: list[float] = []
    for name, path in models.items():
        cost = shapes.cost(path, QUICK_COST_S if options.quick else COST_S)
        report.facts[f"{name}, a call"] = str(cost)
        shares[name] = cost.by_row_share
        options.say(f"{name}: a call takes {cost}")
        cells += matrix(name, path, options, report, late)
    report.tables = tables(cells)
    report.data["cells"] = [cell.to_json() for cell in cells]
    counts = good_in(cells)
    most = max(count for setting, count in counts.items() if setting != OURS)
    report.comparisons = [
        Comparison("cells where ours is within noise of the best fixed", [counts[OURS]], "", len(cells), at_least=True),
        Comparison("cells where one and the same fixed setting is", [most], "", len(cells) - 1),
        Comparison("fixed-cost-heavy, the rows' share of a call", [shares[shapes.FIXED]], "", ROWS_SHARE_FIXED_MAX),
        Comparison(
            "row-heavy, the rows' share of a call", [shares[shapes.BY_ROW]], "", ROWS_SHARE_BY_ROW_MIN, at_least=True
        ),
    ]
    report.facts["deadline, ms"] = DEADLINE_MS
    report.facts["the generator's lateness, worst p99 of a leg, ms"] = round(max(late), 2)
    report.notes.append(
        "goodput: answers within the deadline, counted from when a request was due, of all that were due; p99 of what "
        "was answered; within noise: the 95 % interval of the difference by rounds reaches the best fixed setting, or "
        "the median is at most 1 point (goodput) or 5 % (p99) worse"
    )
    return report


def settings_of(options: Options) -> dict[str, dict[str, str]]:
    """Name -> environment; ours has no setting."""
    pairs = QUICK_SETTINGS if options.quick else [(size, wait) for size in SIZES for wait in WAITS_MS]
    fixed = {
        f"size {size}, wait {wait} ms": {"BATCH_MAX_SIZE": str(size), "BATCH_MAX_WAIT_MS": str(wait)}
        for size, wait in pairs
    }
    return {OURS: {}, **fixed}


def matrix(name: str, path: Path, options: Options, report: Report, late: list[float]) -> list[Cell]:
    """All cells of one model."""
    settings = settings_of(options)
    with ModelLoop(path) as loop:
        bodies = wrk.Bodies.write(
            options.scratch / f"bodies of {name}",
            bodies_for(loop.contract),
            "application/json",
            X_Request_Timeout_Ms=f"{DEADLINE_MS:g}",
        )
    with ExitStack() as ended:
        generator = ended.enter_context(Generator())
        servers = {setting: ended.enter_context(Server(path, **more)) for setting, more in settings.items()}
        for server in servers.values():
            server.load("/predict", BUSY_CONNECTIONS, 1, bodies)
        floods = range(QUICK_FLOODS if options.quick else FLOODS)
        capacity = max(capacity_of(servers[OURS], generator, bodies) for _ in floods)
        report.facts[f"{name}, capacity, requests/s"] = round(capacity)
        options.say(f"{name}: capacity {capacity:,.0f}/s")
        if capacity > CAPACITY_MAX:
            report.facts[f"{name}, taken as capacity: all that the generator keeps up with, requests/s"] = CAPACITY_MAX
            capacity = CAPACITY_MAX
        loads = QUICK_LOADS if options.quick else LOADS
        cells = [Cell(name, load, process, {one: [] for one in settings}) for load in loads for process in PROCESSES]
        order = list(settings)
        for number in range(options.rounds):
            for place, cell in enumerate(cells):
                random.Random(number * len(cells) + place).shuffle(order)  # noqa: S311
                for setting in order:
                    load = generator.load(
                        order_of(
                            f"{servers[setting].url}/predict",
                            bodies,
                            rate=capacity * cell.load,
                            seconds=options.seconds * PHASES * arrivals.PHASE_S,
                            connections=CONNECTIONS,
                            process=cell.arrivals,
                            seed=number,
                            deadline_ms=DEADLINE_MS,
                        )
                    )
                    late.append(load.late_ms)
                    p99_ms = load.p99_ms if load.requests else NO_ANSWER_MS
                    cell.legs[setting].append(Seen(load.within / max(load.due, 1), p99_ms))
                ours = cell.legs[OURS][-1]
                told = f"ours {ours.goodput:.1%} in time, p99 {ours.p99_ms:.1f} ms"
                options.say(f"round {number + 1} of {options.rounds}: {cell.name}: {told}")
    return cells


def capacity_of(server: Server, generator: Generator, bodies: wrk.Bodies) -> float:
    """Answers a second when there is always something to do; the generator's own cost is in it, as in the cells."""
    flood: Order = order_of(
        f"{server.url}/predict",
        bodies,
        rate=FLOOD_PER_S,
        seconds=FLOOD_S,
        connections=BUSY_CONNECTIONS,
        give_up_s=0.0,
    )
    return generator.load(flood).requests_per_s
