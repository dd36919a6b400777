"""The head of an answer: what waitress's tasks would write, in one piece. The date is made once a second for all."""

from __future__ import annotations

import time
from email.utils import formatdate

from front.halves import REASONS, Response

_date: tuple[int, str] = (0, "")


def _http_date() -> str:
    global _date  # noqa: PLW0603 - one string a second for all answers
    now = int(time.time())
    if _date[0] != now:
        _date = (now, formatdate(now, usegmt=True))
    return _date[1]


def head_of(response: Response, version: str, keep: bool, is_head: bool) -> bytes:
    """The head of an answer. The answer to HEAD has the length that its GET would have, as the application says."""
    length: object = len(response.body)
    if is_head:
        length = next((value for name, value in response.headers if name.lower() == "content-length"), length)
    lines = [f"HTTP/{version} {response.status} {REASONS.get(response.status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in response.headers if name.lower() != "content-length"]
    lines.append(f"Content-Length: {length}\r\nDate: {_http_date()}")
    if not keep:
        lines.append("Connection: close")
    elif version == "1.0":
        lines.append("Connection: keep-alive")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
