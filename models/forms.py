"""The forms in which the native dialect takes a model's rows, each with its JSON Schema and its two validators.

Owns what may be sent: by named fields, as `features`, by the inputs' names, and many rows as `instances`. Knows
nothing of arrays.

A contract's `request_schema` speaks of one instance: of the object of inputs where there are several, of the only
input's value otherwise (with fields it has become the fields' schemas).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jsonschema_rs
import numpy as np

from models.contract import INTEGERS, Contract, Tensor
from models.keywords import Schema, both

ROWS = "instances"
VALUE = "features"


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """One way to write a request's body.

    kind: what an instance is: "fields", an object with the columns of the only input; "inputs", an object with the
        value of each input; "bare", the only input's value itself.
    keys: the instance's keys, in the order of the fields or of the contract's inputs; () for "bare".
    many: the body is {"instances": [instance, …]}, not one instance.
    schema: JSON Schema (2020-12) of the whole body.
    accepts: whether a parsed body is of this form; sub-microsecond for one small row.
    """

    title: str
    kind: Literal["fields", "inputs", "bare"]
    keys: tuple[str, ...]
    many: bool
    schema: Schema
    accepts: Callable[[Any], bool]


def forms_of(contract: Contract) -> tuple[Form, ...]:
    """Every form that this model takes; of the single ones the first is the plainest, and the one to document."""
    instances = _instances(contract)
    singles = [_form(title, kind, keys, schema) for title, kind, keys, schema in instances if kind != "bare"]
    return (*singles, *(_rows_form(contract, *instance) for instance in instances))


_Instance = tuple[str, Literal["fields", "inputs", "bare"], tuple[str, ...], Schema]


def _instances(contract: Contract) -> list[_Instance]:
    names = tuple(tensor.name for tensor in contract.inputs)
    if len(names) != 1:
        schema = both(_object({t.name: tensor_schema(t) for t in contract.inputs}), contract.request_schema)
        return [("inputs by name", "inputs", names, schema)]
    found: list[_Instance] = []
    columns = tuple(field.name for field in contract.fields)
    if columns:  # the one field of a scalar is its value
        kind: Literal["fields", "inputs"] = "fields" if contract.inputs[0].shape else "inputs"
        found.append(("named fields", kind, columns, _object(_column_schemas(contract))))
    value = _value_schema(contract)
    found.append((VALUE, "inputs", (VALUE,), _object({VALUE: value})))
    if names[0] not in (VALUE, ROWS, *columns):
        found.append(("the input by name", "inputs", names, _object({names[0]: value})))
    return [*found, ("values", "bare", (), value)]


def _form(title: str, kind: Literal["fields", "inputs", "bare"], keys: tuple[str, ...], schema: Schema) -> Form:
    schema = {"title": title, **schema}
    return Form(
        title, kind, keys, many=False, schema=schema, accepts=jsonschema_rs.Draft202012Validator(schema).is_valid
    )


def _rows_form(
    contract: Contract, title: str, kind: Literal["fields", "inputs", "bare"], keys: tuple[str, ...], schema: Schema
) -> Form:
    most = {} if contract.max_rows is None else {"maxItems": contract.max_rows}
    rows = {"type": "array", "items": schema, "minItems": 1, **most}
    schema = {"title": f"{ROWS} of {title}", **_object({ROWS: rows})}
    accepts = jsonschema_rs.Draft202012Validator(schema).is_valid
    return Form(schema["title"], kind, keys, many=True, schema=schema, accepts=accepts)


def _object(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _column_schemas(contract: Contract) -> dict[str, Schema]:
    leaf = leaf_schema(contract.inputs[0].dtype)
    described = {
        field.name: {"description": field.description} if field.description else {} for field in contract.fields
    }
    return {field.name: both({**leaf, **described[field.name]}, field.schema) for field in contract.fields}


def _value_schema(contract: Contract) -> Schema:
    """The only input's value; with fields the same as the fields say, by position."""
    tensor = contract.inputs[0]
    if not contract.fields:
        return both(tensor_schema(tensor), contract.request_schema)
    columns = [*_column_schemas(contract).values()]
    if not tensor.shape:
        return columns[0]
    if not any(field.schema or field.description for field in contract.fields):
        return tensor_schema(tensor)
    return {"type": "array", "prefixItems": columns, "minItems": len(columns), "maxItems": len(columns)}


def tensor_schema(tensor: Tensor) -> Schema:
    """One row's value: nested lists, outermost axis first."""
    schema = leaf_schema(tensor.dtype)
    for size in reversed(tensor.shape):
        lengths = {} if size is None else {"minItems": size, "maxItems": size}
        schema = {"type": "array", "items": schema, **lengths}
    return schema


def leaf_schema(dtype: str) -> Schema:
    """One number, boolean or string of the dtype.

    A float's range is not here but in `tensors.from_json`: a bound that is no integer of 64 bits makes the compiled
    check 10 to 60 times as slow (measured). Nor is int64's lower bound: just there jsonschema_rs and jsonschema
    differ on -2.0**63, and no JSON integer that was parsed as one lies below.
    """
    if dtype in INTEGERS:
        limits = np.iinfo(dtype)
        low = {} if dtype == "int64" else {"minimum": int(limits.min)}
        high = {} if dtype == "uint64" else {"maximum": int(limits.max)}
        return {"type": "integer", **low, **high}
    return {"type": {"bool": "boolean", "string": "string"}.get(dtype, "number")}
