"""Large requests: 1,000 rows at once, and small requests beside a client that sends large tensors.

Beside the least that anybody must do with them: orjson's parse (or a copy of the bytes), an array, the model's call.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import open_loop, tensors, wrk
from benchmarks.beside import begin
from benchmarks.pictures import SIDE
from benchmarks.report import Comparison, Report
from benchmarks.rounds import Options, interleave
from benchmarks.small_model import bodies_for, rows_for
from benchmarks.targets import Measurement, ModelLoop, Server

ROWS = 1000
# The small requests beside a tensor: evenly, so that each pause of the server is met.
SMALL_PER_S, SMALL_CONNECTIONS = 200, 32
# From the project's acceptance.
TIME_MAX, WAIT_MAX_MS = 2.0, 50.0
FORMS = {"json": "orjson and an array", "binary": "a copy"}


def run(cache: Path, model: Path, options: Options) -> Report:
    """Measure; raises what starting or loading raises."""
    report = begin("Large requests", "request", model.name, {}, options)
    small = many_rows(model, options, report)
    beside_tensors(tensors.pooling(cache), model, small, options, report)
    return report


def many_rows(model: Path, options: Options, report: Report) -> wrk.Bodies:
    """1,000 rows in one request of JSON; bodies of one row each, for later."""
    with ModelLoop(model) as loop, Server(model) as server:
        rows = rows_for(loop.contract, ROWS)
        (options.scratch / "rows.json").write_text(json.dumps(rows))
        whole = [json.dumps({"instances": rows}).encode()]
        bodies = wrk.Bodies.write(options.scratch / "rows", whole, "application/json")
        server.load("/predict", 1, 1, bodies)
        bare, served = f"orjson, an array and the call of {ROWS:,} rows", f"server, {ROWS:,} rows as JSON"
        legs: dict[Any, Any] = {
            (bare, None): partial(_bare, loop, ROWS, options.scratch / "rows.json", "json", options, called=True),
            (served, 1): partial(server.load, "/predict", 1, options.seconds, bodies),
        }
        found = interleave(legs, options)
        small = wrk.Bodies.write(options.scratch / "small", bodies_for(loop.contract), "application/json")
    report.legs += found.values()
    times = _over(found[served, 1].values("p50_ms"), found[bare, None].values("p50_ms"))
    report.comparisons += [
        Comparison(f"time of {ROWS:,} rows / {bare}, p50", times, "x", TIME_MAX, confidence=True),
        Comparison("rows/s", [one * ROWS for one in found[served, 1].values("requests_per_s")], "", confidence=True),
    ]
    return small


def beside_tensors(pooling: Path, model: Path, small: wrk.Bodies, options: Options, report: Report) -> None:
    """One client sends tensors one after the other; small requests come by a schedule meanwhile."""
    folder = options.scratch / "both"
    folder.mkdir()
    shutil.copy(pooling, folder / "pooling.keras")
    shutil.copy(model, folder / "small.keras")
    raw = options.scratch / "tensors"
    tensor = f"{SIDE}x{SIDE}x3 tensor"
    with (
        ModelLoop(pooling) as loop,
        Server(folder) as server,
        open_loop.Generator() as generator,
        ThreadPoolExecutor(1) as thread,
    ):
        bodies = tensors.written(raw, loop.contract["inputs"][0]["name"], rows=1)
        path = "/v2/models/pooling/infer"
        order = partial(
            open_loop.order_of,
            f"{server.url}/predict/small",
            small,
            rate=SMALL_PER_S,
            seconds=options.seconds,
            connections=SMALL_CONNECTIONS,
        )

        def beside(form: str) -> Measurement:
            large = thread.submit(
                wrk.run, server.url + path, connections=1, seconds=options.seconds, bodies=bodies[form]
            )
            one = server.under(lambda: generator.load(order()))
            if large.result().errors:
                return replace(one, errors=one.errors + large.result().errors)
            return one

        legs: dict[Any, Any] = {("small requests alone", None): lambda: server.under(lambda: generator.load(order()))}
        for form, least in FORMS.items():
            server.load(path, 1, 1, bodies[form])
            legs[f"{least} of a {tensor}", None] = partial(
                _bare, loop, 1, raw / f"raw-{form}", form, options, called=False
            )
            legs[f"server, {tensor}, v2 {form}", 1] = partial(server.load, path, 1, options.seconds, bodies[form])
            legs[f"small requests beside v2 {form}", None] = partial(beside, form)
        found = interleave(legs, options)
    report.legs += found.values()
    for form, least in FORMS.items():
        served = found[f"server, {tensor}, v2 {form}", 1]
        bare = found[f"{least} of a {tensor}", None]
        waiting = found[f"small requests beside v2 {form}", None]
        report.comparisons += [
            Comparison(
                f"{tensor} as v2 {form} / {least}, {what}",
                _over(served.values(column), bare.values(column)),
                "x",
                confidence=True,
            )
            for what, column in (("p50", "p50_ms"), ("CPU", "cpu_ms_per_request"))
        ]
        longest, p99 = waiting.values("max_ms"), waiting.values("p99_ms")
        report.comparisons += [
            Comparison(f"small request beside v2 {form}, the longest", longest, " ms", WAIT_MAX_MS, confidence=True),
            Comparison(f"small request beside v2 {form}, p99", p99, " ms", confidence=True),
        ]
    report.notes.append(f"small requests: {SMALL_PER_S} a second by a fixed schedule, latency counts from it")


def _bare(loop: ModelLoop, rows: int, file: Path, form: str, options: Options, *, called: bool) -> Measurement:
    """The least there is to do, with as many rows as a request has."""
    a_row = loop.tensors(rows, options.loop_seconds, file, form, called=called)
    return replace(
        a_row, requests_per_s=a_row.requests_per_s / rows, cpu_ms_per_request=a_row.cpu_ms_per_request * rows
    )


def _over(served: list[float], bare: list[float]) -> list[float]:
    return [mine / max(theirs, 1e-9) for mine, theirs in zip(served, bare, strict=True)]
