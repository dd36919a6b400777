"""JSON values -> arrays as TensorFlow Serving takes them, and its words for those that it does not.

Owns which value goes into which dtype there: whole numbers into integers only, no number for a boolean, strings also as
{"b64": …}. Shapes come from the values. Knows nothing of where in a body the values stood.
"""

from __future__ import annotations

import base64
import binascii
from itertools import chain
from typing import Any

import numpy as np

from models.contract import FLOATS, INTEGERS
from models.dialects.tfs_json import shown
from models.errors import BadInput
from models.tensors import Array

_RANK_MAX = 32
_CHUNK = 1024
_TYPES = {bool: "False", str: "String", dict: "Object", list: "Array", type(None): "Null"}
_NAMES = {"float32": "float", "float64": "double", "float16": "half"}


def is_base64(value: Any) -> bool:
    """Whether it stands for bytes: an object whose only key is b64, with a string."""
    return type(value) is dict and len(value) == 1 and type(value.get("b64")) is str


def base64_bytes(value: dict[str, Any]) -> bytes:
    """The bytes that it stands for; padding may be left out. Raises BadInput."""
    if not is_base64(value):
        raise BadInput(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    text = value["b64"]
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:  # binascii.Error is one, and so is what other than ASCII gives
        raise BadInput("Unable to base64 decode") from None


def base64_object(value: bytes) -> dict[str, str]:
    """The inverse of `base64_bytes`."""
    return {"b64": base64.b64encode(value).decode()}


def dense(values: list[Any], dtype: str) -> Array:
    """The array of these values, one level of lists after the other at C speed.

    Raises ValueError, OverflowError or FloatingPointError: ragged, or a value that the dtype does not take; and
    BadInput for bytes that cannot be decoded.
    """
    sizes, level = [len(values)], values
    while level and type(level[0]) is list:
        lengths = set(map(len, level)) if set(map(type, level)) == {list} else set()
        if len(lengths) != 1 or len(sizes) == _RANK_MAX:
            raise ValueError
        sizes += lengths
        level = list(chain.from_iterable(level))
    return _leaves(level, dtype).reshape(sizes)


def explain(values: list[Any], dtype: str) -> tuple[int, str]:
    """Why `dense` does not take these values, each for a row of its own: which row is to blame, and what is wrong."""
    first: list[int] | None = None
    for start in range(0, len(values), _CHUNK):
        chunk = values[start : start + _CHUNK]
        if first == [] and _takes(chunk, dtype):
            continue
        for index, value in enumerate(chunk, start):
            shape = _shape(value)
            fault = _fault(value, 0, shape, dtype)
            if fault is None and first is not None and shape != first:
                fault = _other_shape(first, shape)
            if fault is not None:
                return index, fault
            first = shape
    return 0, "its values are not all of one shape"


def explain_whole(value: Any, dtype: str) -> str:
    """Why `dense` does not take this value as a whole."""
    return _fault(value, 0, _shape(value), dtype) or "its values are not all of one shape"


@np.errstate(over="raise")
def _leaves(values: list[Any], dtype: str) -> Array:
    kinds = set(map(type, values))
    if dtype == "string":
        if kinds - {str, dict}:
            raise ValueError
        encoded = (value.encode() if type(value) is str else base64_bytes(value) for value in values)
        return np.fromiter(encoded, object, len(values))
    if kinds - ({int, float} if dtype in FLOATS else {int} if dtype in INTEGERS else {bool}):
        raise ValueError
    return np.array(values, np.dtype(dtype))


def _takes(values: list[Any], dtype: str) -> bool:
    try:
        _leaves(values, dtype)
    except (ValueError, OverflowError, FloatingPointError, BadInput):
        return False
    return True


def _shape(value: Any) -> list[int]:
    """As the first of each level says."""
    sizes = []
    while type(value) is list:
        sizes.append(len(value))
        value = value[0] if value else None
    return sizes


def _other_shape(first: list[int], shape: list[int]) -> str:
    sizes = [int(np.prod(one)) for one in (first, shape)]
    if sizes[0] != sizes[1]:
        return f"Expecting tensor size: {sizes[0]} but got: {sizes[1]}"
    return f"Expecting shape {bracketed(first)} but got: {bracketed(shape)}"


def bracketed(shape: list[int]) -> str:
    """A shape as the original prints it: [2,3]."""
    return f"[{','.join(map(str, shape))}]"


def _fault(value: Any, level: int, shape: list[int], dtype: str) -> str | None:
    """What is wrong with a value of this shape, first of all in document order; None if nothing is."""
    rank = len(shape)
    if rank > _RANK_MAX:
        return f"Encountered list at unexpected level: {_RANK_MAX} expected < {_RANK_MAX}"
    if type(value) is not list:
        if level != rank:
            return (
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM."
                f" Expected at level: {rank}"
            )
        return _leaf_fault(value, dtype)
    if level >= rank:
        return f"Encountered list at unexpected level: {level} expected < {rank}"
    if len(value) != shape[level]:
        return f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
    for start in range(0, len(value), _CHUNK):
        chunk = value[start : start + _CHUNK]
        if level == rank - 1 and _takes(chunk, dtype):
            continue
        for one in chunk:
            if fault := _fault(one, level + 1, shape, dtype):
                return fault
    return None


def _leaf_fault(value: Any, dtype: str) -> str | None:
    try:
        _leaves([value], dtype)
    except BadInput as fault:
        return fault.message
    except FloatingPointError:
        return f"Cannot convert JSON value: {shown(value)} to {_NAMES.get(dtype, dtype)} without loss of precision."
    except (ValueError, OverflowError):
        if type(value) in (int, float) and dtype in FLOATS:
            return f"Cannot convert JSON value: {shown(value)} to {_NAMES.get(dtype, dtype)} without loss of precision."
        kind = "True" if value is True else _TYPES.get(type(value), "Number")
        return f"JSON Value: {shown(value)} Type: {kind} is not of expected type: {_NAMES.get(dtype, dtype)}"
    return None
