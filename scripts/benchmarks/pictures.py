"""What a real vision model loses to being served: JPEGs over HTTP beside a loop that decodes and classifies them.

They are sent as base64 in JSON. Meanwhile a small model in the same server: benchmarks.isolated.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from benchmarks import isolated, machine, wrk
from benchmarks.report import Comparison, Report
from benchmarks.rounds import Options, interleave, ratios
from benchmarks.targets import SCRIPTS, ModelLoop, Server, server_settings

SIDE = 224  # pixels
PICTURES, JPEG_QUALITY = 32, 90
GRAIN = 4  # of 255: a sensor's noise
BATCHES, QUICK_BATCHES = (1, 2, 4, 8, 16, 32), (1, 8)
CONCURRENCIES = (16, 64)
PROBE_S, QUICK_PROBE_S = 2.0, 0.2
# 64 pictures under way take longer than the default allows, where a core is slow or busy with other things.
TIMEOUT_MS = "10000"
SERVER = "server, POST /classify"
# From the project's acceptance: the share of the loop's pictures per second that the server has to reach.
RATIO_MIN = 0.95


def run(cache: Path, small: Path, options: Options) -> Report:
    """Measure; raises what starting or loading raises. cache: where the model is kept from run to run."""
    path = model(cache, options)
    report = Report(
        "MobileNetV2, 224x224 JPEGs",
        unit="picture",
        machine=machine.describe(),
        settings={
            "rounds": options.rounds,
            "seconds": options.seconds,
            "model": path.name,
            "server": {**server_settings(), "PREDICT_TIMEOUT_MS": TIMEOUT_MS},
        },
    )
    jpegs = photos()
    with ModelLoop(path) as loop, Server(path, PREDICT_TIMEOUT_MS=TIMEOUT_MS) as server:
        raw = wrk.Bodies.write(options.scratch / "pictures", jpegs, "image/jpeg")
        bodies = wrk.Bodies.write(options.scratch / "bodies", [in_json(jpeg) for jpeg in jpegs], "application/json")
        loops: dict[str, Any] = {}
        for name, pipelined in (("loop in one thread", False), ("loop with a decoding thread", True)):
            rows, report.facts[f"{name}, pictures/s by batch"] = best_batch(
                loop, raw.folder, options, pipelined=pipelined
            )
            measure = partial(loop.pictures, rows, options.loop_seconds, raw.folder, pipelined=pipelined)
            loops[f"{name}, batches of {rows}"] = measure
        server.load("/classify", CONCURRENCIES[0], 1, bodies)
        legs: dict[Any, Any] = {(name, None): measure for name, measure in loops.items()}
        for c in CONCURRENCIES:
            legs[SERVER, c] = partial(server.load, "/classify", c, options.seconds, bodies)
        found = interleave(legs, options)
        options.say(f"an idle server, {options.idle_seconds:g} s")
        report.usage = server.usage(options.idle_seconds)
        report.facts["time to ready, s"] = round(server.seconds_to_ready, 2)
    report.legs = list(found.values())
    best = max((found[name, None] for name in loops), key=lambda leg: sum(leg.values("requests_per_s")))
    report.comparisons = [
        Comparison(
            f"server at c={c} / {best.name}",
            ratios(found[SERVER, c], best),
            "x",
            RATIO_MIN,
            at_least=True,
            confidence=True,
        )
        for c in CONCURRENCIES
    ]
    more_legs, more_comparisons = isolated.measured(small, path, bodies, {"PREDICT_TIMEOUT_MS": TIMEOUT_MS}, options)
    report.legs += more_legs
    report.comparisons += more_comparisons
    report.facts["bytes of a picture"] = round(sum(map(len, jpegs)) / len(jpegs))
    report.notes.append(
        "wrk does not count what is under way when a leg ends: against the server, up to a picture for each connection"
    )
    return report


def model(cache: Path, options: Options) -> Path:
    """MobileNetV2 in the cache; made where it is missing."""
    path = cache / "mobilenet_v2.keras"
    if not path.exists():
        options.say("making MobileNetV2 with random weights")
        make = [sys.executable, "-m", "benchmarks.pictures", str(path)]
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
        # Captured: TensorFlow says much at each start.
        subprocess.run(make, cwd=SCRIPTS, env=environment, check=True, capture_output=True)
    return path


def best_batch(loop: ModelLoop, folder: Path, options: Options, *, pipelined: bool) -> tuple[int, dict[int, float]]:
    """(the pictures in a call with which the loop is fastest, pictures/s of each number that was tried).

    Each number is tried twice, and its better try counts, since a disturbance only ever makes slower.
    """
    found: dict[int, float] = {}
    seconds = QUICK_PROBE_S if options.quick else PROBE_S
    for rows in QUICK_BATCHES if options.quick else BATCHES + BATCHES[::-1]:
        rate = round(loop.pictures(rows, seconds, folder, pipelined=pipelined).requests_per_s, 1)
        found[rows] = max(rate, found.get(rows, 0.0))
        options.say(f"loop{' with a decoding thread' if pipelined else ''}, batches of {rows}: {found[rows]}/s")
    return max(found, key=found.__getitem__), found


def in_json(jpeg: bytes) -> bytes:
    """A request body."""
    return json.dumps({"image": base64.b64encode(jpeg).decode()}).encode()


def photos() -> list[bytes]:
    """Different JPEGs with the soft shapes and the fine grain of photos, so that they compress like some."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    found = []
    for _ in range(PICTURES):
        pixels = np.zeros((SIDE, SIDE, 3))
        for octave in range(1, 8):  # as in nature: the finer the detail, the less its contrast
            size = 2**octave
            noise = Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8))
            pixels += np.asarray(noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC), float) / size**0.5
        pixels = (pixels - pixels.min()) / np.ptp(pixels) * 255 + random.normal(0, GRAIN, pixels.shape)
        encoded = BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(encoded, "JPEG", quality=JPEG_QUALITY)
        found.append(encoded.getvalue())
    return found


def make_model(path: Path) -> None:
    """MobileNetV2 with random weights, and its contract beside it. It appears whole or not at all."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(weights=None, input_shape=(SIDE, SIDE, 3), classes=1000)
    contract = {
        "description": "MobileNetV2 with random weights, for measuring: its answers mean nothing",
        "image": {"width": SIDE, "height": SIDE, "colour": "rgb", "scale": 1 / 127.5, "offset": -1.0},
    }
    path.with_name(f"{path.stem}.contract.json").write_text(json.dumps(contract))
    unfinished = path.with_name(f".{path.name}")
    model.save(unfinished)
    unfinished.replace(path)


if __name__ == "__main__":
    make_model(Path(sys.argv[1]))
