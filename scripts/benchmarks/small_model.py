"""What the server itself costs: a model that takes next to nothing, beside a WSGI server that computes nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import machine, wrk
from benchmarks.report import Comparison, Leg, Report
from benchmarks.rounds import CONCURRENCIES, Legs, Options, interleave, ratios
from benchmarks.targets import ConstantFront, ConstantServer, ModelLoop, Server, server_settings

BODIES = 64
THREADS, QUICK_THREADS = (1, 2, 4, 8, 16), (1, 4)
SERVER, HEALTH, CONSTANT = "server, POST /predict", "server, GET /health", "waitress + Bottle, constant"
OUR_CONSTANT = "our loop + Bottle, constant"
# From the project's acceptance: what the server has to reach against one ordinary process that answers a constant.
RATIO_MIN, LOOP_MIN, P50_EXTRA_MAX_MS, IDLE_CPU_MAX_PERCENT, FRONT_PSS_MAX_MB = 1.5, 0.85, 0.5, 1.0, 80.0


def run(model: Path, options: Options) -> Report:
    """Measure; raises what starting or loading raises."""
    report = Report(
        "A small model",
        unit="request",
        machine=machine.describe(),
        settings={
            "rounds": options.rounds,
            "seconds": options.seconds,
            "model": model.name,
            "server": server_settings(),
        },
    )
    with ModelLoop(model) as loop, ExitStack() as ended:
        bodies = wrk.Bodies.write(options.scratch / "bodies", bodies_for(loop.contract), "application/json")
        threads = best_threads(bodies, options)
        report.facts["best threads of the constant server by c"] = threads
        constants = {count: ended.enter_context(ConstantServer(count)) for count in set(threads.values())}
        server = ended.enter_context(Server(model))
        ours = ended.enter_context(ConstantFront(server.fronts()))
        report.facts["fronts, of the server and of the loop with a constant"] = server.fronts()
        for warmed in (*constants.values(), ours, server):
            warmed.load("/predict", CONCURRENCIES[-1], 1, bodies)
        by_concurrency = {c: constants[count] for c, count in threads.items()}
        legs = interleave(_legs(server, by_concurrency, ours, loop, bodies, options), options)
        options.say(f"an idle server, {options.idle_seconds:g} s")
        report.usage = server.usage(options.idle_seconds)
        report.facts["time to ready, s"] = round(server.seconds_to_ready, 2)
    report.legs = list(legs.values())
    report.comparisons = [*compare(legs), *_frugality(report)]
    return report


def best_threads(bodies: wrk.Bodies, options: Options) -> dict[int, int]:
    """With how many threads the constant server is fastest, by concurrency: it is to be measured at its best.

    Each number is tried twice, and its better try counts, since a disturbance only ever makes slower.
    """
    with ExitStack() as ended:
        tried = QUICK_THREADS if options.quick else THREADS
        constants = {threads: ended.enter_context(ConstantServer(threads)) for threads in tried}
        best = {}
        for c in CONCURRENCIES:
            rates = dict.fromkeys(tried, 0.0)
            for threads in tried if options.quick else tried * 2:
                rate = constants[threads].load("/predict", c, 1, bodies).requests_per_s
                rates[threads] = max(rates[threads], rate)
            best[c] = max(rates, key=rates.__getitem__)
            told = ", ".join(f"{threads}: {rate:,.0f}/s" for threads, rate in rates.items())
            options.say(f"constant server at c={c}, by threads: {told}")
    return best


def rows_for(contract: dict[str, Any], count: int = BODIES) -> list[list[float]]:
    """Different rows for a model of one vector."""
    (size,) = contract["inputs"][0]["shape"]
    random_ = random.Random(0)  # noqa: S311 - numbers to add up, not secrets
    return [[round(random_.gauss(0, 1), 6) for _ in range(size)] for _ in range(count)]


def bodies_for(contract: dict[str, Any]) -> list[bytes]:
    """Request bodies for a model of one vector, each with its own numbers."""
    return [json.dumps({"features": row}).encode() for row in rows_for(contract)]


def _legs(
    server: Server,
    constants: Mapping[int, ConstantServer],
    ours: ConstantFront,
    loop: ModelLoop,
    bodies: wrk.Bodies,
    options: Options,
) -> Legs:
    legs: dict[Any, Any] = {}
    for c in CONCURRENCIES:
        legs[SERVER, c] = lambda c=c: server.load("/predict", c, options.seconds, bodies)
        legs[CONSTANT, c] = lambda c=c: constants[c].load("/predict", c, options.seconds, bodies)
        legs[OUR_CONSTANT, c] = lambda c=c: ours.load("/predict", c, options.seconds, bodies)
        legs[HEALTH, c] = lambda c=c: server.load("/health", c, options.seconds)
        legs[f"bare model, {c} rows a call", None] = lambda c=c: loop.calls(c, options.loop_seconds)
    return legs


def compare(legs: dict[tuple[str, int | None], Leg]) -> list[Comparison]:
    """The figures with a target that come from the legs."""
    throughput = [
        Comparison(
            f"server / {name}, requests/s at c={c}",
            ratios(legs[SERVER, c], legs[other, c]),
            "x",
            limit,
            at_least=True,
            confidence=True,
        )
        for name, other, least in (
            ("waitress constant", CONSTANT, RATIO_MIN),
            ("our loop with a constant", OUR_CONSTANT, LOOP_MIN),
        )
        for c, limit in ((1, None), (16, least), (64, least))
    ]
    pairs = zip(legs[SERVER, 1].rounds, legs[CONSTANT, 1].rounds, strict=True)
    extra_ms = [ours.p50_ms - theirs.p50_ms for ours, theirs in pairs]
    extra = Comparison("server - waitress constant, p50 at c=1", extra_ms, " ms", P50_EXTRA_MAX_MS, confidence=True)
    return [*throughput, extra]


def _frugality(report: Report) -> list[Comparison]:
    front = report.usage["front"]
    return [
        Comparison("idle server, CPU of one core", [report.usage["all"].idle_cpu_percent], " %", IDLE_CPU_MAX_PERCENT),
        Comparison("a front, PSS", [front.pss_mb / front.processes], " MB", FRONT_PSS_MAX_MB),
    ]
