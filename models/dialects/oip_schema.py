"""JSON Schema of the Open Inference Protocol's bodies for one model, for the documentation.

Owns what the document says of requests and answers in JSON, and of the descriptions; that `data` has as many values as
`shape` says, no JSON Schema can tell. Knows nothing of HTTP.
"""

from __future__ import annotations

from typing import Any

from models.contract import Contract, Tensor
from models.dialects.native_schema import EXAMPLE_BYTES_MAX
from models.dialects.oip_datatypes import DTYPE_OF, config_type_of, datatype_of
from models.dialects.oip_describe import EXTENSIONS
from models.dialects.schema_parts import (
    bounded,
    closed,
    either,
    listed,
    nested,
    opened,
    output_leaf,
)
from models.forms import leaf_schema
from models.keywords import Schema
from models.schema import Compiled
from models.tensors import dumps

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_FLAG: Schema = {"type": "boolean"}
_TYPES = [*DTYPE_OF]


def request_schema(compiled: Compiled, max_rows: int) -> Schema:
    """The body of an inference request, all in JSON."""
    contract = compiled.contract
    most = min(max_rows, contract.max_rows or max_rows)
    inputs = [_input(tensor, most) for tensor in contract.inputs]
    plain = {"type": ["string", "boolean", "integer", "number"]}
    parameters = {
        "type": ["object", "null"],
        "properties": {
            "timeout": {**_COUNT, "description": "microseconds; it can only shorten the server's own limit"},
            "priority": {**_COUNT, "description": "1 is the highest"},
            "binary_data_output": {**_FLAG, "description": "all outputs in binary"},
        },
        "additionalProperties": plain,
    }
    wanted = {
        "name": {"enum": [tensor.name for tensor in contract.outputs]},
        "parameters": _or_null(
            opened({"binary_data": _FLAG, "classification": _COUNT}, "binary_data", "classification")
        ),
    }
    return {
        "title": f"an inference request to {contract.name}",
        **opened(
            {
                "id": {**_or_null(_TEXT), "description": "comes back with the answer"},
                "parameters": parameters,
                "inputs": listed(either(*inputs), len(inputs), len(inputs)),
                "outputs": {
                    **_or_null(listed(opened(wanted, "parameters"), 0, len(contract.outputs))),
                    "description": "those that are wanted, in this order; all where none is named",
                },
            },
            "id",
            "parameters",
            "outputs",
        ),
    }


def _or_null(schema: Schema) -> Schema:
    """What may be left out may be null, too."""
    return {**schema, "type": [schema["type"], "null"]}


def _input(tensor: Tensor, most: int) -> Schema:
    leaf = bounded(leaf_schema(tensor.dtype), tensor.dtype)
    rows = {"type": "integer", "minimum": 1, "maximum": most, "description": "rows"}
    sizes: list[Schema] = [{**_COUNT} if size is None else {"const": size} for size in tensor.shape]
    shape = {"type": "array", "prefixItems": [rows, *sizes], "minItems": len(sizes) + 1, "maxItems": len(sizes) + 1}
    flat = {**listed(leaf), "description": "flat, in row-major order"}
    data = either(flat, listed(nested(leaf, tensor.shape), 1, most)) if tensor.shape else flat
    return {
        "title": tensor.name,
        **opened(
            {
                "name": {"const": tensor.name},
                "datatype": {"const": datatype_of(tensor.dtype)},
                "shape": shape,
                "data": data,
            }
        ),
    }


def answer_schema(contract: Contract) -> Schema:
    """The body of a 200 in JSON."""
    outputs = either(*(_output(contract, tensor) for tensor in contract.outputs))
    named = {"model_name": {"const": contract.name}, "model_version": {"const": contract.version}}
    return opened({**named, "id": _TEXT, "outputs": listed(outputs, 0, len(contract.outputs))}, "id")


