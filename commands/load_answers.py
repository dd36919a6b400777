"""HTTP/1.1 answers, as a load generator reads them: where one ends, and what is to be known of it.

Strict where a lenient reader would measure nonsense: a length that is none, both ways to say it, a chunk without its
end. Knows nothing of sockets and of time.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

HEAD_MAX = 65_536
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([2-5][0-9]{2})(?: [^\r\n]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?")
REASON_CHARACTERS = 60


class MalformedError(Exception):
    """This is no answer of HTTP/1.1; what is wrong, in a few words."""


@dataclass(frozen=True)
class Head:
    """The head of an answer. size: with the empty line. length: of the body; None: chunked, or to the end."""

    status: int
    size: int
    length: int | None
    is_chunked: bool
    closes: bool


def head_of(data: bytes) -> Head | None:
    """None while it is not whole. Raises MalformedError."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > HEAD_MAX or not b"HTTP/1.".startswith(data[:7]):
            raise MalformedError("no head of an answer")
        return None
    first, *lines = data[:end].split(b"\r\n")
    found = _STATUS_LINE.fullmatch(first)
    if found is None:
        raise MalformedError("no status line")
    lengths, codings, connection = set[bytes](), b"", b""
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise MalformedError("a header that is none")
        name, value = field[1].lower(), field[2]
        if name == b"content-length":
            lengths.add(value)
        elif name == b"transfer-encoding":
            codings = value.lower()
        elif name == b"connection":
            connection = value.lower()
    status = int(found[2])
    closes = b"close" in connection or (found[1] == b"0" and b"keep-alive" not in connection)
    if codings and (lengths or codings != b"chunked"):
        raise MalformedError("a body whose length is said in two ways, or none that is known")
    if len(lengths) > 1 or not all(value.isdigit() for value in lengths):
        raise MalformedError("a Content-Length that is none")
    length = int(lengths.pop()) if lengths else 0 if status in (204, 304) else None
    return Head(status, end + 4, length, bool(codings), closes or (length is None and not codings))


def end_of(data: bytes, head: Head, *, is_over: bool = False) -> int | None:
    """Where the answer ends; None while it has not. is_over: nothing comes any more. Raises MalformedError."""
    if head.is_chunked:
        return _end_of_chunks(data, head.size)
    if head.length is None:
        return len(data) if is_over else None
    end = head.size + head.length
    return end if len(data) >= end else None


def body_of(data: bytes, head: Head, end: int) -> bytes:
    """The body of an answer that ends there."""
    if not head.is_chunked:
        return data[head.size : end]
    parts, at = [], head.size
    while size := int(data[at : (line_end := data.find(b"\r\n", at))].partition(b";")[0], 16):
        parts.append(data[line_end + 2 : line_end + 2 + size])
        at = line_end + 4 + size
    return b"".join(parts)


def _end_of_chunks(data: bytes, at: int) -> int | None:
    while True:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return None
        found = _CHUNK_LINE.fullmatch(data, at, line_end)
        if found is None:
            raise MalformedError("a chunk without a size")
        at = line_end + 2
        size = int(found[1], 16)
        if size == 0:
            break
        if len(data) < at + size + 2:
            return None
        if data[at + size : at + size + 2] != b"\r\n":
            raise MalformedError("a chunk without its end")
        at += size + 2
    if data.startswith(b"\r\n", at):  # no trailers, as always
        return at + 2
    end = data.find(b"\r\n\r\n", at)
    return None if end < 0 else end + 4


def reason_of(status: int, body: bytes) -> str:
    """`503 OVERLOADED`: what counts as one kind of failure."""
    try:
        told = json.loads(body)
        reason = told["error"]
        reason = reason["message"] if isinstance(reason, dict) else reason
    except (ValueError, TypeError, KeyError):
        return str(status)
    words = " ".join(str(reason).split())
    return f"{status} {words[:REASON_CHARACTERS]}".strip()


def timings_of(head: bytes) -> dict[str, float]:
    """What a Server-Timing header says: each name's duration in ms, and of `batch` its rows. Empty without one."""
    at = head.lower().find(b"\r\nserver-timing:")
    if at < 0:
        return {}
    line, _, _ = head[at + 16 :].partition(b"\r\n")
    found = {}
    for part in line.decode("latin-1").split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key == ("desc" if name == "batch" else "dur"):
                try:
                    found[name] = float(value.strip('"'))
                except ValueError:
                    continue
    return found
