"""An answer that takes too long to make for a loop that others wait for, and that nobody outside is asked for.

Owns that it is made in the pool, and sent smaller where the client takes it so. Knows nothing of what it says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from front.encodings import encode
from front.halves import Response
from front.refusals import error_response


class Loop(Protocol):
    """What is needed of whoever carries it."""

    def in_pool(self, make: Callable[[], Response], answer: Callable[[Response], None]) -> None:
        """Run `make` in a thread, and `answer` with what it returned in the loop."""


class Labour:
    """One such answer. make: raises nothing but defects; accepts: the request's Accept-Encoding.

    finish: what is done to the answer before it leaves.
    """

    def __init__(self, make: Callable[[], Response], request_id: str, accepts: str | None) -> None:
        self._make = make
        self._request_id = request_id
        self._accepts = accepts
        self.finish: Callable[[Response], Response] = lambda response: response

    def begin(self, loop: Loop, answer: Callable[[Response], None]) -> None:
        """In a loop: `answer` hears the response once."""
        loop.in_pool(self._made, lambda response: answer(self.finish(response)))

    def complete(self, _client: Any) -> Response:
        """Where a thread may wait."""
        return self.finish(self._made())

    def fail(self, error: Exception) -> Response:
        """The answer where none comes any more."""
        return error_response(error, self._request_id)

    def repeatable(self) -> None:
        """The next one must be asked for again."""

    def _made(self) -> Response:
        try:
            response = self._make()
            body, coding = encode(response.body, self._accepts)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client hears of it
            return self.fail(error)
        if coding is None:
            return response
        headers = [*response.headers, ("Content-Encoding", coding), ("Vary", "Accept-Encoding")]
        return Response(response.status, headers, body)
