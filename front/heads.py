"""One request's header, judged strictly: what two readers could understand in two ways is refused, not guessed.

Owns the grammar of the request line and the header, what follows from it (where the body ends, whether the connection
stays, the environment that the application sees), and the headers met before: clients send the same one again and
again, and judging it anew was a tenth of a small request's cost. Knows no socket, no body and no answer.

Checked against waitress 3.0.2, whose HTTPRequestParser this stands in for. There:

- Content-Length beside Transfer-Encoding is served and the connection kept: a second request can be smuggled.
- doubled Host, Content-Length, Transfer-Encoding or Content-Type are joined by commas; no Host is needed.
- a Content-Length of 5,000 digits ends in ValueError; folded lines are joined; HTTP/0.9, HTTP/2.0 and HTTP/1.9 are
  served as 1.0; a coding is passed on in HTTP/1.0; any bytes are a request target.
"""

from __future__ import annotations

import re
import sys
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from waitress.buffers import ReadOnlyFileBasedBuffer

from front.halves import Refused, Repeatable

FIELDS_MAX = 128
# A body of 10**18 bytes is refused by its size; one with more digits is no number of bytes at all.
LENGTH_DIGITS_MAX = 19
# Two of these would let two readers see two requests, hosts or types.
ONLY_ONCE = frozenset({"CONTENT_LENGTH", "CONTENT_TYPE", "HOST", "TRANSFER_ENCODING"})
# WSGI has names of their own for these; all others begin with HTTP_.
UNPREFIXED = frozenset({"CONTENT_LENGTH", "CONTENT_TYPE"})
# What holds one of these is judged each time: no key stays in memory.
SECRETS = frozenset({"AUTHORIZATION", "COOKIE", "PROXY_AUTHORIZATION"})
# So many headers of so many bytes are kept, of those that came twice; and of so many it is known that they came once.
KEPT_MAX, KEPT_BYTES_MAX, ONCE_MAX = 512, 2048, 4096

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # noqa: S105 - the grammar's word for a name
REQUEST_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Z]{1,32}) ([\x21\x22\x24-\x7e]+) HTTP/([0-9]\.[0-9])").fullmatch
FIELD = re.compile(rf"({TOKEN}+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)").fullmatch
HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~-]{1,255})(?::[0-9]{0,5})?").fullmatch
ABSOLUTE = re.compile(r"https?://([^/?]*)([^?]*)(?:\?(.*))?", re.IGNORECASE).fullmatch
DIGITS = re.compile(r"[0-9]+").fullmatch

# Header names as clients write them -> as WSGI calls them; "" for those with an underscore, which would be mistaken
# for ones with a dash. Bounded, as names are the client's.
_keys: dict[str, str] = {}


class Line(NamedTuple):
    """A request line. netloc: of an absolute target, None of any other."""

    command: str
    target: str
    version: str
    path: str
    query: str
    netloc: str | None


class Head:
    """What a header says. Requests with the same one share it, so nothing in it may be changed.

    length: bytes of the body; None where it comes in chunks. keeps: whether the client wants the connection kept.
    environ: what the application will see of it. manner: what it made of a request with this header, where it would do
    the same with the next one.
    """

    __slots__ = ("command", "environ", "expects_continue", "keeps", "length", "manner", "version")

    def __init__(self, line: Line, headers: dict[str, str], length: int | None, environ: dict[str, Any]) -> None:
        self.command = line.command
        self.version = line.version
        self.length = length
        self.keeps = _keeps(line.version, headers.get("CONNECTION"))
        expected = headers.get("EXPECT") if line.version == "1.1" and length != 0 else None
        self.expects_continue = expected is not None and expected.lower() == "100-continue"
        self.environ = environ
        self.manner: Repeatable | None = None


