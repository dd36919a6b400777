"""The head of an answer: what waitress's tasks would write, in one piece. The date is made once a second for all."""

from __future__ import annotations

import time
from email.utils import formatdate

from front.halves import REASONS, Response

_date: tuple[int, str] = (0, "")
LENGTH = "content-length"


def _http_date() -> str:
    global _date  # noqa: PLW0603 - one string a second for all answers
    now = int(time.time())
    if _date[0] != now:
        _date = (now, formatdate(now, usegmt=True))
    return _date[1]


def head_of(response: Response, version: str, keep: bool, bare: bool) -> bytes:
    """The head of an answer. bare: no body follows, and its length is what the application says that it would be."""
    status, headers, body = response
    length: object = len(body)
    text = f"HTTP/{version} {status} {REASONS.get(status, 'Unknown')}\r\n"
    for name, value in headers:
        if len(name) == len(LENGTH) and name.lower() == LENGTH:
            length = value if bare else length
        else:
            text += f"{name}: {value}\r\n"
    text += f"Content-Length: {length}\r\nDate: {_http_date()}\r\n"
    if not keep:
        text += "Connection: close\r\n"
    elif version == "1.0":
        text += "Connection: keep-alive\r\n"
    return f"{text}\r\n".encode("latin-1")
