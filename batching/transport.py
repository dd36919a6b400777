"""Frames on a socket between a front and a worker. Owns the wire format and the buffering on both sides.

Knows nothing of models, deadlines' meaning or event loops: somebody else says when to read and when to write.

A frame is a fixed header, the layout of its tensors (`batching.arrays`) and their bytes, row-major and little-endian:

    u32 length of what follows | u8 kind | u8 code | u16 model | u32 rows | u16 layout bytes | u64 id
    f64 arrived | f64 deadline (both CLOCK_MONOTONIC seconds, which all processes of a machine share)
    u32 queue microseconds | u32 compute microseconds | u32 rows of its batch | u32 batch number
    u32 microseconds that a new item would wait now | layout | payload

The code of an ITEM is ALONE or 0, and above that bit its priority; of a FAILED it is a Failure. STARTED carries the
ids (u64 each) of the items of one front that go into a batch now: what a front knows of a worker that dies in the
middle of it.

Payloads above PART_BYTES travel as PART frames before their frame, one at a time between the small ones, so that a
large tensor never makes a small one wait for more than one part. Nothing here blocks: both ends are non-blocking.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from batching.errors import ConnectionLost

HEADER = struct.Struct("<IBBHIHQddIIIII")
LENGTH_BYTES = 4
PART_BYTES = 256 * 1024
RECEIVE_BYTES = 256 * 1024
# A part and the largest layout fit; anything longer is not one of our frames.
FRAME_BYTES_MAX = HEADER.size + 65535 + PART_BYTES
# One write: small frames are joined up to this size, so that a batch of answers is one system call.
WRITE_BYTES = 256 * 1024
# What one end leaves unfinished at a time, unless one payload alone is larger; and what the other end bears.
TURNS_BYTES = 256 * 1024 * 1024
PARTS_BYTES_MAX = 2 * TURNS_BYTES


class Kind(IntEnum):
    """What a frame says. ITEM and CANCEL go to the worker, PART goes both ways, the others come back."""

    ITEM = 1
    ANSWER = 2
    FAILED = 3
    CANCEL = 4
    PART = 5
    STARTED = 6


_KIND_MAX = int(Kind.STARTED)
_WITH_PARTS = (int(Kind.ITEM), int(Kind.ANSWER))
# The lowest bit of an item's code: it must not share a batch, as a suspect in a worker's death.
ALONE = 1
# The other seven: 1 goes first, then 2 …; what says 0 comes after all that say something.
PRIORITY_MAX = 127


class Frame(NamedTuple):
    """One frame as it stands in the header's order; `payload` is whole even if it travelled in parts."""

    kind: int
    code: int
    model: int
    rows: int
    id: int
    arrived: float
    deadline: float
    queue_us: int
    compute_us: int
    batch_rows: int
    batch: int
    wait_us: int
    layout: bytes
    payload: bytes


def pack(
    kind: int,
    id: int,
    *,
    code: int = 0,
    model: int = 0,
    rows: int = 0,
    arrived: float = 0.0,
    deadline: float = 0.0,
    queue_us: int = 0,
    compute_us: int = 0,
    batch_rows: int = 0,
    batch: int = 0,
    wait_us: int = 0,
    layout: bytes = b"",
    payload: bytes = b"",
) -> bytes:
    """The bytes of one whole frame; a payload above PART_BYTES must go through `Connection.send`."""
    return (
        HEADER.pack(
            HEADER.size - LENGTH_BYTES + len(layout) + len(payload),
            kind,
            code,
            model,
            rows,
            len(layout),
            id,
            arrived,
            deadline,
            queue_us,
            compute_us,
            batch_rows,
            batch,
            wait_us,
        )
        + layout
        + payload
    )


class FrameReader:
    """Turns bytes, in whatever pieces they come, into frames. Holds at most one unfinished frame and the parts."""

    def __init__(self, parts_bytes_max: int) -> None:
        self._rest = b""
        self._parts: dict[int, list[bytes]] = {}
        self._parts_bytes = 0
        self._parts_bytes_max = parts_bytes_max

    def feed(self, data: bytes) -> list[Frame]:
        """All frames that `data` completes, in order. Raises ConnectionLost where it cannot be a frame."""
        if self._rest:
            data = self._rest + data
        frames: list[Frame] = []
        at, end = 0, len(data)
        while end - at >= HEADER.size:
            head = HEADER.unpack_from(data, at)
            length, kind, layout_bytes = head[0], head[1], head[5]
            size = LENGTH_BYTES + length
            if not HEADER.size + layout_bytes <= size <= FRAME_BYTES_MAX or not 0 < kind <= _KIND_MAX:
                raise ConnectionLost("not a frame")
            stop = at + size
            if stop > end:
                break
            body = at + HEADER.size
            layout = data[body : body + layout_bytes]
            payload = data[body + layout_bytes : stop]
            at = stop
            if kind == Kind.PART:
                self._keep_part(head[6], payload)
                continue
            if self._parts and kind in _WITH_PARTS and head[6] in self._parts:
                parts = self._parts.pop(head[6])
                self._parts_bytes -= sum(map(len, parts))
                payload = b"".join((*parts, payload))
            frames.append(Frame._make((kind, *head[2:5], *head[6:], layout, payload)))
        self._rest = data[at:]
        return frames

    def has_part_of(self, id: int) -> bool:
        """Whether a payload of this id is on its way."""
        return id in self._parts

    def _keep_part(self, id: int, payload: bytes) -> None:
        self._parts_bytes += len(payload)
        if self._parts_bytes > self._parts_bytes_max:
            raise ConnectionLost("more unfinished parts than allowed")
        self._parts.setdefault(id, []).append(payload)


