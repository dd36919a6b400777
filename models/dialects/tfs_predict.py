"""TensorFlow Serving's predict: rows ("instances") or columns ("inputs") -> arrays, and outputs -> the same form.

Owns the two forms and what is said of a body that is neither. A row of one value may stand for a row of shape (1,), as
the original's own examples have it: then the answer's rows are bare values too. Knows nothing of signatures' names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson

from models import numbers
from models.contract import Contract, Tensor
from models.dialects.dialect import Call, Outputs, Request
from models.dialects.tfs_json import shown, token, writable
from models.dialects.tfs_tensors import base64_object, bracketed, dense, explain, explain_whole, is_base64
from models.errors import BadInput, BadOutput, TooLarge
from models.forms import ROWS
from models.schema import Compiled
from models.schema import explain as explain_contract
from models.tensors import Array, Item, dumps, fits, to_json
from models.wording import clip

COLUMNS = "inputs"


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer must look like.

    flat: rows came as bare values, so outputs of shape (1,) leave so. bare: not even a list came, but one value.
    """

    kind: Literal["rows", "columns", "classify", "regress"]
    flat: bool = False
    bare: bool = False


def parse_plain(compiled: Compiled, call: Call) -> Request | None:
    """Rows that are nothing but numbers, for the usual signature; None for any other body."""
    if compiled.plain is None or len(call.body) < numbers.BYTES_MIN:
        return None
    array = numbers.instances(call.body, compiled.plain, call.most_rows(compiled.contract))
    if array is None:
        return None
    return Request((Item((array,), range(len(array))),), len(array), many=True, form=Form("rows"))


def parse(compiled: Compiled, body: dict[str, Any], call: Call) -> Request:
    """The rows of a predict body. Raises BadInput and TooLarge."""
    if ROWS in body:
        if COLUMNS in body:
            reason = f"Not formatted correctly expecting only one of '{COLUMNS}' or '{ROWS}' keys to exist"
            raise BadInput(f"JSON Value: {shown(body)} {reason}")
        return _from_rows(compiled, body, call)
    if COLUMNS in body:
        return _from_columns(compiled, body[COLUMNS], call)
    raise BadInput(f"Missing '{COLUMNS}' or '{ROWS}' key")


def _from_rows(compiled: Compiled, body: dict[str, Any], call: Call) -> Request:
    rows, inputs = body[ROWS], compiled.contract.inputs
    if type(rows) is not list:
        raise BadInput(f"JSON Value: {shown(body)} Expecting '{ROWS}' to be an list/array")
    if not rows:
        raise BadInput(f"JSON Value: {shown(body)} No values in '{ROWS}' array")
    refuse_too_many(len(rows), compiled, call)
    named = _is_object(rows[0])
    if not named and len(inputs) > 1:
        raise BadInput(
            f"{ROWS} is a plain list, but expecting list of objects as multiple input tensors required as per"
            " tensorinfo_map"
        )
    columns = _members(rows, inputs) if named else [rows]
    arrays, flat = [], False
    for tensor, column in zip(inputs, columns, strict=True):
        if not named and dict in set(map(type, column)):
            _refuse_mixed(rows)
        try:
            array = dense(column, tensor.dtype)
        except (ValueError, OverflowError, FloatingPointError, BadInput):
            index, fault = explain(column, tensor.dtype)
            key = f" key: {clip(tensor.name, 64)}" if named else ""
            text = f"Failed to process element: {index}{key} of '{ROWS}' list. Error: INVALID_ARGUMENT: {fault}"
            raise BadInput(text) from None
        array, bare = fitted(array, tensor)
        arrays.append(array)
        flat = flat or bare
    return checked(compiled, columns, arrays, Form("rows", flat))


def _is_object(value: Any) -> bool:
    return type(value) is dict and not is_base64(value)


