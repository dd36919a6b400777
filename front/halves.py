"""A request's two halves, as the application and whoever carries it between them see each other.

The application runs the first half and either returns an answer or hands an exchange to `environ[DEFER]`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from batching.client import Outcome, Target

DEFER = "inference.defer"

# Never sent: the client hung up while its item was queued (nginx's number for it). Its connection is closed.
CLIENT_GONE = 499
NOT_MODIFIED = 304
REASONS = {
    200: "OK", 304: "Not Modified", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 413: "Content Too Large", 415: "Unsupported Media Type",
    421: "Misdirected Request", 431: "Request Header Fields Too Large", 500: "Internal Server Error",
    501: "Not Implemented", 503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip


def is_bare(verb: str, status: int) -> bool:
    """Whether an answer is its head alone, which tells the length of the body that is not sent (RFC 9110, 8.6)."""
    return verb == "HEAD" or status == NOT_MODIFIED


class Refused(Exception):
    """Bytes that are no acceptable HTTP request: the status to answer, and why, in words about HTTP alone."""

    def __init__(self, code: int, body: str) -> None:
        super().__init__(body)
        self.code = code
        self.body = body


class Response(NamedTuple):
    """An answer, ready to leave. `headers` without Content-Length, Date and Connection, which are the front's."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Repeatable(Protocol):
    """How requests with the same header as one before may be begun."""

    def again(self, body: bytes) -> Exchange | None:
        """The next one's exchange; None where the application must be asked."""


class Exchange(Protocol):
    """A prediction request between its two halves; nothing here raises but `prepare`."""

    heavy: bool
    target: Target
    items: list[tuple[int, Any]]
    deadline: float
    priority: int

    def repeatable(self) -> Repeatable | None:
        """For further requests with the same header; None where each must be put to the application."""

    def prepare(self) -> None:
        """Turn the body into items; in the pool where `heavy`. Raises what `fail` understands."""

    @property
    def packs(self) -> bool:
        """Whether an answer must go through `packed`."""

    def answer(self, outcomes: list[Outcome]) -> Response:
        """The second half."""

    def packed(self, response: Response) -> Response:
        """An answer as it leaves, perhaps compressed; where it is long, for the pool."""

    def fail(self, error: Exception) -> Response:
        """The second half where there were no outcomes."""
