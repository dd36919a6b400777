"""JSON text <-> values <-> numpy arrays: strict on the way in, exact on the way out.

Owns the parsing of a body, the rules by which JSON values become an array of a dtype and shape, and the way arrays
become JSON. Knows nothing of contracts, fields or the forms of a request.

Arrays here always have a leading row dimension; strings are object arrays of bytes (UTF-8).
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson

from models.contract import FLOATS, Tensor
from models.errors import BadInput, BadOutput, TooLarge
from models.wording import Locate, Parts, found, literal, place, pointer, quoted, under

Array = np.ndarray[Any, Any]

# A list costs the parser about 0.3 us however little it holds: 6 MB of "[]," took 0.57 s (measured). This many take
# at most 0.08 s, and are still 200 pictures of 28 x 28 x 1 or 100,000 rows of one value in one body.
MAX_CONTAINERS = 200_000

# Where a key is given twice is found by a slower parse (0.2 to 0.4 s for 8 MB); a longer body is refused without it.
_MAX_LOCATED_BYTES = 1 << 20

# A float holds every integer up to here, so 3.0 may stand for an integer; beyond it digits have been lost in parsing.
_MAX_EXACT = 2**53

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """Rows of one request that may share a batch: all of one shape.

    arrays: in the order of the contract's inputs, each of shape (rows, *shape of one row).
    rows: where each row stands in the request, counted from 0.
    """

    arrays: tuple[Array, ...]
    rows: Sequence[int]


# ---------------------------------------------------------------------------------------------- bodies


def loads(body: bytes) -> dict[str, Any]:
    """The JSON object in a body, strictly: UTF-8, no NaN or infinities, no lone surrogates, no key twice.

    Raises:
        BadInput: it is not JSON (path None), not an object (path ""), or holds a key twice (path of the key).
        TooLarge: more than MAX_CONTAINERS lists and objects.
    """
    if len(body) > MAX_CONTAINERS and (count := body.count(b"[") + body.count(b"{")) > MAX_CONTAINERS:
        message = f"the body holds {count} lists and objects, at most {MAX_CONTAINERS} are taken; send fewer rows at once"
        raise TooLarge(message)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _syntax_fault(body, error) from None
    if type(value) is not dict:
        message = f"the body must be a JSON object, got {found(value)}"
        raise BadInput(message, path="", expected="a JSON object")
    if (colons := body.count(b":")) != len(value):
        _refuse_duplicates(body, value, colons)
    return value


def _syntax_fault(body: bytes, error: orjson.JSONDecodeError) -> BadInput:
    """Why and where a body is not JSON, in our words: orjson's error carries the whole body."""
    where = f"line {error.lineno}, column {error.colno}"
    if not body.strip():
        return BadInput("the body is empty; send a JSON object", expected="a JSON object")
    if body.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in body[:4]:
        return BadInput("the body is not UTF-8 but UTF-16 or UTF-32; encode it as UTF-8", expected="JSON in UTF-8")
    if body.startswith(b"\xef\xbb\xbf"):
        return BadInput("the body begins with a byte order mark; send plain UTF-8", expected="JSON in UTF-8")
    try:
        text = body.decode()
    except UnicodeDecodeError as fault:
        return BadInput(f"the body is not UTF-8: bad byte at offset {fault.start}", expected="JSON in UTF-8")
    rest = text[error.pos :]
    if rest.startswith(("NaN", "Infinity", "-Infinity")) or "infinity" in error.msg:
        return BadInput(f"NaN and infinities are not JSON numbers: {where}", expected="finite numbers")
    if "surrogate" in error.msg:
        return BadInput(f"a lone surrogate is not text: {where}", expected="whole Unicode characters")
    if "depth" in error.msg:
        return BadInput(f"lists or objects are nested too deep: {where}", expected="at most 1024 levels")
    return BadInput(f"the body is not valid JSON: {where}: {error.msg}", expected="a JSON object")


def _refuse_duplicates(body: bytes, value: dict[str, Any], colons: int) -> None:
    """Raise if a key was given twice.

    Each key brings one colon, and a repeated one leaves no trace in the parsed value: so a body with as many colons
    as the value has keys holds none twice. Colons in strings only lead to a closer look.
    """
    if _count_keys_in_rows(value) == colons or _count_keys(value) == _STRING.sub(b"", body).count(b":"):
        return
    parts: Parts = ()
    if len(body) <= _MAX_LOCATED_BYTES:
        with contextlib.suppress(RecursionError):  # json gives up some levels before orjson does
            parts = next(_twice(json.loads(body, object_pairs_hook=_keep_twice)), ())
    what = f"the key {quoted(str(parts[-1]))} is given twice" if parts else "a key is given twice"
    raise BadInput(what, path=pointer(parts), expected="every key once")