def _members(rows: list[Any], inputs: Sequence[Tensor]) -> list[list[Any]]:
    """Each input's value in every row. Raises BadInput unless all are objects with exactly these names."""
    names = {tensor.name for tensor in inputs}
    for index, row in enumerate(rows):
        if not _is_object(row):
            raise BadInput(f"Expecting object but got list at item {index} of input list")
        if row.keys() != names:
            for key in row:
                if key not in names:
                    key = clip(key, 64)  # noqa: PLW2901 - only ever shown
                    raise BadInput(
                        f"Failed to process element: {index} key: {key} of '{ROWS}' list. Error: INVALID_ARGUMENT:"
                        f" JSON object: does not have named input: {key}"
                    )
            raise BadInput(
                f"Failed to process element: {index} of '{ROWS}' list. JSON object: {shown(row)} keys must be equal to:"
                f" {','.join(sorted(names))}"
            )
    return [[row[tensor.name] for row in rows] for tensor in inputs]


def _refuse_mixed(rows: list[Any]) -> None:
    for index, row in enumerate(rows):
        if _is_object(row):
            raise BadInput(f"Expecting value/list but got object at item {index} of input list")


def _from_columns(compiled: Compiled, value: Any, call: Call) -> Request:
    inputs = compiled.contract.inputs
    columns = [value]
    if _is_object(value):
        for tensor in inputs:
            if tensor.name not in value:
                raise BadInput(f"Missing named input: {clip(tensor.name, 64)} in '{COLUMNS}' object.")
        columns = [value[tensor.name] for tensor in inputs]
    elif len(inputs) > 1:
        raise BadInput(
            f"{COLUMNS} is a plain value/list, but expecting an object as multiple input tensors required as per"
            " tensorinfo_map"
        )
    bare = all(type(column) is not list for column in columns)
    if bare:
        columns = [[column] for column in columns]
    arrays, flat = [], False
    for tensor, column in zip(inputs, columns, strict=True):
        try:
            array = dense(column, tensor.dtype)
        except (TypeError, ValueError, OverflowError, FloatingPointError, BadInput):
            raise BadInput(explain_whole(column[0] if bare else column, tensor.dtype)) from None
        array, is_flat = fitted(array, tensor)
        arrays.append(array)
        flat = flat or is_flat
    counts = [len(array) for array in arrays]
    if len(set(counts)) > 1:
        told = ", ".join(f"{clip(tensor.name, 64)} {count}" for tensor, count in zip(inputs, counts, strict=True))
        raise BadInput(f"'{COLUMNS}' must have the same 0-th dimension, one for each row, but got: {told}")
    if not counts[0]:
        raise BadInput(f"No values in '{COLUMNS}'")
    refuse_too_many(counts[0], compiled, call)
    return checked(compiled, columns, arrays, Form("columns", flat, bare))


def refuse_too_many(count: int, compiled: Compiled, call: Call) -> None:
    """Raise TooLarge for more rows than the server or the contract takes at once."""
    most = call.most_rows(compiled.contract)
    if count > most:
        raise TooLarge(f"the request holds {count} rows, at most {most} are taken at once")


def fitted(array: Array, tensor: Tensor) -> tuple[Array, bool]:
    """The array in the input's shape, and whether its rows were bare values for rows of shape (1,). Raises BadInput."""
    shape = (len(array), *tensor.shape)
    if fits(array.shape, shape):
        return array, False
    if tensor.shape == (1,) and array.ndim == 1:
        return array.reshape(-1, 1), True
    wanted = bracketed([-1, *(-1 if size is None else size for size in tensor.shape)])
    raise BadInput(
        f"Tensor name: {clip(tensor.name, 64)} Expecting shape {wanted} but got: {bracketed([*array.shape])}"
    )


def checked(compiled: Compiled, columns: list[list[Any]], arrays: list[Array], form: Form) -> Request:
    """The request, if the contract's own ranges and schema allow it. columns: each input's values, as they came."""
    contract, count = compiled.contract, len(arrays[0])
    if contract.request_schema or any(field.schema for field in contract.fields):
        _hold(compiled, columns, arrays)
    return Request((Item(tuple(arrays), range(count)),), count, many=not form.bare, form=form)


