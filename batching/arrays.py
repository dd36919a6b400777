"""Arrays as bytes and back. Owns the layout: dtypes and row shapes of the tensors in a frame, as a short byte string.

The layout leaves the rows out, so that items may share a batch exactly when their layouts are equal, and joining the
payloads of a single fixed-size tensor is already the batch.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np

from batching.transport import WHOLE_BYTES, Payload

# The place in this list is the code on the wire: append only.
DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
]  # fmt: skip
STRING = 255
_CODES = {np.dtype(name): code for code, name in enumerate(DTYPES)}
_U32 = struct.Struct("<I")


class Layout:
    """What a layout's bytes say. `row_bytes` is per tensor, None for strings (whose bytes vary)."""

    __slots__ = ("dtypes", "fixed", "row_bytes", "shapes", "single")

    def __init__(self, encoded: bytes) -> None:
        self.dtypes: list[np.dtype | None] = []
        self.shapes: list[tuple[int, ...]] = []
        self.row_bytes: list[int | None] = []
        at = 0
        while at < len(encoded):
            code, rank = encoded[at], encoded[at + 1]
            shape = struct.unpack_from(f"<{rank}I", encoded, at + 2)
            at += 2 + 4 * rank
            dtype = None if code == STRING else np.dtype(DTYPES[code])
            self.dtypes.append(dtype)
            self.shapes.append(shape)
            self.row_bytes.append(None if dtype is None else int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        self.fixed = None not in self.row_bytes
        self.single = len(self.dtypes) == 1 and self.fixed


@lru_cache(maxsize=4096)
def layout_of(encoded: bytes) -> Layout:
    """The layout for these bytes; cached, since nearly all frames of a model carry the same one."""
    return Layout(encoded)


@lru_cache(maxsize=4096)
def _encode_one(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    code = STRING if dtype.kind in "OSU" else _CODES[dtype]
    return struct.pack(f"<BB{len(shape)}I", code, len(shape), *shape)


def encode(arrays: Sequence[np.ndarray]) -> tuple[bytes, Payload]:
    """(layout, payload) of arrays that share their leading row dimension. Strings are object arrays of bytes.

    The payload of a single large one may be a view of it. Raises KeyError for a dtype that has no code.
    """
    if len(arrays) == 1:
        array = arrays[0]
        layout = _encode_one(array.dtype, array.shape[1:])
        if array.nbytes > WHOLE_BYTES and array.dtype.kind not in "OSU" and array.flags.c_contiguous:
            return layout, array.reshape(-1).view(np.uint8).data
        return layout, _tensor_bytes(array)
    return layout_bytes(arrays), b"".join([_tensor_bytes(array) for array in arrays])


def layout_bytes(arrays: Sequence[np.ndarray]) -> bytes:
    """The layout of arrays that share their leading row dimension. Raises KeyError for a dtype that has no code."""
    return b"".join([_encode_one(array.dtype, array.shape[1:]) for array in arrays])


def _tensor_bytes(array: np.ndarray) -> bytes:
    if array.dtype.kind not in "OSU":
        return array.tobytes()
    pieces: list[bytes] = []
    for element in array.ravel().tolist():
        value = element.encode() if isinstance(element, str) else element
        if not isinstance(value, bytes):
            raise KeyError(f"object array of {type(value).__name__}")
        pieces += (_U32.pack(len(value)), value)
    body = b"".join(pieces)
    return _U32.pack(len(body)) + body


def decode(layout: Layout, payload: Payload, rows: int) -> list[np.ndarray]:
    """The arrays of one frame, each of shape (rows, *row shape). Raises ValueError when the bytes do not fit."""
    if layout.single:
        return [_fixed(layout, 0, payload, rows)]
    arrays, at = [], 0
    for i, row_bytes in enumerate(layout.row_bytes):
        if row_bytes is None:
            size = _size_at(payload, at)
            arrays.append(_strings(bytes(payload[at + 4 : at + 4 + size]), (rows, *layout.shapes[i])))
            at += 4 + size
        else:
            size = row_bytes * rows
            arrays.append(_fixed(layout, i, payload[at : at + size], rows))
            at += size
    if at != len(payload):
        raise ValueError("bytes are left over")
    return arrays


def _fixed(layout: Layout, i: int, data: Payload, rows: int) -> np.ndarray:
    return np.frombuffer(data, layout.dtypes[i]).reshape((rows, *layout.shapes[i]))


def _size_at(data: Payload, at: int) -> int:
    if at + _U32.size > len(data):
        raise ValueError("the bytes end early")
    return int(_U32.unpack_from(data, at)[0])


def _strings(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    values = np.empty(int(np.prod(shape, dtype=np.int64)), object)
    at = 0
    for i in range(len(values)):
        size = _size_at(data, at)
        values[i] = data[at + 4 : at + 4 + size]
        at += 4 + size
    if at != len(data):
        raise ValueError("the strings do not fit their sizes")
    return values.reshape(shape)


def join(layout: Layout, payloads: Sequence[Payload], rows: Sequence[int]) -> list[np.ndarray]:
    """One batch out of several items of the same layout: arrays of shape (sum of rows, *row shape)."""
    if layout.single:
        return [_fixed(layout, 0, payloads[0] if len(payloads) == 1 else b"".join(payloads), sum(rows))]
    items = [decode(layout, payload, n) for payload, n in zip(payloads, rows, strict=True)]
    if len(items) == 1:
        return items[0]
    return [np.concatenate(tensors) for tensors in zip(*items, strict=True)]


def split(arrays: Sequence[np.ndarray], rows: Sequence[int]) -> tuple[bytes, list[Payload]]:
    """The inverse of `join` for outputs: (layout, one payload per item). Raises KeyError for an unknown dtype."""
    if len(arrays) == 1 and arrays[0].dtype.kind not in "OSU":
        layout, whole = encode(arrays)
        if len(rows) == 1:
            return layout, [whole]
        row_bytes = len(whole) // max(sum(rows), 1)
        stops = list(accumulate(n * row_bytes for n in rows))
        return layout, [whole[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]
    layout, payloads, start = b"", list[Payload](), 0
    for n in rows:
        layout, payload = encode([array[start : start + n] for array in arrays])
        payloads.append(payload)
        start += n
    return layout, payloads
