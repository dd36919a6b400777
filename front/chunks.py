"""A chunked body: its framing is checked strictly and costs no more than it carries.

Knows nothing of headers or sockets. Checked against waitress 3.0.2, whose ChunkedReceiver keeps an endless size line
and searches it again with every piece (16 MB cost 21 s of CPU), does the same with the trailer, takes a million chunks
of one byte, and lets a bare line feed, an empty line before a size, or a size of any length pass.
"""

from __future__ import annotations

import re

from waitress.receiver import ChunkedReceiver

from front.gathered import Gathered
from front.halves import Refused

LINE_BYTES_MAX = 1024
TRAILER_BYTES_MAX = 8 * 1024
EXTENSION_BYTES_MAX = 4 * 1024
# A chunk costs about 2 us however small it is: so many are free, beyond that they must carry so much on average, or
# a body of the largest size allowed would take seconds.
FREE_CHUNKS, MEAN_BYTES_MIN = 1024, 512

SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})([ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n").fullmatch
TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n").fullmatch


class Chunks(ChunkedReceiver):
    """Takes the bytes of a chunked body; `error` is set at the first that cannot be part of one."""

    completed: bool = False
    error: Refused | None = None

    def __init__(self, buf: Gathered, max_bytes: int) -> None:
        super().__init__(buf)
        self._max_bytes = max_bytes
        self._size = 0  # of all chunks announced so far
        self._chunks = 0
        self._left = 0  # bytes of the present chunk that are still to come
        self._ends_chunk = False  # whether the next line is the one that ends a chunk's data
        self._line = b""
        self._extension_bytes = 0
        self._trailer_bytes = 0

    def received(self, data: bytes) -> int:
        at = 0
        try:
            while at < len(data) and not self.completed:
                if self._left:
                    piece = data[at : at + self._left]
                    self.buf.append(piece)
                    self._left -= len(piece)
                    at += len(piece)
                else:
                    at = self._take_line(data, at)
        except Refused as error:
            self.error = error
            self.completed = True
            return len(data)
        return at

    def _take_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at, at + LINE_BYTES_MAX) + 1
        line = self._line + data[at : end or at + LINE_BYTES_MAX]
        if self._ends_chunk:
            if not b"\r\n".startswith(line):
                raise Refused(400, "a chunk has another length than it says")
        elif len(line) > LINE_BYTES_MAX or (not end and len(line) == LINE_BYTES_MAX):
            raise Refused(400, "a line of the chunked body is too long")
        if not end:
            self._line = line
            return len(data)
        self._line = b""
        if self._ends_chunk:
            self._ends_chunk = False
        elif self.all_chunks_received:
            self._take_trailer(line)
        else:
            self._take_size(line)
        return end

    def _take_size(self, line: bytes) -> None:
        match = SIZE(line)
        if match is None:
            raise Refused(400, "the size of a chunk is malformed")
        digits, extension = match.groups()
        if extension is not None:
            self._extension_bytes += len(extension)
            if self._extension_bytes > EXTENSION_BYTES_MAX:
                raise Refused(400, "the chunks have too many extensions")
        self._left = int(digits, 16)
        self._size += self._left
        self._chunks += 1
        if self._size > self._max_bytes:
            raise Refused(413, f"the body has more than {self._max_bytes} bytes")
        if self._chunks > FREE_CHUNKS + self._size // MEAN_BYTES_MIN:
            raise Refused(400, "the chunks are too small")
        if self._left:
            self._ends_chunk = True
        else:
            self.all_chunks_received = True

    def _take_trailer(self, line: bytes) -> None:
        """Its fields are checked and dropped: nobody here asks for any."""
        self._trailer_bytes += len(line)
        if self._trailer_bytes > TRAILER_BYTES_MAX:
            raise Refused(431, "the trailer is too long")
        if line == b"\r\n":
            self.completed = True
        elif not TRAILER(line):
            raise Refused(400, "the trailer is malformed")
