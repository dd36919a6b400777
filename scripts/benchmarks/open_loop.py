"""A load generator with a schedule: requests leave when they are due, whether or not others still wait.

wrk asks again when it has an answer, so it asks a server that stalls less. Here latency counts from the schedule, and a
stall is seen by every request that was due in it. One thread, some ten thousand requests a second, in a program of its
own: `python -m benchmarks.open_loop` takes lines of JSON (`Order`) on stdin and prints a `Load` for each. Connections
stay open from order to order. Its own cost: 15 to 30 µs of a core a request; how late it was is part of the answer.
"""

from __future__ import annotations

import gc
import json
import resource
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import arrivals
from benchmarks.processes import Program
from benchmarks.wrk import Bodies, Load, WrkError

SCRIPTS = Path(__file__).resolve().parents[1]
# How long after the last request an answer is waited for.
LATE_S = 5.0
OK = b"HTTP/1.1 200 "
EVENTS_MAX = 512
ANSWER_S = 60.0


@dataclass(frozen=True)
class Order:
    """`rate` requests a second for `seconds`, over so many keep-alive connections; the bodies of a folder in turn.

    process: how they are spread, see benchmarks.arrivals. deadline_ms: answers within it are counted apart.
    give_up_s: how long after the last was due; what was not sent by then, as all connections were busy, never is.
    """

    url: str
    rate: float
    seconds: float
    connections: int
    folder: str
    bodies: int
    headers: Mapping[str, str] = field(default_factory=dict)
    process: str = arrivals.EVEN
    seed: int = 0
    deadline_ms: float = 1e9
    give_up_s: float = LATE_S


@dataclass(frozen=True)
class OpenLoad(Load):
    """within: answers within the deadline. due: all requests of the schedule. late_ms: p99 of sending too late."""

    within: int = 0
    due: int = 0
    late_ms: float = 0.0
    cpu_ms_per_request: float = 0.0