def _hold(compiled: Compiled, columns: list[list[Any]], arrays: list[Array]) -> None:
    values = []
    for tensor, column, array in zip(compiled.contract.inputs, columns, arrays, strict=True):
        if tensor.dtype == "string":  # bytes that came in base64 are judged as the text that they are
            column = to_json(array)  # noqa: PLW2901
        elif array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BadInput(f"Tensor name: {clip(tensor.name, 64)} must be finite: the model's contract sets bounds")
        elif tensor.shape == (1,) and type(column[0]) is not list:
            column = [[value] for value in column]  # noqa: PLW2901
        values.append(column)
    names = [tensor.name for tensor in compiled.contract.inputs]
    rows = values[0] if len(values) == 1 else [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
    if compiled.form_of({ROWS: rows}) is None:
        raise BadInput(explain_contract(compiled, {ROWS: rows}).message)


# ---------------------------------------------------------------------------------------------- outputs -> body


def render(contract: Contract, request: Request, outputs: Outputs) -> bytes:
    """The body of an answer; with one output its name is left out. Raises BadOutput."""
    form: Form = request.form
    arrays = checked_outputs(contract, request, outputs)
    if form.flat:
        arrays = [
            array.reshape(-1) if tensor.shape == (1,) else array
            for tensor, array in zip(contract.outputs, arrays, strict=True)
        ]
    names = [tensor.name for tensor in contract.outputs]
    if form.kind == "columns":
        written = [_written(name, array) for name, array in zip(names, arrays, strict=True)]
        if form.bare:
            written = [_rows(name, array)[0] for name, array in zip(names, arrays, strict=True)]
        return dumps({"outputs": written[0] if len(names) == 1 else dict(zip(names, written, strict=True))})
    if len(names) == 1:
        return dumps({"predictions": _written(names[0], arrays[0])})
    columns = [_rows(name, array) for name, array in zip(names, arrays, strict=True)]
    return dumps({"predictions": [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]})


def checked_outputs(contract: Contract, request: Request, outputs: Outputs) -> list[Array]:
    """Each output, with a row for each row of the request and the contract's shape. Raises BadOutput."""
    arrays = outputs[0] if len(outputs) == 1 else ()
    if len(arrays) != len(contract.outputs):
        raise BadOutput(f"the model answered with {len(arrays)} outputs, its contract has {len(contract.outputs)}")
    for tensor, array in zip(contract.outputs, arrays, strict=True):
        name = clip(tensor.name, 64)
        if array.ndim == 0:
            raise BadOutput(f"Tensor name: {name} has no shape information")
        if len(array) != request.count:
            raise BadOutput(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {request.count}")
        if not fits(array.shape[1:], tensor.shape):
            raise BadOutput(f"Tensor name: {name} has the shape {array.shape[1:]} expecting: {tensor.shape}")
    return list(arrays)


def _written(name: str, array: Array) -> Any:
    """What `dumps` writes for a whole output."""
    if array.dtype.kind in "OSU":
        return _texts(array, as_bytes=name.endswith("_bytes"))
    return writable(array)


def _rows(name: str, array: Array) -> Any:
    """What `dumps` writes for an output, row by row."""
    written = _written(name, array)
    if isinstance(written, orjson.Fragment):
        return [number(row) if row.ndim == 0 else writable(row) for row in array]
    return written


def number(value: Any) -> Any:
    """What `dumps` writes for one number of an array."""
    return value if np.isfinite(value) else orjson.Fragment(token(float(value)))


def _texts(array: Array, *, as_bytes: bool) -> list[Any]:
    """Strings, nested as the array is; bytes as base64, and so what is no UTF-8, which JSON could not carry."""
    if array.ndim > 1:
        return [_texts(row, as_bytes=as_bytes) for row in array]
    encoded = [one.encode() if isinstance(one, str) else bytes(one) for one in array]
    return list(map(base64_object, encoded)) if as_bytes else list(map(text, encoded))


def text(value: bytes) -> Any:
    """A string of the model's; as base64 where it is no UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64_object(value)
