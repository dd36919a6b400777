"""The JSON Schema keywords a contract may use: which they are, how two schemas are joined, and what they say in words.

Owns the allowed subset (draft 2020-12): keywords on which jsonschema and jsonschema_rs agree, which cost linear time
and fetch nothing. Knows nothing of tensors, contracts or forms of requests.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from models.errors import LoadError
from models.wording import clip, literal, quoted

Schema = dict[str, Any]

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")

# Beyond 2**53 the two validators compare an integer with a float differently (measured), so no bound may lie there.
_MAX_NUMBER = 2**53
_MAX_COUNT = 1_000_000
_MAX_DEPTH = 16


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _MAX_NUMBER  # NaN is not


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_COUNT


def _is_scalar(value: Any) -> bool:
    return value is None or type(value) in (bool, str) or _is_number(value)


def _is_type(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name in TYPES for name in names)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(type(name) is str for name in value) and len(set(value)) == len(value)


_NUMBER = (_is_number, "a number from -2^53 to 2^53")
_COUNT = (_is_count, f"a whole number from 0 to {_MAX_COUNT}")
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
NESTED = ("properties", "additionalProperties", "items", "allOf", "anyOf")
ALLOWED = (*_PLAIN, *NESTED)

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
        elif keyword in NESTED:
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


def both(base: Schema, extra: Schema) -> Schema:
    """One schema that accepts what both accept: side by side where no keyword meets another, else by allOf."""
    if not extra:
        return base
    if any(keyword in NESTED for keyword in extra) or any(base.get(k, v) != v for k, v in extra.items()):
        return {"allOf": [base, extra]}
    return {**base, **extra}


_NOUNS = {
    "null": ("null", "nulls"),
    "boolean": ("true or false", "booleans"),
    "integer": ("a whole number", "whole numbers"),
    "number": ("a number", "numbers"),
    "string": ("a string", "strings"),
    "array": ("a list", "lists"),
    "object": ("an object", "objects"),
}
# A schema without a type admits all others; but what it wants is of the type its keywords speak of.
_SPEAK_OF = {
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "string": {"minLength", "maxLength"},
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties", "minProperties", "maxProperties"},
}
_BOUNDS = (
    ("minimum", "of at least"),
    ("exclusiveMinimum", "above"),
    ("maximum", "of at most"),
    ("exclusiveMaximum", "below"),
)


def words(schema: Schema, *, plural: bool = False) -> str:
    """What a schema wants, as a noun: "a number from 0 to 10", "a list of 28 lists of 28 numbers"."""
    if "const" in schema:
        return f"the value {literal(schema['const'])}"
    if "enum" in schema:
        return "one of " + ", ".join(map(literal, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(words(part, plural=plural) for part in schema["anyOf"])
    if "allOf" in schema and "type" not in schema:
        typed = [part for part in schema["allOf"] if "type" in part]
        return words((typed or schema["allOf"])[-1], plural=plural)
    kinds = schema.get("type") or [kind for kind, keywords in _SPEAK_OF.items() if not keywords.isdisjoint(schema)]
    nouns = [
        _NOUNS[kind][plural] + _qualities(kind, schema) for kind in (kinds if isinstance(kinds, list) else [kinds])
    ]
    return " or ".join(nouns) or ("values" if plural else "a value")


def count_words(schema: Schema, low: str, high: str) -> str:
    """How many, by the two keywords named: "10", "1 to 10", "at least 1", "at most 10", or "" for any number."""
    least, most = schema.get(low, 0), schema.get(high)
    if most is None:
        return f"at least {least}" if least else ""
    if least == most:
        return str(least)
    return f"{least} to {most}" if least else f"at most {most}"


def _qualities(kind: str, schema: Schema) -> str:
    """What follows the noun: how many of what, or in which range."""
    if kind in ("number", "integer"):
        if {"minimum", "maximum"} <= schema.keys() and not {"exclusiveMinimum", "exclusiveMaximum"} & schema.keys():
            return f" from {schema['minimum']} to {schema['maximum']}"
        return "".join(f" {text} {schema[bound]}" for bound, text in _BOUNDS if bound in schema)
    if kind == "string" and (count := count_words(schema, "minLength", "maxLength")):
        return f" of {count} characters"
    if kind == "array":
        count = count_words(schema, "minItems", "maxItems")
        items = words(schema.get("items") or {}, plural=count != "1")
        return f" of {count} {items}" if count not in ("", "1") else f" of {items}"
    if kind == "object" and schema.get("required"):
        return " with " + ", ".join(map(quoted, schema["required"]))
    if kind == "object" and (count := count_words(schema, "minProperties", "maxProperties")):
        return f" of {count} members"
    return ""
