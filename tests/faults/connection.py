"""One request over one connection that stays open, and what became of it.

Owns the bookkeeping of a request: when it began, whether it was answered as promised, whether the other end had it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from tests.faults.asking import LINGER, raw_post, raw_predict, trouble_of

# Beyond its deadline a request has so long until it counts as hung.
HUNG_S = 5.0
TIMEOUT_S = 2.0
# float32 and float64 hold these whole numbers, and their doubles, exactly.
FIRST, LAST = 1000, 1 << 23
# In Linux's struct tcp_info: bytes that the other end's kernel has taken.
_TAKEN = struct.Struct("120xQ")
_ids = itertools.count(1)


class Ask(NamedTuple):
    """One request. data: its bytes. id: its X-Request-Id, if it has one. right: whether a 200 says what was asked for.

    number: what a prediction was asked of, to find it in the log. timeout_s: by when it must have an answer.
    gives_up_s: its client resets the connection so long after. halts_s: its client waits so long between the halves of
    its bytes. judge: what is wrong with an answer whatever was asked; see tests.faults.asking.trouble_of.
    """

    data: bytes
    id: str
    right: Callable[[Any], bool]
    number: float | None = None
    kind: str = "predict"
    timeout_s: float = TIMEOUT_S
    gives_up_s: float | None = None
    halts_s: float = 0.0
    judge: Callable[[int, Mapping[str, str], bytes], str] = trouble_of

    def closing(self) -> Ask:
        """The same over a connection that ends with it."""
        return self._replace(data=self.data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))


class Asked(NamedTuple):
    """What became of one. status: None where no whole answer came; `fault` says how that was.

    code: of an error, and its reason. fault: "idle" (the connection had been closed while nothing was asked on it),
    "unaccepted" (a new connection was reset before anything came: the kernel had taken it, and nobody has accepted it),
    "broken" (else), "gone" (we gave up), "hung". trouble: what is wrong with the answer. late_s: beyond its deadline.
    reached: whether an accepted connection had the bytes.
    """

    id: str
    kind: str
    number: float | None
    begun: float
    seconds: float
    status: int | None
    code: str = ""
    fault: str = ""
    trouble: str = ""
    late_s: float = 0.0
    reached: bool = True


def prediction(
    order: int, *, close: bool = False, timeout_s: float = TIMEOUT_S, gives_up_s: float | None = None, more: str = ""
) -> Ask:
    """A request about a number of its own, to come back doubled. more: further header lines."""
    number, id_ = float(FIRST + order % (LAST - FIRST)), new_id()
    data = raw_predict(number, request_id=id_, close=close, more=more)
    return Ask(data, id_, lambda told: told["prediction"] == 2 * number, number, "predict", timeout_s, gives_up_s)


def posted(path: str, body: bytes, kind: str, right: Callable[[Any], bool], timeout_s: float = TIMEOUT_S) -> Ask:
    """A request of any other kind."""
    id_ = new_id()
    return Ask(raw_post(path, body, request_id=id_), id_, right, None, kind, timeout_s)


def new_id() -> str:
    """No two are the same."""
    return f"r{os.getpid()}-{next(_ids)}"


class Connection:
    """One connection, made anew when it has ended."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._used = 0

    async def open(self) -> None:
        """Be connected. Raises OSError."""
        if self._reader is not None and (self._reader.at_eof() or self._reader.exception()):
            await self.close()
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(*self._address)
            self._used = 0

    async def ask(self, ask: Ask) -> Asked:
        """Send it and wait for its answer, as long as it may take."""
        reader, writer = self._reader, self._writer
        assert reader
        assert writer
        before = _taken(writer)
        begun = time.monotonic()
        limit_s = ask.timeout_s + HUNG_S if ask.gives_up_s is None else ask.gives_up_s
        got = b""
        try:
            async with asyncio.timeout(limit_s + ask.halts_s):
                if ask.halts_s:
                    writer.write(ask.data[: len(ask.data) // 2])
                    await asyncio.sleep(ask.halts_s)
                    begun = time.monotonic()
                writer.write(ask.data[len(ask.data) // 2 :] if ask.halts_s else ask.data)
                head = await reader.readuntil(b"\r\n\r\n")
                got = head
                headers = _headers_of(head)
                body = await reader.readexactly(int(headers.get("content-length", "0")))
        except TimeoutError:
            fault = "hung" if ask.gives_up_s is None else "gone"
            await self.close(by_reset=True)
        except (OSError, asyncio.IncompleteReadError) as error:
            got = got or (error.partial if isinstance(error, asyncio.IncompleteReadError) else b"")
            fault = "broken" if got else self._fault_of(ask, writer, before, error)
            await self.close()
        else:
            self._used += 1
            if headers.get("connection", "").lower() == "close":
                await self.close()
            return _judged(ask, begun, int(head.split(None, 2)[1]), headers, body)
        asked = Asked(ask.id, ask.kind, ask.number, begun, time.monotonic() - begun, None, fault=fault)
        return asked._replace(reached=fault not in ("idle", "unaccepted"))

    def _fault_of(self, ask: Ask, writer: asyncio.StreamWriter, before: int, error: Exception) -> str:
        """What has happened to a request on whose connection nothing came.

        The other end may have closed a connection that was idle just as we wrote to it: an end of file that came
        before our bytes, or a reset in answer to them.
        """
        was_reset = isinstance(error, OSError)
        if not self._used:
            return "unaccepted" if was_reset else "broken"
        return "idle" if was_reset or _taken(writer) - before < len(ask.data) else "broken"

    async def close(self, *, by_reset: bool = False) -> None:
        """Let go of it."""
        writer, self._writer, self._reader = self._writer, None, None
        if writer is None:
            return
        if by_reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
            writer.transport.abort()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _judged(ask: Ask, begun: float, status: int, headers: dict[str, str], body: bytes) -> Asked:
    seconds = time.monotonic() - begun
    trouble = ask.judge(status, headers, body)
    told = {} if trouble else json.loads(body)
    if status == 200 and not trouble and not ask.right(told):
        trouble = f"{told} is not the answer to {ask.data[-80:]!r}"
    if ask.id and headers.get("x-request-id", ask.id) != ask.id:
        trouble = trouble or f"the answer to {headers['x-request-id']}"
    late_s = max(seconds - ask.timeout_s, 0.0)
    code = " ".join(str(told[key]) for key in ("error", "reason") if key in told)
    return Asked(ask.id, ask.kind, ask.number, begun, seconds, status, code, trouble=trouble, late_s=late_s)


def _headers_of(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _taken(writer: asyncio.StreamWriter) -> int:
    """How many bytes the other end's kernel has taken, from the connection's beginning."""
    sock = writer.get_extra_info("socket")
    found: int = _TAKEN.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TAKEN.size))[0]
    return found
