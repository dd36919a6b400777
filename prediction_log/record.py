"""One record of the spool: what a front knows of a request at the moment its answer leaves, as bytes and back.

Owns the layout. Encoding is the hot path (a few microseconds a request), so a record keeps bodies as they came and
went; what they say of each row is worked out later, by whoever reads the spool (`prediction_log.rows`).

    head | one timing for each item | row -> item (u16 each, only for several items) | subject | request id | code |
    features | outputs | traceparent (25 bytes, only where a flag says so)

All numbers are little-endian. A record is sealed by its segment (length and checksum), not by itself.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from enum import IntEnum
from itertools import count
from typing import NamedTuple

# kind, flags, status, rows, created (Unix microseconds), number, writer, sampling fraction, total (microseconds),
# items, then the lengths of subject, request id, code, features and outputs
_HEAD = struct.Struct("<BBHIqQIdIHHHHII")
_TIMING = struct.Struct("<IIIQ")
_HEAD_AND_TIMING = struct.Struct(_HEAD.format + _TIMING.format[1:])
_TRUNCATED = 1
_TRACED = 1 << 5
# trace id, span id, flags; the version is always 00
_TRACE = struct.Struct(">16s8sB")
U32_MAX = 0xFFFF_FFFF


class Kind(IntEnum):
    """What a record tells of."""

    PREDICTION = 1
    FEEDBACK = 2


class Captured(IntEnum):
    """What `features` or `outputs` hold.

    NOTHING: they were not to be kept. BODY: a body as it came or went; the subject says where its rows are. ROWS: a
    JSON list with one value for each row. SHARED: one JSON value that stands for every row, such as a digest.
    """

    NOTHING = 0
    BODY = 1
    ROWS = 2
    SHARED = 3


_PREDICTION = int(Kind.PREDICTION)
_BODIES = Captured.BODY << 1 | Captured.BODY << 3
_KINDS = frozenset(map(int, Kind))


class Timing(NamedTuple):
    """How one item went: microseconds in the queue and in the model, rows of its batch, and the batch's id."""

    queue_us: int
    compute_us: int
    batch_rows: int
    batch_id: int


class Record(NamedTuple):
    """A decoded record.

    key: 16 bytes, a UUID of version 7, ours and unique. created_us: Unix time in microseconds.
    subject: JSON, the same for many records: {"model", "version", "dialect", "endpoint", "rows", "value"}; `rows` is
        the key of the list of rows in a BODY (None where the body is the one row), `value` the key of a row's value
        (None where the row is the value). Empty for feedback, whose features are {"row", "label"}.
    traceparent: of the request, as W3C Trace Context writes it; empty where it had none.
    code: the error's, empty for an answer. fraction: the share of such requests that is logged, above 0, at most 1.
    items: one for each item that was computed, none for a request that failed before; item_of_row: where there are
        several, the item that each row was in.
    """

    kind: int
    truncated: bool
    status: int
    rows: int
    created_us: int
    key: bytes
    fraction: float
    total_us: int
    items: tuple[Timing, ...]
    item_of_row: tuple[int, ...]
    subject: bytes
    request_id: str
    code: str
    features_are: int
    features: bytes
    outputs_are: int
    outputs: bytes
    traceparent: str = ""


