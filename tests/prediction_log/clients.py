"""Clients that remember what they asked and what they got: `python -m tests.prediction_log.clients`, and its handle.

Owns the bookkeeping of a load. Every request has an id and numbers of its own; a connection that breaks is made anew,
and what was asked next is a new request. Knows nothing of the log, and judges nothing.

Orders come as one line of JSON on stdin, {"host", "port", "connections", "poison_every", "bad_every"}. It prints how
many requests were answered 200, every so many, until stdin ends; each connection then finishes its request, and
the last line is everything: [[request id, number asked about, status or null, prediction or null], ...].
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from tests.fakes import POISON
from tests.harness import ROOT, SOON_S, wait_until

TELL_EVERY = 20
RECONNECT_S = 0.02
# After a 503: clients that fail at once would otherwise ask thousands of times while a worker starts.
RETRY_S = 0.05
# float32 and float64 hold these whole numbers, and their doubles, exactly.
FIRST, LAST = 1000, 1 << 23


class Asked(NamedTuple):
    """One request. status: None where it was sent and no whole answer came. prediction: of a 200."""

    request_id: str
    number: float
    status: int | None
    prediction: float | None


# ---------------------------------------------------------------------------------------------- the process


class Load:
    """Some connections, each with one request under way."""

    def __init__(self, *, host: str, port: int, connections: int, poison_every: int, bad_every: int) -> None:
        self.asked: list[Asked] = []
        self._address = host, port
        self._connections = connections
        self._poison_every = poison_every
        self._bad_every = bad_every
        self._answered = 0
        self._next = FIRST
        self._ending = asyncio.Event()

    async def run(self) -> None:
        """Until stdin ends."""
        loop = asyncio.get_running_loop()
        stdin = loop.run_in_executor(None, sys.stdin.read)
        clients = [asyncio.create_task(self._client(number)) for number in range(self._connections)]
        await stdin
        self._ending.set()
        await asyncio.gather(*clients)

    async def _client(self, number: int) -> None:
        while not self._ending.is_set():
            try:
                reader, writer = await asyncio.open_connection(*self._address)
            except OSError:
                await asyncio.sleep(RECONNECT_S)
                continue
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._ask(number, reader, writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _ask(self, client: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests over one connection. Raises OSError or IncompleteReadError when it breaks."""
        while not self._ending.is_set():
            order, self._next = self._next, self._next + 1
            request_id, number, body = self._request(client, order)
            at = len(self.asked)
            self.asked.append(Asked(request_id, number, None, None))
            writer.write(
                b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: %b\r\nContent-Length: %d\r\n\r\n%b"
                % (request_id.encode(), len(body), body)
            )
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            answer = await reader.readexactly(int(head.partition(b"content-length:")[2].split(None, 1)[0]))
            status = int(head.split(None, 2)[1])
            prediction = json.loads(answer)["prediction"] if status == 200 else None
            self.asked[at] = Asked(request_id, number, status, prediction)
            self._count(status)
            if b"connection: close" in head:
                return
            if status == 503:
                await asyncio.sleep(RETRY_S)

    def _request(self, client: int, order: int) -> tuple[str, float, bytes]:
        """(id, number asked about, body): now and then one that the model fails at, or that is refused."""
        request_id = f"client{client}-{order}"
        if order % self._poison_every == 0:
            return request_id, POISON, b'{"features":[%d]}' % POISON
        if order % self._bad_every == 1:
            return request_id, order, b'{"features":["%d"]}' % order
        return request_id, order, b'{"features":[%d]}' % order

    def _count(self, status: int) -> None:
        self._answered += status == 200
        if status == 200 and self._answered % TELL_EVERY == 0:
            tell(self._answered)


def main() -> None:
    """Do what the order says."""
    load = Load(**json.loads(sys.stdin.readline()))
    asyncio.run(load.run())
    assert load.asked[-1].number < LAST
    tell(load.asked)


def tell(what: Any) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


# ---------------------------------------------------------------------------------------------- its handle


@dataclass
class Clients:
    """The process of clients, as a context manager that leaves none behind.

    poison_every, bad_every: of so many requests one that the model fails at, and one that is refused. answered:
    requests answered 200 so far.
    """

    url: str
    connections: int
    poison_every: int
    bad_every: int
    answered: int = 0

    def __enter__(self) -> Self:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        self._said: list[Any] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.prediction_log.clients"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._listen)
        self._reader.start()
        order = {
            "host": host,
            "port": int(port),
            "connections": self.connections,
            "poison_every": self.poison_every,
            "bad_every": self.bad_every,
        }
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            told = json.loads(line)
            if isinstance(told, int):
                self.answered = told
            else:
                self._said = told

    def until(self, answered: int, timeout_s: float = SOON_S) -> None:
        """Wait until so many requests were answered 200."""
        wait_until(
            lambda: self.answered >= answered or self._process.poll() is not None, timeout_s, f"{answered} answers"
        )
        assert self._process.poll() is None, "the clients have ended"

    def finish(self) -> list[Asked]:
        """Let each connection finish its request; everything that was asked."""
        assert self._process.stdin
        self._process.stdin.close()
        assert self._process.wait(SOON_S) == 0
        self._reader.join()
        return [Asked(*one) for one in self._said]

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()


if __name__ == "__main__":
    main()
