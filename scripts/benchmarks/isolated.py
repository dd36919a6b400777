"""A small model beside a large one in the same server: MobileNetV2 under load, in a worker of its own."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import wrk
from benchmarks.report import Comparison, Leg
from benchmarks.rounds import Options, interleave
from benchmarks.small_model import bodies_for
from benchmarks.targets import Measurement, ModelLoop, Server

SMALL, LARGE = 4, 16  # connections
# From the project's acceptance.
P99_MAX_MS = 50.0
ALONE, BESIDE = "small model", f"small model, MobileNetV2 at c={LARGE} beside"


def measured(
    small: Path, mobilenet: Path, pictures: wrk.Bodies, settings: dict[str, str], options: Options
) -> tuple[list[Leg], list[Comparison]]:
    """The small model's legs, without and with a load on the other."""
    with ModelLoop(small) as loop:
        bodies = wrk.Bodies.write(options.scratch / "small bodies", bodies_for(loop.contract), "application/json")
    folder = options.scratch / "two models"
    folder.mkdir()
    shutil.copy(small, folder / "small.keras")
    shutil.copy(mobilenet, folder / "large.keras")
    contract = json.loads(mobilenet.with_name(f"{mobilenet.stem}.contract.json").read_text())
    (folder / "large.contract.json").write_text(json.dumps({**contract, "isolate": True}))
    rates: list[float] = []
    with Server(folder, **settings) as server, ThreadPoolExecutor(1) as thread:
        server.load("/classify/large", LARGE, 1, pictures)

        def alone() -> Measurement:
            return server.load("/predict/small", SMALL, options.seconds, bodies)

        def beside() -> Measurement:
            large = thread.submit(
                wrk.run, f"{server.url}/classify/large", connections=LARGE, seconds=options.seconds, bodies=pictures
            )
            one = alone()
            rates.append(large.result().requests_per_s)
            return one

        found = interleave({(ALONE, SMALL): alone, (BESIDE, SMALL): beside}, options)
    p99 = found[BESIDE, SMALL].values("p99_ms")
    return list(found.values()), [
        Comparison(f"{BESIDE}, p99", p99, " ms", P99_MAX_MS, confidence=True),
        Comparison("pictures/s meanwhile", rates, "", confidence=True),
    ]
