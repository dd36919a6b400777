"""The native dialect, inwards: a body becomes rows for the model; and what is said of a model's requests."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contract import Contract, Field, Tensor
from models.dialects.dialect import Request
from models.dialects.native import describe_version, parse
from models.errors import BadInput, TooLarge
from models.schema import Compiled, compile_contract
from tests.models.dialects.calls import OneVersion, call
from tests.models.strategies import contracts, rows

X = Tensor("x", "float32", (2,))
Y = Tensor("y", "float32", (1,))


def compiled(*inputs: Tensor, outputs: tuple[Tensor, ...] = (Y,), **more: Any) -> Compiled:
    return compile_contract(Contract("m", "7", inputs, outputs, **more))


VECTOR = compiled(X)
FIELDS = compiled(X, fields=(Field("feature1"), Field("feature2")), routes=("/advanced_predict",))
SEVERAL = compiled(Tensor("a", "uint8", ()), Tensor("b", "string", (1,)), Tensor("c", "bool", (1, 1)))
SEQUENCE = compiled(Tensor("tokens", "int64", (None,)))


def read(model: Compiled, body: Any) -> Request:
    return parse(OneVersion(model), call("predict", body if isinstance(body, bytes) else orjson.dumps(body)))


def arrays(request: Request) -> list[list[Any]]:
    return [[array.tolist() for array in item.arrays] for item in request.items]


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
    many: bool,
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
            "/features/0",
            "/features/0 must be a number, got a list of 1",
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
        parse(OneVersion(model), call("predict", body, max_json_bytes=len(body)))
    with pytest.raises(TooLarge, match="has 33 bytes, at most 32 are taken"):
        parse(OneVersion(VECTOR), call("predict", body, max_json_bytes=len(body) - 1))
    with pytest.raises(TooLarge, match="lists and objects"):
        read(VECTOR, b'{"features":[' + b"[]," * 250_000 + b"0]}")


@given(contracts())
@settings(max_examples=50)
def test_the_documented_command_sends_a_body_that_passes(contract: Contract) -> None:
    model = compile_contract(contract)
    described = orjson.loads(orjson.dumps(describe_version(OneVersion(model), "http://127.0.0.1:8080/")))
    assert (described["name"], described["version"]) == ("m", "1")
    assert Contract.from_json(described["contract"]) == contract
    assert described["json_schema"]["anyOf"]
    command, option, body, url = shlex.split(described["curl"])
    assert (command, option, url) == ("curl", "-d", "http://127.0.0.1:8080/predict/m")
    assert orjson.loads(body) == described["sample"]
    assert read(model, body.encode()).count >= 1


def test_a_sample_of_a_whole_picture_is_left_out() -> None:
    described = describe_version(OneVersion(compiled(Tensor("x", "float32", (224, 224, 3)))), "http://localhost")
    assert described["sample"] is None
    assert described["curl"] is None


def test_the_dialect_imports_neither_tensorflow_nor_anything_of_http() -> None:
    code = "import sys, models.dialects.native; print({'tensorflow', 'keras', 'waitress', 'bottle'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_more_rows_than_the_queue_could_hold_are_refused() -> None:
    body = orjson.dumps({"instances": [[1.0] * 2] * 6})
    with pytest.raises(TooLarge, match="6 rows, at most 5"):
        parse(OneVersion(VECTOR), call("predict", body, max_rows=5))
