"""Real models of every kind, loaded, warmed up and run: the numbers of a direct call, and never traced again."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.contract import Contract
from models.errors import LoadError
from tests.harness import ROOT
from tests.models.conftest import Load

Zoo = Callable[[str], Path]
SIZES = (1, 2, 4, 8)


def random_rows(rows: int, *shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, *shape)).astype(dtype)


def assert_same(ours: np.ndarray, theirs: Any) -> None:
    """Equal as the promises mean it; rows batched differently differ in the last bits."""
    theirs = np.asarray(theirs)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


def shapes(tensors: Any) -> list[tuple[str, str, tuple[int | None, ...]]]:
    return [(tensor["name"], tensor["dtype"], tuple(tensor["shape"])) for tensor in tensors]


# -- kinds of models ---------------------------------------------------------------------------------------------------


def test_a_keras_file_answers_like_the_model_itself(load: Load, zoo: Zoo) -> None:
    import keras

    model = load("sequential")
    direct = keras.saving.load_model(zoo("sequential"))
    assert shapes(model.description["inputs"]) == [("features", "float32", (10,))]
    assert shapes(model.description["outputs"]) == [("y", "float32", (1,))]
    for rows in (1, 3, 64):
        x = random_rows(rows, 10)
        assert_same(model.run([x])[0], direct(x))


def test_inputs_and_outputs_of_a_keras_list_keep_their_order(load: Load, zoo: Zoo) -> None:
    import keras

    model = load("lists")
    assert shapes(model.description["inputs"]) == [("left", "float32", (3,)), ("right", "float32", (2,))]
    assert shapes(model.description["outputs"]) == [("a", "float32", (4,)), ("b", "float32", (1,))]
    x = [random_rows(5, 3), random_rows(5, 2)]
    for ours, theirs in zip(model.run(x), keras.saving.load_model(zoo("lists"))(x), strict=True):
        assert_same(ours, theirs)


def test_dictionaries_of_a_keras_model_give_the_names(load: Load) -> None:
    model = load("dictionaries")
    assert [name for name, _, _ in shapes(model.description["inputs"])] == ["p", "q"]
    assert [name for name, _, _ in shapes(model.description["outputs"])] == ["sum", "difference"]
    p, q = random_rows(2, 3), random_rows(2, 3) + 1
    total, difference = model.run([p, q])
    assert_same(total, p + q)
    assert_same(difference, p - q)


def test_an_exported_keras_model_answers_like_its_signature(load: Load, zoo: Zoo) -> None:
    import tensorflow as tf

    model = load("exported")
    assert shapes(model.description["inputs"]) == [("left", "float32", (3,)), ("right", "float32", (2,))]
    left, right = random_rows(3, 3), random_rows(3, 2)
    direct = tf.saved_model.load(str(zoo("exported"))).signatures["serving_default"](left=left, right=right)
    first, second = model.run([left, right])
    assert_same(first, direct["output_0"])
    assert_same(second, direct["output_1"])


def test_a_legacy_file_loads_where_that_is_allowed(load: Load, zoo: Zoo) -> None:
    import keras

    x = random_rows(4, 3)
    direct = keras.saving.load_model(zoo("legacy"), compile=False)
    assert_same(load("legacy", allow_h5=True).run([x])[0], direct(x))
    with pytest.raises(LoadError, match=r"legacy \.h5 format"):
        load("legacy")


def test_a_bare_function_without_a_signature_is_served(load: Load) -> None:
    model = load("bare_function")
    assert shapes(model.description["inputs"]) == [("x", "float32", (1,))]
    assert_same(model.run([np.array([[2.0], [-1.0]], "float32")])[0], np.array([[8.0], [-1.0]], "float32"))


def test_a_signature_gives_and_takes_by_name(load: Load) -> None:
    model = load("with_signature")
    assert shapes(model.description["inputs"]) == [("a", "float32", (1,)), ("b", "float32", (2,))]
    a, b = random_rows(2, 1), random_rows(2, 2)
    same, twice = model.run([a, b])
    assert_same(same, a)
    assert_same(twice, 2 * b)


@pytest.mark.parametrize(("signature", "factor"), [("double", 2), ("triple", 3)])
def test_the_contract_chooses_among_signatures(load: Load, signature: str, factor: int) -> None:
    x = random_rows(2, 1)
    assert_same(load("two_signatures", {"signature": signature}).run([x])[0], factor * x)


def test_of_several_traces_the_most_general_one_that_does_not_train_is_taken(load: Load) -> None:
    x = random_rows(7, 3)
    assert_same(load("several_traces").run([x])[0], 2 * x)


# -- dtypes and shapes -------------------------------------------------------------------------------------------------


def test_every_dtype_goes_in_and_comes_out(load: Load) -> None:
    model = load("every_dtype")
    dtypes = [dtype for _, dtype, _ in shapes(model.description["inputs"])]
    assert len(set(dtypes)) == 13
    assert [dtype for _, dtype, _ in shapes(model.description["outputs"])] == dtypes
    rows = 3
    given_arrays = [
        np.array([[b"a", b""], [b"\xff\x00", "ü".encode()], [b"b", b"c"]], object)
        if dtype == "string"
        else (random_rows(rows, 2) * 3).astype("int64").clip(0).astype(dtype)
        for dtype in dtypes
    ]
    for dtype, sent, got in zip(dtypes, given_arrays, model.run(given_arrays), strict=True):
        assert got.dtype == (object if dtype == "string" else dtype)
        assert got.tolist() == sent.tolist()


def test_bfloat16_is_float32_outside(load: Load) -> None:
    model = load("bfloat16")
    assert shapes(model.description["inputs"] + model.description["outputs"]) == [
        ("x", "float32", (3,)), ("output_0", "float32", (3,)),
    ]  # fmt: skip
    assert model.run([np.array([[1, 2, 0.5]], "float32")])[0].tolist() == [[2, 4, 1]]


def test_a_mixed_precision_model_gives_float16(load: Load) -> None:
    model = load("half_precision")
    assert shapes(model.description["outputs"])[0][1] == "float16"
    assert model.run([random_rows(2, 4)])[0].dtype == np.float16


def test_text_in_text_and_numbers_out(load: Load) -> None:
    upper, length = load("text").run([np.array([b"abc", b"", b"de"], object)])
    assert upper.tolist() == [b"ABC", b"", b"DE"]
    assert length.tolist() == [3, 0, 2]


@pytest.mark.parametrize("name", ["keras_scalar", "scalar"])
def test_a_scalar_for_each_row(load: Load, name: str) -> None:
    model = load(name)
    assert shapes(model.description["inputs"]) == [("x", "float32", ())]
    assert model.run([np.array([1, 2, 3], "float32")])[0].tolist() == [2, 4, 6]


def test_sequences_of_any_length(load: Load, zoo: Zoo) -> None:
    import keras

    model = load("sequence")
    direct = keras.saving.load_model(zoo("sequence"))
    assert shapes(model.description["inputs"]) == [("words", "int32", (None,))]
    for length in (1, 7, 40):
        words = np.arange(2 * length, dtype="int32").reshape(2, length) % 50
        assert_same(model.run([words])[0], direct(words))


def test_an_output_as_long_as_its_input(load: Load) -> None:
    model = load("tagger")
    assert shapes(model.description["outputs"]) == [("conv1d", "float32", (None, 3))]
    assert model.run([random_rows(2, 9, 2)])[0].shape == (2, 7, 3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 13))
def test_a_fixed_number_of_rows_takes_any_number(load: Load, rows: int) -> None:
    x = random_rows(rows, 10)
    output = load("fixed_rows").run([x])[0]
    assert_same(output, x.sum(axis=1))


def test_a_keras_model_that_needs_its_fixed_rows_keeps_them(load: Load) -> None:
    model = load("fixed_rows_keras")
    x = random_rows(5, 6)
    assert_same(model.run([x])[0], (2 * x).reshape(5, 3, 2))


def test_the_size_of_the_first_training_batch_is_no_limit(load: Load) -> None:
    model = load("fitted")
    assert shapes(model.description["inputs"])[0][2] == (4,)
    x = random_rows(33, 4)
    assert_same(model.run([x])[0], np.concatenate([model.run([x[i : i + 1]])[0] for i in range(33)]))


def test_an_output_of_unknown_rank_is_tried_out(load: Load) -> None:
    model = load("unknown_output_rank")
    assert shapes(model.description["outputs"]) == [("output_0", "float32", (None,))]
    assert model.run([np.ones((2, 3), "float32")])[0].tolist() == [[2, 2, 2]] * 2


def test_a_variable_that_the_model_changes_is_changed_at_each_call(load: Load) -> None:
    model = load("counting")
    x = np.zeros((1, 1), "int32")
    before = model.run([x])[0].item()
    assert [model.run([x])[0].item() for _ in range(3)] == [before + 1, before + 2, before + 3]


# -- pictures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "offset"), [(1 / 255, 0.0), (1 / 127.5, -1.0)])
def test_pixels_are_scaled_like_the_floats_they_stand_for(load: Load, scale: float, offset: float) -> None:
    model = load("picture", {"image": {"scale": scale, "offset": offset}})
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), "uint8")
    floats = (pixels.astype("float64") * scale + offset).astype("float32")
    from_pixels, from_floats = model.run([pixels])[0], model.run([floats])[0]
    np.testing.assert_allclose(from_pixels, from_floats, atol=1e-6, rtol=1e-6)


def test_an_evident_image_classifier_takes_pixels_without_a_contract(load: Load) -> None:
    model = load("picture")
    image = Contract.from_json(model.description).image
    assert image is not None
    assert (image.width, image.height, image.colour) == (6, 8, "rgb")
    white = model.run([np.full((1, 8, 6, 3), 255, "uint8")])[0]
    assert_same(white, model.run([np.ones((1, 8, 6, 3), "float32")])[0])


def test_pixels_reach_a_uint8_input_as_they_are(load: Load) -> None:
    model = load("picture_bytes", {"image": {}})
    assert model.run([np.full((2, 8, 6, 3), 200, "uint8")])[0].tolist() == [[200, 200, 200]] * 2
    assert model.trace_count == 1


def test_pixels_in_the_contracts_size_for_a_model_of_any_size(load: Load) -> None:
    model = load("picture_any_size", {"image": {"width": 5, "height": 4, "offset": 0.5}})
    pixels = np.full((1, 4, 5, 3), 51, "uint8")
    np.testing.assert_allclose(model.run([pixels])[0], [[0.7] * 3], atol=1e-12)
    assert model.run([np.ones((1, 9, 9, 3))])[0].tolist() == [[1, 1, 1]]
    with pytest.raises(ValueError, match="not the contract's arrays"):
        model.run([np.zeros((1, 9, 9, 3), "uint8")])


# -- warm-up and calls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sequential", "sequence", "exported", "bare_function", "fixed_rows", "picture"])
def test_nothing_is_traced_after_loading(load: Load, name: str) -> None:
    model = load(name)
    traced = model.trace_count
    model.warm_up(SIZES, budget_s=1)
    for rows in (1, 5, 2, 31, 3, 64, 17):
        for length in (4, 1, 9):
            model.run(
                [
                    np.zeros((rows, *(length if size is None else size for size in shape)), dtype)
                    for _, dtype, shape in shapes(model.description["inputs"])
                ]
            )
    if model.description["image"]:
        model.run([np.zeros((3, 8, 6, 3), "uint8")])
    assert model.trace_count == traced


def test_a_row_alone_gives_the_same_bits_each_time(load: Load) -> None:
    model = load("sequential")
    x = random_rows(1, 10)
    assert len({model.run([x])[0].tobytes() for _ in range(20)}) == 1


def test_warm_up_measures_each_size(load: Load) -> None:
    seconds = load("sequential").warm_up((8, 1, 2, 2), budget_s=10)
    assert list(seconds) == [1, 2, 8]
    assert all(0 < one < 1 for one in seconds.values())


def test_warm_up_always_runs_the_smallest_size_and_stops_at_the_budget(load: Load) -> None:
    assert list(load("sequential").warm_up(SIZES, budget_s=0)) == [1]


def test_a_model_that_refuses_made_up_rows_is_served_cold(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    import tensorflow as tf

    with caplog.at_level(logging.WARNING):
        model = load("picky")
    assert "not warmed up" in caplog.text
    assert model.warm_up(SIZES, budget_s=1) == {}
    png = tf.io.encode_png(np.zeros((7, 2, 1), "uint8")).numpy()
    assert model.run([np.array([png, png], object)])[0].tolist() == [7, 7]


def test_a_batch_that_the_model_refuses_does_not_hurt_the_next(load: Load) -> None:
    model = load("sequence")
    with pytest.raises(Exception, match="50"):
        model.run([np.array([[50]], "int32")])
    assert model.run([np.array([[49]], "int32")])[0].shape == (1, 2)


@pytest.mark.parametrize(
    "arrays",
    [
        [np.zeros((2, 9), "float32")],
        [np.zeros((2, 10), "float64")],
        [np.zeros((2, 10), "uint8")],
        [np.zeros((10,), "float32")],
        [np.zeros((2, 10, 1), "float32")],
        [np.zeros((2, 10), "float32")] * 2,
        [np.zeros((2, 10), object)],
    ],
    ids=["width", "float64", "uint8", "no rows", "rank", "two inputs", "text"],
)
def test_arrays_of_another_contract_never_reach_the_model(load: Load, arrays: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="not the contract's arrays"):
        load("sequential").run(arrays)


def test_inputs_of_different_rows_never_reach_the_model(load: Load) -> None:
    with pytest.raises(ValueError, match="not the contract's arrays"):
        load("lists").run([random_rows(2, 3), random_rows(3, 2)])


# -- the contract ------------------------------------------------------------------------------------------------------


def test_the_description_is_the_narrowed_contract(load: Load) -> None:
    fields = [f"f{i}" for i in range(10)]
    model = load("sequential", {"description": "a sum", "fields": fields, "max_rows": 3}, version="12")
    contract = Contract.from_json(model.description)
    assert (contract.name, contract.version, contract.description) == ("zoo", "12", "a sum")
    assert [field.name for field in contract.fields] == fields
    assert (model.max_rows, contract.max_rows) == (3, 3)
    assert model.warm_up((1, 2, 3), budget_s=10).keys() == {1, 2, 3}


# -- the process -------------------------------------------------------------------------------------------------------

IN_A_FRESH_PROCESS = """
import json, os, sys
from models.runtime import load
assert not {"tensorflow", "keras", "numpy"} & set(sys.modules)
path, options = sys.argv[1], json.loads(sys.argv[2])
reference = dict(name="zoo", version="1", path=path, kind="keras", contract_path=None, isolate=False, refusal=None)
model = load(reference, options)
import tensorflow as tf
threads = tf.config.threading
print(json.dumps({
    "outputs": model.description["outputs"],
    "intra": threads.get_intra_op_parallelism_threads(),
    "inter": threads.get_inter_op_parallelism_threads(),
    "gpu": os.environ["CUDA_VISIBLE_DEVICES"],
}))
"""


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        ("{}", {}, {"intra": 0, "inter": 0, "gpu": "-1"}),
        ('{"intra_op_threads": 1}', {"CUDA_VISIBLE_DEVICES": "7"}, {"intra": 1, "inter": 1, "gpu": "7"}),
    ],
    ids=["defaults", "chosen"],
)
def test_a_fresh_process_is_set_up_quietly(
    zoo: Zoo, options: str, environment: dict[str, str], expected: dict[str, Any]
) -> None:
    import json

    # A user's Keras may be set to another backend; a worker's never is.
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "jax", **environment}
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, str(zoo("sequential")), options],
        env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    answer = json.loads(ended.stdout)
    assert {key: answer[key] for key in expected} == expected