class Heads:
    """Those of one listening socket. server: what of the environment is the same for all requests."""

    def __init__(self, *, header_bytes_max: int, body_bytes_max: int, server: dict[str, Any]) -> None:
        self.bytes_max = header_bytes_max
        self.body_bytes_max = body_bytes_max
        self.known: dict[bytes, Head] = {}
        self._once: set[int] = set()
        self._server = {
            **server,
            "SCRIPT_NAME": "",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": ReadOnlyFileBasedBuffer,
            "wsgi.input_terminated": True,
        }

    def take(self, block: bytes) -> Head:
        """Of a header without the empty line at its end. Raises Refused."""
        if len(block) + 4 >= self.bytes_max:
            raise Refused(431, "the header is too long")
        first, *fields = block.decode("latin-1").split("\r\n")
        if len(fields) > FIELDS_MAX:
            raise Refused(431, f"there are more than {FIELDS_MAX} header fields")
        line = line_of(first)
        headers = _headers(fields)
        _check_host(line, headers)
        head = Head(line, headers, self._length(line, headers), self._environ(line, headers))
        if len(block) <= KEPT_BYTES_MAX and SECRETS.isdisjoint(headers):
            self._keep(block, head)
        return head

    def _keep(self, block: bytes, head: Head) -> None:
        """From the second time on: what is different in each request would only push out what is not."""
        digest = hash(block)
        if digest in self._once:
            if len(self.known) >= KEPT_MAX:
                self.known.clear()
            self.known[block] = head
        else:
            if len(self._once) >= ONCE_MAX:
                self._once.clear()
            self._once.add(digest)

    def _length(self, line: Line, headers: dict[str, str]) -> int | None:
        """How many bytes the body has; None for one in chunks, whose coding is no header to the application."""
        length = headers.get("CONTENT_LENGTH")
        if "TRANSFER_ENCODING" in headers:
            _check_coding(line, headers.pop("TRANSFER_ENCODING"), length)
            return None
        if length is None:
            return 0
        if not DIGITS(length) or len(length) > LENGTH_DIGITS_MAX:
            raise Refused(400, "Content-Length is no number of bytes")
        size = int(length)
        if size > self.body_bytes_max:
            raise Refused(413, f"the body has {length} bytes; at most {self.body_bytes_max} are taken")
        return size

    def _environ(self, line: Line, headers: dict[str, str]) -> dict[str, Any]:
        path = line.path
        environ = {
            **self._server,
            "REQUEST_METHOD": line.command,
            "SERVER_PROTOCOL": f"HTTP/{line.version}",
            "PATH_INFO": "/" + path.lstrip("/") if path.startswith("/") else path,
            "REQUEST_URI": line.target,
            "QUERY_STRING": line.query,
        }
        for name, value in headers.items():
            environ[name if name in UNPREFIXED else f"HTTP_{name}"] = value
        return environ


def line_of(text: str) -> Line:
    """A request line. Raises Refused."""
    match = REQUEST_LINE(text)
    if match is None:
        raise Refused(400, "the request line is malformed")
    command, target, version = match.groups()
    if version not in ("1.0", "1.1"):
        raise Refused(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    netloc: str | None = None
    if target[0] == "/":
        path, _, query = target.partition("?")
    elif (absolute := ABSOLUTE(target)) is not None:
        netloc, path, query = absolute.groups()
        path, query = path or "/", query or ""
    elif target == "*" and command == "OPTIONS":
        path, query = "*", ""
    else:
        raise Refused(400, "the request target is malformed")
    if "%" in path:
        path = unquote_to_bytes(path).decode("latin-1")
    return Line(command, target, version, path, query, netloc)


def _headers(fields: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
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
    return headers


def _check_host(line: Line, headers: dict[str, str]) -> None:
    """One Host in HTTP/1.1; that of an absolute target is the one that counts, whatever the field says."""
    host = headers.get("HOST")
    if host is None:
        if line.version == "1.1":
            raise Refused(400, "there is no Host header field")
    elif not HOST(host):
        raise Refused(400, "the Host header field is malformed")
    if line.netloc is not None:
        if not HOST(line.netloc):
            raise Refused(400, "the request target's host is malformed")
        headers["HOST"] = line.netloc


def _check_coding(line: Line, coding: str, length: str | None) -> None:
    if length is not None:
        raise Refused(400, "Content-Length and Transfer-Encoding exclude each other")
    if line.version == "1.0":
        raise Refused(400, "HTTP/1.0 has no Transfer-Encoding")
    names = [name.strip(" \t").lower() for name in coding.split(",")]
    if names != ["chunked"]:
        if "" in names or names.count("chunked") > 1:
            raise Refused(400, "Transfer-Encoding is malformed")
        raise Refused(501, "chunked is the only transfer coding taken here")


def _keeps(version: str, connection: str | None) -> bool:
    options = {option.strip(" \t") for option in (connection or "").lower().split(",")}
    return "close" not in options and (version == "1.1" or "keep-alive" in options)


def _key(name: str) -> str:
    key = "" if "_" in name else name.upper().replace("-", "_")
    if len(_keys) < 512 and len(name) <= 40:
        _keys[name] = key
    return key
