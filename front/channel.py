"""One client's connection: bytes to requests, the application's first half, answers to bytes. front.loop says why."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Protocol

from waitress.channel import HTTPChannel
from waitress.task import WSGITask

from batching.client import Client, Ticket
from front.halves import CLIENT_GONE, DEFER, REASONS, Exchange, Response


class Carrier(Protocol):
    """What a channel needs of the loop that it lives in."""

    client: Client
    draining: bool
    parser_error: Callable[[int, str], Response]

    def begin(self, exchange: Exchange, channel: Channel) -> None:
        """Carry the exchange; `channel.answer` is called once for it."""


class Channel(HTTPChannel):
    """One client connection; its first request is in service until `answer` was called for it."""

    task_class = WSGITask
    requests: list[Any]
    ticket: Ticket | None = None
    finished_sending = False

    def readable(self) -> bool:
        return not self.finished_sending and super().readable()

    def handle_read(self) -> None:
        try:
            data = self.socket.recv(self.adj.recv_bytes)
        except BlockingIOError:
            return
        except OSError:
            self.handle_close()
            return
        if data:
            self.last_activity = time.time()
            self.received(data)
        elif self.requests or self.total_outbufs_len:
            # It may be waiting with its sending side shut: withdraw what is still queued, deliver what is not.
            self.finished_sending = True
            self._withdraw()
        else:
            self.handle_close()

    def handle_close(self) -> None:
        self._withdraw()
        super().handle_close()

    def _withdraw(self) -> None:
        if self.ticket is not None:
            ticket, self.ticket = self.ticket, None
            self.server.front.client.withdraw(ticket)

    def service(self) -> None:
        """The first half: run the application; it answers, or defers."""
        front: Carrier = self.server.front
        if not self.connected:
            self._forget_requests()
            return
        request = self.requests[0]
        if request.error:
            request.connection_close = True
            self.answer(front.parser_error(request.error.code, request.error.body))
            return
        environ = self.task_class(self, request).get_environment()
        deferred: list[Exchange] = []
        environ[DEFER] = deferred.append
        head: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., None]:
            head[:] = [int(status[:3]), headers]
            return _no_write

        chunks = self.server.application(environ, start_response)
        if not deferred:
            self.answer(Response(head[0], head[1], b"".join(chunks)))
            return
        front.begin(deferred[0], self)

    def answer(self, response: Response) -> None:
        """Write the answer to the first request, and go on to the next. A client that has gone is not an error."""
        self.ticket = None
        if not self.connected or not self.requests:
            self._forget_requests()
            return
        if response.status == CLIENT_GONE:
            self.handle_close()
            return
        request = self.requests[0]
        keep = self._keeps_alive(request)
        # A request that the parser gave up on early has no command.
        is_head = getattr(request, "command", "") == "HEAD"
        self._write(_head(response, request.version, keep, is_head) + (b"" if is_head else response.body))
        self.last_activity = time.time()
        if not keep:
            self._forget_requests()
            self.close_when_flushed = True
            self._touch()
            if not self.total_outbufs_len:
                self.handle_close()
            return
        request.close()
        self.requests.pop(0)
        self._touch()
        if self.requests:
            self.server.add_task(self)
        elif self._awaits_continue():
            self.send_continue()

    def _touch(self) -> None:
        """What we wait for may have changed outside an event."""
        self._map.touch(self._fileno)

    def _awaits_continue(self) -> bool:
        waiting = self.request
        return bool(waiting and waiting.expect_continue and waiting.headers_finished and not self.sent_continue)

    def _write(self, data: bytes) -> None:
        """At once where the socket takes it; only what is left over is buffered."""
        if not self.total_outbufs_len:
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.handle_close()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self.outbufs[-1].append(data)
        self.total_outbufs_len += len(data)
        self._touch()

    def _keeps_alive(self, request: Any) -> bool:
        if self.server.front.draining or self.finished_sending or request.error:
            return False
        connection = request.headers.get("CONNECTION", "").lower()
        return bool(connection != "close" if request.version == "1.1" else connection == "keep-alive")

    def _forget_requests(self) -> None:
        for request in self.requests:
            request.close()
        self.requests = []


_date: tuple[int, str] = (0, "")


def _http_date() -> str:
    global _date  # noqa: PLW0603 - one string a second for all answers
    now = int(time.time())
    if _date[0] != now:
        _date = (now, formatdate(now, usegmt=True))
    return _date[1]


def _head(response: Response, version: str, keep: bool, is_head: bool) -> bytes:
    """The head of an answer. The answer to HEAD has the length that its GET would have, as the application says."""
    length: object = len(response.body)
    if is_head:
        length = next((value for name, value in response.headers if name.lower() == "content-length"), length)
    version = version if version in ("1.0", "1.1") else "1.0"
    lines = [f"HTTP/{version} {response.status} {REASONS.get(response.status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in response.headers if name.lower() != "content-length"]
    lines.append(f"Content-Length: {length}\r\nDate: {_http_date()}")
    if not keep:
        lines.append("Connection: close")
    elif version == "1.0":
        lines.append("Connection: keep-alive")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _no_write(data: bytes) -> None:
    raise RuntimeError("the write callable is not offered")
