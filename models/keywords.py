"""The JSON Schema keywords a contract may use: which they are, and how two schemas are joined, turned and sampled.

Owns the allowed subset (draft 2020-12): keywords on which jsonschema and jsonschema_rs agree, which cost linear time
and fetch nothing. Knows nothing of tensors, contracts or forms of requests.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from models.errors import LoadError
from models.wording import clip

Schema = dict[str, Any]

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")

# Beyond 2**53 the two validators compare an integer with a float differently (measured), so no bound may lie there.
_MAX_NUMBER = 2**53
_MAX_DEPTH = 16


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) <= _MAX_NUMBER


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_NUMBER


def _is_scalar(value: Any) -> bool:
    return value is None or type(value) in (bool, str) or _is_number(value)


def _is_type(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name in TYPES for name in names)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(type(name) is str for name in value) and len(set(value)) == len(value)


_NUMBER = (_is_number, "a number from -2^53 to 2^53")
_COUNT = (_is_count, "a whole number of at least 0")
_TEXT = (lambda value: type(value) is str, "a string")
_PLAIN: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (_is_type, f"one or a list of {', '.join(TYPES)}"),
    "enum": (
        lambda value: isinstance(value, list) and bool(value) and all(map(_is_scalar, value)),
        "a list of plain values (numbers up to 2^53, strings, true, false, null)",
    ),
    "const": (_is_scalar, "a plain value (a number up to 2^53, a string, true, false, null)"),
    "minimum": _NUMBER,
    "maximum": _NUMBER,
    "exclusiveMinimum": _NUMBER,
    "exclusiveMaximum": _NUMBER,
    "minLength": _COUNT,
    "maxLength": _COUNT,
    "minItems": _COUNT,
    "maxItems": _COUNT,
    "minProperties": _COUNT,
    "maxProperties": _COUNT,
    "required": (_are_names, "a list of different names"),
    "title": _TEXT,
    "description": _TEXT,
}
_NESTED = ("properties", "additionalProperties", "items", "allOf", "anyOf")
ALLOWED = (*_PLAIN, *_NESTED)

_REFUSED = {
    "$ref": "nothing is looked up; write the schema out in place",
    "format": "validators differ on it; use enum, minLength and maxLength",
    "pattern": "validators differ on it and it can take exponential time; use enum, minLength and maxLength",
    "multipleOf": 'validators differ on it; use "type": "integer" or enum',
    "uniqueItems": "it takes quadratic time; leave it out",
    "oneOf": "use anyOf",
    "prefixItems": "name the columns as fields, each with a schema",
}


def check(schema: Any, where: str, depth: int = 0) -> None:
    """Hold a user's schema to the subset.

    where: the place in contract.json, for the reason.

    Raises:
        LoadError: an unknown or refused keyword, a wrong value for one, or nesting deeper than 16.
    """
    if not isinstance(schema, Mapping):
        raise LoadError(f"{where} must be an object of JSON Schema keywords")
    if depth > _MAX_DEPTH:
        raise LoadError(f"{where} nests schemas deeper than {_MAX_DEPTH}; write it flatter")
    for keyword, value in schema.items():
        if keyword in _PLAIN:
            is_valid, expected = _PLAIN[keyword]
            if not is_valid(value):
                raise LoadError(f"{where}: {keyword} must be {expected}")
        elif keyword in _NESTED:
            for place, nested in _schemas_in(keyword, value, where):
                check(nested, place, depth + 1)
        else:
            raise LoadError(f"{where}: {_refusal(keyword)}")


def _schemas_in(keyword: str, value: Any, where: str) -> Iterable[tuple[str, Any]]:
    """The schemas that a nesting keyword holds, each with its place."""
    place = f"{where}: {keyword}"
    if keyword == "properties":
        if not isinstance(value, Mapping) or not all(type(name) is str for name in value):
            raise LoadError(f"{place} must be an object of names and schemas")
        return [(f"{place}: {clip(name, 64)}", nested) for name, nested in value.items()]
    if keyword in ("allOf", "anyOf"):
        if not isinstance(value, list) or not value:
            raise LoadError(f"{place} must be a list of at least one schema")
        return [(f"{place} {index}", nested) for index, nested in enumerate(value)]
    if keyword == "additionalProperties" and isinstance(value, bool):
        return []
    return [(place, value)]


def _refusal(keyword: Any) -> str:
    if keyword in _REFUSED:
        return f"the keyword {keyword} is not offered: {_REFUSED[keyword]}"
    close = difflib.get_close_matches(str(keyword), ALLOWED, 1)
    hint = f"did you mean {close[0]}?" if close else f"use only {', '.join(ALLOWED)}"
    return f"the keyword {clip(str(keyword), 64)} is not offered; {hint}"


def merge(one: Schema, other: Schema) -> Schema:
    """One schema that accepts exactly what both accept: joined keyword by keyword where that is exact, else by allOf."""
    merged, left = dict(one), {}
    for keyword, value in other.items():
        if keyword in _OBJECT or keyword in _ARRAY:
            continue
        if keyword not in merged or keyword in ("title", "description"):
            merged[keyword] = value
        elif keyword in _TIGHTER:
            merged[keyword] = _TIGHTER[keyword](merged[keyword], value)
        elif keyword == "type" and sorted([str(merged[keyword]), str(value)]) == ["integer", "number"]:
            merged[keyword] = "integer"
        elif keyword == "required":
            merged[keyword] = list(dict.fromkeys([*merged[keyword], *value]))
        elif keyword == "allOf":
            merged[keyword] = [*merged[keyword], *value]
        elif orjson.dumps(merged[keyword]) != orjson.dumps(value):
            left[keyword] = value
    for group, join in ((_OBJECT, _join_properties), (_ARRAY, _join_items)):
        mine, theirs = ({k: v for k, v in schema.items() if k in group} for schema in (one, other))
        if not mine or not theirs:
            merged |= theirs
        elif (joined := join(mine, theirs)) is not None:
            merged |= joined
        else:
            left |= theirs
    if left:
        merged["allOf"] = [*merged.get("allOf", []), left]
    return merged


_TIGHTER: dict[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}
# Keywords that speak of their neighbours: they move together or not at all.
_OBJECT = ("properties", "additionalProperties")
_ARRAY = ("prefixItems", "items")


def _join_properties(mine: Schema, theirs: Schema) -> Schema | None:
    """Both about the same names: exact where one of them admits no other names, or neither speaks of others."""
    known, extra = mine.get("properties", {}), theirs.get("properties", {})
    if "additionalProperties" in theirs:
        return None
    if mine.get("additionalProperties") is False:
        return {"properties": {name: merge(known[name], extra.get(name, {})) for name in known}}
    if "additionalProperties" in mine:
        return None
    return {"properties": {name: merge(known.get(name, {}), extra.get(name, {})) for name in {**known, **extra}}}


def _join_items(mine: Schema, theirs: Schema) -> Schema | None:
    if "prefixItems" in mine or "prefixItems" in theirs:
        return None
    return {"items": merge(mine["items"], theirs["items"])}


def positional(schema: Schema, names: Sequence[str]) -> Schema:
    """The schema for a list of the named values in order that says what `schema` says of the object with these names.

    Every name is taken to be present and no other: so `required`, `additionalProperties` and the counts of
    properties are decided here, and what cannot hold becomes an impossible schema.
    """
    turned: Schema = {}
    for keyword, value in schema.items():
        match keyword:
            case "properties":
                turned["prefixItems"] = [value.get(name, {}) for name in names]
            case "type":
                kinds = value if isinstance(value, list) else [value]
                turned["type"] = "array" if "object" in kinds else "null"
            case "allOf" | "anyOf":
                turned[keyword] = [positional(part, names) for part in value]
            case "enum" | "const":  # plain values only: none of them is an object
                turned |= NEVER
            case "required":
                turned |= {} if set(value) <= set(names) else NEVER
            case "minProperties":
                turned |= {} if len(names) >= value else NEVER
            case "maxProperties":
                turned |= {} if len(names) <= value else NEVER
            case "title" | "description":
                turned[keyword] = value
            case _:
                pass
    others = schema.get("additionalProperties", True)
    unnamed = [name for name in names if name not in schema.get("properties", {})]
    if others is False and unnamed:
        turned |= NEVER
    elif isinstance(others, dict) and unnamed:
        known = turned.get("prefixItems", [{}] * len(names))
        turned["prefixItems"] = [others if n in unnamed else s for n, s in zip(names, known, strict=True)]
    return turned


NEVER: Schema = {"enum": [[]], "minItems": 1}


def sample(schema: Schema) -> Any:
    """A value that passes, or None where none was found by trying the likely ones: the caller checks it."""
    if "allOf" in schema:
        rest = {keyword: value for keyword, value in schema.items() if keyword != "allOf"}
        for part in schema["allOf"]:
            rest = merge({k: v for k, v in rest.items() if k != "allOf"}, part)
        return sample(rest)
    return None
