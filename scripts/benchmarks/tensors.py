"""What a large tensor costs to send: eight 224x224x3 float32 rows in one request, as JSON and as bytes.

Beside the least that anybody must do with them: a copy of the bytes, or orjson's parse, and the call of the function.
Two models: one that takes hardly any time, so that what is measured is the way there, and MobileNetV2.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import machine, wrk
from benchmarks.pictures import SIDE
from benchmarks.report import Comparison, Leg, Report
from benchmarks.rounds import Options, interleave
from benchmarks.targets import SCRIPTS, Measurement, ModelLoop, Server, server_settings

ROWS = 8
JSON_BYTES_MAX = 64 * 1024 * 1024
TIMEOUT_MS = "20000"
# From the project's acceptance: the server's processor time beside the least there is.
BINARY_MAX = 2.0
FORMS = {"binary": "a copy", "json": "orjson"}


def run(cache: Path, mobilenet: Path, options: Options) -> Report:
    """Measure; raises what starting or loading raises. cache: where the small model is kept from run to run."""
    settings = {"MAX_JSON_BYTES": str(JSON_BYTES_MAX), "PREDICT_TIMEOUT_MS": TIMEOUT_MS}
    report = Report(
        f"{ROWS} rows of {SIDE}x{SIDE}x3 float32 in one request",
        unit="request",
        machine=machine.describe(),
        settings={
            "rounds": options.rounds,
            "seconds": options.seconds,
            "server": {**server_settings(), **settings},
        },
    )
    for model in (pooling(cache), mobilenet):
        report.legs += measured(model, settings, options, report)
    report.notes.append(
        "c=1: one connection with one request under way; CPU ms of the server without the load generator"
    )
    return report


def pooling(cache: Path) -> Path:
    """The model that takes hardly any time, in the cache; made where it is missing."""
    path = cache / "pooling.keras"
    if not path.exists():
        make = [sys.executable, "-m", "benchmarks.tensors", str(path)]
        subprocess.run(make, cwd=SCRIPTS, check=True, capture_output=True)
    return path


def measured(model: Path, settings: dict[str, str], options: Options, report: Report) -> list[Leg]:
    """All legs of one model; what they say of each other goes into the report."""
    name = model.stem.replace("_", " ")
    with ModelLoop(model) as loop, Server(model, **settings) as server:
        folder = options.scratch / model.stem
        bodies = written(folder, loop.contract["inputs"][0]["name"])
        legs: dict[Any, Any] = {}
        for form, least in FORMS.items():
            raw = folder / f"raw-{form}"
            legs[f"{name}: {least} and the function", None] = partial(alone, loop, raw, form, options)
            path = f"/v2/models/{model.stem}/infer"
            server.load(path, 1, 1, bodies[form])
            legs[f"{name}: server, v2 {form}", 1] = partial(server.load, path, 1, options.seconds, bodies[form])
        found = interleave(legs, options)
    for form, least in FORMS.items():
        bare = found[f"{name}: {least} and the function", None].values("cpu_ms_per_request")
        served = found[f"{name}: server, v2 {form}", 1].values("cpu_ms_per_request")
        report.comparisons.append(
            Comparison(
                f"{name}: CPU of a v2 {form} request / {least} and the function",
                [mine / theirs for mine, theirs in zip(served, bare, strict=True)],
                "x",
                BINARY_MAX if form == "binary" else None,
            )
        )
    return list(found.values())


def alone(loop: ModelLoop, raw: Path, form: str, options: Options) -> Measurement:
    """The least there is to do, for as many rows as a request has."""
    a_row = loop.tensors(ROWS, options.loop_seconds, raw, form)
    return replace(
        a_row, requests_per_s=a_row.requests_per_s / ROWS, cpu_ms_per_request=a_row.cpu_ms_per_request * ROWS
    )


def written(folder: Path, name: str, rows: int = ROWS) -> dict[str, wrk.Bodies]:
    """The request in both forms, and beside each what is left of it without its envelope."""
    import numpy as np
    import orjson

    folder.mkdir()
    values = np.random.default_rng(0).random((rows, SIDE, SIDE, 3), np.float32)
    raw, text = values.tobytes(), orjson.dumps(values.ravel(), option=orjson.OPT_SERIALIZE_NUMPY)
    (folder / "raw-binary").write_bytes(raw)
    (folder / "raw-json").write_bytes(text)
    tensor = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
    head = orjson.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]})
    whole = orjson.dumps({"inputs": [{**tensor, "data": "@"}]}).replace(b'"@"', text)
    return {
        "binary": wrk.Bodies.write(
            folder / "binary",
            [head + raw],
            "application/octet-stream",
            Inference_Header_Content_Length=str(len(head)),
        ),
        "json": wrk.Bodies.write(folder / "json", [whole], "application/json"),
    }


def make_model(path: Path) -> None:
    """The mean of each channel, and a layer on it: as little as a model of pictures can do."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 3), name="image")
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    keras.Model(image, keras.layers.Dense(10)(pooled)).save(path)


if __name__ == "__main__":
    make_model(Path(sys.argv[1]))