def _output(contract: Contract, tensor: Tensor) -> Schema:
    leaf = output_leaf(tensor, null_for_nan=contract.null_for_nan)
    usual = {"datatype": {"const": datatype_of(tensor.dtype)}, "data": listed(leaf)}
    ranked = {"datatype": {"const": "BYTES"}, "data": listed(_TEXT)}  # value:index[:label]
    shape = listed(_COUNT, 1)
    return {
        "title": tensor.name,
        "anyOf": [opened({"name": {"const": tensor.name}, "shape": shape, **data}) for data in (usual, ranked)],
    }


def request_examples(compiled: Compiled) -> dict[str, dict[str, Any]]:
    """The native sample as this protocol has it."""
    contract = compiled.contract
    form = compiled.form_of(compiled.sample) if compiled.sample is not None else None
    if form is None or form.many:
        return {}
    values = [compiled.sample[key] for key in form.keys]
    if contract.fields and contract.inputs[0].shape and form.keys == tuple(field.name for field in contract.fields):
        values = [values]
    inputs = []
    for tensor, value in zip(contract.inputs, values, strict=True):
        shape, flat = [1], [value]
        for _ in tensor.shape:
            shape.append(len(flat[0]) if flat else 0)
            flat = [element for part in flat for element in part]
        inputs.append({"name": tensor.name, "datatype": datatype_of(tensor.dtype), "shape": shape, "data": flat})
    value = {"id": "1", "inputs": inputs}
    return {"sample": {"summary": "a sample", "value": value}} if len(dumps(value)) <= EXAMPLE_BYTES_MAX else {}


# ---------------------------------------------------------------------------------------------- descriptions


def refusal_schema() -> Schema:
    """The body of every refusal."""
    return opened({"error": _TEXT})


def schemas() -> dict[str, Schema]:
    """Of the questions that no model is needed for, by their actions."""
    tensor = closed(
        {"name": _TEXT, "datatype": {"enum": _TYPES}, "shape": listed({"type": "integer", "minimum": -1}, 1)}
    )
    duration = closed({"count": _COUNT, "ns": _COUNT})
    stats = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    counted = opened(
        {
            "name": _TEXT,
            "version": _TEXT,
            "last_inference": {**_COUNT, "description": "milliseconds since 1970; 0 where there was none"},
            "inference_count": _COUNT,
            "execution_count": _COUNT,
            "inference_stats": closed(dict.fromkeys(stats, duration)),
        }
    )
    indexed = {"name": _TEXT, "version": _TEXT, "state": {"enum": ["READY", "LOADING", "UNAVAILABLE"]}, "reason": _TEXT}
    configured = opened({"name": _TEXT, "data_type": {"enum": [config_type_of(dtype) for dtype in DTYPE_OF.values()]}})
    return {
        "live": closed({"live": {"const": True}}),
        "ready": closed({"ready": _FLAG}),
        "server": closed({"name": _TEXT, "version": _TEXT, "extensions": listed({"enum": [*EXTENSIONS]})}),
        "index": listed(closed(indexed)),
        "model_ready": closed({"name": _TEXT, "ready": _FLAG}),
        "metadata": closed(
            {
                "name": _TEXT,
                "versions": listed(_TEXT),
                "platform": _TEXT,
                "inputs": listed(tensor),
                "outputs": listed(tensor),
            }
        ),
        "config": opened(
            {"name": _TEXT, "max_batch_size": _COUNT, "input": listed(configured), "output": listed(configured)}
        ),
        "stats": closed({"model_stats": listed(counted)}),
    }


def repository_schemas() -> dict[str, Schema]:
    """Bodies of index, load and unload; each may be left out."""
    unload = opened({"unload_dependents": _FLAG}, "unload_dependents")
    return {
        "index": opened({"ready": {**_FLAG, "description": "only those that serve"}}, "ready"),
        "load": opened({"parameters": _or_null({"type": "object", "maxProperties": 0})}, "parameters"),
        "unload": opened({"parameters": _or_null({**unload, "additionalProperties": False})}, "parameters"),
    }
