"""A long body that is nothing but numbers in lists -> an array, without an object for each number.

Owns when that is safe. The usual way (models.body, the schema, models.tensors) makes a Python object of every number,
looks at each, and casts them one by one; for a picture of 224 x 224 x 3 that is 17 ms, and this 4. Here the body with
its digits and blanks taken out must be, byte for byte, what a body of so many rows of the contract's shape leaves: then
it can hold nothing but numbers, as many as there should be, under one key; and a parser that knows all of JSON's rules
turns them into doubles. Whatever is otherwise is None here, and the usual way then says what is wrong with it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import simdjson

from models.contract import Contract, Tensor
from models.forms import ROWS, VALUE
from models.tensors import Array

# A shorter body is read in the usual way, which is then as quick.
BYTES_MIN = 2048
# What numbers and the blanks between them are made of; in a key the same letters are left out on both sides.
_WITHIN = b"0123456789.eE+- \t\r\n"
_DTYPES = ("float32", "float64")


def plain_rows(contract: Contract) -> Tensor | None:
    """The only input of a model whose rows are floats of one shape, with no rules but that; None for any other."""
    if len(contract.inputs) != 1 or contract.request_schema or any(field.schema for field in contract.fields):
        return None
    tensor = contract.inputs[0]
    fixed = bool(tensor.shape) and all(tensor.shape)
    return tensor if fixed and tensor.dtype in _DTYPES else None


def instances(body: bytes, tensor: Tensor, max_rows: int) -> Array | None:
    """(rows, *shape) of {"instances": [row, …]}; None for what is not just that, or more rows."""
    frame, row = _framed(ROWS), _row(tensor.shape)
    left = _left(body)
    rows, rest = divmod(len(left) - len(frame) - len(b"[]}") + 1, len(row) + 1)
    if rest or not 0 < rows <= max_rows or left != b"%b[%b]}" % (frame, b",".join([row] * rows)):
        return None
    return _numbers(body, ROWS, tensor, rows)


def one(body: bytes, tensor: Tensor) -> tuple[str, Array] | None:
    """The key, and (1, *shape) of {"features": row} or {input: row}; None for what is not just that."""
    left = _left(body)
    for key in (VALUE, tensor.name):
        if left == b"%b%b}" % (_framed(key), _row(tensor.shape)):
            array = _numbers(body, key, tensor, 1)
            return None if array is None else (key, array)
    return None


def _left(body: bytes) -> bytes:
    return body.translate(None, _WITHIN)


def _framed(key: str) -> bytes:
    return b'{"%b":' % _left(key.encode())


@lru_cache(maxsize=64)
def _row(shape: tuple[int, ...]) -> bytes:
    """What is left of a row."""
    left = b""
    for size in reversed(shape):
        left = b"[%b]" % b",".join([left] * size)
    return left


def _numbers(body: bytes, key: str, tensor: Tensor, rows: int) -> Array | None:
    try:
        found = simdjson.Parser().parse(body)
        values = found[key] if isinstance(found, simdjson.Object) else None
        if not isinstance(values, simdjson.Array):
            return None
        numbers = np.frombuffer(values.as_buffer(of_type="d"))
        with np.errstate(over="raise"):
            return numbers.astype(tensor.dtype, copy=False).reshape(rows, *tensor.shape)
    except (ValueError, TypeError, KeyError, RuntimeError, FloatingPointError):
        return None