class Encoder:
    """Makes the records of one process. Threads may share it."""

    def __init__(self) -> None:
        self._writer = int.from_bytes(os.urandom(4))
        self._numbers = count()

    def encode(
        self,
        kind: int,
        request_id: str,
        *,
        subject: bytes = b"",
        status: int = 0,
        code: str = "",
        rows: int = 1,
        total_us: int = 0,
        fraction: float = 1.0,
        truncated: bool = False,
        items: tuple[Timing, ...] = (),
        item_of_row: tuple[int, ...] = (),
        features_are: int = Captured.NOTHING,
        features: bytes = b"",
        outputs_are: int = Captured.NOTHING,
        outputs: bytes = b"",
        traceparent: str = "",
    ) -> bytes:
        """The bytes of one record, made now. Raises struct.error for what does not fit its field, and ValueError for a
        traceparent that is none.
        """
        id_bytes, code_bytes = request_id.encode(), code.encode()
        trace = _packed(traceparent) if traceparent else b""
        head = _HEAD.pack(
            kind,
            truncated | features_are << 1 | outputs_are << 3 | (_TRACED if trace else 0),
            status,
            rows,
            time.time_ns() // 1000,
            next(self._numbers),
            self._writer,
            fraction,
            min(total_us, U32_MAX),
            len(items),
            len(subject),
            len(id_bytes),
            len(code_bytes),
            len(features),
            len(outputs),
        )
        if len(items) == 1:
            return b"".join((head, _TIMING.pack(*items[0]), subject, id_bytes, code_bytes, features, outputs, trace))
        timings = b"".join([_TIMING.pack(*item) for item in items])
        places = struct.pack(f"<{rows}H", *item_of_row) if items else b""
        return b"".join((head, timings, places, subject, id_bytes, code_bytes, features, outputs, trace))

    def encode_answer(
        self,
        subject: bytes,
        request_id: str,
        rows: int,
        total_us: int,
        timing: Sequence[int],
        body: bytes,
        answer: bytes,
        traceparent: str = "",
    ) -> bytes:
        """What most records are, at a third of the cost: an answer of one item, whole, as it came and as it goes.

        The same bytes as `encode` makes of it. Costs count here by how much code runs, not by how often: between two
        requests a front's other work takes the processor's caches.
        """
        id_bytes = request_id.encode()
        trace = _packed(traceparent) if traceparent else b""
        head = _HEAD_AND_TIMING.pack(
            _PREDICTION,
            _BODIES | _TRACED if trace else _BODIES,
            200,
            rows,
            time.time_ns() // 1000,
            next(self._numbers),
            self._writer,
            1.0,
            min(total_us, U32_MAX),
            1,
            len(subject),
            len(id_bytes),
            0,
            len(body),
            len(answer),
            *timing,
        )
        return b"".join((head, subject, id_bytes, body, answer, trace))


def decode(data: bytes | memoryview) -> Record:
    """The inverse of `Encoder.encode`. Raises ValueError for bytes that are no record."""
    data = bytes(data)
    try:
        (kind, flags, status, rows, created_us, number, writer, fraction, total_us, item_count, *lengths) = (
            _HEAD.unpack_from(data)
        )
        at = _HEAD.size + item_count * _TIMING.size
        items = tuple(map(Timing._make, _TIMING.iter_unpack(data[_HEAD.size : at])))
        item_of_row: tuple[int, ...] = ()
        if item_count > 1:
            item_of_row = struct.unpack_from(f"<{rows}H", data, at)
            at += rows * 2
    except struct.error:
        raise ValueError("this is no record of the prediction log") from None
    parts = []
    if flags & _TRACED:
        lengths.append(_TRACE.size)
    for length in lengths:
        parts.append(data[at : at + length])
        at += length
    if at != len(data) or kind not in _KINDS or not rows or (item_of_row and max(item_of_row) >= item_count):
        raise ValueError("this is no record of the prediction log")
    subject, request_id, code, features, outputs, *trace = parts
    return Record(
        kind,
        bool(flags & _TRUNCATED),
        status,
        rows,
        created_us,
        _key(created_us // 1000, number, writer),
        fraction,
        total_us,
        items,
        item_of_row,
        subject,
        request_id.decode(),
        code.decode(),
        flags >> 1 & 3,
        features,
        flags >> 3 & 3,
        outputs,
        _unpacked(trace[0]) if trace else "",
    )


def _packed(traceparent: str) -> bytes:
    """As it stands in a record."""
    _, trace, span, flags = traceparent.split("-")
    return _TRACE.pack(bytes.fromhex(trace), bytes.fromhex(span), int(flags, 16))


def _unpacked(data: bytes) -> str:
    trace, span, flags = _TRACE.unpack(data)
    return f"00-{trace.hex()}-{span.hex()}-{flags:02x}"


def _key(created_ms: int, number: int, writer: int) -> bytes:
    """A UUID of version 7 (RFC 9562, section 5.7) that no clock set back can make twice.

    48 bits of time, then 12 and 30 bits of the record's number in its process around 32 random bits of the process's.
    """
    last = 0b10 << 62 | writer << 30 | number >> 12 & 0x3FFF_FFFF
    return struct.pack(">QQ", (created_ms & 0xFFFF_FFFF_FFFF) << 16 | 0x7000 | number & 0xFFF, last)
