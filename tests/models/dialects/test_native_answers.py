"""The native dialect, outwards: a model's outputs become an answer in the caller's order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
import pytest

from models.contract import Contract, Field, Tensor
from models.dialects.dialect import Request
from models.dialects.native import parse, render_advanced, render_classify, render_predict
from models.errors import BadInput, BadOutput
from models.schema import Compiled, compile_contract
from models.tensors import Array
from tests.models.dialects.calls import OneVersion, call

X = Tensor("x", "float32", (2,))
Y = Tensor("y", "float32", (1,))


def compiled(*inputs: Tensor, outputs: tuple[Tensor, ...] = (Y,), **more: Any) -> Compiled:
    return compile_contract(Contract("m", "7", inputs, outputs, **more))


VECTOR = compiled(X)
FIELDS = compiled(X, fields=(Field("feature1"), Field("feature2")), routes=("/advanced_predict",))


def read(model: Compiled, body: Any) -> Request:
    return parse(OneVersion(model), call("predict", body if isinstance(body, bytes) else orjson.dumps(body)))


def float32(*values: Any) -> Array:
    return np.array(values, np.float32)


def answer(body: bytes) -> dict[str, Any]:
    decoded_body: dict[str, Any] = orjson.loads(body)
    assert decoded_body.pop("ok") is True
    assert decoded_body.pop("model_version") == "7"
    return decoded_body


ONE = {"features": [1, 2]}
THREE = {"instances": [[1, 2], [3, 4], [5, 6]]}


@pytest.mark.parametrize(
    ("shape", "body", "output", "expected"),
    [
        pytest.param((1,), ONE, float32([0.1]), b'"prediction":0.1,', id="one number"),
        pytest.param((), ONE, float32(0.1), b'"prediction":0.1,', id="one scalar"),
        pytest.param((3,), ONE, float32([1, 2, 3]), b'"prediction":[1.0,2.0,3.0],', id="a vector"),
        pytest.param((1, 1), ONE, float32([[1]]), b'"prediction":[[1.0]],', id="a small matrix"),
        pytest.param((None,), ONE, float32([1]), b'"prediction":[1.0],', id="a vector of any length"),
        pytest.param((1,), THREE, float32([1], [2], [3]), b'"predictions":[1.0,2.0,3.0],', id="numbers"),
        pytest.param(
            (2,),
            THREE,
            float32([1, 2], [3, 4], [5, 6]),
            b'"predictions":[[1.0,2.0],[3.0,4.0],[5.0,6.0]],',
            id="vectors",
        ),
        pytest.param((1,), {"instances": [[1, 2]]}, float32([1]), b'"predictions":[1.0],', id="a list of one"),
    ],
)
def test_one_output_is_answered_bare(shape: tuple[int | None, ...], body: Any, output: Array, expected: bytes) -> None:
    model = compiled(X, outputs=(Tensor("y", "float32", shape),))
    assert render_predict(model, read(model, body), [[output]]) == b'{"ok":true,' + expected + b'"model_version":"7"}'


def test_several_outputs_are_an_object_by_name() -> None:
    outputs = (Tensor("a", "float32", (1,)), Tensor("b", "int64", (2,)), Tensor("c", "string", ()))
    model = compiled(X, outputs=outputs)
    values = [float32([0.5], [1.5]), np.array([[1, 2], [3, 4]]), np.array([b"x", b"\xff"], object)]
    request = read(model, {"instances": [[1, 2], [3, 4]]})
    assert answer(render_predict(model, request, [values])) == {
        "predictions": [{"a": 0.5, "b": [1, 2], "c": "x"}, {"a": 1.5, "b": [3, 4], "c": {"b64": "/w=="}}]
    }
    single = [value[:1] for value in values]
    assert answer(render_predict(model, read(model, ONE), [single])) == {
        "prediction": {"a": 0.5, "b": [1, 2], "c": "x"}
    }
    assert answer(render_advanced(model, read(model, ONE), [single])) == {
        "prediction": {"a": [[0.5]], "b": [[1, 2]], "c": ["x"]}
    }


def test_answers_of_several_items_come_back_in_the_callers_order() -> None:
    outputs = (Tensor("y", "float32", (1,)), Tensor("echo", "int64", (None,)))
    model = compiled(Tensor("tokens", "int64", (None,)), outputs=outputs)
    request = read(model, {"instances": [[1], [2, 3], [4], [5, 6]]})
    answers = [[item.arrays[0].sum(axis=1, keepdims=True).astype(np.float32), item.arrays[0]] for item in request.items]
    expected = [{"y": 1, "echo": [1]}, {"y": 5, "echo": [2, 3]}, {"y": 4, "echo": [4]}, {"y": 11, "echo": [5, 6]}]
    assert answer(render_predict(model, request, answers)) == {"predictions": expected}
    assert answer(render_advanced(model, request, answers)) == {
        "predictions": {"y": [[1], [5], [4], [11]], "echo": [[1], [2, 3], [4], [5, 6]]}
    }


def test_the_advanced_answer_keeps_the_row_dimension() -> None:
    one = render_advanced(FIELDS, read(FIELDS, {"feature1": 1, "feature2": 2}), [[float32([0.1])]])
    assert one == b'{"ok":true,"prediction":[[0.1]],"model_version":"7"}'
    two = render_advanced(FIELDS, read(FIELDS, {"instances": [[1, 2], [3, 4]]}), [[float32([1], [2])]])
    assert answer(two) == {"predictions": [[1], [2]]}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        pytest.param([float32([math.nan])], "NaN or an infinity", id="NaN"),
        pytest.param([float32([math.inf])], "NaN or an infinity", id="infinity"),
        pytest.param([float32([1], [2])], r"shape \(2, 1\), expected \(1, 1\)", id="a row too many"),
        pytest.param([float32([1, 2])], r"shape \(1, 2\), expected \(1, 1\)", id="another length"),
        pytest.param([float32(1)], r"shape \(1,\), expected \(1, 1\)", id="an axis too few"),
        pytest.param([], "0 outputs, its contract has 1", id="nothing"),
        pytest.param([np.zeros((1, 1), np.complex64)], "dtype complex64", id="complex"),
    ],
)
def test_what_the_model_must_not_answer_is_its_own_fault(output: list[Array], message: str) -> None:
    for render in (render_predict, render_advanced):
        with pytest.raises(BadOutput, match=message):
            render(VECTOR, read(VECTOR, ONE), [output])


def test_nan_is_null_where_the_contract_allows_it() -> None:
    model = compiled(X, outputs=(Tensor("y", "float32", (2,)),), null_for_nan=True)
    assert answer(render_predict(model, read(model, ONE), [[float32([math.nan, 1])]])) == {"prediction": [None, 1]}
    plain = compiled(X, null_for_nan=True)
    assert answer(render_predict(plain, read(plain, ONE), [[float32([-math.inf])]])) == {"prediction": None}


# ---------------------------------------------------------------------------------------------- classes


CLASSES = compiled(X, outputs=(Tensor("scores", "float32", (3,)),), labels=("ant", "bee", "cat"))
YES_OR_NO = compiled(X, labels=("no", "yes"))


def test_the_best_class_is_named_with_the_next_ones_after_it() -> None:
    body = render_classify(CLASSES, read(CLASSES, ONE), [[float32([0.1, 0.7, 0.2])]], 2)
    assert body == (
        b'{"ok":true,"predicted_class":1,"label":"bee","top":[{"class":1,"label":"bee","score":0.7},'
        b'{"class":2,"label":"cat","score":0.2}],"model_version":"7"}'
    )


def test_rows_are_classified_each_in_its_place() -> None:
    scores = float32([1, 0, 0], [0, 0, 1], [0, 1, 0])
    predictions = answer(render_classify(CLASSES, read(CLASSES, THREE), [[scores]], 1))["predictions"]
    assert [row["label"] for row in predictions] == ["ant", "cat", "bee"]
    assert predictions[1] == {"predicted_class": 2, "label": "cat", "top": [{"class": 2, "label": "cat", "score": 1}]}


def test_without_labels_a_class_is_called_by_its_number() -> None:
    model = compiled(X, outputs=(Tensor("scores", "float32", (10,)),))
    result = answer(render_classify(model, read(model, ONE), [[np.eye(10, dtype=np.float32)[[7]]]], 3))
    assert (result["predicted_class"], result["label"]) == (7, "7")
    assert [entry["class"] for entry in result["top"]] == [7, 0, 1]  # equal scores by number


def test_more_classes_than_there_are_cannot_be_shown() -> None:
    result = answer(render_classify(CLASSES, read(CLASSES, ONE), [[float32([3, 2, 1])]], 100))
    assert len(result["top"]) == 3


@pytest.mark.parametrize(("probability", "label"), [(0.9, "yes"), (0.1, "no"), (1.0, "yes"), (0.0, "no")])
def test_one_probability_and_two_labels_are_two_classes(probability: float, label: str) -> None:
    result = answer(render_classify(YES_OR_NO, read(YES_OR_NO, ONE), [[float32([probability])]], 2))
    assert result["label"] == label
    assert sum(entry["score"] for entry in result["top"]) == pytest.approx(1)
    assert result["top"][0]["score"] == pytest.approx(max(probability, 1 - probability))


@pytest.mark.parametrize(
    ("model", "output", "message"),
    [
        pytest.param(CLASSES, float32([0, math.nan, 1]), "NaN or an infinity", id="NaN"),
        pytest.param(CLASSES, float32([0, 1]), "shape", id="too few scores"),
        pytest.param(YES_OR_NO, float32([1.5]), "a probability outside 0..1", id="no probability"),
    ],
)
def test_scores_that_name_no_class_are_the_models_fault(model: Compiled, output: Array, message: str) -> None:
    with pytest.raises(BadOutput, match=message):
        render_classify(model, read(model, ONE), [[output]], 1)


def test_scores_of_open_length_must_be_as_many_as_the_labels() -> None:
    model = compiled(X, outputs=(Tensor("scores", "float32", (None,)),), labels=("a", "b"))
    assert answer(render_classify(model, read(model, ONE), [[float32([0, 1])]], 1))["label"] == "b"
    with pytest.raises(BadOutput, match="3 classes, it has 2 labels"):
        render_classify(model, read(model, ONE), [[float32([0, 1, 2])]], 1)


def test_nan_is_never_null_among_scores() -> None:
    model = compiled(X, outputs=(Tensor("scores", "float32", (2,)),), null_for_nan=True)
    with pytest.raises(BadOutput, match="NaN"):
        render_classify(model, read(model, ONE), [[float32([0, math.nan])]], 1)


def test_a_model_that_tells_no_classes_apart_does_not_classify() -> None:
    with pytest.raises(BadInput, match="the model m is no classifier"):
        render_classify(VECTOR, read(VECTOR, ONE), [[float32([1])]], 1)
