"""JSON values <-> numpy arrays: strict on the way in, exact on the way out.

Owns the rules by which JSON values become an array of a dtype and shape, and the way arrays become JSON. Knows
nothing of fields or the forms of a request.

Arrays here always have a leading row dimension; strings are object arrays of bytes (UTF-8).
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson

from models.contract import DTYPES, FLOATS, INTEGERS, Tensor
from models.errors import BadInput, BadOutput
from models.wording import HERE, Locate, found, place, pointer

Array = np.ndarray[Any, Any]

# A float holds every integer up to here, so 3.0 may stand for an integer; beyond it digits have been lost in parsing.
_MAX_EXACT = 2**53


@dataclass(slots=True, eq=False)
class Item:
    """Rows of one request that may share a batch: all of one shape. Made once and not changed.

    arrays: in the order of the contract's inputs, each of shape (rows, *shape of one row).
    rows: where each row stands in the request, counted from 0.
    """

    arrays: tuple[Array, ...]
    rows: Sequence[int]


# ---------------------------------------------------------------------------------------------- values -> arrays

_NUMPY = {name: np.dtype(name) for name in DTYPES if name != "string"}
_WRITABLE = frozenset(_NUMPY.values())
_LEAVES: dict[str, frozenset[type]] = {
    "bool": frozenset({bool}),
    "string": frozenset({str, bytes}),
    **dict.fromkeys((*INTEGERS, *FLOATS), frozenset({int, float})),
}
# Parsing turns integers beyond 64 bits into floats without a word, and strings need encoding: both look at each leaf.
_LEAF_BY_LEAF = frozenset({"string", "int64", "uint64"})


def from_json(
    rows: list[Any], tensor: Tensor, locate: Locate = HERE, *, validated: bool = False, finite: bool = True
) -> Array:
    """The array of shape (len(rows), *tensor.shape) that these rows' values make; unknown sizes are as they come.

    locate: the place of an element by its indices (row first), for the message.
    validated: the types, lengths and ranges are known to be right, as after the request's schema; only what a schema
        cannot say is looked at (overflow of a float dtype, ragged lists, digits lost in parsing).
    finite: refuse NaN and infinities; a dialect that has tokens for them passes False.

    Strings may be str or bytes.

    Raises:
        BadInput: with the path of the first element, in document order, that does not fit.
    """
    shape = (len(rows), *tensor.shape)
    if validated and len(rows) == 1 and (packed := _packed(rows[0], tensor)) is not None:
        return np.ndarray((1, len(rows[0])), _NUMPY[tensor.dtype], packed)
    try:
        if validated and tensor.dtype not in _LEAF_BY_LEAF:
            array = _fitted(_cast(rows, _NUMPY[tensor.dtype]), shape)
        else:
            array = _level_by_level(rows, shape, tensor.dtype, finite=finite)
    except (ValueError, OverflowError, FloatingPointError):
        raise _first_fault(rows, shape, tensor.dtype, locate, finite=finite) from None
    return array


# A short vector of floats is packed by the standard library in half of numpy's time, with the same bits.
_PACKED_MAX = 256
_packers: dict[tuple[str, tuple[int | None, ...]], Callable[..., bytes] | None] = {}


def _packed(row: list[Any], tensor: Tensor) -> bytes | None:
    """A row's bytes; None where numpy has to make them, or to find out what is wrong with them."""
    key = (tensor.dtype, tensor.shape)
    if key not in _packers:  # as many as contracts have tensors
        code = {"float32": "f", "float64": "d"}.get(tensor.dtype)
        size = tensor.shape[0] if len(tensor.shape) == 1 else None
        _packers[key] = struct.Struct(f"<{size}{code}").pack if code and 0 < (size or 0) <= _PACKED_MAX else None
    pack = _packers[key]
    if pack is None:
        return None
    try:
        return pack(*row)
    except (struct.error, OverflowError, TypeError):
        return None


@np.errstate(over="raise")
def _cast(values: list[Any], dtype: np.dtype[Any]) -> Array:
    return np.array(values, dtype)


def _fitted(array: Array, shape: tuple[int | None, ...]) -> Array:
    """The array, if it has this shape; an empty one gets the axes that its lists were too empty to show."""
    if array.size == 0 and array.ndim < len(shape):
        array = array.reshape(*array.shape, *(size or 0 for size in shape[array.ndim :]))
    if not fits(array.shape, shape):
        raise ValueError
    return array


