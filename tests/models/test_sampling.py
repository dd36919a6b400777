"""A sample always passes the schema it was made for, and contradictions are found."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings

from models.sampling import sample
from tests.models.strategies import SCHEMAS

Schema = dict[str, Any]


@settings(max_examples=200)
@given(SCHEMAS)
def test_a_sample_passes_or_there_is_none(schema: Schema) -> None:
    try:
        value = sample(schema)
    except LookupError:
        return
    assert jsonschema_rs.Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "exclusiveMinimum": 100, "maximum": 101},
        {"type": "number", "exclusiveMinimum": 0.25, "exclusiveMaximum": 0.26},
        {"type": "integer", "minimum": 3, "maximum": 3},
        {"type": "integer", "exclusiveMinimum": -7, "exclusiveMaximum": -5},
        {"type": "string", "minLength": 2000},
        {"type": "string", "maxLength": 0},
        {"type": "array", "items": {"type": "number", "maximum": -5}, "minItems": 4},
        {"type": "array", "prefixItems": [{"const": "a"}, {"minimum": 9, "type": "number"}], "minItems": 3},
        {"type": "array", "maxItems": 0},
        {"allOf": [{"type": "number"}, {"anyOf": [{"minimum": 5, "maximum": 4}, {"minimum": 7}]}]},
        {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a", "b"]},
        {"type": "object", "required": ["a"], "additionalProperties": {"type": "string"}},
    ],
    ids=str,
)
def test_a_sample_is_found_for_any_usual_narrowing(schema: Schema) -> None:
    assert jsonschema_rs.Draft202012Validator(schema).is_valid(sample(schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "minimum": 2, "maximum": 1},
        {"type": "array", "items": {"type": "string", "minLength": 2, "maxLength": 1}, "minItems": 1},
        {"type": "object", "properties": {"a": {"enum": [1], "type": "string"}}, "required": ["a"]},
    ],
    ids=str,
)
def test_a_contradiction_has_no_sample(schema: Schema) -> None:
    with pytest.raises(LookupError):
        sample(schema)


def test_a_large_sample_shares_its_rows() -> None:
    pixel = {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}
    line = {"type": "array", "items": pixel, "minItems": 1000, "maxItems": 1000}
    value = sample({"type": "array", "items": line, "minItems": 1000, "maxItems": 1000})
    assert len(value) == len(value[0]) == 1000
    assert value[0] is value[999]
