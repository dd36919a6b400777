"""A request's inputs and outputs as the prediction log keeps them: bodies, rows, or digests.

Owns the forms. How much of them may be kept, and of which requests, is front.recorder's affair.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from models.contract import Contract, Tensor
from models.dialects.dialect import Outputs, Request
from models.forms import ROWS
from models.tensors import Array, to_json
from prediction_log.record import Captured


class Features(NamedTuple):
    """A request's inputs as the log keeps them. `truncated`: they were longer than the limit."""

    kind: Captured
    value: bytes = b""
    truncated: bool = False


def is_text(body: bytes) -> bool:
    """Whether there is something to read in it."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def item_of_row(request: Request) -> tuple[int, ...]:
    """Which item each row of the request was in."""
    places = [0] * request.count
    for index, item in enumerate(request.items):
        for row in item.rows:
            places[row] = index
    return tuple(places)


def digest(body: bytes, request: Request | None, *, truncated: bool) -> Features:
    """One value for all rows: which bytes they came in, and the shapes of the tensors in them."""
    value: dict[str, Any] = {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}
    if request is not None:
        value["shape"] = [list(array.shape) for array in request.items[0].arrays]
    return Features(Captured.SHARED, orjson.dumps(value), truncated)


def pictures(request: Request, limit: int) -> Features:
    """Each picture by its digest, or itself where the limit allows."""
    if 0 < sum(map(len, request.pictures)) * 4 // 3 + 100 * request.count <= limit:
        whole = [{"image": base64.b64encode(picture).decode()} for picture in request.pictures]
        return Features(Captured.ROWS, orjson.dumps(whole))
    shape = list(request.items[0].arrays[0].shape[1:])
    digests = [
        {"sha256": hashlib.sha256(picture).hexdigest(), "bytes": len(picture), "shape": shape}
        for picture in request.pictures
    ]
    return Features(Captured.ROWS, orjson.dumps(digests), truncated=limit > 0)


def without(contract: Contract, request: Request, body: bytes) -> bytes:
    """The rows as JSON with null for what must never be written, by name or by its place in a vector."""
    value = orjson.loads(body)
    rows = value[ROWS] if request.many else [value]
    if request.value_key is not None:
        rows = [row[request.value_key] for row in rows]
    return orjson.dumps(_hidden(contract, rows))


def _hidden(contract: Contract, rows: Sequence[Any]) -> list[Any]:
    omit = frozenset(contract.log.omit)
    hidden = [field.name in omit for field in contract.fields]

    def keep(row: Any) -> Any:
        if type(row) is dict:
            return {key: None if key in omit else inner for key, inner in row.items()}
        if type(row) is list and len(row) == len(hidden):
            return [None if hide else inner for hide, inner in zip(hidden, row, strict=True)]
        return None  # the row is the value of the omitted field or input itself

    return [keep(row) for row in rows]


# -- requests of other dialects, whose bodies the log does not read ----------------------------------------------------


def size_of(arrays: Outputs) -> int:
    """About how many bytes of JSON these would be."""
    return sum(array.nbytes * 3 for group in arrays for array in group)


def inputs(contract: Contract, tensors: Sequence[Tensor], request: Request) -> bytes:
    """Each row as one of "instances" would be, as a JSON list; null for what must never be written."""
    rows = _rows(tensors, request, [item.arrays for item in request.items], flat=False)
    return orjson.dumps(_hidden(contract, rows) if contract.log.omit else rows)


def outputs(tensors: Sequence[Tensor], request: Request, values: Outputs) -> bytes:
    """Each row's answer as /predict would give it, as a JSON list."""
    return orjson.dumps(_rows(tensors, request, values, flat=True))


def _rows(tensors: Sequence[Tensor], request: Request, values: Outputs, *, flat: bool) -> list[Any]:
    """Each row's value by the tensors' names, the only one bare. flat: a plain number where a row has just one."""
    rows: list[Any] = [None] * request.count
    for item, arrays in zip(request.items, values, strict=True):
        columns = [_plain(array.reshape(-1) if flat and array.shape[1:] == (1,) else array) for array in arrays]
        for position, row in enumerate(item.rows):
            if len(columns) == 1:
                rows[row] = columns[0][position]
            else:
                rows[row] = {tensor.name: column[position] for tensor, column in zip(tensors, columns, strict=True)}
    return rows


def _plain(array: Array) -> list[Any]:
    if array.dtype.kind in "OSU":
        return list(to_json(array))
    values: list[Any] = array.tolist()
    return values if array.dtype.kind != "f" else [_finite(value) for value in values]


def _finite(value: Any) -> Any:
    """JSON has no NaN: it is kept as a string, as protobuf's JSON does."""
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