def fits(actual: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether an array's shape is one that a contract's allows: None stands for any size."""
    if actual == wanted:
        return True
    return len(actual) == len(wanted) and all(w in (None, a) for a, w in zip(actual, wanted, strict=True))


def _level_by_level(rows: list[Any], shape: tuple[int | None, ...], dtype: str, *, finite: bool) -> Array:
    """Every list checked to be one and as long as its neighbours, every leaf to be of an allowed type, at C speed."""
    sizes, level = [len(rows)], rows
    for size in shape[1:]:
        if set(map(type, level)) - {list}:
            raise ValueError
        lengths = set(map(len, level)) or {size or 0}
        if len(lengths) > 1 or size not in (None, *lengths):
            raise ValueError
        sizes += lengths
        level = list(chain.from_iterable(level))
    return _leaves(level, dtype, finite=finite).reshape(sizes)


def _leaves(values: list[Any], dtype: str, *, finite: bool) -> Array:
    """One flat array; ValueError, OverflowError or FloatingPointError if any value does not fit the dtype."""
    kinds = set(map(type, values))
    if kinds - _LEAVES[dtype]:
        raise ValueError
    if dtype == "string":
        encoded = (value if type(value) is bytes else value.encode() for value in values)
        return np.fromiter(encoded, object, len(values))
    if dtype in INTEGERS and float in kinds:
        if not all(type(v) is int or (v.is_integer() and abs(v) <= _MAX_EXACT) for v in values):
            raise ValueError
        values = list(map(int, values))
    array = _cast(values, _NUMPY[dtype])
    if finite and dtype in FLOATS and not np.isfinite(array).all():
        raise ValueError
    return array


# ---------------------------------------------------------------------------------------------- the first fault

_CHUNK = 1024


def _first_fault(
    rows: list[Any], shape: tuple[int | None, ...], dtype: str, locate: Locate, *, finite: bool
) -> BadInput:
    # The walk refuses all that the quick way does; were it ever laxer, the input as a whole is to blame.
    nowhere = ((), "does not fit", leaf_words(dtype))
    indices, problem, expected = _Walk(dtype, finite=finite).fault(rows, shape, ()) or nowhere
    parts = locate(indices)
    return BadInput(f"{place(parts)} {problem}", path=pointer(parts), expected=expected)


class _Walk:
    """One pass in document order; sizes that the shape leaves open are set by the first list at each depth."""

    def __init__(self, dtype: str, *, finite: bool) -> None:
        self.dtype = dtype
        self.finite = finite
        self.sizes: dict[int, int] = {}

    def fault(
        self, value: Any, shape: tuple[int | None, ...], indices: tuple[int, ...]
    ) -> tuple[tuple[int, ...], str, str] | None:
        """The indices of the first element that does not fit, what is wrong, and what was expected; or None."""
        if type(value) is not list:
            expected = "a list" if shape[0] is None else f"a list of {shape[0]}"
            return indices, f"must be {expected}, got {found(value)}", expected
        size = self.sizes.setdefault(len(indices), len(value)) if shape[0] is None else shape[0]
        elements = value[:size]
        for index, element in enumerate(elements) if shape[1:] else self._bad_leaves(elements):
            if not shape[1:]:
                expected = leaf_words(self.dtype)
                return (*indices, index), f"must be {expected}, got {found(element)}", expected
            if inner := self.fault(element, shape[1:], (*indices, index)):
                return inner
        if len(value) != size:
            why = "" if shape[0] is not None else " like the list before it: lists must not be ragged"
            return indices, f"holds {len(value)} values, expected {size}{why}", f"a list of {size}"
        return None

    def _bad_leaves(self, values: list[Any]) -> Iterator[tuple[int, Any]]:
        """In chunks, because a hostile body may hold millions of good leaves before the bad one."""
        for start in range(0, len(values), _CHUNK):
            if self._is_bad(values[start : start + _CHUNK]):
                chunk = enumerate(values[start : start + _CHUNK], start)
                yield from ((index, value) for index, value in chunk if self._is_bad([value]))

    def _is_bad(self, values: list[Any]) -> bool:
        try:
            _leaves(values, self.dtype, finite=self.finite)
        except (ValueError, OverflowError, FloatingPointError):
            return True
        return False


def leaf_words(dtype: str) -> str:
    """What one value of the dtype may be, as a noun."""
    if dtype in ("bool", "string"):
        return "true or false" if dtype == "bool" else "a string"
    if dtype in FLOATS:
        most = float(np.finfo(dtype).max)
        return f"a number from {-most!r} to {most!r}"
    limits = np.iinfo(dtype)
    exact = ", without fraction or exponent beyond 2^53" if dtype in _LEAF_BY_LEAF else ""
    return f"a whole number from {limits.min} to {limits.max}{exact}"


# ---------------------------------------------------------------------------------------------- arrays -> JSON


def to_json(array: Array, *, null_for_nan: bool = False) -> Any:
    """What `dumps` writes for an array of shape (rows, …): the array itself, or nested lists of strings.

    Bytes that are not UTF-8 become {"b64": standard base64}. Non-finite numbers are written as null if allowed.

    Raises:
        BadOutput: NaN or an infinity where it is not allowed, or a dtype that JSON cannot carry.
    """
    if array.dtype.kind in "OSU":
        return [_text(element) if array.ndim == 1 else to_json(element) for element in array]
    if array.dtype not in _WRITABLE:
        raise BadOutput(f"the model answered with dtype {array.dtype.name}, which JSON cannot carry")
    if array.dtype.kind == "f" and not null_for_nan and not _is_finite(array):
        raise BadOutput("the model answered with NaN or an infinity")
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def dumps(value: Any) -> bytes:
    """JSON text, numpy numbers and arrays included: a float32 in the fewest digits that a float32 needs."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _is_finite(array: Array) -> bool:
    if array.size == 1:
        return math.isfinite(array.item())
    if array.size <= _SMALL:
        return all(map(math.isfinite, array.ravel().tolist()))
    return bool(np.isfinite(array).all())


# Up to here a loop in Python is quicker than numpy's two calls (0.4 against 1.4 us for 10 values).
_SMALL = 32


def _text(element: Any) -> Any:
    if isinstance(element, str):
        return element
    try:
        return bytes(element).decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(element).decode()}
