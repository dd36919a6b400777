"""What the tests of the Open Inference Protocol speak with: a version, bodies in JSON and binary, answers read back."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from models.contract import Contract, Tensor
from models.dialects import open_inference
from models.dialects.dialect import Call, Rendered, Request
from models.schema import Compiled, compile_contract
from models.tensors import Array

HEADER = "inference-header-content-length"
MEBIBYTE = 1 << 20
DTYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BYTES": "string",
}  # fmt: skip
"""Written out once more: were the table in the code wrong, a test that used it would not see."""


@dataclass
class Known:
    """A version as a front knows it."""

    name: str = "m"
    version: str = "7"
    state: str = "READY"
    reason: str | None = None
    compiled: Compiled | None = None
    signatures: Mapping[str, Compiled] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None


def model(*inputs: Tensor, outputs: tuple[Tensor, ...] = (Tensor("y", "float32", (1,)),), **more: Any) -> Compiled:
    return compile_contract(Contract("m", "7", inputs, outputs, **more))


X = Tensor("x", "float32", (2,))
VECTOR = model(X)
SEVERAL = model(Tensor("a", "uint8", (2,)), Tensor("b", "string", ()), Tensor("c", "bool", (1, None)))


def given(name: str, datatype: str, shape: list[Any], data: Any) -> dict[str, Any]:
    """An input in JSON."""
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def sized(name: str, datatype: str, shape: list[Any], size: Any) -> dict[str, Any]:
    """An input in binary."""
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


ROW = given("x", "FP32", [1, 2], [1, 2])


def ask(
    compiled: Compiled,
    body: Any,
    *,
    header: str | None = None,
    max_rows: int = MEBIBYTE,
    max_json_bytes: int = MEBIBYTE,
) -> Request:
    """The request that a body makes, which is JSON unless it is bytes."""
    encoded = body if isinstance(body, bytes) else orjson.dumps(body)
    headers = {HEADER: header}
    return open_inference.parse(Known(compiled=compiled), Call("infer", encoded, headers.get, max_json_bytes, max_rows))


def ask_in_binary(compiled: Compiled, members: dict[str, Any], *blobs: bytes) -> Request:
    """The request of these members with binary tensors behind them."""
    text = orjson.dumps(members)
    return ask(compiled, b"".join((text, *blobs)), header=str(len(text)))


def arrays(request: Request) -> tuple[Array, ...]:
    """The arrays of a request's only item."""
    (item,) = request.items
    assert list(item.rows) == list(range(request.count))
    return item.arrays


def of_strings(*values: bytes) -> bytes:
    """The elements of a BYTES tensor as they travel."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def answered(rendered: Rendered) -> tuple[dict[str, Any], list[Any]]:
    """The members of an answer, and its outputs' values: those in binary as bytes, others as they stand."""
    headers = dict(rendered.headers)
    size = int(headers.pop("Inference-Header-Content-Length", len(rendered.body)))
    assert headers == {}
    assert rendered.content_type == ("application/octet-stream" if rendered.headers else "application/json")
    members: dict[str, Any] = orjson.loads(rendered.body[:size])
    values, at = [], size
    for output in members["outputs"]:
        if "data" in output:
            values.append(output["data"])
            continue
        length = output["parameters"]["binary_data_size"]
        values.append(rendered.body[at : at + length])
        at += length
    assert at == len(rendered.body)
    return members, values


def rows_of(*values: Any, dtype: str = "float32") -> Array:
    return np.array(values, dtype)
