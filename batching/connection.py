"""One end of the stream socket between a front and a worker. Owns the buffering and the order of what is written.

Knows nothing of models or event loops: somebody else says when to read and when to write. What a frame is made of is
`batching.transport`'s affair.

The parts of a large payload go one at a time between the small frames, so that a large tensor never makes a small one
wait for more than one part. They are written from where the tensor lies and read to where it will be used, so that
nothing but the kernel copies them. Nothing here blocks: both ends are non-blocking.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator

from batching.errors import ConnectionLost
from batching.transport import HEADER, PART_BYTES, Frame, FrameReader, Payload, pack_part

# Room for more than 128 KiB would come from the kernel and go back to it each time, which takes ten times as long as
# the reading.
RECEIVE_BYTES = 64 * 1024
# What the kernel holds for the other end: large tensors take fewer turns of both loops.
KERNEL_BYTES = 512 * 1024
# Read with the end of a part: the header of the next, so that all of that can be read in place.
NEXT_BYTES = 2 * HEADER.size
# One write: small frames are joined up to this size, so that a batch of answers is one system call.
WRITE_BYTES = 256 * 1024
# What one end leaves unfinished at a time, unless one payload alone is larger; and what the other end bears.
TURNS_BYTES = 256 * 1024 * 1024
PARTS_BYTES_MAX = 2 * TURNS_BYTES

Pieces = list[bytes | memoryview]


class Connection:
    """Frames in, frames out, everything bounded by its caller.

    `pending_bytes` is what waits to be written; whoever sends decides what to refuse when it grows.
    """

    __slots__ = (
        *("_large", "_large_bytes", "_later", "_next", "_reader", "_small", "_unsent"),
        *("pending_bytes", "socket"),
    )

    def __init__(self, sock: socket.socket, parts_bytes_max: int = PARTS_BYTES_MAX) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
        self.socket = sock
        self.pending_bytes = 0
        self._reader = FrameReader(parts_bytes_max)
        self._next = memoryview(bytearray(NEXT_BYTES))
        self._small: list[bytes] = []
        self._large: deque[tuple[Iterator[Pieces], int]] = deque()
        self._large_bytes = 0
        self._later: deque[tuple[Iterator[Pieces], int]] = deque()
        self._unsent: Pieces = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def receive(self) -> list[Frame]:
        """All frames that have arrived. Raises ConnectionLost at the end of the stream."""
        frames: list[Frame] = []
        reader = self._reader
        while True:
            room = reader.room
            try:
                if room is None:
                    data = self.socket.recv(RECEIVE_BYTES)
                    size, asked = len(data), RECEIVE_BYTES
                else:
                    size, asked = self.socket.recvmsg_into([room, self._next])[0], len(room) + NEXT_BYTES
            except BlockingIOError:
                return frames
            except OSError as error:
                raise ConnectionLost(str(error)) from None
            if not size:
                if frames:  # what came before the end still counts; the next call meets the end again
                    return frames
                raise ConnectionLost("end of stream")
            if room is None:
                frames += reader.feed(data)
            else:
                reader.filled(min(size, len(room)))
                if size > len(room):
                    frames += reader.feed(bytes(self._next[: size - len(room)]))
            if size < asked:  # saves the call that would only say "nothing more"
                return frames

    def has_part_of(self, id: int) -> bool:
        """Whether the other end is still sending the payload of this id."""
        return self._reader.has_part_of(id)

    def send(self, frame: bytes) -> None:
        """Queue one whole small frame."""
        self._small.append(frame)
        self.pending_bytes += len(frame)

    def send_large(self, id: int, frame: bytes, payload: Payload) -> None:
        """Queue `frame` (packed without payload) after a payload of any size, which travels in parts.

        The payload is read as its turn comes: it must stay what it is until all has been written.
        """
        size = len(payload)
        parts = -(-size // PART_BYTES)
        self._later.append((_in_parts(id, frame, memoryview(payload)), size))
        self.pending_bytes += parts * HEADER.size + size + len(frame)

    @property
    def wants_write(self) -> bool:
        return self.pending_bytes > 0

    def flush(self) -> None:
        """Write as much as the socket takes. Raises ConnectionLost when the other end is gone."""
        while self.pending_bytes:
            pieces = self._unsent = self._unsent or self._next_pieces()
            try:
                sent = self.socket.send(pieces[0]) if len(pieces) == 1 else self.socket.sendmsg(pieces)
            except BlockingIOError:
                return
            except OSError as error:
                raise ConnectionLost(str(error)) from None
            self.pending_bytes -= sent
            self._unsent = _after(pieces, sent)

    def _next_pieces(self) -> Pieces:
        """Small frames first and joined, then one part of a large frame."""
        small = self._small
        if small:
            if len(small) == 1 or self.pending_bytes <= WRITE_BYTES:
                self._small = []
                return [b"".join(small)]
            count = size = 0
            while count < len(small) and size < WRITE_BYTES:
                size += len(small[count])
                count += 1
            self._small = small[count:]
            return [b"".join(small[:count])]
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


def _after(pieces: Pieces, sent: int) -> Pieces:
    """What is left of them when so many bytes have been written."""
    for place, piece in enumerate(pieces):
        if sent < len(piece):
            return [memoryview(piece)[sent:], *pieces[place + 1 :]]
        sent -= len(piece)
    return []


def _in_parts(id: int, frame: bytes, payload: memoryview) -> Iterator[Pieces]:
    for start in range(0, len(payload), PART_BYTES):
        part = payload[start : start + PART_BYTES]
        yield [pack_part(id, len(payload), len(part)), part]
    yield [frame]
