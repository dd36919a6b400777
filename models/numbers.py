"""Long lists of numbers in a body -> arrays, without an object for each number.

Owns when that is safe. The usual way (models.body, the schema, models.tensors) makes a Python object of every number,
looks at each, and casts them one by one; for a picture of 224 x 224 x 3 that is 17 ms, and this 4. Here the body with
its digits and blanks taken out must be, byte for byte, what a body of so many rows of the contract's shape leaves: then
it can hold nothing but numbers, as many as there should be, under one key; and a parser that knows all of JSON's rules
turns them into doubles. Whatever is otherwise is None here, and the usual way then says what is wrong with it.
"""

from __future__ import annotations

import math
import os
import re
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
# Where a key that is longer, or stands behind more blanks, is read in the usual way.
_BEGINNING = 512
_OPENED = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*\[").match
# What no client knows.
_WORD = f"numbers-{os.urandom(16).hex()}-"


def plain_rows(contract: Contract) -> Tensor | None:
    """The only input of a model whose rows are floats of one shape, with no rules but that; None for any other."""
    if len(contract.inputs) != 1 or contract.request_schema or any(field.schema for field in contract.fields):
        return None
    tensor = contract.inputs[0]
    fixed = bool(tensor.shape) and all(tensor.shape)
    return tensor if fixed and tensor.dtype in _DTYPES else None


def instances(body: bytes, tensor: Tensor, max_rows: int) -> Array | None:
    """(rows, *shape) of {"instances": [row, …]}; None for what is not just that, or more rows."""
    if not _begins(body, ROWS):
        return None
    frame, row = _framed(ROWS), _row(tensor.shape)
    left = _left(body)
    rows, rest = divmod(len(left) - len(frame) - len(b"[]}") + 1, len(row) + 1)
    if rest or not 0 < rows <= max_rows or left != b"%b[%b]}" % (frame, b",".join([row] * rows)):
        return None
    return _numbers(body, ROWS, tensor, rows)


def one(body: bytes, tensor: Tensor) -> tuple[str, Array] | None:
    """The key, and (1, *shape) of {"features": row} or {input: row}; None for what is not just that."""
    for key in (VALUE, tensor.name):
        if _begins(body, key) and _left(body) == b"%b%b}" % (_framed(key), _row(tensor.shape)):
            array = _numbers(body, key, tensor, 1)
            return None if array is None else (key, array)
    return None


def cut_out(body: bytes, key: str) -> tuple[bytes, dict[str, Array]]:
    """A body in which each long flat list of numbers under `key` is a word, and the doubles that each word stands for.

    None is cut out of a string: in one the quotes around the key would be escaped. What is no JSON stays none.
    """
    pieces: list[bytes] = []
    found: dict[str, Array] = {}
    named = b'"%b"' % key.encode()
    at = seen = 0
    while (seen := body.find(named, seen)) >= 0:
        seen += len(named)
        opened = _OPENED(body, seen)
        end = body.find(b"]", seen)
        if opened is None or end - seen < BYTES_MIN:
            continue
        begin, seen = opened.end() - 1, end + 1
        values = body[begin:seen]
        if _left(values)[1:-1].strip(b","):
            continue
        try:
            listed = simdjson.Parser().parse(values)
            if not isinstance(listed, simdjson.Array):
                continue
            numbers = np.frombuffer(listed.as_buffer(of_type="d"))
        except (ValueError, TypeError, RuntimeError):
            continue
        word = f"{_WORD}{len(found)}"
        found[word] = numbers
        pieces += (body[at:begin], b'"%b"' % word.encode())
        at = seen
    return b"".join((*pieces, body[at:])), found


def cast(numbers: Array, tensor: Tensor, shape: tuple[int, ...]) -> Array | None:
    """Doubles as a float input of this shape; None where they do not make one."""
    if tensor.dtype not in _DTYPES or numbers.size != math.prod(shape):
        return None
    try:
        with np.errstate(over="raise"):
            return numbers.astype(tensor.dtype, copy=False).reshape(shape)
    except FloatingPointError:
        return None


def _begins(body: bytes, key: str) -> bool:
    """Whether it may be a body of this key: a look at its beginning spares one through all of it."""
    return _left(body[:_BEGINNING]).startswith(_framed(key))


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
    except (ValueError, TypeError, KeyError, RuntimeError):
        return None
    return cast(numbers, tensor, (rows, *(size or 0 for size in tensor.shape)))