class Connections:
    """Keep-alive connections to one address, each registered once, in an epoll that all addresses share.

    One epoll, made before there are many descriptors: select() takes none above 1,023.
    """

    def __init__(self, host: str, port: int, epoll: select.epoll, owners: dict[int, Connections]) -> None:
        self._address = (host, port)
        self.epoll = epoll
        self.owners = owners
        self.free: deque[socket.socket] = deque()
        self.all: dict[int, socket.socket] = {}

    def have(self, count: int) -> None:
        """Open what is missing."""
        while len(self.free) < count:
            sock = socket.create_connection(self._address, timeout=LATE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.all[sock.fileno()], self.owners[sock.fileno()] = sock, self
            self.epoll.register(sock.fileno(), select.EPOLLIN)
            self.free.append(sock)

    def close(self, sock: socket.socket) -> None:
        """This one is of no more use."""
        if sock in self.free:
            self.free.remove(sock)
        del self.all[sock.fileno()], self.owners[sock.fileno()]
        self.epoll.unregister(sock.fileno())
        sock.close()


class Schedule:
    """One order, each connection with at most one request under way; `run` is the whole story."""

    def __init__(self, order: Order, connections: Connections) -> None:
        self._requests = [_request(order, number) for number in range(1, order.bodies + 1)]
        self._times = arrivals.times(order.process, order.rate, order.seconds, order.seed)
        self._deadline_s, self._give_up_s = order.deadline_ms / 1000, order.give_up_s
        self._connections = connections
        self._sent = 0
        self._latencies: list[float] = []
        self._late: list[float] = []
        self._due: dict[int, float] = {}  # of those that wait for an answer, by descriptor
        self._received: dict[int, bytes] = {}  # the beginning of an answer that is not whole
        connections.have(order.connections)

    def run(self) -> OpenLoad:
        """Send all that is due, receive all that comes, until nothing is left to come."""
        connections, count = self._connections, len(self._times)
        cpu, self._started = time.process_time(), time.perf_counter()
        give_up = self._started + (self._times[-1] if count else 0.0) + self._give_up_s
        while self._due or (connections.free and self._sent < count):
            now = time.perf_counter()
            if now > give_up:
                break
            self._send(now)
            self._receive()
        seconds, cpu = time.perf_counter() - self._started, time.process_time() - cpu
        for descriptor in self._due:
            connections.close(connections.all[descriptor])
        ordered = sorted(self._latencies) or [0.0]
        late = sorted(self._late) or [0.0]
        return OpenLoad(
            requests=len(self._latencies),
            seconds=seconds,
            p50_ms=ordered[len(ordered) // 2] * 1000,
            p99_ms=ordered[int(len(ordered) * 0.99)] * 1000,
            max_ms=ordered[-1] * 1000,
            errors=count - len(self._latencies),
            within=sum(one <= self._deadline_s for one in self._latencies),
            due=count,
            late_ms=late[int(len(late) * 0.99)] * 1000,
            cpu_ms_per_request=cpu * 1000 / max(count, 1),
        )

    def _send(self, now: float) -> None:
        """What is due, as far as there are connections for it; what must wait for one is late, and counts so."""
        times, free, sent = self._times, self._connections.free, self._sent
        since = now - self._started
        while sent < len(times) and free and times[sent] <= since:
            sock = free.popleft()
            try:
                sock.send(self._requests[sent % len(self._requests)])
            except OSError:
                self._connections.close(sock)
            else:
                self._due[sock.fileno()] = times[sent]
                self._late.append(since - times[sent])
            sent += 1
        self._sent = sent

    def _receive(self) -> None:
        """Wait for answers, at most until the next request is due."""
        connections = self._connections
        wait_s = 0.1
        if connections.free and self._sent < len(self._times):
            wait_s = self._times[self._sent] - (time.perf_counter() - self._started)
        if wait_s > 0:
            select.select([connections.epoll], [], [], min(wait_s, 0.1))  # epoll's own clock has milliseconds only
        for descriptor, _ in connections.epoll.poll(0, EVENTS_MAX):
            owner = connections.owners[descriptor]
            sock = owner.all[descriptor]
            try:
                data = sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                self._due.pop(descriptor, None)
                self._received.pop(descriptor, None)
                owner.close(sock)
                continue
            if descriptor in self._received:
                data = self._received.pop(descriptor) + data
            if not _is_whole(data):
                self._received[descriptor] = data
                continue
            due = self._due.pop(descriptor)
            if data.startswith(OK):
                self._latencies.append(time.perf_counter() - self._started - due)
            connections.free.append(sock)


class Generator(Program):
    """The program, for many orders."""

    def __init__(self) -> None:
        super().__init__([sys.executable, "-m", "benchmarks.open_loop"], cwd=SCRIPTS)

    def wait_until_up(self) -> None:
        """It takes orders as soon as it has started."""

    def load(self, order: Order) -> OpenLoad:
        """Carry out one order."""
        self.say(json.dumps(asdict(order)))
        return OpenLoad(**json.loads(self.line("", order.seconds + ANSWER_S)))


def order_of(url: str, bodies: Bodies, *, rate: float, seconds: float, connections: int, **more: object) -> Order:
    """An order to post these bodies."""
    order = {"url": url, "folder": str(bodies.folder), "bodies": bodies.count, "headers": dict(bodies.headers)}
    return Order(**order, rate=rate, seconds=seconds, connections=connections, **more)  # type: ignore[arg-type]


def run(url: str, *, rate: float, seconds: float, connections: int, bodies: Bodies) -> OpenLoad:
    """Post `bodies` to `url` at a fixed rate. Raises WrkError."""
    order = order_of(url, bodies, rate=rate, seconds=seconds, connections=connections)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.open_loop"],
            input=json.dumps(asdict(order)) + "\n",
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
    return OpenLoad(**json.loads(ended.stdout))


def _request(order: Order, number: int) -> bytes:
    where = urlsplit(order.url)
    body = (Path(order.folder) / str(number)).read_bytes()
    headers = "".join(f"{name}: {value}\r\n" for name, value in order.headers.items())
    head = f"POST {where.path or '/'} HTTP/1.1\r\nHost: {where.netloc}\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _is_whole(received: bytes) -> bool:
    """Whether the answer is there; every answer of ours says how long it is."""
    head, separator, body = received.partition(b"\r\n\r\n")
    return bool(separator) and len(body) >= int(head.lower().partition(b"content-length:")[2].split(None, 1)[0])


def main() -> None:
    """Carry out orders until stdin ends."""
    gc.disable()  # a pause of ours would be the server's stall; what an order leaves behind has no cycles
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    epoll, owners = select.epoll(), dict[int, Connections]()
    known: dict[tuple[str, int], Connections] = {}
    for line in sys.stdin:
        order = Order(**json.loads(line))
        where = urlsplit(order.url)
        address = (where.hostname or "", where.port or 80)
        if address not in known:
            known[address] = Connections(*address, epoll, owners)
        print(json.dumps(asdict(Schedule(order, known[address]).run())), flush=True)


if __name__ == "__main__":
    main()