def pack_ids(kind: int, ids: Sequence[int]) -> bytes:
    """A frame that names items, as STARTED does."""
    return pack(kind, 0, payload=struct.pack(f"<{len(ids)}Q", *ids))


def ids_of(frame: Frame) -> tuple[int, ...]:
    """The items that a frame of `pack_ids` names. Raises ConnectionLost where they are no ids."""
    if len(frame.payload) % 8:
        raise ConnectionLost("not ids")
    return struct.unpack(f"<{len(frame.payload) // 8}Q", frame.payload)


class Connection:
    """One end of a non-blocking stream socket: frames in, frames out, everything bounded by its caller.

    `pending_bytes` is what waits to be written; whoever sends decides what to refuse when it grows.
    """

    def __init__(self, sock: socket.socket, parts_bytes_max: int = PARTS_BYTES_MAX) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.pending_bytes = 0
        self._reader = FrameReader(parts_bytes_max)
        self._small: deque[bytes] = deque()
        self._large: deque[tuple[Iterator[bytes], int]] = deque()
        self._large_bytes = 0
        self._later: deque[tuple[Iterator[bytes], int]] = deque()
        self._unsent: bytes | memoryview = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def receive(self) -> list[Frame]:
        """All frames that have arrived. Raises ConnectionLost at the end of the stream."""
        frames: list[Frame] = []
        while True:
            try:
                data = self.socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return frames
            except OSError as error:
                raise ConnectionLost(str(error)) from None
            if not data:
                if frames:  # what came before the end still counts; the next call meets the end again
                    return frames
                raise ConnectionLost("end of stream")
            frames += self._reader.feed(data)
            if len(data) < RECEIVE_BYTES:  # saves the call that would only say "nothing more"
                return frames

    def has_part_of(self, id: int) -> bool:
        """Whether the other end is still sending the payload of this id."""
        return self._reader.has_part_of(id)

    def send(self, frame: bytes) -> None:
        """Queue one whole small frame, made by `pack`."""
        self._small.append(frame)
        self.pending_bytes += len(frame)

    def send_large(self, id: int, frame: bytes, payload: bytes) -> None:
        """Queue `frame` (packed without payload) after a payload of any size, which travels in parts."""
        parts = -(-len(payload) // PART_BYTES)
        self._later.append((_in_parts(id, frame, memoryview(payload)), len(payload)))
        self.pending_bytes += parts * HEADER.size + len(payload) + len(frame)

    def send_payload(self, kind: int, id: int, payload: bytes, **fields: Any) -> None:
        """Queue a frame of `kind` with a payload of any size; `fields` are pack's."""
        if len(payload) <= PART_BYTES:
            self.send(pack(kind, id, payload=payload, **fields))
        else:
            self.send_large(id, pack(kind, id, **fields), payload)

    @property
    def wants_write(self) -> bool:
        return self.pending_bytes > 0

    def flush(self) -> None:
        """Write as much as the socket takes. Raises ConnectionLost when the other end is gone."""
        while self.pending_bytes:
            chunk = self._unsent = self._unsent or self._next_chunk()
            try:
                sent = self.socket.send(chunk)
            except BlockingIOError:
                return
            except OSError as error:
                raise ConnectionLost(str(error)) from None
            self.pending_bytes -= sent
            self._unsent = memoryview(chunk)[sent:] if sent < len(chunk) else b""

    def _next_chunk(self) -> bytes | memoryview:
        """Small frames first and joined, then one part of a large frame."""
        if self._small:
            if len(self._small) == 1:
                return self._small.popleft()
            batch, size = [], 0
            while self._small and size < WRITE_BYTES:
                batch.append(self._small.popleft())
                size += len(batch[-1])
            return b"".join(batch)
        while True:
            # The large frames take turns, as many as the other end may have unfinished at once.
            while self._later and (not self._large or self._large_bytes + self._later[0][1] <= TURNS_BYTES):
                self._large.append(self._later.popleft())
                self._large_bytes += self._large[-1][1]
            parts, size = self._large[0]
            part = next(parts, None)
            if part is not None:
                self._large.rotate(-1)
                return part
            self._large.popleft()
            self._large_bytes -= size


def _in_parts(id: int, frame: bytes, payload: memoryview) -> Iterator[bytes]:
    for start in range(0, len(payload), PART_BYTES):
        part = payload[start : start + PART_BYTES]
        length = HEADER.size - LENGTH_BYTES + len(part)
        yield b"".join((HEADER.pack(length, Kind.PART, 0, 0, 0, 0, id, 0.0, 0.0, 0, 0, 0, 0, 0), part))
    yield frame
