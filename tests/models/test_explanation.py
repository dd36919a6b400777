"""A refused body is explained by its first fault in document order, and both validators agree on what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from models import explanation
from models.contract import Contract, Field, Tensor
from models.schema import Compiled, compile_contract, explain
from tests.models.contracts import FIELDS, SCALAR, SEQUENCE, SEVERAL, TEN, VECTOR, contract
from tests.models.strategies import SCHEMAS, VALUES, contracts


@pytest.mark.parametrize(
    ("model", "body", "path", "message", "expected"),
    [
        pytest.param(
            VECTOR,
            {"features": TEN[1:]},
            "/features",
            '"features" holds 9 numbers, expected 10',
            "a list of 10 numbers",
            id="too short",
        ),
        pytest.param(
            VECTOR,
            {"features": [*TEN, 1]},
            "/features",
            '"features" holds 11 numbers, expected 10',
            "a list of 10 numbers",
            id="too long",
        ),
        pytest.param(
            VECTOR,
            {"features": [*TEN[1:], True]},
            "/features/9",
            "/features/9 must be a number, got true",
            "a number",
            id="a boolean for a number",
        ),
        pytest.param(
            VECTOR,
            {"features": [1, "2", None]},
            "/features/1",
            '/features/1 must be a number, got the string "2"',
            "a number",
            id="the first of several faults",
        ),
        pytest.param(
            VECTOR,
            {"features": "1,2,3"},
            "/features",
            '"features" must be a list of 10 numbers, got the string "1,2,3"',
            "a list of 10 numbers",
            id="a string for a list",
        ),
        pytest.param(VECTOR, {}, "", '"features" is missing', 'an object with "features"', id="nothing"),
        pytest.param(
            VECTOR,
            {"feture": TEN},
            "/feture",
            'unknown key "feture", did you mean "features"?',
            'only the keys "features"',
            id="a misspelt key",
        ),
        pytest.param(
            VECTOR,
            {"features": TEN, "model": "m"},
            "/model",
            'unknown key "model"',
            'only the keys "features"',
            id="a key too many",
        ),
        pytest.param(
            VECTOR,
            {"features": [TEN, TEN]},
            "/features",
            '"features" takes one row and holds a list of 2; send rows as {"instances": [row, …]}',
            'one row, or rows under "instances"',
            id="rows where one was due",
        ),
        pytest.param(
            VECTOR,
            {"instances": []},
            "/instances",
            '"instances" holds 0 objects, expected at least 1',
            'a list of at least 1 objects with "features"',
            id="no rows",
        ),
        pytest.param(
            VECTOR,
            {"instances": [TEN, TEN[1:]]},
            "/instances/1",
            "/instances/1 holds 9 numbers, expected 10",
            "a list of 10 numbers",
            id="a short row",
        ),
        pytest.param(
            VECTOR,
            {"instances": [{"features": TEN}, {"features": [*TEN[1:], None]}]},
            "/instances/1/features/9",
            "/instances/1/features/9 must be a number, got null",
            "a number",
            id="deep in a row",
        ),
        pytest.param(
            VECTOR,
            {"instances": [{"x": TEN}, {"features": TEN}]},
            "/instances/1/features",
            'unknown key "features"',
            'only the keys "x"',
            id="mixed forms",
        ),
        pytest.param(
            VECTOR,
            {"instances": TEN},
            "/instances/0",
            "/instances/0 must be a list of 10 numbers, got the number 0.5",
            "a list of 10 numbers",
            id="a row where rows were due",
        ),
        pytest.param(
            FIELDS,
            {"feature1": 1},
            "",
            '"feature2" is missing',
            'an object with "feature1", "feature2"',
            id="a missing field",
        ),
        pytest.param(
            FIELDS,
            {"feture1": 1, "feature2": 2},
            "/feture1",
            'unknown key "feture1", did you mean "feature1"?',
            'only the keys "feature1", "feature2"',
            id="a misspelt field",
        ),
        pytest.param(
            FIELDS,
            {"feature1": 1, "feature2": 2, "feature3": 3},
            "/feature3",
            'unknown key "feature3"',
            'only the keys "feature1", "feature2"',
            id="a field too many",
        ),
        pytest.param(
            FIELDS,
            {"feature1": 1, "feature2": 10.5},
            "/feature2",
            '"feature2" must be a number from 0 to 10, got the number 10.5',
            "a number from 0 to 10",
            id="out of a field's range",
        ),
        pytest.param(
            FIELDS,
            {"features": [1, -1]},
            "/features/1",
            "/features/1 must be a number from 0 to 10, got the number -1",
            "a number from 0 to 10",
            id="out of a field's range by position",
        ),
        pytest.param(
            FIELDS,
            {"instances": [{"feature1": 1, "feature2": 2}, {"feature2": 2}]},
            "/instances/1",
            '/instances/1 lacks "feature1"',
            'an object with "feature1", "feature2"',
            id="a missing field in a row",
        ),
        pytest.param(
            SCALAR,
            {"x": 2**31},
            "/x",
            '"x" must be a whole number from -2147483648 to 2147483647, got the number 2147483648',
            "a whole number from -2147483648 to 2147483647",
            id="beyond int32",
        ),
        pytest.param(
            SCALAR,
            {"x": 1.5},
            "/x",
            '"x" must be a whole number from -2147483648 to 2147483647, got the number 1.5',
            "a whole number from -2147483648 to 2147483647",
            id="a fraction for an integer",
        ),
        pytest.param(
            SEVERAL,
            {"a": [0, 256], "b": "", "c": [[]]},
            "/a/1",
            "/a/1 must be a whole number from 0 to 255, got the number 256",
            "a whole number from 0 to 255",
            id="beyond uint8",
        ),
        pytest.param(
            SEVERAL,
            {"a": [0, 1], "b": 1, "c": [[]]},
            "/b",
            '"b" must be a string, got the number 1',
            "a string",
            id="a number for a string",
        ),
        pytest.param(
            SEVERAL,
            {"a": [0, 1], "b": "", "c": [[True, 1]]},
            "/c/0/1",
            "/c/0/1 must be true or false, got the number 1",
            "true or false",
            id="a number for a boolean",
        ),
        pytest.param(
            SEVERAL,
            {"c": [[1]], "a": [0, 256], "b": 1},
            "/c/0/0",
            "/c/0/0 must be true or false, got the number 1",
            "true or false",
            id="document order, not the contract's",
        ),
        pytest.param(
            SEVERAL, {"a": [0, 1]}, "", '"b" is missing', 'an object with "a", "b", "c"', id="a missing input"
        ),
        pytest.param(
            SEQUENCE,
            {"tokens": [1, 2**63]},
            "/tokens/1",
            "/tokens/1 must be a whole number of at most 9223372036854775807, got the number 9223372036854775808",
            "a whole number of at most 9223372036854775807",
            id="beyond int64",
        ),
    ],
)
def test_a_refusal_names_the_first_bad_element_and_what_was_expected(
    model: Contract, body: dict[str, Any], path: str, message: str, expected: str
) -> None:
    compiled = compile_contract(model)
    assert compiled.form_of(body) is None
    fault = explain(compiled, body)
    assert (fault.path, fault.message, fault.expected) == (path, message, expected)
    assert compiled.form_of(fault.sample) is not None


BODIES = st.dictionaries(st.sampled_from(["x", "features", "instances", "y z/~", "fetures"]), VALUES, max_size=3)


@st.composite
def near_misses(draw: st.DrawFn, compiled: Compiled) -> Any:
    """The sample with one element replaced: bodies that are nearly right."""
    parsed: dict[str, Any] = orjson.loads(orjson.dumps(compiled.sample))
    node: Any = parsed
    while True:
        key = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[key], list | dict) or not node[key] or draw(st.booleans()):
            node[key] = draw(VALUES)
            return parsed
        node = node[key]


@settings(max_examples=300)
@given(contracts(), st.data())
def test_both_validators_agree_on_every_form_and_every_refusal_is_explained(
    model: Contract, data: st.DataObject
) -> None:
    compiled = compile_contract(model)
    body = data.draw(BODIES | near_misses(compiled))
    for form in compiled.forms:
        assert form.accepts(body) == explanation.judge(form).is_valid(body)
        assert form.accepts(body) == Draft202012Validator(form.schema).is_valid(body)
    if compiled.form_of(body) is not None:
        return
    fault = explain(compiled, body)
    assert fault.path is not None
    assert fault.expected
    assert not fault.message.startswith("the body does not fit the form")  # a place was found


@given(SCHEMAS, VALUES)
def test_the_judge_finds_a_fault_exactly_where_plain_jsonschema_does(schema: dict[str, Any], value: Any) -> None:
    form = replace(compile_contract(VECTOR).forms[0], schema=schema)
    assert explanation.judge(form).is_valid(value) == Draft202012Validator(schema).is_valid(value)


def test_a_sample_too_long_for_an_answer_is_not_sent_with_errors() -> None:
    compiled = compile_contract(contract(Tensor("x", "float32", (28, 28))))
    assert compiled.form_of(compiled.sample) is not None
    assert explain(compiled, {"features": 1}).sample is None


def test_where_the_validators_disagree_the_refusal_has_no_place() -> None:
    compiled = compile_contract(VECTOR)
    fault = explain(compiled, {"features": TEN})  # nothing wrong with it
    assert fault.message == "the body does not fit the form: features"
    assert (fault.path, fault.expected) == ("", 'an object with "features"')


def test_a_body_too_deep_to_walk_is_refused_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_deep(*_: Any) -> Any:
        raise RecursionError

    monkeypatch.setattr(explanation, "_position", too_deep)
    assert explain(compile_contract(VECTOR), {"features": 1}).message == "the body does not fit the form: features"


def test_a_deep_body_is_explained() -> None:
    deep = orjson.loads(b'{"features": ' + b"[" * 1000 + b"]" * 1000 + b"}")
    assert explain(compile_contract(VECTOR), deep).path == "/features/0"


def test_a_refusal_repeats_little_of_what_was_sent() -> None:
    compiled = compile_contract(FIELDS)
    for body in ({"k" * 10**6: 1}, {"features": ["v" * 10**6, 1]}, {"instances": [{"k" * 10**6: "v" * 10**6}]}):
        fault = explain(compiled, body)
        said = fault.message + str(fault.path) + str(fault.expected)
        assert said.count("k") + said.count("v") < 200
        assert len(orjson.dumps([fault.message, fault.path, fault.expected, fault.sample])) < 2048


def test_a_refusal_fits_an_errors_body_however_many_fields_there_are() -> None:
    fields = tuple(Field(f"a rather long name of a column, number {index}") for index in range(500))
    compiled = compile_contract(contract(Tensor("x", "float32", (500,)), fields=fields))
    fault = explain(compiled, {"a": 1})
    assert len(orjson.dumps([fault.message, fault.path, fault.expected, fault.sample])) < 2048


def test_nothing_is_ever_fetched() -> None:
    compiled = compile_contract(VECTOR)
    form = replace(compiled.forms[0], schema={"$ref": "http://127.0.0.1:9/schema"})
    with pytest.raises(Exception, match="Unresolvable"):
        explanation.judge(form).is_valid({})
