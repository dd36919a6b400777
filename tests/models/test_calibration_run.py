"""Real models run as they were calibrated: the same answers, compiled before anybody asks and never after."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.calibration import PLAIN, XLA, Calibration, key_of, write
from models.errors import LoadError
from models.repository import ModelReference, single
from tests.harness import ROOT
from tests.models.conftest import Load

Zoo = Callable[[str], Path]
SIZES = (1, 2, 4, 8)


def calibrated(sizes: tuple[int, ...] = (1, 8), threads: int | None = None) -> Calibration:
    """XLA for these sizes, so quick that it takes in whatever fits."""
    return Calibration(
        call=XLA if sizes else PLAIN,
        sizes=sizes,
        threads=threads,
        gain=2.0,
        compile_s=dict.fromkeys(sizes, 0.1),
        plain_s={rows: 1.0 * rows for rows in SIZES},
        chosen_s={rows: 0.1 if rows in sizes else 1.0 * rows for rows in SIZES},
        best_rows=8,
        measured_at="2026-01-01T00:00:00+00:00",
    )


def random_rows(rows: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, *shape)).astype("float32")


@pytest.mark.parametrize(("name", "shape"), [("elementwise", (512,)), ("sequential", (10,)), ("picture", (8, 6, 3))])
def test_answers_are_those_of_the_plain_call(load: Load, name: str, shape: tuple[int, ...]) -> None:
    plain, compiled = load(name), load(name)
    compiled.adopt(calibrated())
    compiled.warm_up(SIZES, budget_s=5)
    for rows in (1, 2, 3, 7, 8, 9, 40):
        x = random_rows(rows, *shape)
        for ours, theirs in zip(compiled.run([x]), plain.run([x]), strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


def test_pictures_in_pixels_are_compiled_too(load: Load) -> None:
    model = load("picture")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), "uint8")
    before = model.run([pixels])[0]
    model.adopt(calibrated())
    model.warm_up(SIZES, budget_s=5)
    np.testing.assert_allclose(model.run([pixels])[0], before, atol=1e-5, rtol=1e-5)


def test_nothing_is_traced_after_warm_up(load: Load) -> None:
    model = load("sequential")
    model.adopt(calibrated())
    model.warm_up(SIZES, budget_s=5)
    traced = model.trace_count
    assert traced == 3  # the plain call's, and one for each compiled size
    for rows in (1, 5, 2, 31, 3, 8, 64, 17):
        model.run([random_rows(rows, 10)])
    assert model.trace_count == traced


def test_nothing_is_compiled_before_warm_up_or_without_a_calibration(load: Load) -> None:
    model = load("sequential")
    traced = model.trace_count
    model.warm_up(SIZES, budget_s=5)
    model.adopt(calibrated(sizes=(), threads=None))
    model.warm_up(SIZES, budget_s=5)
    assert model.trace_count == traced


def test_only_what_fits_the_largest_batch_is_compiled(load: Load) -> None:
    model = load("sequential")
    model.adopt(calibrated())
    model.warm_up((1, 2, 4), budget_s=5)
    assert model.calibration
    assert model.calibration["sizes"] == [1]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sequence", "no size left open"),
        ("fixed_rows", "no size left open"),
        ("text", "no text"),
        ("every_dtype", "no text"),
    ],
)
def test_what_xla_cannot_be_trusted_with_is_called_plainly(
    load: Load, name: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = load(name)
    with pytest.raises(LoadError, match=reason):
        model.compile_for(2)
    model.adopt(calibrated())
    traced = model.trace_count
    with caplog.at_level(logging.WARNING):
        model.warm_up((1, 2), budget_s=1)
    assert "not run as it was calibrated" in caplog.text
    assert model.trace_count == traced
    assert model.calibration
    assert (model.calibration["call"], model.calibration["sizes"]) == (PLAIN, [])


def test_a_model_that_checks_or_draws_or_remembers_is_not_compiled(load: Load) -> None:
    with pytest.raises(LoadError, match="XLA may answer otherwise: it uses the operation RandomStandardNormal"):
        load("drawing").compile_for(1)


def test_an_input_that_cannot_be_written_to_stays_what_it_was(load: Load) -> None:
    model = load("sequential")
    data = random_rows(64, 10).tobytes()
    x = np.frombuffer(data, "float32").reshape(64, 10)
    before = bytes(data)
    first = model.run([x])[0].copy()
    assert np.array_equal(model.run([x])[0], first)
    assert data == before


IN_A_FRESH_PROCESS = """
import json, os, sys
import numpy as np
from models.runtime import load
reference, options = json.loads(sys.argv[1]), json.loads(sys.argv[2])
model = load(reference, {**options, "together": [reference]})
model.warm_up([1, 2, 4, 8], 5.0)

def compiled():  # XLA writes a file for each module that it compiles
    return len([one for one in os.listdir(sys.argv[3]) if "before_optimizations" in one])

before = compiled()
for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9, 33]:
    model.run([np.ones((rows, 10), "float32")])
import tensorflow as tf
print(json.dumps({
    "at start": before,
    "by serving": compiled() - before,
    "intra": tf.config.threading.get_intra_op_parallelism_threads(),
    "calibration": model.calibration,
}))
"""


def in_a_fresh_process(reference: ModelReference, dump: Path, **options: Any) -> dict[str, Any]:
    dump.mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, json.dumps(reference.to_json()), json.dumps(options), str(dump)],
        env={
            "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": f"--xla_dump_to={dump} --xla_dump_hlo_as_text",
        },
        cwd="/", capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


def test_a_process_compiles_what_was_calibrated_and_serving_compiles_nothing(zoo: Zoo, tmp_path: Path) -> None:
    import tensorflow as tf

    (reference,) = single(zoo("sequential"))
    store = tmp_path / "store"
    write(store, key_of(reference, tf.__version__), calibrated(threads=1))
    told = in_a_fresh_process(reference, tmp_path / "dump", calibration_dir=str(store))
    assert (told["at start"], told["by serving"]) == (2, 0)
    assert told["intra"] == 1
    assert (told["calibration"]["call"], told["calibration"]["sizes"]) == (XLA, [1, 8])


def test_where_the_operator_wants_other_threads_it_is_called_plainly(zoo: Zoo, tmp_path: Path) -> None:
    import tensorflow as tf

    (reference,) = single(zoo("sequential"))
    store = tmp_path / "store"
    write(store, key_of(reference, tf.__version__), calibrated(threads=1))
    told = in_a_fresh_process(reference, tmp_path / "dump", calibration_dir=str(store), intra_op_threads=2)
    assert (told["at start"], told["intra"]) == (0, 2)
    assert (told["calibration"]["call"], told["calibration"]["threads"]) == (PLAIN, 2)
