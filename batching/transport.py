"""Frames between a front and a worker. Owns the wire format, and reading frames out of whatever pieces they come in.

Knows nothing of models, deadlines' meaning or sockets; `batching.connection` moves the bytes.

A frame is a fixed header, the layout of its tensors (`batching.arrays`) and their bytes, row-major and little-endian:

    u32 length of what follows | u8 kind | u8 code | u16 model | u32 rows | u16 layout bytes | u64 id
    f64 arrived | f64 deadline (both CLOCK_MONOTONIC seconds, which all processes of a machine share)
    u32 queue microseconds | u32 compute microseconds | u32 rows of its batch | u32 batch number
    u32 microseconds that a new item would wait now | layout | payload

The code of an ITEM is ALONE or 0, and above that bit its priority; of a FAILED it is a Failure. STARTED carries the
ids (u64 each) of the items of one front that go into a batch now: what a front knows of a worker that dies in the
middle of it. ANSWERS is what one batch says to one front, as long as it is small: its id is the number of items, and
its payload a table (u64 id, u32 rows, u32 queue microseconds, for each) before the outputs of all their rows.

Payloads above WHOLE_BYTES travel as PART frames before their frame, whose own payload is then empty. The rows of a PART
are the bytes of the whole payload: room for it is made once, and the parts are read into it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from batching.errors import ConnectionLost

HEADER = struct.Struct("<IBBHIHQddIIIII")
LENGTH_BYTES = 4
# Larger payloads travel in parts.
WHOLE_BYTES = 64 * 1024
PART_BYTES = 1024 * 1024
# A part and the largest layout fit; anything longer is not one of our frames.
FRAME_BYTES_MAX = HEADER.size + 65535 + PART_BYTES
_ANSWERED = struct.Struct("<QII")
ANSWERED_BYTES = _ANSWERED.size

Payload = bytes | memoryview
"""A tensor's bytes; a large one's are a view of where they lie already."""


class Kind:
    """What a frame says. ITEM and CANCEL go to the worker, PART goes both ways, the others come back.

    Plain numbers: an enumeration's members take longer to look up than the rest of a comparison.
    """

    ITEM: Final = 1
    ANSWER: Final = 2
    FAILED: Final = 3
    CANCEL: Final = 4
    PART: Final = 5
    STARTED: Final = 6
    ANSWERS: Final = 7


_KIND_MAX = Kind.ANSWERS
# The lowest bit of an item's code: it must not share a batch, as a suspect in a worker's death.
ALONE = 1
# The other seven: 1 goes first, then 2 …; what says 0 comes after all that say something.
PRIORITY_MAX = 127


class Frame(NamedTuple):
    """One frame as its header stands, its layout, and its payload, whole even if it travelled in parts."""

    length: int
    kind: int
    code: int
    model: int
    rows: int
    layout_bytes: int
    id: int
    arrived: float
    deadline: float
    queue_us: int
    compute_us: int
    batch_rows: int
    batch: int
    wait_us: int
    layout: bytes
    payload: Payload


def pack(
    kind: int,
    id: int,
    *,
    code: int = 0,
    model: int = 0,
    rows: int = 0,
    queue_us: int = 0,
    compute_us: int = 0,
    batch_rows: int = 0,
    batch: int = 0,
    wait_us: int = 0,
    layout: bytes = b"",
    payload: Payload = b"",
) -> bytes:
    """The bytes of one whole frame; a payload above WHOLE_BYTES must go through `Connection.send_large`."""
    layout_bytes = len(layout)
    length = HEADER.size - LENGTH_BYTES + layout_bytes + len(payload)
    head = HEADER.pack(
        length, kind, code, model, rows, layout_bytes, id, 0.0, 0.0, queue_us, compute_us, batch_rows, batch, wait_us
    )
    return head + layout + payload


def pack_item(
    id: int, code: int, model: int, rows: int, arrived: float, deadline: float, layout: bytes, payload: Payload = b""
) -> bytes:
    """As `pack`, for what is sent most."""
    layout_bytes = len(layout)
    length = HEADER.size - LENGTH_BYTES + layout_bytes + len(payload)
    head = HEADER.pack(length, Kind.ITEM, code, model, rows, layout_bytes, id, arrived, deadline, 0, 0, 0, 0, 0)
    return head + layout + payload


def pack_part(id: int, whole_bytes: int, part_bytes: int) -> bytes:
    """The header of a part of so many bytes, which follow it."""
    length = HEADER.size - LENGTH_BYTES + part_bytes
    return HEADER.pack(length, Kind.PART, 0, 0, whole_bytes, 0, id, 0.0, 0.0, 0, 0, 0, 0, 0)


def pack_ids(kind: int, ids: Sequence[int]) -> bytes:
    """A frame that names items, as STARTED does."""
    return pack(kind, 0, payload=struct.pack(f"<{len(ids)}Q", *ids))


def ids_of(frame: Frame) -> tuple[int, ...]:
    """The items that a frame of `pack_ids` names. Raises ConnectionLost where they are no ids."""
    if len(frame.payload) % 8:
        raise ConnectionLost("not ids")
    return struct.unpack(f"<{len(frame.payload) // 8}Q", frame.payload)


def pack_answered(answered: Sequence[tuple[int, int, int]]) -> bytes:
    """The table of an ANSWERS: (id, rows, queue microseconds) of each item."""
    return b"".join([_ANSWERED.pack(*one) for one in answered])


def answered_of(frame: Frame) -> tuple[list[tuple[int, int, int]], Payload]:
    """The table of an ANSWERS, and the bytes of its outputs. Raises ConnectionLost where they do not fit."""
    size = frame.id * _ANSWERED.size
    if size > len(frame.payload):
        raise ConnectionLost("answers that end early")
    return list(_ANSWERED.iter_unpack(frame.payload[:size])), frame.payload[size:]


class Whole:
    """A large payload on its way. `rest` is where the bytes belong that have not come."""

    __slots__ = ("payload", "rest")

    def __init__(self, size: int) -> None:
        self.payload = self.rest = np.empty(size, np.uint8).data  # unlike a bytearray not filled with zeros first


class FrameReader:
    """Turns bytes, in whatever pieces they come, into frames. Holds at most one unfinished frame and the parts.

    room: where the next bytes belong, in the middle of a part; then they can be read there at once, and `filled` says
    how many have been. None: whatever comes goes to `feed`.
    """

    def __init__(self, parts_bytes_max: int) -> None:
        self.room: memoryview | None = None
        self._rest = b""
        self._parts: dict[int, Whole] = {}
        self._parts_bytes = 0
        self._parts_bytes_max = parts_bytes_max

    def feed(self, data: bytes) -> list[Frame]:
        """All frames that `data` completes, in order. Raises ConnectionLost where it cannot be a frame."""
        at = 0
        if self.room is not None:
            at = self._take_part(data, 0)
        elif self._rest:
            data = self._rest + data
        frames: list[Frame] = []
        new, unpack, head_bytes = tuple.__new__, HEADER.unpack_from, HEADER.size
        last = len(data) - head_bytes
        while at <= last:
            head = unpack(data, at)
            stop = at + LENGTH_BYTES + head[0]
            kind = head[1]
            body = at + head_bytes
            start = body + head[5]
            if not start <= stop <= at + FRAME_BYTES_MAX or not 0 < kind <= _KIND_MAX:
                raise ConnectionLost("not a frame")
            if kind == Kind.PART:
                self._begin_part(head[6], head[4], stop - start)
                at = self._take_part(data, start)
                continue
            if stop > len(data):
                break
            at = stop
            payload: Payload = data[start:stop]
            if self._parts and head[6] in self._parts and kind in (Kind.ITEM, Kind.ANSWER):
                payload = self._whole(head[6], len(payload))
            frames.append(new(Frame, (*head, data[body:start], payload)))
        self._rest = data[at:]
        return frames

    def filled(self, size: int) -> None:
        """So many bytes have been read into `room`."""
        if self.room is not None:
            self.room = self.room[size:] if size < len(self.room) else None

    def has_part_of(self, id: int) -> bool:
        """Whether a payload of this id is on its way."""
        return id in self._parts

    def _begin_part(self, id: int, whole_bytes: int, size: int) -> None:
        whole = self._parts.get(id)
        if whole is None:
            self._parts_bytes += whole_bytes
            if self._parts_bytes > self._parts_bytes_max:
                raise ConnectionLost("more unfinished parts than allowed")
            whole = self._parts[id] = Whole(whole_bytes)
        if size > len(whole.rest):
            raise ConnectionLost("more parts than announced")
        if size:
            self.room, whole.rest = whole.rest[:size], whole.rest[size:]

    def _take_part(self, data: bytes, at: int) -> int:
        """What of a part has come together with other bytes; where the next frame begins."""
        room = self.room
        if room is None:
            return at
        size = min(len(data) - at, len(room))
        room[:size] = data[at : at + size]
        self.filled(size)
        return at + size

    def _whole(self, id: int, more_bytes: int) -> memoryview:
        whole = self._parts.pop(id)
        self._parts_bytes -= len(whole.payload)
        if whole.rest or more_bytes:
            raise ConnectionLost("other parts than announced")
        return whole.payload