def _count_keys_in_rows(value: dict[str, Any]) -> int:
    """The keys of the body and of lists of plain objects in it: all there are in most bodies, never more."""
    total = len(value)
    for member in value.values():
        if type(member) is list and set(map(type, member)) == {dict}:
            total += sum(map(len, member))
    return total


def _count_keys(value: Any) -> int:
    total, waiting = 0, [value]
    while waiting:
        node = waiting.pop()
        if type(node) is dict:
            total += len(node)
            waiting.extend(node.values())
        elif type(node) is list and {dict, list} & set(map(type, node)):
            waiting.extend(node)
    return total


class _Twice(dict[str, Any]):
    """An object with a key given twice, `key`."""

    key: str


def _keep_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    twice: str | None = None
    for key, value in pairs:
        if key in seen and twice is None:
            twice = key
        seen[key] = value
    if twice is None:
        return seen
    marked = _Twice(seen)
    marked.key = twice
    return marked


def _twice(value: Any) -> Iterator[Parts]:
    """The paths of keys given twice, in document order."""
    waiting: list[tuple[Parts, Any]] = [((), value)]
    while waiting:
        parts, node = waiting.pop()
        if isinstance(node, _Twice):
            yield (*parts, node.key)
        if isinstance(node, dict):
            waiting.extend(((*parts, key), member) for key, member in reversed(node.items()))
        elif isinstance(node, list):
            waiting.extend(((*parts, index), member) for index, member in reversed(list(enumerate(node))))


# ---------------------------------------------------------------------------------------------- values -> arrays


def from_json(
    rows: list[Any], tensor: Tensor, locate: Locate = under(), *, validated: bool = False, finite: bool = True
) -> Array:
    """The array of shape (len(rows), *tensor.shape) that the values of these rows make; unknown sizes as they come.

    locate: names the place of an element by its indices (row first) for the message of a fault.
    validated: the values are known to have the right types, lengths and ranges, as after the request's schema; only
        what a schema cannot say is looked at (overflow of the dtype, ragged lists, digits lost in parsing).
    finite: refuse NaN and infinities; a dialect whose JSON has tokens for them passes False.

    Strings may be str or bytes. Raises BadInput with the path of the first element, in document order, that does not
    fit; TypeError never.
    """
    shape = (len(rows), *tensor.shape)
    try:
        if validated and tensor.dtype not in _NEVER_AS_IS:
            array = _cast(rows, _DTYPES[tensor.dtype])
        else:
            array = _from_leaves(rows, shape, tensor.dtype, finite=finite)
    except (ValueError, OverflowError, FloatingPointError):
        array = None
    if array is not None and (array := _fitted(array, shape)) is not None:
        return array
    raise _Faults(tensor.dtype, finite=finite).first(rows, shape, locate)


_DTYPES = {name: np.dtype(name) for name in DTYPES if name != "string"}
_LEAVES: dict[str, frozenset[type]] = {
    "bool": frozenset({bool}),
    "string": frozenset({str, bytes}),
    **dict.fromkeys((*INTEGERS, *FLOATS), frozenset({int, float})),
}
# JSON parsing turns integers beyond 64 bits into floats without a word, and strings need encoding.
_NEVER_AS_IS = ("string", "int64", "uint64")


@np.errstate(over="raise")
def _cast(values: list[Any], dtype: np.dtype[Any]) -> Array:
    return np.array(values, dtype)


def _fitted(array: Array, shape: tuple[int | None, ...]) -> Array | None:
    """The array if it has this shape; an empty one gets the axes that its lists were too empty to show."""
    if array.size == 0 and array.ndim < len(shape):
        array = array.reshape(*array.shape, *(size or 0 for size in shape[array.ndim :]))
    fits = array.ndim == len(shape) and all(want in (None, has) for want, has in zip(shape, array.shape, strict=True))
    return array if fits else None


def _from_leaves(rows: list[Any], shape: tuple[int | None, ...], dtype: str, *, finite: bool) -> Array:
    """Level by level, at C speed: every list checked to be one, all of one length, every leaf of an allowed type.

    Raises ValueError where anything is wrong; finding out what is left to the slower walk.
    """
    sizes, level = [len(rows)], rows
    for _ in shape[1:]:
        if set(map(type, level)) - {list}:
            raise ValueError
        lengths = set(map(len, level))
        if len(lengths) > 1:
            raise ValueError
        sizes.append(lengths.pop() if lengths else 0)
        level = list(chain.from_iterable(level))
    if set(map(type, level)) - _LEAVES[dtype]:
        raise ValueError
