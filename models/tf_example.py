"""tf.Example, the record that TensorFlow's classifiers and regressors read, in protobuf's own bytes.

Owns the wire format of Example, Features and Feature: a handful of tags. Knows nothing of TensorFlow or of JSON.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_LENGTH_DELIMITED = 2


class Bytes(NamedTuple):
    """A feature of byte strings."""

    values: Iterable[bytes]


class Floats(NamedTuple):
    """A feature of float32 numbers."""

    values: list[float]


class Ints(NamedTuple):
    """A feature of int64 numbers."""

    values: list[int]


Feature = Bytes | Floats | Ints | None


def serialize(features: Mapping[str, Feature]) -> bytes:
    """The bytes of an Example; a feature that is None has no values and no kind.

    Raises OverflowError for a float beyond float32, UnicodeEncodeError for a name that is no Unicode.
    """
    entries = (_field(1, name.encode()) + _field(2, _feature(feature)) for name, feature in features.items())
    return _field(1, b"".join(_field(1, entry) for entry in entries))


def _feature(feature: Feature) -> bytes:
    match feature:
        case Bytes(values):
            return _field(1, b"".join(_field(1, value) for value in values))
        case Floats(values):
            return _field(2, _field(1, struct.pack(f"<{len(values)}f", *values)))
        case Ints(values):
            # A negative number is written as the 64 bits it has in two's complement.
            return _field(3, _field(1, b"".join(_varint(value & 0xFFFF_FFFF_FFFF_FFFF) for value in values)))
        case _:
            return b""


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    if value < 0x80:
        return bytes((value,))
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
