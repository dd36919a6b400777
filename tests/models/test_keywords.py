"""The allowed JSON Schema keywords: both validators agree on them, and anything else is refused with a reason."""

from __future__ import annotations

import math
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from models.errors import LoadError
from models.keywords import ALLOWED, both, check, words
from tests.models.strategies import JSON_NUMBERS, NUMBERS, SCHEMAS, VALUES


def accepts(schema: dict[str, Any], value: Any) -> bool:
    return bool(jsonschema_rs.Draft202012Validator(schema).is_valid(value))


@settings(max_examples=300)
@given(SCHEMAS, VALUES)
def test_both_validators_accept_the_same_over_the_allowed_keywords(schema: dict[str, Any], value: Any) -> None:
    check(schema, "request_schema")
    assert accepts(schema, value) == Draft202012Validator(schema).is_valid(value)


@settings(max_examples=300)
@given(st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "const"]), NUMBERS, st.data())
def test_both_validators_agree_at_and_around_a_bound(keyword: str, bound: float, data: st.DataObject) -> None:
    near = [bound, float(bound), int(bound), math.nextafter(bound, math.inf), math.nextafter(bound, -math.inf)]
    value = data.draw(st.sampled_from(near) | JSON_NUMBERS)
    schema = {keyword: bound}
    check(schema, "request_schema")
    assert accepts(schema, value) == Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        pytest.param([], "s must be an object of JSON Schema keywords", id="no object"),
        pytest.param(True, "s must be an object of JSON Schema keywords", id="a boolean schema"),
        pytest.param({"$ref": "#/x"}, "s: the keyword $ref is not offered: nothing is looked up", id="$ref"),
        pytest.param({"format": "email"}, "s: the keyword format is not offered: validators differ", id="format"),
        pytest.param({"pattern": "a"}, "s: the keyword pattern is not offered: validators differ", id="pattern"),
        pytest.param(
            {"multipleOf": 2},
            's: the keyword multipleOf is not offered: validators differ on it; use "type"',
            id="multipleOf",
        ),
        pytest.param(
            {"uniqueItems": True}, "s: the keyword uniqueItems is not offered: it takes quadratic", id="uniqueItems"
        ),
        pytest.param({"oneOf": []}, "s: the keyword oneOf is not offered: use anyOf", id="oneOf"),
        pytest.param(
            {"prefixItems": []}, "s: the keyword prefixItems is not offered: name the columns", id="prefixItems"
        ),
        pytest.param({"minimun": 1}, "s: the keyword minimun is not offered; did you mean minimum?", id="typo"),
        pytest.param({"if": {}}, "s: the keyword if is not offered; use only type, enum, const", id="unknown"),
        pytest.param({"minimum": "1"}, "s: minimum must be a number from -2^53 to 2^53", id="a string as bound"),
        pytest.param({"minimum": True}, "s: minimum must be a number", id="a boolean as bound"),
        pytest.param({"maximum": math.nan}, "s: maximum must be a number", id="NaN as bound"),
        pytest.param({"maximum": 2**53 + 1}, "s: maximum must be a number from -2^53 to 2^53", id="beyond 2^53"),
        pytest.param({"maximum": 10**400}, "s: maximum must be a number from -2^53 to 2^53", id="beyond any float"),
        pytest.param({"minItems": -1}, "s: minItems must be a whole number from 0 to 1000000", id="negative count"),
        pytest.param({"minItems": 1.0}, "s: minItems must be a whole number", id="a float as count"),
        pytest.param({"maxLength": 10**9}, "s: maxLength must be a whole number from 0 to 1000000", id="huge count"),
        pytest.param({"type": "float"}, "s: type must be one or a list of null, boolean", id="unknown type"),
        pytest.param({"type": []}, "s: type must be one or a list of", id="no type"),
        pytest.param({"enum": []}, "s: enum must be a list of plain values", id="empty enum"),
        pytest.param({"enum": [[1]]}, "s: enum must be a list of plain values", id="nested enum"),
        pytest.param({"const": {}}, "s: const must be a plain value", id="nested const"),
        pytest.param({"required": ["a", "a"]}, "s: required must be a list of different names", id="required twice"),
        pytest.param({"required": "a"}, "s: required must be a list of different names", id="required no list"),
        pytest.param({"title": 1}, "s: title must be a string", id="title"),
        pytest.param({"properties": []}, "s: properties must be an object of names and schemas", id="properties"),
        pytest.param({"allOf": []}, "s: allOf must be a list of at least one schema", id="allOf"),
        pytest.param({"items": [{}]}, "s: items must be an object of JSON Schema keywords", id="items a list"),
        pytest.param(
            {"properties": {"a": {"anyOf": [{}, {"pattern": ""}]}}},
            "s: properties: a: anyOf 1: the keyword pattern is not offered",
            id="inside",
        ),
    ],
)
def test_what_is_not_allowed_is_refused_with_its_place_and_what_to_write(schema: Any, reason: str) -> None:
    with pytest.raises(LoadError) as caught:
        check(schema, "s")
    assert caught.value.reason.startswith(reason)
    assert "\n" not in caught.value.reason


