"""A load generator, one process of several: keeps connections busy and says in each window what came of it.

A program of its own (commands.load starts it): `python -m commands.load_generator FD`. Over that socket come a `Job`
and when to begin, and go frames, one a window. What is on its hot path is written out in one method, and made before:
each request's bytes, each connection's methods. It never blocks, not even to report. Knows nothing of models.
"""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import select
import socket
import sys
import time
from base64 import b64decode
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from commands.load_answers import MalformedError, body_of, end_of, head_of, reason_of
from commands.load_job import POISSON, Job
from commands.load_tally import SAMPLED, Tally, framed

# A request that has no answer by then counts as failed.
ANSWER_S = 30.0
# Of the last requests of a load so long, as the server would work on them under the next one.
DRAIN_S = 5.0
# After a connection was refused: else a server that is away would be asked thousands of times a second.
RETRY_S = 0.05
# What an open loop opens at the most.
CONNECTIONS_MAX = 1024
_READ = 65_536
_IN, _OUT = select.POLLIN, select.POLLOUT
_OK, _LENGTH, _END = b"HTTP/1.1 200 ", b"\r\nContent-Length: ", b"\r\n\r\n"


class Generator:
    """One load over its own connections. `run` is the whole story."""

    def __init__(self, job: Job, control: socket.socket) -> None:
        self._job = job
        self._control = control
        self._requests = [b64decode(one) for one in job.requests]
        self._turn = 0
        self._poll: Any = select.epoll() if sys.platform == "linux" else select.poll()
        self._second = 1 if sys.platform == "linux" else 1000  # of a poll's own time
        self._sockets: dict[int, socket.socket] = {}
        self._receive_of: dict[int, Any] = {}
        self._send_of: dict[int, Any] = {}
        self._began: dict[int, float] = {}  # when the request under way was sent, or was due
        self._unsent: dict[int, bytes] = {}  # what the socket would not take yet
        self._part: dict[int, bytes] = {}  # the beginning of an answer
        self._waits_to_write: set[int] = set()
        self._free: deque[int] = deque()  # in an open loop
        self._missing = 0  # connections, in a closed loop
        self._retry_at = 0.0
        self._random = random.Random(job.seed)  # noqa: S311 - arrivals, not secrets
        self._due = 0.0
        self._frames = b""
        self._ends = False

    def connect(self) -> None:
        """Have the first connections. Raises OSError where nobody answers."""
        for _ in range(self._job.connections):
            sock = socket.socket(self._job.family, socket.SOCK_STREAM)
            sock.settimeout(DRAIN_S)
            try:
                sock.connect(tuple(self._job.address))
            except OSError:
                sock.close()
                raise
            self._free.append(self._adopt(sock, _IN))

    def run(self, start: float) -> None:
        """Load from `start` (of time.monotonic) until the other side says a word, or has gone."""
        self._poll.register(self._control.fileno(), _IN)
        time.sleep(max(start - time.monotonic(), 0.0))
        self._cut_at = start + self._job.window_s
        self._tally = Tally(start)
        if self._job.rate is None:
            while self._free:
                self._ask(self._free.popleft(), time.monotonic())
        else:
            self._due = start
            self._plan_next()
        while self._turn_of_loop():
            pass
        self._drain()

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _turn_of_loop(self) -> bool:
        """Wait, receive, send; whether to go on."""
        now = time.monotonic()
        if self._job.rate is None:
            if self._missing and now >= self._retry_at:
                self._reopen(now)
            until = min(self._cut_at, self._retry_at) if self._missing else self._cut_at
            events = self._poll.poll(max(until - now, 0.0) * self._second)
        else:
            self._send_what_is_due(now)
            until = min(self._due, self._cut_at) if self._can_send() else self._cut_at
            wait_s = until - time.monotonic()
            if wait_s > 0 and sys.platform == "linux":
                select.select([self._poll], [], [], wait_s)  # epoll's own clock has milliseconds only
                wait_s = 0
            events = self._poll.poll(max(wait_s, 0.0) * self._second)
        goes_on = self._receive(events)
        if time.monotonic() >= self._cut_at:
            self._cut()
        if self._frames:
            self._flush()
        return goes_on

    def _receive(self, events: list[tuple[int, int]]) -> bool:
        """Take what has come and, in a closed loop, ask again. False when the other side has said its word."""
        receive_of, send_of, began, part = self._receive_of, self._send_of, self._began, self._part
        latencies, sample = self._tally.latencies, self._tally.sample
        requests, monotonic = self._requests, time.monotonic
        closed, control, alone = self._job.rate is None, self._control.fileno(), len(requests) == 1
        request, size = requests[0], len(requests[0])
        for fd, event in events:
            if event != _IN or fd == control or fd in part:
                if fd == control:
                    return False
                self._slowly(fd, event)
                continue
            try:
                data = receive_of[fd](_READ)
            except BlockingIOError:
                continue
            except OSError as error:
                self._broken(fd, error)
                continue
            # The usual answer: it is good, whole, of a known length, and the connection stays.
            end = data.find(_END)
            at = data.find(_LENGTH, 0, end + 1)
            if (
                at < 0
                or not data.startswith(_OK)
                or data.find(b"lose", 0, end) >= 0
                or data.find(b"hunked", 0, end) >= 0
                or fd not in began
                or not (digits := data[at + 18 : data.find(b"\r\n", at + 18)]).isdigit()
                or len(data) - end - 4 != int(digits)
            ):
                self._take(fd, data, is_over=not data)
                continue
            now = monotonic()
            latencies.append(now - began[fd])
            if len(latencies) % SAMPLED == 0:
                sample(data[:end])
            if not closed:
                del began[fd]
                self._free.append(fd)
                continue
            if not alone:
                request = self._next_request()
                size = len(request)
            began[fd] = now
            try:
                sent = send_of[fd](request)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._broken(fd, error)
                continue
            if sent != size:
                self._keep_rest(fd, request[sent:])
        return True

    def _slowly(self, fd: int, event: int) -> None:
        """Anything but an answer in one piece."""
        if fd not in self._sockets:  # closed in this very turn
            return
        if event & _OUT and fd in self._unsent and not event & (select.POLLERR | select.POLLHUP):
            self._send(fd, self._unsent.pop(fd))
        if event & ~_OUT and fd in self._sockets:
            try:
                data = self._receive_of[fd](_READ)
            except BlockingIOError:
                return
            except OSError as error:
                self._broken(fd, error)
                return
            self._take(fd, self._part.pop(fd, b"") + data, is_over=not data)

    def _take(self, fd: int, data: bytes, *, is_over: bool) -> None:
        """See whether an answer is whole, and what it says."""
        if fd not in self._began:  # nothing was asked
            self._close(fd)
            if data:
                self._tally.count("an answer that nobody asked for")
            return
        try:
            head = head_of(data) if data else None
            end = end_of(data, head, is_over=is_over) if head else None
            if end is not None and len(data) > end:
                raise MalformedError("more than one answer")
        except MalformedError as error:
            self._fail(fd, f"malformed: {error}")
            return
        if head is None or end is None:
            if is_over:
                self._fail(fd, "closed within an answer" if data else "closed without an answer")
            else:
                self._part[fd] = data
            return
        now = time.monotonic()
        began = self._began.pop(fd)
        if 200 <= head.status < 300:
            self._tally.latencies.append(now - began)
            if len(self._tally.latencies) % SAMPLED == 0:
                self._tally.sample(data[: head.size])
        else:
            self._tally.count(reason_of(head.status, body_of(data, head, end)))
        if head.closes or is_over or fd in self._unsent:
            self._close(fd)
            self._replace(now)
        elif self._job.rate is None:
            self._ask(fd, now)
        else:
            self._free.append(fd)

    # -- sending -------------------------------------------------------------------------------------------------------

    def _next_request(self) -> bytes:
        self._turn = (self._turn + 1) % len(self._requests)
        return self._requests[self._turn]

    def _ask(self, fd: int, began: float) -> None:
        if self._ends:
            return
        self._began[fd] = began
        self._send(fd, self._next_request())

    def _send(self, fd: int, data: bytes) -> None:
        try:
            sent = self._send_of[fd](data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._broken(fd, error)
            return
        if sent != len(data):
            self._keep_rest(fd, data[sent:])
        elif fd in self._waits_to_write:
            self._waits_to_write.discard(fd)
            self._poll.modify(fd, _IN)

    def _keep_rest(self, fd: int, rest: bytes) -> None:
        self._unsent[fd] = rest
        self._part.setdefault(fd, b"")  # an answer that comes before the request has gone is an unusual one
        if fd not in self._waits_to_write:
            self._waits_to_write.add(fd)
            self._poll.modify(fd, _IN | _OUT)

    def _send_what_is_due(self, now: float) -> None:
        """As far as there are connections. What must wait is late, and its latency counts from when it was due."""
        while self._due <= now and self._can_send():
            self._tally.sent_late(now - self._due)
            if self._free:
                self._ask(self._free.popleft(), self._due)
            else:
                self._open(self._due)
            self._plan_next()
            now = time.monotonic()

    def _can_send(self) -> bool:
        return bool(self._free) or len(self._sockets) < CONNECTIONS_MAX

    def _plan_next(self) -> None:
        rate = self._job.rate or 1.0
        self._due += self._random.expovariate(rate) if self._job.distribution == POISSON else 1 / rate

    # -- connections ---------------------------------------------------------------------------------------------------

    def _adopt(self, sock: socket.socket, events: int) -> int:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fd = sock.fileno()
        self._sockets[fd], self._receive_of[fd], self._send_of[fd] = sock, sock.recv, sock.send
        self._poll.register(fd, events)
        return fd

    def _open(self, began: float) -> None:
        """One more connection, on which a request leaves as soon as it is there."""
        self._tally.opened += 1
        sock = socket.socket(self._job.family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.connect_ex(tuple(self._job.address))
        fd = self._adopt(sock, _IN | _OUT)
        self._waits_to_write.add(fd)
        self._began[fd] = began
        self._keep_rest(fd, self._next_request())

    def _reopen(self, now: float) -> None:
        missing, self._missing = self._missing, 0
        for _ in range(missing):
            self._open(now)

    def _replace(self, now: float, wait_s: float = 0.0) -> None:
        """A closed loop has as many connections as it was told; an open one opens them when it needs them."""
        if self._job.rate is None and not self._ends:
            self._missing += 1
            self._retry_at = now + wait_s

    def _broken(self, fd: int, error: OSError) -> None:
        self._fail(fd, f"connection: {(error.strerror or str(error)).lower()}")

    def _fail(self, fd: int, why: str) -> None:
        """A request without an answer of HTTP."""
        if self._began.pop(fd, None) is not None:
            self._tally.count(why)
        self._close(fd)
        self._replace(time.monotonic(), RETRY_S)

    def _close(self, fd: int) -> None:
        self._poll.unregister(fd)
        for known in (self._receive_of, self._send_of, self._unsent, self._part):
            known.pop(fd, None)
        self._waits_to_write.discard(fd)
        with suppress(ValueError):  # it was closed while nothing was asked of it
            self._free.remove(fd)
        self._sockets.pop(fd).close()

    def close(self) -> None:
        """Let go of all connections."""
        for fd in list(self._sockets):
            self._close(fd)

    # -- what is told --------------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        """A window is over: what came of it goes to the other side, as far as it fits now."""
        now = time.monotonic()
        for fd in [fd for fd, began in self._began.items() if now - began > ANSWER_S]:
            self._fail(fd, f"no answer within {ANSWER_S:.0f} s")
        rate = self._job.rate
        self._tally.unsent = 0 if rate is None else int(max(now - self._due, 0.0) * rate)
        self._frames += self._tally.frame(now, self._cut_at)
        self._tally = Tally(now)
        while self._cut_at <= now:
            self._cut_at += self._job.window_s

    def _flush(self) -> None:
        with suppress(BlockingIOError):
            sent = self._control.send(self._frames, socket.MSG_DONTWAIT)
            self._frames = self._frames[sent:]

    def _drain(self) -> None:
        """Wait for what is under way, which is in no window; say how much of it never came."""
        self._ends = True
        self._poll.unregister(self._control.fileno())
        give_up = time.monotonic() + DRAIN_S
        while self._began and (left_s := give_up - time.monotonic()) > 0:
            for fd, event in self._poll.poll(left_s * self._second):
                self._slowly(fd, event)
        self._control.sendall(self._frames + framed({"end": True, "lost": len(self._began)}))


def main(fd: int) -> None:
    """Carry out jobs until the other side has gone."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()  # a pause of ours would look like the server's; what a load leaves behind has no cycles
    with socket.socket(fileno=fd) as control, Connection(os.dup(fd)) as orders, suppress(EOFError, OSError):
        while True:
            generator = Generator(Job.of(orders.recv_bytes()), control)
            try:
                generator.connect()
            except OSError as error:
                is_nobody = isinstance(error, ConnectionError | TimeoutError)
                told = {"failed": error.strerror or str(error), "is_nobody": is_nobody}
                orders.send_bytes(json.dumps(told).encode())
            else:
                orders.send_bytes(b"{}")
                generator.run(float(orders.recv_bytes()))
                orders.recv_bytes()  # the word that ended it
            finally:
                generator.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
