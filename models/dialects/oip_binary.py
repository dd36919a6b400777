"""The binary tensor data extension: where the JSON of a body ends, and tensors as raw bytes, both ways.

Owns the layout (little-endian, row-major, no padding; strings with a length before each) and Triton's words for what
does not fit it. Knows nothing of requests.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence

import numpy as np

from models.contract import Tensor
from models.dialects.oip_datatypes import BFLOAT16, shape_text
from models.errors import BadInput, BadOutput
from models.tensors import Array
from models.wording import clip

HEADER = "Inference-Header-Content-Length"
_WHOLE = re.compile(r"-?[0-9]{1,18}").fullmatch
_LENGTH = struct.Struct("<I")
_MAX_SHOWN = 40


def json_size(value: str | None, body_bytes: int) -> int | None:
    """The bytes of the JSON before the tensors, by the header's value; None where all of the body is JSON.

    0 stands for a body that is one tensor and nothing else. Raises BadInput.
    """
    if value is None:
        return None
    shown = clip(value, _MAX_SHOWN)
    if not _WHOLE(value.strip()):
        raise BadInput(f"Unable to parse {HEADER}, got: {shown}")
    size = int(value)
    if not 0 <= size <= body_bytes:
        raise BadInput(f"inference header size should be in range (0, {body_bytes}), got: {shown}")
    return size


def array_at(body: bytes, start: int, size: int, tensor: Tensor, shape: tuple[int, ...], where: Where) -> Array:
    """The tensor of `shape` (rows first) that stands in `size` bytes from `start`, without a copy where that can be.

    Raises BadInput where the bytes are more or fewer than the shape takes.
    """
    if tensor.dtype == "string":
        return _strings(body, start, size, shape, where)
    count = math.prod(shape)
    is_short = where.datatype == BFLOAT16
    dtype = np.dtype({"bool": "uint8"}.get(tensor.dtype, tensor.dtype)) if not is_short else np.dtype("uint16")
    if size != count * dtype.itemsize:
        raise where.wrong_size(count * dtype.itemsize, size)
    array: Array = np.frombuffer(body, dtype, count, start) if count else np.empty(0, dtype)
    if is_short:  # the upper half of a float32, so nothing is lost
        array = (array.astype(np.uint32) << 16).view(np.float32)
    elif tensor.dtype == "bool":
        array = array != 0
    return array.reshape(shape)


class Where:
    """Which input of which model is being read, and as what; makes the refusals."""

    __slots__ = ("_model", "_name", "datatype")

    def __init__(self, name: str, model: str, datatype: str) -> None:
        self._name = name
        self._model = model
        self.datatype = datatype

    def wrong_size(self, expected: int, size: int) -> BadInput:
        """For other bytes than the shape takes."""
        return BadInput(
            f"input byte size mismatch for input '{self._name}' for model '{self._model}'."
            f" Expected {expected}, got {size}"
        )

    def of_strings(self, problem: str) -> BadInput:
        """For elements that are not laid out as they should be."""
        return BadInput(f"{problem} for inference input '{self._name}' for model '{self._model}'")


def _strings(body: bytes, start: int, size: int, shape: tuple[int, ...], where: Where) -> Array:
    count, end = math.prod(shape), start + size
    if size < count * _LENGTH.size:  # looked at first: a shape may speak of more than there is memory for
        raise where.of_strings(f"expected {count} string elements of shape {shape_text(shape)}, got {size} bytes")
    values: list[bytes] = []
    at = start
    for _ in range(count):
        if at + _LENGTH.size > end:
            raise where.of_strings(f"incomplete string length indicator after {len(values)} of {count} elements")
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        if at + length > end:
            available = f"expecting string of length {length} but only {end - at} bytes available"
            raise where.of_strings(f"incomplete string data, {available},")
        values.append(body[at : at + length])
        at += length
    if at != end:
        raise where.of_strings(f"unexpected {end - at} bytes after {count} string elements")
    return np.fromiter(values, object, count).reshape(shape)


def raw_array(body: bytes, tensor: Tensor, model: str) -> Array:
    """The only input of a body that is nothing but its bytes: one row, whose one open size follows from them.

    Raises BadInput.
    """
    where = Where(tensor.name, model, "")
    if tensor.dtype == "string":
        if math.prod(size or 0 for size in tensor.shape) != 1:
            problem = f"For BYTE datatype raw input '{tensor.name}', the model must have input shape [1]"
            raise BadInput(problem)
        return np.fromiter([body], object, 1).reshape((1, *tensor.shape))
    open_sizes = tensor.shape.count(None)
    if open_sizes > 1:
        raise BadInput(
            f"The shape of the raw input '{tensor.name}' can not be deduced because there are more than one"
            " variable-sized dimension"
        )
    row_bytes = np.dtype(tensor.dtype).itemsize * math.prod(size for size in tensor.shape if size is not None)
    size = len(body) // row_bytes if row_bytes else 0
    shape = tuple(size if known is None else known for known in tensor.shape)
    return array_at(body, 0, len(body), tensor, (1, *shape), where)


def raw_bytes(array: Array) -> bytes | memoryview:
    """An output's bytes, without a copy where that can be. Raises BadOutput where strings are no strings."""
    if array.dtype.kind not in "OSU":
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return b"".join(_pieces(array.ravel().tolist()))


def _pieces(elements: Sequence[str | bytes]) -> list[bytes]:
    pieces: list[bytes] = []
    for element in elements:
        value = element.encode() if isinstance(element, str) else element
        if not isinstance(value, bytes):
            raise BadOutput("the model answered with objects that are no strings")
        pieces += (_LENGTH.pack(len(value)), value)
    return pieces
