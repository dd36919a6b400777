"""The native dialect: a body becomes rows for the model, its outputs become an answer in the caller's order."""

from __future__ import annotations

import math
import shlex
import subprocess
import sys
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contract import Contract, Field, Tensor
from models.dialects.native import Request, describe, parse, render_advanced, render_classify, render_predict
from models.errors import BadInput, BadOutput, TooLarge
from models.schema import Compiled, compile_contract
from models.tensors import Array
from tests.models.strategies import contracts, rows

MEBIBYTE = 1 << 20
X = Tensor("x", "float32", (2,))
Y = Tensor("y", "float32", (1,))


def compiled(*inputs: Tensor, outputs: tuple[Tensor, ...] = (Y,), **more: Any) -> Compiled:
    return compile_contract(Contract("m", "7", inputs, outputs, **more))


VECTOR = compiled(X)
FIELDS = compiled(X, fields=(Field("feature1"), Field("feature2")), routes=("/advanced_predict",))
SEVERAL = compiled(Tensor("a", "uint8", ()), Tensor("b", "string", (1,)), Tensor("c", "bool", (1, 1)))
SEQUENCE = compiled(Tensor("tokens", "int64", (None,)))


def read(model: Compiled, body: Any) -> Request:
    return parse(model, body if isinstance(body, bytes) else orjson.dumps(body), max_json_bytes=MEBIBYTE)


def arrays(request: Request) -> list[list[Any]]:
    return [[array.tolist() for array in item.arrays] for item in request.items]


# ---------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("model", "body", "expected", "count", "many"),
    [
        pytest.param(VECTOR, {"features": [1, 2.5]}, [[[[1, 2.5]]]], 1, False, id="features"),
        pytest.param(VECTOR, {"x": [1, 2.5]}, [[[[1, 2.5]]]], 1, False, id="the input's own name"),
        pytest.param(VECTOR, {"instances": [[1, 2], [3, 4]]}, [[[[1, 2], [3, 4]]]], 2, True, id="bare rows"),
        pytest.param(VECTOR, {"instances": [{"x": [1, 2]}]}, [[[[1, 2]]]], 1, True, id="one row of many"),
        pytest.param(
            FIELDS, {"feature2": 2, "feature1": 1}, [[[[1, 2]]]], 1, False, id="fields in the contract's order"
        ),
        pytest.param(
            FIELDS,
            {"instances": [{"feature1": 1, "feature2": 2}, {"feature2": 4, "feature1": 3}]},
            [[[[1, 2], [3, 4]]]],
            2,
            True,
            id="rows of fields",
        ),
        pytest.param(
            SEVERAL,
            {"c": [[True]], "b": ["hä"], "a": 5},
            [[[5], [["hä".encode()]], [[[True]]]]],
            1,
            False,
            id="inputs in the contract's order",
        ),
        pytest.param(SEQUENCE, {"tokens": [5, 6, 7]}, [[[[5, 6, 7]]]], 1, False, id="a sequence"),
        pytest.param(
            SEQUENCE,
            {"instances": [[1], [2, 3], [4], []]},
            [[[[1], [4]]], [[[2, 3]]], [[[]]]],
            4,
            True,
            id="sequences of different lengths",
        ),
    ],
)
def test_a_body_becomes_items_in_the_contracts_order(
    model: Compiled,
    body: Any,
    expected: Any,
    count: int,
    many: bool,  # noqa: FBT001
) -> None:
    request = read(model, body)
    assert (arrays(request), request.count, request.many) == (expected, count, many)


def test_arrays_have_the_models_dtype_and_a_row_dimension() -> None:
    (item,) = read(SEVERAL, {"instances": [{"a": 1, "b": ["x"], "c": [[False]]}] * 3}).items
    assert [(array.dtype.name, array.shape) for array in item.arrays] == [
        ("uint8", (3,)),
        ("object", (3, 1)),
        ("bool", (3, 1, 1)),
    ]
    assert list(item.rows) == [0, 1, 2]


def test_rows_of_different_shapes_become_items_that_know_their_rows() -> None:
    request = read(SEQUENCE, {"instances": [[1], [2, 3], [4], [5, 6]]})
    assert [tuple(item.rows) for item in request.items] == [(0, 2), (1, 3)]


