"""A load generator with a fixed schedule: requests leave when they are due, whether or not others still wait.

wrk asks again when it has an answer, so it asks a server that stalls less. Here latency counts from the schedule, and a
stall is seen by every request that was due in it. One thread, a few thousand requests a second, in a program of its
own: `python -m benchmarks.open_loop` takes one line of JSON (`Order`) on stdin and prints a `benchmarks.wrk.Load`.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.wrk import Bodies, Load, WrkError

SCRIPTS = Path(__file__).resolve().parents[1]
# How long after the last request an answer is waited for.
LATE_S = 5.0
OK = b"HTTP/1.1 200 "


@dataclass(frozen=True)
class Order:
    """`rate` requests a second, evenly spread, over keep-alive connections; the bodies of a folder in turn."""

    url: str
    rate: float
    seconds: float
    connections: int
    folder: str
    bodies: int
    content_type: str


class Schedule:
    """One order's connections, each with at most one request under way; `run` is the whole story."""

    def __init__(self, order: Order) -> None:
        where = urlsplit(order.url)
        self._requests = [_request(order, number) for number in range(1, order.bodies + 1)]
        self._interval_s = 1 / order.rate
        self._count = int(order.rate * order.seconds)
        self._sent = 0
        self._latencies: list[float] = []
        self._due: dict[socket.socket, float] = {}  # of those that wait for an answer
        self._received: dict[socket.socket, bytes] = {}
        self._free: deque[socket.socket] = deque()
        for _ in range(order.connections):
            sock = socket.create_connection((where.hostname or "", where.port or 80), timeout=LATE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._free.append(sock)

    def run(self) -> Load:
        """Send all that is due, receive all that comes, until nothing is left to come."""
        self._started = time.perf_counter()
        give_up = self._started + self._count * self._interval_s + LATE_S
        while self._due or (self._free and self._sent < self._count):
            now = time.perf_counter()
            if now > give_up:
                break
            self._send(now)
            self._receive()
        seconds = time.perf_counter() - self._started
        for sock in (*self._free, *self._due):
            sock.close()
        ordered = sorted(self._latencies) or [0.0]
        return Load(
            requests=len(self._latencies),
            seconds=seconds,
            p50_ms=ordered[len(ordered) // 2] * 1000,
            p99_ms=ordered[int(len(ordered) * 0.99)] * 1000,
            errors=self._count - len(self._latencies),
        )

    def _next_due(self) -> float:
        return self._started + self._sent * self._interval_s

    def _send(self, now: float) -> None:
        """What is due, as far as there are connections for it; what must wait for one is late, and counts so."""
        while self._sent < self._count and self._free and self._next_due() <= now:
            sock = self._free.popleft()
            try:
                sock.send(self._requests[self._sent % len(self._requests)])
            except OSError:
                sock.close()
            else:
                self._due[sock], self._received[sock] = self._next_due(), b""
            self._sent += 1

    def _receive(self) -> None:
        """Wait for answers, at most until the next request is due. select: epoll's clock has milliseconds only."""
        wait_s = 0.1
        if self._free and self._sent < self._count:
            wait_s = min(max(self._next_due() - time.perf_counter(), 0), wait_s)
        for sock in select.select(list(self._due), [], [], wait_s)[0]:
            try:
                data = sock.recv(65536)
            except OSError:
                data = b""
            self._received[sock] += data
            if not data:
                del self._due[sock]
                sock.close()
            elif _is_whole(self._received[sock]):
                latency = time.perf_counter() - self._due.pop(sock)
                if self._received[sock].startswith(OK):
                    self._latencies.append(latency)
                self._free.append(sock)


def run(url: str, *, rate: float, seconds: float, connections: int, bodies: Bodies) -> Load:
    """Post `bodies` to `url` at a fixed rate. Raises WrkError."""
    order = Order(url, rate, seconds, connections, str(bodies.folder), bodies.count, bodies.headers["Content-Type"])
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.open_loop"],
            input=json.dumps(asdict(order)),
            cwd=SCRIPTS,
            capture_output=True,
            text=True,
            timeout=seconds + 30,
            start_new_session=True,  # Ctrl-C is ours to handle
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WrkError("the open loop did not end in time") from None
    if ended.returncode != 0:
        raise WrkError(f"the open loop failed: {ended.stderr.strip()[-300:]}")
    return Load(**json.loads(ended.stdout))


def _request(order: Order, number: int) -> bytes:
    where = urlsplit(order.url)
    body = (Path(order.folder) / str(number)).read_bytes()
    head = f"POST {where.path or '/'} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: {order.content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _is_whole(received: bytes) -> bool:
    """Whether the answer is there; every answer of ours says how long it is."""
    head, separator, body = received.partition(b"\r\n\r\n")
    return bool(separator) and len(body) >= int(head.lower().partition(b"content-length:")[2].split(None, 1)[0])


if __name__ == "__main__":
    print(json.dumps(asdict(Schedule(Order(**json.loads(sys.stdin.read()))).run())))
