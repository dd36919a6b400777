"""One client's connection: bytes to requests, the application's first half, answers to bytes.

Knows no model and no clock but what front.patience counts for it. Checked against waitress 3.0.2; what its HTTPChannel
does otherwise, and what was wrong with it:

- handle_read, readable: with channel_request_lookahead a client that has shut its sending side gets no answer, without
  it nobody notices one that has gone. Here the end of its bytes withdraws what is still queued (CANCEL_ON_HALF_CLOSE)
  and what computes already is delivered.
- received: a piece of 64 KiB can be 2,000 requests, all parsed at once; bytes behind a refused request are parsed. Here
  one request is parsed when the one before it has been answered, and nothing behind a refused one.
- received, send_continue: 100 Continue is sent for a body that was just refused, and the refusal forgotten; a GET with
  Expect is never answered.
- handle_write: a large answer is copied into a buffer, and from there in pieces as large as the socket's own, of which
  it takes less; a slow reader holds it for ever.
- close after an error: with bytes unread the kernel resets the connection, and the client may never see why.
- handle_expt: one warning for every urgent byte. handle_error: one line of traceback with the client's address.

What it waits for (`readable`, `writable`) changes seldom, and whenever it does, the loop's poller is told (`_touch`).
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable
from typing import Protocol

from waitress.channel import HTTPChannel

from batching.client import Client, Ticket
from front.administration import Errand
from front.halves import CLIENT_GONE, DEFER, Exchange, Refused, Response, is_bare
from front.head import head_of
from front.labour import Labour
from front.parser import Parser
from front.patience import Stage

log = logging.getLogger("inference.front")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# A larger body is not copied to stand behind its head.
COPIED_MAX = 64 * 1024
# At once of a body: fewer turns of the loop for a large one. What is asked for is allocated before anybody knows how
# much there is, and from 128 KiB on that is mapped and unmapped each time (17 us against 1.4).
READ_MAX = 120 * 1024
RESET = struct.pack("ii", 1, 0)
TOO_SLOW = {
    Stage.HEADER: "the header did not come in time",
    Stage.BODY: "the body did not come in time",
}


class Carrier(Protocol):
    """What a channel needs of the loop that it lives in."""

    client: Client
    draining: bool
    cancel_on_half_close: bool
    parser_error: Callable[[int, str], Response]

    def begin(self, exchange: Exchange | Errand | Labour, channel: Channel) -> None:
        """Carry the exchange; `channel.answer` is called once for it."""


class Channel(HTTPChannel):
    """One client connection. `requests` holds at most one, which is in service until `answer` was called for it."""

    tells_interest = True  # for front.poller
    requests: list[Parser]
    request: Parser | None = None  # while it is not whole
    ticket: Ticket | None = None
    exchange: Exchange | Errand | Labour | None = None  # while it is carried
    finished_sending = False
    idle_since = 0.0
    _unread: bytes = b""  # behind the request in service
    _unsent: memoryview | bytes = b""
    _last_answer = False  # whether the connection ends when it has left
    _lingers = False
    _dropped = 0
    _in_body = False
    _said: Response | Exchange | Errand | Labour | None = None  # what the application made of the request in service
    _begun: tuple[int, list[tuple[str, str]]] | None = None  # or how it began to answer, as any WSGI application may

    # -- bytes in ----------------------------------------------------------------------------------------------------

    def readable(self) -> bool:
        return self._lingers or not (self._unsent or self._unread or self._last_answer or self.finished_sending)

    def handle_read(self) -> None:
        try:
            data = self.socket.recv(READ_MAX if self._in_body else self.adj.recv_bytes)
        except BlockingIOError:
            return
        except OSError:
            self.handle_close()
            return
        if self._lingers:
            self._dropped += len(data)
            if not data or self._dropped > self.adj.max_request_body_size:
                self.handle_close()
        elif data:
            self.received(data)
        elif self.requests or self._unsent:
            # It may be waiting with its sending side shut: withdraw what is still queued, deliver what is not.
            self.finished_sending = True
            self._touch()
            if self.server.front.cancel_on_half_close:
                self._withdraw()
        else:
            self.handle_close()

    handle_read_event = handle_read  # waitress asks first whether it is connected yet, and ours always is

    def received(self, data: bytes) -> bool:
        """Parse what has come, unless a request is in service: what comes behind that is kept for later."""
        if self.requests or self._unsent:
            self._unread += data
            self._touch()
            return True
        request = self.request or Parser(self.server.heads)
        consumed = request.received(data)
        if request.completed:
            self.request = None
            self._in_body = False
            self.server.patience.forget(self)
            if consumed < len(data):
                self._unread = data[consumed:]
                self._touch()
            self.requests.append(request)
            self.server.task_dispatcher.add_task(self)
        elif request.begun:
            self._read_on(request, consumed)
        return True

    def _read_on(self, request: Parser, amount: int) -> None:
        """More of it has to come: from now on it has a limit."""
        patience = self.server.patience
        if self.request is None:
            self.request = request
            patience.begin(self, Stage.HEADER)
        if request.head is not None and not self._in_body:
            self._in_body = True
            patience.begin(self, Stage.BODY)
            if request.head.expects_continue and not request.body_bytes:
                self._say_continue()
        else:
            patience.moved(self, amount)

    def _say_continue(self) -> None:
        try:
            if self.socket.send(CONTINUE) < len(CONTINUE):
                self.handle_close()  # a client that has read nothing for megabytes
        except BlockingIOError:
            return  # the same; it may send its body unasked
        except OSError:
            self.handle_close()

    @property
    def held_bytes(self) -> int:
        """What it has in memory of something half received or half sent."""
        return len(self._unsent) + (self.request.body_bytes if self.request is not None else 0)

    # -- a request's two halves ----------------------------------------------------------------------------------------

    def service(self) -> None:
        """The first half: run the application; it answers, or defers."""
        front: Carrier = self.server.front
        if not self.connected:
            self._forget_requests()
            return
        request = self.requests[0]
        if request.error is not None:
            self.server.count("refused")
            self.answer(front.parser_error(request.error.code, request.error.body))
            return
        head = request.head
        if head is not None and head.manner is not None:
            exchange = head.manner.again(request.body)
            if exchange is not None:
                self.exchange = exchange
                front.begin(exchange, self)
                return
            head.manner = None
        environ = request.environ()
        environ["REMOTE_ADDR"] = environ["REMOTE_HOST"] = self.addr[0]
        environ["REMOTE_PORT"] = str(self.addr[1])
        environ["waitress.client_disconnected"] = self.check_client_disconnected
        environ[DEFER] = self._hear
        chunks = self.server.application(environ, self._start_response)
        said, self._said = self._said, None
        if said is None:
            body = b"".join(chunks)
            if self._begun is None:
                raise RuntimeError("the application has said nothing")
            begun, self._begun = self._begun, None
            self.answer(Response(*begun, body))
        elif isinstance(said, Response):
            self.answer(said)
        else:
            if head is not None and head.length is not None:
                head.manner = said.repeatable()
            self.exchange = said
            front.begin(said, self)

    def _hear(self, said: Response | Exchange | Errand | Labour) -> None:
        """Our own application's word: an answer, or what must be waited for."""
        self._said = said

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: object = None
    ) -> Callable[[bytes], None]:
        """Any application's."""
        self._begun = int(status[:3]), headers
        return _no_write

    def answer(self, response: Response) -> None:
        """Write the answer to the first request, and go on to the next. A client that has gone is not an error."""
        self.ticket = self.exchange = None
        if not self.connected or not self.requests:
            self._forget_requests()
            return
        if response.status == CLIENT_GONE:
            self.handle_close()
            return
        request = self.requests[0]
        keep = self._keeps_alive(request)
        bare = is_bare(request.command, response.status)
        if not keep:
            self._last_answer = True
            self._touch()
        request.close()
        self.requests.clear()
        self._write(head_of(response, request.version, keep, bare), b"" if bare else response.body)
        if self._unsent or not self.connected:
            return
        self._answered(gently=request.error is not None)

    def _answered(self, *, gently: bool) -> None:
        """The answer has left: the next request, or the end."""
        if self._last_answer:
            self._part(gently=gently or bool(self._unread) or self.server.front.draining)
        elif self._unread:
            data, self._unread = self._unread, b""
            self._touch()
            self.received(data)
        elif self.finished_sending:
            self.handle_close()
        else:
            self.server.patience.rest(self)

    def _keeps_alive(self, request: Parser) -> bool:
        if self.server.front.draining or self.finished_sending or request.error is not None:
            return False
        return request.head is not None and request.head.keeps

    def _forget_requests(self) -> None:
        for request in self.requests:
            request.close()
        self.requests.clear()

    def _withdraw(self) -> None:
        if self.ticket is not None:
            ticket, self.ticket = self.ticket, None
            self.server.front.client.withdraw(ticket)

    # -- bytes out -----------------------------------------------------------------------------------------------------

    def writable(self) -> bool:
        return bool(self._unsent)

    def handle_write(self) -> None:
        """More of what did not fit into the socket at once."""
        try:
            sent = self.socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.handle_close()
            return
        self._unsent = self._unsent[sent:]
        self.server.patience.moved(self, sent)
        if not self._unsent:
            self._touch()
            self._answered(gently=True)

    def _write(self, head: bytes, body: bytes) -> None:
        """In one packet where they fit, at once where the socket takes it; the rest waits for the client to read."""
        try:
            sent = self.socket.send(head + body) if len(body) < COPIED_MAX else self.socket.sendmsg([head, body])
        except BlockingIOError:
            sent = 0
        except OSError:
            self.handle_close()
            return
        if sent < len(head) + len(body):
            of_body = sent - len(head)
            self._unsent = memoryview(body)[of_body:] if of_body >= 0 else memoryview(head + body)[sent:]
            self.server.patience.begin(self, Stage.ANSWER)
            self._touch()

    def _touch(self) -> None:
        """What we wait for may have changed outside an event."""
        self._map.touch(self._fileno)

    # -- the end -------------------------------------------------------------------------------------------------------

    def give_up(self, reason: str, stage: Stage) -> None:
        """It took too long: say so where it can still be heard."""
        if stage is Stage.LINGER:
            self.handle_close()
            return
        self.server.count(reason)
        if stage is Stage.ANSWER or self.request is None:
            # Nobody reads: what the kernel still holds for it goes with it.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.handle_close()
            return
        request, self.request = self.request, None
        self._in_body = False
        self.server.patience.forget(self)
        request.refuse(Refused(408, TOO_SLOW[stage]))
        self.requests.append(request)
        self.answer(self.server.front.parser_error(408, TOO_SLOW[stage]))

    def _part(self, *, gently: bool) -> None:
        """Close. Gently: only our side at first, and drop for a while what still comes, so that the answer is read."""
        if gently and not self.finished_sending:
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self.handle_close()
                return
            self._lingers = True
            self._unread = b""
            self.server.patience.begin(self, Stage.LINGER)
            self._touch()
        else:
            self.handle_close()

    def close_if_idle(self) -> None:
        """For a front that ends: close, unless a request is here already or on its way."""
        if not (self.requests or self.request or self._unsent or self._lingers):
            self.handle_read()
            if self.connected and not (self.requests or self.request):
                self.handle_close()

    def handle_close(self) -> None:
        self._withdraw()
        self.server.patience.forget(self)
        self._unread = self._unsent = b""
        super().handle_close()

    def handle_expt(self) -> None:
        """Urgent bytes mean nothing in HTTP."""

    def handle_error(self) -> None:
        log.exception("a connection is dropped")  # noqa: LOG004 - called by an except
        self.handle_close()


def _no_write(data: bytes) -> None:
    raise RuntimeError("the write callable is not offered")
