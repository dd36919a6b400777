"""One request's bytes: where its header ends, what its body is, and whether it is whole.

Knows no socket, no clock and no answer: `error` says with which status to refuse, and whoever reads the connection then
closes it, so nothing behind refused bytes is ever taken for a request. What a header may say is front.heads'.

Checked against waitress 3.0.2, whose HTTPRequestParser this stands in for: there, what is no HTTP at all (a TLS hello,
bare line feeds) is waited for until it fills the header limit, and every piece is searched again from the start.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

from waitress.receiver import FixedStreamReceiver

from front.chunks import Chunks
from front.gathered import Gathered
from front.halves import Refused
from front.heads import Head, Heads, line_of

FIRST_BYTES = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ\r")
BARE_FEED = re.compile(rb"(?<!\r)\n").search
EMPTY_LINES = re.compile(rb"\A(?:\r\n)+").sub
END = b"\r\n\r\n"


class Parser:
    """One request. `received` takes what it can use of some bytes and says how much, until `completed`.

    head: None until it is whole. command, version: as far as they are known; a refusal is answered in 1.1.
    begun: whether anything but empty lines has come.
    """

    __slots__ = ("_body", "_gathering", "_heads", "_held", "begun", "command", "completed", "error", "head", "version")

    def __init__(self, heads: Heads) -> None:
        self._heads = heads
        self._held = b""  # the beginning of a header that is not whole yet
        self._body = b""  # where it came with its header
        self._gathering: Any = None  # where it did not
        self.head: Head | None = None
        self.command = ""
        self.version = "1.1"
        self.begun = False
        self.completed = False
        self.error: Refused | None = None

    def received(self, data: bytes) -> int:
        if self.completed:
            return 0
        if self.head is not None:
            return self._gather(data)
        if not self._held:
            end = data.find(END)
            if end > 0 and (head := self._heads.known.get(data[:end])) is not None:
                self.begun = True
                return self._begin_body(head, data, end + 4)
        return self._received_header(data)

    def _received_header(self, data: bytes) -> int:
        held = self._held
        block = held + data if held else data
        if block[0] == 13:  # empty lines before a request are allowed
            block = EMPTY_LINES(b"", block)
            if not block:
                self._held = b""
                return len(data)
        end = block.find(END, max(len(held) - 3, 0))
        self.begun = True
        try:
            if end < 0:
                self._held = block
                self._judge_beginning(block, len(held))
                return len(data)
            self._held = b""
            self._note_line(block)
            head = self._heads.take(block[:end])
        except Refused as error:
            self.refuse(error)
            return len(data)
        at = len(data) - (len(block) - end - 4)
        return self._begin_body(head, data, at)

    def refuse(self, error: Refused) -> None:
        """It will not become a request any more."""
        self.error = error
        self.completed = True

    def close(self) -> None:
        """Let go of the body."""
        self._body = b""
        if self._gathering is not None:
            self._gathering.getbuf().close()

    @property
    def body_bytes(self) -> int:
        """What has come of a body that is not whole yet."""
        return 0 if self._gathering is None else len(self._gathering)

    @property
    def body(self) -> bytes:
        """All of it."""
        if self._gathering is None:
            return self._body
        whole: bytes = self._gathering.getfile().getvalue()
        return whole

    def environ(self) -> dict[str, Any]:
        """What the application sees of it, but for the client's address."""
        head = self.head
        if head is None:
            raise RuntimeError("a request without a header is nobody's to serve")
        environ = head.environ.copy()
        if self._gathering is None:
            environ["wsgi.input"] = BytesIO(self._body)
        else:
            environ["wsgi.input"] = self._gathering.getfile()
            if head.length is None:  # to the application it is a body like any other
                environ["CONTENT_LENGTH"] = str(len(self._gathering))
        return environ

    def _judge_beginning(self, block: bytes, before: int) -> None:
        """Refuse as soon as it cannot become a request; nobody should wait for a limit to hear it."""
        if len(block) >= self._heads.bytes_max:
            raise Refused(431, "the header is too long")
        if block[0] not in FIRST_BYTES:
            raise Refused(400, "this is no HTTP request")
        if BARE_FEED(block, before):
            raise Refused(400, "a line ends without a carriage return")
        self._note_line(block)

    def _note_line(self, block: bytes) -> None:
        """Its first line, where that is whole and was not yet: a refusal of the rest is answered by it."""
        end = block.find(b"\r\n")
        if end >= 0 and not self.command and end < self._heads.bytes_max:
            line = line_of(block[:end].decode("latin-1"))
            self.command, self.version = line.command, line.version

    def _begin_body(self, head: Head, data: bytes, at: int) -> int:
        self.head = head
        self.command, self.version = head.command, head.version
        length = head.length
        if length is None:
            self._gathering = Chunks(Gathered(), self._heads.body_bytes_max)
        elif length > len(data) - at:
            self._gathering = FixedStreamReceiver(length, Gathered())
        else:
            self._body = data[at : at + length]
            self.completed = True
            return at + length
        return at + self._gather(data[at:]) if at < len(data) else at

    def _gather(self, data: bytes) -> int:
        receiver = self._gathering
        consumed: int = receiver.received(data)
        if receiver.error is not None:
            self.refuse(receiver.error)
        elif receiver.completed:
            self.completed = True
        return consumed
