"""A compiled contract: which bodies it takes, what it publishes, and what it finds wrong at load."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from models.contract import Contract, Example, Field, Image, Tensor
from models.errors import LoadError
from models.schema import compile_contract, explain
from tests.models.contracts import FIELDS, SCALAR, SEQUENCE, SEVERAL, TEN, VECTOR, contract
from tests.models.strategies import SCHEMAS, contracts, rows


@pytest.mark.parametrize(
    ("model", "body"),
    [
        pytest.param(VECTOR, {"features": TEN}, id="features"),
        pytest.param(VECTOR, {"x": TEN}, id="the input's own name"),
        pytest.param(VECTOR, {"instances": [TEN, TEN]}, id="bare rows"),
        pytest.param(VECTOR, {"instances": [{"features": TEN}]}, id="rows of features"),
        pytest.param(VECTOR, {"instances": [{"x": TEN}]}, id="rows by name"),
        pytest.param(FIELDS, {"feature1": 1, "feature2": 2.5}, id="named fields"),
        pytest.param(FIELDS, {"feature2": 2.5, "feature1": 1}, id="named fields in any order"),
        pytest.param(FIELDS, {"features": [1, 10]}, id="fields in order"),
        pytest.param(FIELDS, {"instances": [{"feature1": 1, "feature2": 2}]}, id="rows of fields"),
        pytest.param(FIELDS, {"instances": [[1, 2], [3, 4]]}, id="bare rows of fields"),
        pytest.param(SCALAR, {"x": 3}, id="a scalar by name"),
        pytest.param(SCALAR, {"features": 3.0}, id="a whole number with a fraction of zero"),
        pytest.param(SCALAR, {"instances": [1, 2, 3]}, id="bare scalars"),
        pytest.param(SEVERAL, {"a": [0, 255], "b": "text", "c": [[True, False]]}, id="several inputs"),
        pytest.param(SEVERAL, {"instances": [{"a": [0, 255], "b": "", "c": [[]]}]}, id="rows of several inputs"),
        pytest.param(SEQUENCE, {"tokens": []}, id="an empty sequence"),
        pytest.param(SEQUENCE, {"tokens": [2**63 - 1, -(2**63)]}, id="the ends of int64"),
    ],
)
def test_every_form_is_taken_and_published(model: Contract, body: dict[str, Any]) -> None:
    compiled = compile_contract(model)
    assert compiled.form_of(body) is not None
    assert Draft202012Validator(compiled.json_schema).is_valid(body)


@settings(max_examples=200)
@given(contracts(), st.data())
def test_rows_of_the_right_dtype_and_shape_are_always_taken(model: Contract, data: st.DataObject) -> None:
    compiled = compile_contract(model)
    columns = {tensor.name: data.draw(rows(tensor, 2)) for tensor in model.inputs}
    instances = [{name: column[row] for name, column in columns.items()} for row in range(2)]
    if len(model.inputs) > 1 or model.inputs[0].name != "instances":
        assert compiled.form_of(instances[0]) is not None
        assert compiled.form_of({"instances": instances}) is not None
    if len(model.inputs) == 1:
        (column,) = columns.values()
        assert compiled.form_of({"features": column[0]}) is not None
        assert compiled.form_of({"instances": column}) is not None


@given(SCHEMAS)
def test_a_users_schema_holds_in_every_form(schema: dict[str, Any]) -> None:
    narrowed = replace(SEVERAL, request_schema=schema)
    body = {"a": [1, 2], "b": "text", "c": [[True]]}
    try:
        compiled = compile_contract(narrowed)
    except LoadError as error:
        assert "no request was found" in error.reason  # noqa: PT017
        return
    assert (compiled.form_of(body) is not None) == Draft202012Validator(schema).is_valid(body)
    assert (compiled.form_of({"instances": [body]}) is not None) == Draft202012Validator(schema).is_valid(body)


def test_a_users_schema_speaks_of_the_only_inputs_value() -> None:
    compiled = compile_contract(replace(VECTOR, request_schema={"items": {"minimum": 3}}))
    assert compiled.form_of({"features": [3] * 10})
    for body in ({"features": TEN}, {"x": TEN}, {"instances": [TEN]}, {"instances": [{"x": TEN}]}):
        assert compiled.form_of(body) is None
    fault = explain(compiled, {"features": [3, *TEN[1:]]})
    assert fault.message == "/features/1 must be a number of at least 3, got the number 0.5"


def test_an_input_whose_name_is_a_field_or_a_general_key_is_no_form_of_its_own() -> None:
    by_field = compile_contract(contract(Tensor("feature", "float32", (1,)), fields=(Field("feature"),)))
    assert by_field.form_of({"feature": 1.5}) is not None
    assert by_field.form_of({"feature": [1.5]}) is None
    rows_of = compile_contract(contract(Tensor("instances", "float32", (2,))))
    assert rows_of.form_of({"instances": [1, 2]}) is None
    assert rows_of.form_of({"instances": [[1, 2]]}) is not None


def test_a_scalar_input_may_have_its_one_field() -> None:
    compiled = compile_contract(contract(Tensor("x", "float32", ()), fields=(Field("feature", {"minimum": 0}),)))
    assert compiled.sample == {"feature": 0.5}
    assert compiled.form_of({"features": 1}) is not None
    assert compiled.form_of({"features": -1}) is None


def test_several_inputs_may_be_called_as_the_general_keys_are() -> None:
    compiled = compile_contract(contract(Tensor("instances", "float32", ()), Tensor("features", "float32", ())))
    assert compiled.form_of({"instances": 1, "features": 2}) is not None
    assert compiled.form_of({"instances": [{"instances": 1, "features": 2}]}) is not None
    assert explain(compiled, {"instances": 1, "features": "2"}).path == "/features"


def test_the_published_schema_says_what_each_form_is_for() -> None:
    published = compile_contract(replace(FIELDS, description="adds two numbers", max_rows=5)).json_schema
    Draft202012Validator.check_schema(published)
    assert published["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert published["description"] == "adds two numbers"
    assert [form["title"] for form in published["anyOf"]] == [
        "named fields",
        "features",
        "the input by name",
        "instances of named fields",
        "instances of features",
        "instances of the input by name",
        "instances of values",
    ]
    assert published["anyOf"][3]["properties"]["instances"]["maxItems"] == 5


@given(contracts())
def test_a_generated_sample_passes_and_is_published_as_json(model: Contract) -> None:
    compiled = compile_contract(model)
    assert compiled.form_of(orjson.loads(orjson.dumps(compiled.sample))) is not None


def test_the_first_example_is_the_sample() -> None:
    example = Example({"features": [3, 4]}, {"prediction": 7})
    assert compile_contract(replace(FIELDS, examples=(example,))).sample == {"features": [3, 4]}


def test_an_example_that_the_model_would_refuse_is_found_at_load() -> None:
    model = replace(FIELDS, examples=(Example({"features": [3, 4]}), Example({"features": [3]})))
    with pytest.raises(LoadError) as caught:
        compile_contract(model)
    assert caught.value.reason == 'contract.json: examples 1: request: "features" holds 1 values, expected 2'


@pytest.mark.parametrize("request_body", [{"image": "aGk="}, {"instances": ["aGk="]}, {"instances": [{"image": ""}]}])
def test_examples_with_pictures_are_left_to_others(request_body: dict[str, Any]) -> None:
    model = contract(Tensor("x", "float32", (8, 8)), image=Image("x", 8, 8, "grey"), examples=(Example(request_body),))
    assert compile_contract(model).form_of(compile_contract(model).sample) is not None
    with pytest.raises(LoadError, match="examples 0"):
        compile_contract(replace(model, image=None))


def test_ranges_that_no_request_satisfies_are_found_at_load() -> None:
    fields = (Field("a", {"minimum": 2, "maximum": 1}), Field("b"))
    with pytest.raises(LoadError, match="no request was found that satisfies"):
        compile_contract(replace(FIELDS, fields=fields))


def test_a_large_picture_in_numbers_has_no_sample_and_compiles_at_once() -> None:
    started = time.process_time()
    compiled = compile_contract(contract(Tensor("x", "float32", (4096, 4096, 3))))
    assert time.process_time() - started < 0.5  # a sample would take seconds
    assert compiled.sample is None
    assert explain(compiled, {"features": 1}).sample is None