def test_schemas_nested_beyond_reason_are_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"items": schema}
    with pytest.raises(LoadError, match="nests schemas deeper than 16"):
        check(schema, "s")


@given(SCHEMAS, SCHEMAS, VALUES)
def test_joined_schemas_accept_what_both_accept(base: dict[str, Any], extra: dict[str, Any], value: Any) -> None:
    assert accepts(both(base, extra), value) == (accepts(base, value) and accepts(extra, value))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, "a value"),
        ({"type": "number"}, "a number"),
        ({"type": "number", "minimum": 0, "maximum": 10}, "a number from 0 to 10"),
        ({"type": "integer", "exclusiveMinimum": 0}, "a whole number above 0"),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "a number of at least 0 below 1"),
        ({"type": "boolean"}, "true or false"),
        ({"type": ["string", "null"]}, "a string or null"),
        ({"type": "string", "minLength": 1, "maxLength": 5}, "a string of 1 to 5 characters"),
        ({"type": "string", "maxLength": 5}, "a string of at most 5 characters"),
        ({"type": "array", "items": {"type": "number"}, "minItems": 10, "maxItems": 10}, "a list of 10 numbers"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 1}, "a list of at least 1 strings"),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 1}, "a list of true or false"),
        ({"type": "array"}, "a list of values"),
        (
            {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "array", "items": {"type": "integer"}}},
            "a list of 2 lists of whole numbers",
        ),
        ({"type": "object", "required": ["a", "b"]}, 'an object with "a", "b"'),
        ({"type": "object"}, "an object"),
        ({"enum": ["a", 1, None]}, 'one of "a", 1, null'),
        ({"const": True}, "the value true"),
        ({"anyOf": [{"type": "number", "maximum": 0}, {"const": 5}]}, "a number of at most 0 or the value 5"),
        ({"allOf": [{"type": "number"}, {"type": "integer", "minimum": 1}]}, "a whole number of at least 1"),
        ({"allOf": [{"type": "number"}, {"minimum": 1}]}, "a number"),
        ({"allOf": [{"minimum": 1}]}, "a number of at least 1"),
        ({"minLength": 2}, "a string of at least 2 characters"),
        ({"items": {"maximum": 1}}, "a list of numbers of at most 1"),
        ({"type": "object", "maxProperties": 2}, "an object of at most 2 members"),
        ({"additionalProperties": False}, "an object"),
    ],
)
def test_a_schema_is_said_in_words(schema: dict[str, Any], expected: str) -> None:
    assert words(schema) == expected


@given(SCHEMAS)
def test_every_allowed_schema_can_be_said_in_words(schema: dict[str, Any]) -> None:
    assert words(schema)


def test_the_list_of_allowed_keywords_is_the_one_that_is_documented() -> None:
    assert set(ALLOWED) == {
        *("type", "enum", "const", "title", "description", "required", "properties", "additionalProperties", "items"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength"),
        *("minItems", "maxItems", "minProperties", "maxProperties", "allOf", "anyOf"),
    }