@settings(max_examples=150)
@given(contracts(), st.data())
def test_every_row_is_in_exactly_one_item_at_its_own_place(model: Contract, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 2))
    columns = [[data.draw(rows(tensor, 1))[0] for _ in range(count)] for tensor in model.inputs]
    if len(columns) == 1:
        instances = columns[0]
    else:
        names = [tensor.name for tensor in model.inputs]
        instances = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    request = read(compile_contract(model), {"instances": instances})
    assert sorted(row for item in request.items for row in item.rows) == list(range(count))
    for item in request.items:
        for array, column, tensor in zip(item.arrays, columns, model.inputs, strict=True):
            assert len(array) == len(item.rows)
            for row, value in zip(item.rows, array.tolist(), strict=True):
                expected = column[row]
                assert (decoded(value) if tensor.dtype == "string" else value) == expected or 0 in array.shape


def decoded(value: Any) -> Any:
    return [decoded(part) for part in value] if isinstance(value, list) else value.decode()


@pytest.mark.parametrize(
    ("model", "body", "path", "message"),
    [
        pytest.param(VECTOR, b"", None, "the body is empty", id="empty"),
        pytest.param(VECTOR, b"[1, 2]", "", "the body must be a JSON object, got a list of 2", id="no object"),
        pytest.param(VECTOR, b'{"features": [1, NaN]}', None, "the body holds NaN, an infinity", id="NaN"),
        pytest.param(VECTOR, b'{"features": [1, -Infinity]}', None, "the body holds NaN, an infinity", id="infinity"),
        pytest.param(
            VECTOR, b'{"features": [1, 1e400]}', None, "the body holds NaN, an infinity", id="beyond any float"
        ),
        pytest.param(
            VECTOR,
            b'{"features": [1, 1e39]}',
            "/features/1",
            "/features/1 must be a number from -3.4",
            id="beyond float32",
        ),
        pytest.param(
            VECTOR,
            b'{"instances": [[1, 2], [1e39, 2]]}',
            "/instances/1/0",
            "/instances/1/0 must be a number",
            id="beyond float32 in a bare row",
        ),
        pytest.param(
            VECTOR,
            b'{"instances": [{"x": [1, 1e39]}]}',
            "/instances/0/x/1",
            "/instances/0/x/1 must be a number",
            id="beyond float32 in a row by name",
        ),
        pytest.param(
            FIELDS,
            b'{"feature1": 1, "feature2": 1e39}',
            "/feature2",
            '"feature2" must be a number from',
            id="beyond float32 in a field",
        ),
        pytest.param(
            FIELDS,
            b'{"instances": [{"feature1": 1e39, "feature2": 1}]}',
            "/instances/0/feature1",
            "/instances/0/feature1 must be",
            id="beyond float32 in a row's field",
        ),
        pytest.param(
            VECTOR,
            b'{"features": [1, 2], "features": [1, 2]}',
            "/features",
            'the key "features" is given twice',
            id="key twice",
        ),
        pytest.param(
            VECTOR, b'{"features": [1, "\\udc00"]}', None, "the body holds a lone surrogate", id="lone surrogate"
        ),
        pytest.param(
            VECTOR, '{"features": [1, 2]}'.encode("utf-16"), None, "the body is UTF-16 or UTF-32", id="UTF-16"
        ),
        pytest.param(
            VECTOR,
            b'\xef\xbb\xbf{"features": [1, 2]}',
            None,
            "the body begins with a byte order mark",
            id="byte order mark",
        ),
        pytest.param(VECTOR, b'{"features": ["\xe4"]}', None, "the body is not UTF-8", id="Latin-1"),
        pytest.param(VECTOR, b'{"features": ' + b"[" * 5000, None, "the body is nested too deep", id="depth bomb"),
        pytest.param(
            VECTOR,
            b'{"features": ' + b"[" * 900 + b"]" * 900 + b"}",
            "/features",
            '"features" holds 1 numbers',
            id="deep lists",
        ),
        pytest.param(
            VECTOR, b'{"features": [1]}', "/features", '"features" holds 1 numbers, expected 2', id="wrong length"
        ),
        pytest.param(
            VECTOR, b'{"features": [1, true]}', "/features/1", "/features/1 must be a number, got true", id="boolean"
        ),
        pytest.param(
            SEQUENCE,
            b'{"tokens": [1, 9223372036854775808]}',
            "/tokens/1",
            "/tokens/1 must be a whole number",
            id="beyond int64",
        ),
        pytest.param(
            SEQUENCE,
            b'{"tokens": [-9223372036854775809]}',
            "/tokens/0",
            "/tokens/0 must be a whole number",
            id="below int64",
        ),
        pytest.param(
            SEQUENCE,
            b'{"instances": [[1], [2, 1e30]]}',
            "/instances/1/1",
            "/instances/1/1 must be",
            id="beyond int64 in a row",
        ),
        pytest.param(
            SEQUENCE,
            b'{"instances": [[1, 2], [-1e30]]}',
            "/instances/1/0",
            "/instances/1/0 must be",
            id="below int64 in a row of its own shape",
        ),
        pytest.param(
            SEVERAL,
            b'{"a": -1, "b": [""], "c": [[true]]}',
            "/a",
            '"a" must be a whole number from 0 to 255',
            id="below uint8",
        ),
    ],
)
def test_a_bad_body_is_refused_with_its_place_and_a_sample(
    model: Compiled, body: bytes, path: str | None, message: str
) -> None:
    with pytest.raises(BadInput) as caught:
        read(model, body)
    fault = caught.value
    assert fault.path == path
    assert fault.message.startswith(message)
    assert fault.expected
    assert read(model, fault.sample).count == 1


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"m": [[1, 2], [3]]}', "/m/1"),
        (b'{"instances": [[[1]], [[1, 2], [3]]]}', "/instances/1/1"),
        (b'{"instances": [{"m": [[1], [2, 3]]}]}', "/instances/0/m/1"),
    ],
)
def test_ragged_rows_are_refused_where_they_begin_to_be(body: bytes, path: str) -> None:
    with pytest.raises(BadInput, match="lists must not be ragged") as caught:
        read(compiled(Tensor("m", "float32", (None, None))), body)
    assert caught.value.path == path


