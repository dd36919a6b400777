"""What every dialect owes the front, whatever its language: the same suite for each of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contract import Contract, Tensor
from models.dialects import native, open_inference, tf_serving
from models.dialects.dialect import ADMIN, OPEN, PREDICT, Dialect, Fault, Request
from models.errors import BadInput, BadOutput, ModelsError, TooLarge
from models.schema import compile_contract
from tests.models.dialects.calls import OneVersion, call


@dataclass(frozen=True)
class Spoken:
    """A dialect, and how one asks it for rows of the input x and finds the rows of the output y in its answer."""

    dialect: Dialect
    action: str
    body: Callable[[list[list[float]]], Any]
    rows: Callable[[Any], Any]


def _tensor(rows: list[list[float]]) -> Any:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [len(rows), len(rows[0])], "data": rows}]}


DIALECTS = [
    Spoken(native, "predict", lambda rows: {"instances": rows}, lambda answer: answer["predictions"]),
    Spoken(tf_serving, "predict", lambda rows: {"instances": rows}, lambda answer: answer["predictions"]),
    Spoken(open_inference, "infer", _tensor, lambda answer: answer["outputs"][0]["data"]),
]

MODEL = compile_contract(Contract("m", "7", (Tensor("x", "float32", (3,)),), (Tensor("y", "float32", (3,)),)))
VERSION = OneVersion(MODEL)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
MATRICES = st.lists(st.lists(FLOATS, min_size=3, max_size=3), min_size=1, max_size=5)

each_dialect = pytest.mark.parametrize("spoken", DIALECTS, ids=lambda spoken: spoken.dialect.NAME)


def parsed(spoken: Spoken, rows: list[list[float]]) -> Request:
    return spoken.dialect.parse(VERSION, call(spoken.action, orjson.dumps(spoken.body(rows))))


@each_dialect
@settings(max_examples=50, deadline=None)
@given(rows=MATRICES)
def test_rows_go_in_and_come_out_with_the_same_bits(spoken: Spoken, rows: list[list[float]]) -> None:
    request = parsed(spoken, rows)
    wanted = np.array(rows, "float32")
    assert request.count == len(rows)
    assert sorted(row for item in request.items for row in item.rows) == list(range(len(rows)))
    assert np.concatenate([item.arrays[0] for item in request.items]).tobytes() == wanted.tobytes()
    rendered = spoken.dialect.render(MODEL, request, [item.arrays for item in request.items])
    assert rendered.status == 200
    answer = np.array(spoken.rows(orjson.loads(rendered.body)), "float32").reshape(wanted.shape)
    assert answer.tobytes() == wanted.tobytes()


@each_dialect
@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"[]", b"{}", b"null", b'"a"', b"\xff", b'{"a": 1}', b"{" * 5000, b'{"x": ' + b"9" * 5000 + b"}"],
    ids=["nothing", "no JSON", "a list", "no keys", "null", "a string", "no UTF-8", "other keys", "depth", "digits"],
)
def test_a_body_of_no_known_form_is_bad_input(spoken: Spoken, body: bytes) -> None:
    with pytest.raises(BadInput) as caught:
        spoken.dialect.parse(VERSION, call(spoken.action, body))
    assert 0 < len(caught.value.message) <= 1000


@each_dialect
@settings(max_examples=100, deadline=None)
@given(body=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["instances", "inputs", "x", "b64", "outputs", "data"]), inner, max_size=3)
), max_leaves=10))  # fmt: skip
def test_whatever_is_sent_is_understood_or_refused(spoken: Spoken, body: Any) -> None:
    text = orjson.dumps(body, option=orjson.OPT_PASSTHROUGH_SUBCLASS) if _fits(body) else repr(body).encode()
    try:
        request = spoken.dialect.parse(VERSION, call(spoken.action, text))
    except ModelsError:
        return
    assert all(item.arrays[0].shape == (len(item.rows), 3) for item in request.items)


def _fits(body: Any) -> bool:
    try:
        orjson.dumps(body)
    except TypeError:  # an integer beyond 64 bits
        return False
    return True


@each_dialect
@pytest.mark.parametrize(
    "row", [[1, 2], [1, 2, 3, 4], [1, 2, "3"], [1, 2, None], [1, 2, True], [1, 2, [3]]],
    ids=["short", "long", "text", "null", "a boolean", "a list"],
)  # fmt: skip
def test_a_row_that_is_not_the_models_is_bad_input(spoken: Spoken, row: list[Any]) -> None:
    with pytest.raises(BadInput):
        parsed(spoken, [row])


@each_dialect
@pytest.mark.parametrize(
    "outputs",
    [[np.zeros((1, 3), "f4")], [np.zeros((2, 2), "f4")], [], [np.zeros((2, 3), "f4")] * 2, [np.zeros(2, "f4")]],
    ids=["other rows", "another shape", "none", "too many", "no columns"],
)
def test_an_answer_that_is_not_the_contracts_is_the_models_fault(spoken: Spoken, outputs: list[Any]) -> None:
    request = parsed(spoken, [[1, 2, 3], [4, 5, 6]])
    with pytest.raises(BadOutput):
        spoken.dialect.render(MODEL, request, [outputs for _ in request.items])


@each_dialect
def test_more_than_is_taken_is_refused(spoken: Spoken) -> None:
    body = orjson.dumps(spoken.body([[1, 2, 3]] * 4))
    with pytest.raises(TooLarge):
        spoken.dialect.parse(VERSION, call(spoken.action, body, max_json_bytes=len(body) - 1))
    with pytest.raises((TooLarge, BadInput), match="3"):  # of too many rows some originals say 400
        spoken.dialect.parse(VERSION, call(spoken.action, body, max_rows=3))


@each_dialect
def test_routes_are_well_formed(spoken: Spoken) -> None:
    routes = spoken.dialect.ROUTES
    assert len({(route.verb, route.template) for route in routes}) == len(routes)
    assert any(route.infers and route.action == spoken.action for route in routes)
    for route in routes:
        assert route.verb in ("GET", "POST")
        assert route.template.startswith(spoken.dialect.PREFIX.rstrip("/"))
        assert set(re.findall(r"{(.*?)}", route.template)) <= {"model", "version", "label"}
        assert not re.search(r"[{}]", re.sub(r"{(model|version|label)}", "", route.template))
        assert route.key in (OPEN, PREDICT, ADMIN)


@each_dialect
@pytest.mark.parametrize(
    ("code", "status"),
    [("BAD_INPUT", 400), ("NOT_FOUND", 404), ("METHOD_NOT_ALLOWED", 405), ("TOO_LARGE", 413), ("PREDICT_FAILED", 500),
     ("INTERNAL_ERROR", 500), ("NOT_IMPLEMENTED", 501), ("OVERLOADED", 503), ("NOT_READY", 503), ("TIMEOUT", 504)],
)  # fmt: skip
@pytest.mark.parametrize("model", [None, "m"], ids=["no model", "a model"])
def test_every_refusal_has_a_body_and_a_status(spoken: Spoken, code: str, status: int, model: str | None) -> None:
    hostile = 'a"\ud800\x00' + "b" * 3000
    for text in ("words", hostile):
        path = spoken.dialect.PREFIX + text
        rendered = spoken.dialect.refuse(Fault(code, "words", status, "POST", path, model, text))
        assert 400 <= rendered.status < 600
        assert rendered.content_type == "application/json"
        assert len(rendered.body) <= 2048
        assert orjson.loads(rendered.body)["error"]
