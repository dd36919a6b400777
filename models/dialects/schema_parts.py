"""JSON Schema of one row's values, as exact as a document can be: what descriptions of bodies are made of.

Owns the bounds of dtypes, which the compiled checks leave out for speed, and what an output looks like. Knows no
dialect.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from models.contract import FLOATS, Contract, Tensor
from models.forms import Form
from models.keywords import Schema
from models.schema import Compiled

BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
BYTES: Schema = {
    "type": "object",
    "properties": {"b64": {**BASE64, "pattern": "^([A-Za-z0-9+/]{4})*$"}},
    "required": ["b64"],
    "additionalProperties": False,
}


def closed(properties: dict[str, Schema], *optional: str) -> Schema:
    """An object with these members and no others."""
    return {**opened(properties, *optional), "additionalProperties": False}


def opened(properties: dict[str, Schema], *optional: str) -> Schema:
    """An object with at least these members; `optional` may be left out."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def listed(items: Schema, low: int | None = None, high: int | None = None) -> Schema:
    """A list of these, of so many."""
    bounds = {"minItems": low, "maxItems": high}
    return {"type": "array", "items": items, **{key: bound for key, bound in bounds.items() if bound is not None}}


def either(*schemas: Schema) -> Schema:
    """One of these; the schema itself where there is one only."""
    different = [schema for index, schema in enumerate(schemas) if schema not in schemas[:index]]
    return different[0] if len(different) == 1 else {"anyOf": different}


def nested(leaf: Schema, shape: tuple[int | None, ...]) -> Schema:
    """Lists in lists, outermost axis first."""
    for size in reversed(shape):
        leaf = listed(leaf, size, size)
    return leaf


# ---------------------------------------------------------------------------------------------- inputs


def bounded(schema: Any, dtype: str) -> Any:
    """The same with the bounds of the dtype at every number that has none of its own."""
    if isinstance(schema, list):
        return [bounded(part, dtype) for part in schema]
    if not isinstance(schema, dict):
        return schema
    nests = {
        key: bounded(part, dtype) for key, part in schema.items() if key in ("items", "prefixItems", "allOf", "anyOf")
    }
    low, high = _bounds(dtype)
    if schema.get("type") not in ("number", "integer") or low is None:
        return {**schema, **nests}
    return {"minimum": low, "maximum": high, **schema, **nests}


def _bounds(dtype: str) -> tuple[float | int | None, float | int | None]:
    if dtype in FLOATS:
        limits = np.finfo(dtype)
        high = float(limits.max)
        if dtype != "float64":  # what is less than half a step beyond is rounded to the largest
            high = float(np.nextafter(high + float(limits.max - np.nextafter(limits.max, limits.dtype.type(0))) / 2, 0))
        return -high, high
    if dtype in ("bool", "string"):
        return None, None
    whole = np.iinfo(dtype)
    return int(whole.min), int(whole.max)


def instance_of(form: Form) -> Schema:
    """What the form says of one row, whether it is for one or for many."""
    schema: Schema = form.schema["properties"]["instances"]["items"] if form.many else form.schema
    return {key: value for key, value in schema.items() if key != "title"}


def exact_instance(contract: Contract, form: Form) -> Schema:
    """The same with the bounds of the dtypes."""
    schema = instance_of(form)
    if form.kind == "bare":
        exact: Schema = bounded(schema, contract.inputs[0].dtype)
        return exact
    lone = len(contract.inputs) == 1
    dtypes = {key: contract.inputs[0 if lone else index].dtype for index, key in enumerate(form.keys)}
    return _exact_object(schema, dtypes)


def _exact_object(schema: Schema, dtypes: dict[str, str]) -> Schema:
    if "allOf" in schema:  # ours, then the contract's own request_schema
        ours, *others = schema["allOf"]
        return {**schema, "allOf": [_exact_object(ours, dtypes), *others]}
    members = {name: bounded(member, dtypes[name]) for name, member in schema["properties"].items()}
    return {**schema, "properties": members}


def values_of(compiled: Compiled) -> dict[str, Schema]:
    """Of each input one row's value, held to the contract's ranges too."""
    contract = compiled.contract
    if len(contract.inputs) == 1:
        bare = next(form for form in compiled.rows if form.kind == "bare")
        return {contract.inputs[0].name: exact_instance(contract, bare)}
    schema = exact_instance(contract, compiled.rows[0])
    while "allOf" in schema:
        schema = schema["allOf"][0]
    properties: dict[str, Schema] = schema["properties"]
    return properties


def is_narrowed(contract: Contract) -> bool:
    """Whether a contract.json holds values to more than their dtypes and shapes."""
    return bool(contract.request_schema or any(field.schema for field in contract.fields))


# ---------------------------------------------------------------------------------------------- outputs


def output_leaf(tensor: Tensor, *, null_for_nan: bool = False) -> Schema:
    """One element of an output; strings that are no UTF-8 leave as base64."""
    if tensor.dtype == "string":
        return {"anyOf": [{"type": "string"}, BYTES]}
    if tensor.dtype == "bool":
        return {"type": "boolean"}
    if tensor.dtype in FLOATS:
        return {"type": ["number", "null"] if null_for_nan else "number"}
    return {"type": "integer"}


# ---------------------------------------------------------------------------------------------- pictures


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + checksum


def plain_png(side: int = 8) -> bytes:
    """A small white square: a picture that any model takes, where its contract shows none."""
    header = side.to_bytes(4, "big") * 2 + bytes((8, 0, 0, 0, 0))  # 8 bits of grey
    rows = zlib.compress((b"\0" + b"\xff" * side) * side)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")
