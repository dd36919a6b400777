"""TensorFlow Serving's dialect by itself: requests and answers, or refusals, of its documentation and its sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
import pytest

from models.contract import METHOD_CLASSIFY, METHOD_REGRESS, Contract, Field, Tensor
from models.dialects import tf_serving
from models.errors import BadInput, BadOutput, TooLarge
from models.schema import Compiled, compile_contract
from tests.models.dialects.calls import OneVersion, call

Model = Callable[..., Sequence[np.ndarray]]


def compiled(*inputs: Tensor, outputs: tuple[Tensor, ...] = (Tensor("y", "float32", (1,)),), **more: Any) -> Compiled:
    return compile_contract(Contract("m", "7", inputs, outputs, **more))


def answer(model: Compiled, body: bytes | str, compute: Model, action: str = "predict") -> bytes:
    """What comes back for a body, if the model computes so."""
    given = body.encode() if isinstance(body, str) else body
    request = tf_serving.parse(OneVersion(model), call(action, given))
    rendered = tf_serving.render(model, request, [compute(*item.arrays) for item in request.items])
    assert rendered.content_type == "application/json"
    assert rendered.status == 200
    return rendered.body


def refused(model: Compiled, body: bytes | str, action: str = "predict") -> str:
    given = body.encode() if isinstance(body, str) else body
    with pytest.raises(BadInput) as caught:
        tf_serving.parse(OneVersion(model), call(action, given))
    assert len(caught.value.message) < 700
    return caught.value.message


HALF = compiled(Tensor("x", "float32", (1,)))
SCALAR = compiled(Tensor("x", "float32", ()), outputs=(Tensor("y", "float32", ()),))
PLANE = compiled(Tensor("x", "float32", (2, 2)), outputs=(Tensor("y", "float32", (2, 2)),))
INTS = compiled(Tensor("x", "int32", ()), outputs=(Tensor("y", "int32", ()),))
LONGS = compiled(Tensor("x", "int64", (None,)), outputs=(Tensor("y", "int64", (None,)),))
BOOLS = compiled(Tensor("x", "bool", ()), outputs=(Tensor("y", "bool", ()),))
TEXT = compiled(Tensor("x", "string", ()), outputs=(Tensor("y", "string", ()),))
BYTES = compiled(Tensor("x", "string", ()), outputs=(Tensor("y_bytes", "string", ()),))
DOUBLES = compiled(Tensor("x", "float64", (None,)), outputs=(Tensor("y", "float64", (None,)),))
SEVERAL = compiled(
    Tensor("sensor", "int32", (2, 2)),
    Tensor("signal", "int64", (5,)),
    Tensor("tag", "string", ()),
    outputs=(Tensor("count", "int64", ()), Tensor("name", "string", ()), Tensor("score", "float32", (2,))),
)
EXAMPLES = Tensor("inputs", "string", ())
CLASSIFIER = compiled(
    EXAMPLES,
    outputs=(Tensor("classes", "string", (None,)), Tensor("scores", "float32", (None,))),
    method=METHOD_CLASSIFY,
)
SCORER = compiled(EXAMPLES, outputs=(Tensor("scores", "float32", (None,)),), method=METHOD_CLASSIFY)
REGRESSOR = compiled(EXAMPLES, outputs=(Tensor("outputs", "float32", (1,)),), method=METHOD_REGRESS)


def half_plus_two(x: np.ndarray) -> Sequence[np.ndarray]:
    return [x * np.float32(0.5) + np.float32(2)]


def same(x: np.ndarray) -> Sequence[np.ndarray]:
    return [x]


def facts(sensor: np.ndarray, signal: np.ndarray, tag: np.ndarray) -> Sequence[np.ndarray]:
    count = signal.sum(axis=1)
    return [count, np.array([one.upper() for one in tag], object), sensor[:, 0, :].astype("float32")]


TAGS = (
    '{"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},'
    '{"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]}'
)
TAG_COLUMNS = (
    '{"tag": ["foo", "bar"], "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],'
    '"sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]]}'
)


@pytest.mark.parametrize(
    ("model", "compute", "body", "expected"),
    [
        pytest.param(HALF, half_plus_two, '{"instances": [1.0,2.0,5.0]}', '{"predictions":[2.5,3.0,4.5]}', id="curl"),
        pytest.param(
            HALF, half_plus_two, '{"instances": [[1.0],[2.0]]}', '{"predictions":[[2.5],[3.0]]}', id="rows of one value"
        ),
        pytest.param(
            HALF, half_plus_two, '{"instances": [{"x": 1}, {"x": 2}]}', '{"predictions":[2.5,3.0]}', id="a named input"
        ),
        pytest.param(HALF, half_plus_two, '{"inputs": [[1.0],[2.0]]}', '{"outputs":[[2.5],[3.0]]}', id="a column"),
        pytest.param(HALF, half_plus_two, '{"inputs": {"x": [1.0]}}', '{"outputs":[2.5]}', id="a named column"),
        pytest.param(SCALAR, half_plus_two, '{"inputs": 1.0}', '{"outputs":2.5}', id="one bare value"),
        pytest.param(
            HALF, half_plus_two, '{"signature_name": "serving_default", "instances": [1]}', '{"predictions":[2.5]}',
            id="the usual signature by name",
        ),
        pytest.param(
            HALF, half_plus_two, '{"signature_name": "", "more": null, "instances": [1]}', '{"predictions":[2.5]}',
            id="no signature, and a key nobody knows",
        ),
        pytest.param(
            PLANE, same, '{"instances": [[[1,2],[3,4]],[[5,6],[7,8.5]]]}',
            '{"predictions":[[[1.0,2.0],[3.0,4.0]],[[5.0,6.0],[7.0,8.5]]]}', id="matrices",
        ),
        pytest.param(INTS, same, '{"instances": [1, -2, 2147483647]}', '{"predictions":[1,-2,2147483647]}', id="int32"),
        pytest.param(
            LONGS, same, '{"instances": [[9223372036854775807], [-9223372036854775808]]}',
            '{"predictions":[[9223372036854775807],[-9223372036854775808]]}', id="int64",
        ),
        pytest.param(BOOLS, same, '{"instances": [true, false]}', '{"predictions":[true,false]}', id="booleans"),
        pytest.param(TEXT, same, '{"instances": ["foo", "bär"]}', '{"predictions":["foo","bär"]}', id="strings"),
        pytest.param(
            TEXT, same, '{"instances": [{"b64": "Zm9v"}, "bar"]}', '{"predictions":["foo","bar"]}', id="base64 in"
        ),
        pytest.param(
            BYTES, same, '{"instances": ["foo", {"b64": "/w=="}]}', '{"predictions":[{"b64":"Zm9v"},{"b64":"/w=="}]}',
            id="base64 out where the name says so",
        ),
        pytest.param(TEXT, same, '{"inputs": {"b64": "Zm9v"}}', '{"outputs":"foo"}', id="one base64 value"),
        pytest.param(
            TEXT, same, '{"instances": [{"b64": "/w"}]}', '{"predictions":[{"b64":"/w=="}]}',
            id="bytes that are no text, without padding",
        ),
        pytest.param(
            DOUBLES, same, '{"instances": [[NaN, 1.5], [Infinity, -Infinity]]}',
            '{"predictions":[[NaN,1.5],[Infinity,-Infinity]]}', id="NaN and infinities",
        ),
        pytest.param(DOUBLES, same, '{"inputs": [[NaN], [1]]}', '{"outputs":[[NaN],[1.0]]}', id="NaN in a column"),
        pytest.param(
            SEVERAL, facts, f'{{"instances": [{TAGS}]}}',
            '{"predictions":[{"count":15,"name":"FOO","score":[1.0,2.0]},{"count":15,"name":"BAR","score":[4.0,5.0]}]}',
            id="several inputs and outputs in rows",
        ),
        pytest.param(
            SEVERAL, facts, f'{{"inputs": {TAG_COLUMNS}}}',
            '{"outputs":{"count":[15,15],"name":["FOO","BAR"],"score":[[1.0,2.0],[4.0,5.0]]}}',
            id="several inputs and outputs in columns",
        ),
    ],
)  # fmt: skip
def test_predict(model: Compiled, compute: Model, body: str, expected: str) -> None:
    assert answer(model, body, compute) == expected.encode()


def test_several_outputs_with_nan_in_rows() -> None:
    model = compiled(Tensor("x", "float32", ()), outputs=(Tensor("a", "float32", ()), Tensor("b", "float32", (2,))))
    body = answer(model, '{"instances": [1, NaN]}', lambda x: [x, np.stack([x, np.ones_like(x)], 1)])
    assert body == b'{"predictions":[{"a":1.0,"b":[1.0,1.0]},{"a":NaN,"b":[NaN,1.0]}]}'


@pytest.mark.parametrize("value", [0.1, 1 / 3, 9e6, 3e-5, 16777216.0, 1e-45, 3.4028235e38])
def test_a_float32_has_the_digits_of_a_float32(value: float) -> None:
    body = answer(SCALAR, orjson.dumps({"instances": [value]}), same)
    text = body.removeprefix(b'{"predictions":[').removesuffix(b"]}").decode()
    assert np.float32(text) == np.float32(value)
    assert "." in text or "e" in text
    assert len(text) <= 14


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        pytest.param(HALF, "", "JSON Parse error: The document is empty", id="empty"),
        pytest.param(HALF, "x", "JSON Parse error: Invalid value. at offset: 0", id="no JSON"),
        pytest.param(
            HALF, '{"instances": [1 2]}',
            "JSON Parse error: Missing a comma or ] after an array element. at offset: 17", id="no comma",
        ),
        pytest.param(HALF, "[1, 2]", "JSON Value: [1,2] Is not object", id="a list"),
        pytest.param(HALF, "NaN", "JSON Value: NaN Is not object", id="only NaN"),
        pytest.param(HALF, b'{"instances": ["\xff"]}', "JSON Parse error: Invalid encoding in string. at offset: 16",
                     id="no UTF-8"),
        pytest.param(HALF, '{"instances": [1e999]}', "JSON Parse error: Number too big to be stored in double.",
                     id="beyond a double"),
        pytest.param(HALF, '{"instances": [1], "instances": [2]}', 'the key "instances" is given twice', id="twice"),
        pytest.param(
            HALF, '{"instances": [NaN], "instances": [2]}', 'the key "instances" is given twice', id="twice, with NaN"
        ),
        pytest.param(
            HALF, '{"signature_name": 5, "instances": [1]}',
            'JSON Value: {"signature_name":5,"instances":[1]} not formatted correctly. '
            "'signature_name' key must be a string value.", id="signature is a number",
        ),
        pytest.param(HALF, '{"signature_name": "X", "instances": [1]}',
                     'Serving signature name: "X" not found in signature def', id="unknown signature"),
        pytest.param(HALF, "{}", "Missing 'inputs' or 'instances' key", id="neither form"),
        pytest.param(
            HALF, '{"instances": [1], "inputs": [1]}',
            'JSON Value: {"instances":[1],"inputs":[1]} Not formatted correctly expecting only one of'
            " 'inputs' or 'instances' keys to exist", id="both forms",
        ),
        pytest.param(HALF, '{"instances": 5}',
                     "JSON Value: {\"instances\":5} Expecting 'instances' to be an list/array", id="no list"),
        pytest.param(HALF, '{"instances": []}', "JSON Value: {\"instances\":[]} No values in 'instances' array",
                     id="no rows"),
        pytest.param(
            SEVERAL, '{"instances": [1, 2]}',
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per"
            " tensorinfo_map", id="a plain list for several inputs",
        ),
        pytest.param(
            SEVERAL, '{"inputs": [1, 2]}',
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per"
            " tensorinfo_map", id="a plain column for several inputs",
        ),
        pytest.param(SEVERAL, '{"inputs": {"tag": ["a"]}}', "Missing named input: sensor in 'inputs' object.",
                     id="a column is missing"),
        pytest.param(
            HALF, '{"instances": [1, "a"]}',
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT:"
            ' JSON Value: "a" Type: String is not of expected type: float', id="a string for a float",
        ),
        pytest.param(
            HALF, '{"instances": [true]}',
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT:"
            " JSON Value: true Type: True is not of expected type: float", id="a boolean for a float",
        ),
        pytest.param(
            HALF, '{"instances": [null]}',
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT:"
            " JSON Value: null Type: Null is not of expected type: float", id="null",
        ),
        pytest.param(
            INTS, '{"instances": [1.0]}',
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT:"
            " JSON Value: 1.0 Type: Number is not of expected type: int32", id="a float for an integer",
        ),
        pytest.param(
            INTS, '{"instances": [2147483648]}',
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT:"
            " JSON Value: 2147483648 Type: Number is not of expected type: int32", id="beyond an int32",
        ),
        pytest.param(
            SCALAR, '{"instances": [1e39]}',
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT:"
            " Cannot convert JSON value: 1e+39 to float without loss of precision.", id="beyond a float32",
        ),
        pytest.param(
            TEXT, '{"instances": [5]}',
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT:"
            " JSON Value: 5 Type: Number is not of expected type: string", id="a number for a string",
        ),
        pytest.param(
            TEXT, '{"instances": [{"b64": "_-=="}]}',
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: Unable to base64 decode",
            id="web-safe base64",
        ),
        pytest.param(
            TEXT, '{"instances": [["a"], [{"b64": 5}]]}',
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT:"
            ' JSON Value: {"b64":5} not formatted correctly for base64 data', id="base64 of a number",
        ),
        pytest.param(
            TEXT, '{"instances": ["a", {"b": 1}]}', "Expecting value/list but got object at item 1 of input list",
            id="an object among values",
        ),
        pytest.param(
            HALF, '{"instances": [{"x": 1}, [2]]}', "Expecting object but got list at item 1 of input list",
            id="a list among objects",
        ),
        pytest.param(
            HALF, '{"instances": [{"y": 1}]}',
            "Failed to process element: 0 key: y of 'instances' list. Error: INVALID_ARGUMENT:"
            " JSON object: does not have named input: y", id="an unknown input",
        ),
        pytest.param(
            SEVERAL, '{"instances": [{"tag": "a"}]}',
            "Failed to process element: 0 of 'instances' list. JSON object: {\"tag\":\"a\"}"
            " keys must be equal to: sensor,signal,tag", id="an input is missing",
        ),
        pytest.param(
            DOUBLES, '{"instances": [[1, 2], [3]]}',
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT:"
            " Expecting tensor size: 2 but got: 1", id="another size",
        ),
        pytest.param(
            PLANE, '{"instances": [[[1,2],[3,4]], [[1],[2],[3],[4]]]}',
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT:"
            " Expecting shape [2,2] but got: [4,1]", id="another shape",
        ),
        pytest.param(
            PLANE, '{"instances": [[[1,2],[3]]]}',
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT:"
            " Encountered list at unexpected size: 1 at level: 1 expected size: 2", id="ragged",
        ),
        pytest.param(
            PLANE, '{"instances": [[[1,2],[3,[4]]]]}',
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT:"
            " Encountered list at unexpected level: 2 expected < 2", id="too deep in one place",
        ),
        pytest.param(
            PLANE, '{"instances": [[[1,2],3]]}',
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT:"
            " JSON Value: 3 found at incorrect level: 2 in the JSON DOM. Expected at level: 2", id="too shallow",
        ),
        pytest.param(PLANE, '{"instances": [[1,2]]}', "Tensor name: x Expecting shape [-1,2,2] but got: [1,2]",
                     id="not the model's shape"),
        pytest.param(
            SEVERAL, '{"inputs": {"tag": ["a"], "signal": [[1,2,3,4,5],[1,2,3,4,5]], "sensor": [[[1,2],[3,4]]]}}',
            "'inputs' must have the same 0-th dimension, one for each row, but got: sensor 1, signal 2, tag 1",
            id="columns of different lengths",
        ),
        pytest.param(HALF, '{"inputs": []}', "No values in 'inputs'", id="an empty column"),
        pytest.param(HALF, '{"inputs": ["a"]}', 'JSON Value: "a" Type: String is not of expected type: float',
                     id="a string in a column"),
    ],
)  # fmt: skip
def test_predict_refuses(model: Compiled, body: str | bytes, expected: str) -> None:
    assert refused(model, body) == expected


def test_a_bad_value_far_into_the_body_is_found() -> None:
    rows: list[Any] = [0.5] * 5000
    rows[4321] = "x"
    assert refused(SCALAR, orjson.dumps({"instances": rows})).startswith("Failed to process element: 4321 of")
    assert 'Value: "x"' in refused(DOUBLES, orjson.dumps({"instances": [rows]}))


@pytest.mark.parametrize(
    "body",
    [b"[" * 2000, b'{"instances":' + b"[" * 900 + b"]" * 900 + b"}", b'{"a":' * 900 + b"NaN" + b"}" * 900],
    ids=["lists", "lists in rows", "objects"],
)
def test_a_body_that_is_nested_too_deep_is_refused(body: bytes) -> None:
    assert refused(DOUBLES, body)


def test_more_than_is_taken_is_too_large() -> None:
    bounded = compiled(Tensor("x", "float32", ()), max_rows=2)
    three = b'{"instances": [1, 2, 3]}'
    for model, asked in [
        (bounded, call("predict", three)),
        (SCALAR, call("predict", three, max_rows=2)),
        (SCALAR, call("predict", three, max_json_bytes=10)),
        (SCALAR, call("predict", b'{"inputs": [1, 2, 3]}', max_rows=2)),
        (SCALAR, call("predict", b'{"a": ' + b"[" * 300_000, max_rows=2)),
    ]:
        with pytest.raises(TooLarge):
            tf_serving.parse(OneVersion(model), asked)


# -- what a contract.json adds -----------------------------------------------------------------------------------------

AGE = compiled(Tensor("x", "float32", (2,)), fields=(Field("age", {"minimum": 0}), Field("height")))


def test_the_contracts_ranges_hold() -> None:
    assert answer(AGE, '{"instances": [[1, 2]]}', lambda x: [x[:, :1]]) == b'{"predictions":[[1.0]]}'
    assert (
        refused(AGE, '{"instances": [[1, 2], [-1, 2]]}')
        == "/instances/1/0 must be a number of at least 0, got the number -1"
    )
    assert "must be finite" in refused(AGE, '{"instances": [[NaN, 2]]}')
    assert "-1" in refused(AGE, '{"inputs": [[-1, 2]]}')


def test_text_in_base64_is_held_to_the_schema_as_text() -> None:
    model = compiled(Tensor("x", "string", ()), request_schema={"enum": ["foo"]})
    assert answer(model, '{"instances": [{"b64": "Zm9v"}]}', lambda x: [np.ones((1, 1), "f4")])
    assert "enum" in refused(model, '{"instances": [{"b64": "YmFy"}]}') or "must be" in refused(
        model, '{"instances": [{"b64": "YmFy"}]}'
    )


# -- signatures --------------------------------------------------------------------------------------------------------


def test_a_signature_is_chosen_by_any_of_its_names() -> None:
    usual = compiled(Tensor("x", "float32", (1,)), aliases=("serve",))
    other = compiled(Tensor("z", "float32", (1,)), signature="other", aliases=("twin",))
    version = OneVersion(usual, signatures={"other": other, "twin": other})
    for name, expected in [("serve", None), ("serving_default", None), ("other", "other"), ("twin", "other")]:
        body = orjson.dumps({"signature_name": name, "instances": [1.0]})
        assert tf_serving.parse(version, call("predict", body)).signature == expected


# -- answers that cannot be given --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([np.zeros((3, 1), "f4")], "Tensor name: y has inconsistent batch size: 3 expecting: 2"),
        ([np.array(1, "f4")], "Tensor name: y has no shape information"),
        ([np.zeros((2, 2), "f4")], "Tensor name: y has the shape"),
        ([], "0 outputs"),
    ],
    ids=["rows", "scalar", "shape", "none"],
)
def test_an_answer_of_another_form_is_the_models_fault(outputs: list[np.ndarray], expected: str) -> None:
    request = tf_serving.parse(OneVersion(HALF), call("predict", b'{"instances": [1, 2]}'))
    with pytest.raises(BadOutput, match=expected):
        tf_serving.render(HALF, request, [outputs])
