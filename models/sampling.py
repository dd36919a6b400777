"""A value that a JSON Schema accepts, for the documentation and for answers to bad requests.

Owns the search among likely values; the result is always checked against the schema. Knows the allowed keywords of
`models.keywords` and `prefixItems`, and nothing of contracts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema_rs

from models.keywords import Schema

_MAX_ALTERNATIVES = 64
_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
_LIKELY: dict[str, tuple[Any, ...]] = {
    "number": (0.5, 1, 0, -0.5),
    "integer": (1, 0, -1),
    "boolean": (True, False),
    "string": ("text", ""),
    "null": (None,),
}


def sample(schema: Schema) -> Any:
    """A JSON value that `schema` accepts; long lists repeat one element, which they share in memory.

    Raises:
        LookupError: none was found among the likely values: the schema may contradict itself.
    """
    for schemas in itertools.islice(_alternatives([schema]), _MAX_ALTERNATIVES):
        for value in _built(schemas):
            if jsonschema_rs.Draft202012Validator(schema).is_valid(value):
                return value
    raise LookupError


def _alternatives(schemas: Sequence[Schema]) -> Iterator[list[Schema]]:
    """Each way to choose one part of every anyOf, with every allOf taken apart: lists that must hold together."""
    for index, schema in enumerate(schemas):
        if "allOf" not in schema and "anyOf" not in schema:
            continue
        rest = {keyword: value for keyword, value in schema.items() if keyword not in ("allOf", "anyOf")}
        for part in schema.get("anyOf", [{}]):
            chosen = [rest, *schema.get("allOf", ()), part]
            yield from _alternatives([*schemas[:index], *chosen, *schemas[index + 1 :]])
        return
    yield list(schemas)


def _built(schemas: list[Schema]) -> Iterator[Any]:
    """Values likely to pass all of these at once; containers are filled with samples of what they must hold."""
    kinds = [kind for schema in schemas for kind in _kinds(schema)]
    try:
        if "array" in kinds:
            yield _array(schemas)
        if "object" in kinds:
            yield _object(schemas)
    except LookupError:
        return
    yield from (value for kind in (kinds or _LIKELY) for value in _LIKELY.get(kind, ()))
    yield from (value for schema in schemas for value in schema.get("enum", ()))
    yield from (schema["const"] for schema in schemas if "const" in schema)
    yield from _texts(schemas)
    for schema in schemas:
        for bound in (schema[name] for name in _BOUNDS if name in schema):
            yield from (bound, bound + 1, bound - 1, bound + 0.5, bound - 0.5)
    bounds = sorted(schema[name] for schema in schemas for name in _BOUNDS if name in schema)
    yield from ((low + high) / 2 for low, high in itertools.pairwise(bounds))


def _kinds(schema: Schema) -> list[str]:
    kinds = schema.get("type", [])
    return kinds if isinstance(kinds, list) else [kinds]


def _array(schemas: list[Schema]) -> list[Any]:
    least = max(schema.get("minItems", 0) for schema in schemas)
    most = min((schema["maxItems"] for schema in schemas if "maxItems" in schema), default=2)
    columns = max(len(schema.get("prefixItems", ())) for schema in schemas)
    length = max(least, columns, min(2, most))
    items = [sample({"allOf": [_item(schema, index) for schema in schemas]}) for index in range(columns)]
    if length > columns:
        items += [sample({"allOf": [_item(schema, columns) for schema in schemas]})] * (length - columns)
    return items


def _item(schema: Schema, index: int) -> Schema:
    prefix: list[Schema] = schema.get("prefixItems", [])
    return prefix[index] if index < len(prefix) else schema.get("items") or {}


def _object(schemas: list[Schema]) -> dict[str, Any]:
    names = dict.fromkeys(name for schema in schemas for name in schema.get("required", ()))
    return {name: sample({"allOf": [_member(schema, name) for schema in schemas]}) for name in names}


def _member(schema: Schema, name: str) -> Schema:
    others = schema.get("additionalProperties", {})
    known: dict[str, Schema] = schema.get("properties", {})
    return known.get(name, others if isinstance(others, dict) else {})


def _texts(schemas: list[Schema]) -> Iterator[str]:
    for length in (schema[name] for schema in schemas for name in ("minLength", "maxLength") if name in schema):
        yield "text"[:length].ljust(length, "t")