def test_bodies_and_rows_beyond_their_limits_are_too_large() -> None:
    model = compiled(X, max_rows=2)
    body = orjson.dumps({"instances": [[1, 2]] * 3})
    with pytest.raises(TooLarge, match="holds 3 rows, at most 2 are taken"):
        parse(model, body, max_json_bytes=len(body))
    with pytest.raises(TooLarge, match="has 33 bytes, at most 32 are taken"):
        parse(VECTOR, body, max_json_bytes=len(body) - 1)
    with pytest.raises(TooLarge, match="lists and objects"):
        parse(VECTOR, b'{"features":[' + b"[]," * 250_000 + b"0]}", max_json_bytes=MEBIBYTE)


# ---------------------------------------------------------------------------------------------- answers


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


# ---------------------------------------------------------------------------------------------- documentation


@given(contracts())
@settings(max_examples=50)
def test_the_documented_command_sends_a_body_that_passes(contract: Contract) -> None:
    model = compile_contract(contract)
    described = orjson.loads(orjson.dumps(describe(model, "http://127.0.0.1:8080/")))
    assert (described["name"], described["version"]) == ("m", "1")
    assert Contract.from_json(described["contract"]) == contract
    assert described["json_schema"]["anyOf"]
    command, option, body, url = shlex.split(described["curl"])
    assert (command, option, url) == ("curl", "-d", "http://127.0.0.1:8080/predict/m")
    assert orjson.loads(body) == described["sample"]
    assert read(model, body.encode()).count >= 1


def test_a_sample_of_a_whole_picture_is_left_out() -> None:
    described = describe(compiled(Tensor("x", "float32", (224, 224, 3))), "http://localhost")
    assert described["sample"] is None
    assert described["curl"] is None


def test_the_dialect_imports_neither_tensorflow_nor_pillow() -> None:
    code = "import sys, models.dialects.native; print({'tensorflow', 'keras', 'PIL', 'bottle'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
