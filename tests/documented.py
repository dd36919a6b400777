"""Fake models whose OpenAPI document has everything that one can have: what the tests of the document serve."""

from __future__ import annotations

from typing import Any

LIMITED = {"minimum": -1000, "maximum": 1000}
"""Holds numbers where doubling them overflows no float: then no answer is NaN, which would be 500."""

PICTURE: dict[str, Any] = {
    "name": "picture",
    "shape": [4, 4, 1],
    "kind": "scores",
    "classes": 3,
    "narrow": {
        "image": {"input": "x", "width": 4, "height": 4, "colour": "grey", "scale": 1.0},
        "labels": ["dark", "dim", "grey"],
        "request_schema": {"items": {"items": {"items": LIMITED}}},
    },
}
VECTOR: dict[str, Any] = {
    "name": "vector",
    "size": 4,
    "kind": "scores",
    "classes": 3,
    "narrow": {"labels": ["a", "b", "c"], "request_schema": {"items": LIMITED}},
}
DOUBLE: dict[str, Any] = {
    "name": "double",
    "narrow": {
        "description": "Twice as much.",
        "null_for_nan": True,  # any float may come, and the largest have no double
        "examples": [{"request": {"features": [1.5]}, "answer": {"prediction": 3.0}}],
    },
}
HOUSE: dict[str, Any] = {
    "name": "house",
    "size": 2,
    "narrow": {
        "fields": [
            {"name": "size", "schema": {"minimum": 0, "maximum": 100}},
            {"name": "rooms", "schema": {"type": "integer", "minimum": 1, "maximum": 20}, "description": "no bath"},
        ],
        "routes": ["/rent"],
    },
}
SCALAR: dict[str, Any] = {
    "name": "scalar",
    "size": None,
    "narrow": {"fields": [{"name": "age", "schema": LIMITED}], "max_rows": 16},
}
MIXED: dict[str, Any] = {
    "name": "mixed",
    "kind": "echo",
    "inputs": [
        ["flag", "bool", []],
        ["count", "int64", []],
        ["big", "uint64", [2]],
        ["words", "string", [None]],
        ["half", "float16", [2, 1]],
    ],
}
WORDS: dict[str, Any] = {"name": "words", "kind": "echo", "inputs": [["text", "string", []]]}
OPEN: dict[str, Any] = {"name": "open", "kind": "echo", "inputs": [["x", "int32", [None, 3]]]}
NANS: dict[str, Any] = {"name": "nans", "kind": "nan", "narrow": {"null_for_nan": True}}

MODELS = [DOUBLE, HOUSE, SCALAR, PICTURE, VECTOR, {**VECTOR, "version": "2"}, MIXED, WORDS, OPEN, NANS]
