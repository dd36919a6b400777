"""One request's bytes, judged strictly: what two readers could understand in two ways is refused, not guessed.

Owns the grammar of the request line, the header and the framing of the body. Knows no socket, no clock and no answer:
`error` says with which status to refuse, and whoever reads the connection then closes it, so nothing behind refused
bytes is ever taken for a request.

Checked against waitress 3.0.2, whose HTTPRequestParser keeps its attributes here but judges nothing any more. There:

- Content-Length beside Transfer-Encoding is served and the connection kept: a second request can be smuggled.
- doubled Host, Content-Length, Transfer-Encoding or Content-Type are joined by commas; no Host is needed.
- a Content-Length of 5,000 digits ends in ValueError; folded lines are joined; HTTP/0.9, HTTP/2.0 and HTTP/1.9 are
  served as 1.0; a coding is passed on in HTTP/1.0; any bytes are a request target.
- what is no HTTP at all (a TLS hello, bare line feeds) is waited for until it fills the header limit, and every piece
  is searched again from the start.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from waitress.parser import HTTPRequestParser
from waitress.receiver import FixedStreamReceiver

from front.chunks import Chunks
from front.gathered import Gathered
from front.halves import Refused

FIELDS_MAX = 128
# A body of 10**18 bytes is refused by its size; one with more digits is no number of bytes at all.
LENGTH_DIGITS_MAX = 19
# Two of these would let two readers see two requests, hosts or types.
ONLY_ONCE = frozenset({"CONTENT_LENGTH", "CONTENT_TYPE", "HOST", "TRANSFER_ENCODING"})

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # noqa: S105 - the grammar's word for a name
REQUEST_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Z]{1,32}) ([\x21\x22\x24-\x7e]+) HTTP/([0-9]\.[0-9])").fullmatch
FIELD = re.compile(rf"({TOKEN}+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)").fullmatch
HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~-]{1,255})(?::[0-9]{0,5})?").fullmatch
ABSOLUTE = re.compile(r"https?://([^/?]*)([^?]*)(?:\?(.*))?", re.IGNORECASE).fullmatch
DIGITS = re.compile(r"[0-9]+").fullmatch
FIRST_BYTES = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ\r")
BARE_FEED = re.compile(rb"(?<!\r)\n").search
EMPTY_LINES = re.compile(rb"\A(?:\r\n)+").sub

# Header names as clients write them -> as WSGI calls them; "" for those with an underscore, which would be mistaken
# for ones with a dash. Bounded, as names are the client's.
_keys: dict[str, str] = {}


class Parser(HTTPRequestParser):
    """One request. `received` takes what it can use of some bytes and says how much, until `completed`."""

    completed: bool = False
    error: Refused | None = None
    header_plus: bytes = b""  # the beginning of a header that is not whole yet
    version = "1.1"  # until it is known: a refusal is answered in ours
    query: str
    begun = False  # whether anything but empty lines has come
    _line_known = False

    def received(self, data: bytes) -> int:
        if self.completed:
            return 0
        if self.body_rcv is not None:
            return self._take_body(data)
        held = self.header_plus
        block = held + data if held else data
        if block[0] == 13:  # empty lines before a request are allowed
            block = EMPTY_LINES(b"", block)
            if not block:
                self.header_plus = b""
                return len(data)
        end = block.find(b"\r\n\r\n", max(len(held) - 3, 0))
        self.begun = True
        try:
            if end < 0:
                self.header_plus = block
                self._judge_beginning(block, len(held))
                return len(data)
            self.header_plus = b""
            self._take_header(block[:end].decode("latin-1"))
        except Refused as error:
            self.error = error
            self.completed = True
            return len(data)
        self.headers_finished = True
        taken = len(data) - (len(block) - end - 4)
        if self.body_rcv is None:
            self.completed = True
        elif taken < len(data):
            taken += self._take_body(data[taken:])
        return taken

    def refuse(self, error: Refused) -> None:
        """It will not become a request any more."""
        self.error = error
        self.completed = True

    def _judge_beginning(self, block: bytes, before: int) -> None:
        """Refuse as soon as it cannot become a request; nobody should wait for a limit to hear it."""
        if len(block) >= self.adj.max_request_header_size:
            raise Refused(431, "the header is too long")
        if block[0] not in FIRST_BYTES:
            raise Refused(400, "this is no HTTP request")
        if BARE_FEED(block, before):
            raise Refused(400, "a line ends without a carriage return")
        if not self._line_known and (end := block.find(b"\r\n")) >= 0:
            self._take_request_line(block[:end].decode("latin-1"))

    def _take_header(self, block: str) -> None:
        if len(block) + 4 >= self.adj.max_request_header_size:
            raise Refused(431, "the header is too long")
        line, *fields = block.split("\r\n")
        if len(fields) > FIELDS_MAX:
            raise Refused(431, f"there are more than {FIELDS_MAX} header fields")
        self._take_request_line(line)
        headers = self.headers
        for field in fields:
            match = FIELD(field)
            if match is None:
                raise Refused(400, "a header field is malformed")
            name, value = match.groups()
            key = _keys.get(name)
            if key is None:
                key = _key(name)
            if not key:
                continue
            if key in headers:
                if key in ONLY_ONCE:
                    raise Refused(400, f"there are two {name.title()} header fields")
                headers[key] += ", " + value.rstrip(" \t")
            else:
                headers[key] = value.rstrip(" \t")
        self._take_host()
        self._frame_body()

    def _take_request_line(self, line: str) -> None:
        match = REQUEST_LINE(line)
        if match is None:
            raise Refused(400, "the request line is malformed")
        self._line_known = True
        self.command, target, version = match.groups()
        if version not in ("1.0", "1.1"):
            raise Refused(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        self.version = version
        self.request_uri = target
        self.url_scheme = self.adj.url_scheme
        if target[0] == "/":
            path, _, self.query = target.partition("?")
        elif (absolute := ABSOLUTE(target)) is not None:
            self.proxy_netloc, path, query = absolute.groups()
            path, self.query = path or "/", query or ""
        elif target == "*" and self.command == "OPTIONS":
            path, self.query = "*", ""
        else:
            raise Refused(400, "the request target is malformed")
        self.path = unquote_to_bytes(path).decode("latin-1") if "%" in path else path

    def _take_host(self) -> None:
        """One Host in HTTP/1.1; that of an absolute target is the one that counts, whatever the field says."""
        host = self.headers.get("HOST")
        if host is None:
            if self.version == "1.1":
                raise Refused(400, "there is no Host header field")
        elif not HOST(host):
            raise Refused(400, "the Host header field is malformed")
        if self.request_uri[0] not in "/*":
            if not HOST(self.proxy_netloc):
                raise Refused(400, "the request target's host is malformed")
            self.headers["HOST"] = self.proxy_netloc

    def _frame_body(self) -> None:
        headers = self.headers
        length = headers.get("CONTENT_LENGTH")
        if "TRANSFER_ENCODING" in headers:
            self._frame_chunks(headers.pop("TRANSFER_ENCODING"), length)
        elif length is not None:
            if not DIGITS(length) or len(length) > LENGTH_DIGITS_MAX:
                raise Refused(400, "Content-Length is no number of bytes")
            self.content_length = int(length)
            if self.content_length > self.adj.max_request_body_size:
                raise Refused(413, f"the body has {length} bytes; at most {self.adj.max_request_body_size} are taken")
            if self.content_length:
                self.body_rcv = FixedStreamReceiver(self.content_length, Gathered())
        if self.body_rcv is not None and "EXPECT" in headers and self.version == "1.1":
            self.expect_continue = headers["EXPECT"].lower() == "100-continue"

    def _frame_chunks(self, coding: str, length: str | None) -> None:
        if length is not None:
            raise Refused(400, "Content-Length and Transfer-Encoding exclude each other")
        if self.version == "1.0":
            raise Refused(400, "HTTP/1.0 has no Transfer-Encoding")
        names = [name.strip(" \t").lower() for name in coding.split(",")]
        if names != ["chunked"]:
            if "" in names or names.count("chunked") > 1:
                raise Refused(400, "Transfer-Encoding is malformed")
            raise Refused(501, "chunked is the only transfer coding taken here")
        self.chunked = True
        self.body_rcv = Chunks(Gathered(), self.adj.max_request_body_size)

    def _take_body(self, data: bytes) -> int:
        receiver = self.body_rcv
        consumed: int = receiver.received(data)
        self.body_bytes_received += consumed
        if receiver.error is not None:
            self.refuse(receiver.error)
        elif receiver.completed:
            self.completed = True
            if self.chunked:
                self.headers["CONTENT_LENGTH"] = str(len(receiver))  # to the application it is a body like any other
        return consumed


def _key(name: str) -> str:
    key = "" if "_" in name else name.upper().replace("-", "_")
    if len(_keys) < 512 and len(name) <= 40:
        _keys[name] = key
    return key
