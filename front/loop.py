"""The HTTP front: waitress's own loop with the application and the workers' sockets in it. One thread, no waiting.

A request has two halves. The application runs the first one in the loop and either answers at once or hands an exchange
to `environ[DEFER]`; its items travel to a worker, and the second half runs when the outcome arrives. What may take long
before that (decoding an image, parsing a large body) runs in a small thread pool and comes back through the trigger.

Checked against waitress 3.0.2. What is changed there, and why:

- task dispatcher: handler threads that block on a worker starve on the interpreter lock (measured: 250 requests/s
  with 16 threads and 64 clients against 10,000 here): channels are served in the loop, after each poll.
- `wasyncore.poll2`: walks every connection on every pass (front.poller keeps their interest registered instead); with
  the default, select(), the 1,100th connection kills the process.
- HTTPChannel.handle_read: a client that has gone is noticed while its request is in flight (channel_request_lookahead),
  but one that only finished sending (shutdown of its sending side) still gets an answer that computes already.
- answers: head and body leave in one write, with one Date per second; errors of the parser have our JSON body.
- bodies and answers stay in memory (`inbuf_overflow`, `outbuf_overflow`): a full temporary folder fails no request.
- drain: `waitress` has none and drops what is in flight on SIGTERM.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from waitress.server import create_server

from batching.client import Client, Handle
from batching.counters import Gauge
from batching.errors import QueueFull
from front.channel import Channel
from front.halves import Exchange, Response
from front.poller import Poller

log = logging.getLogger("inference.front")

# Poll at least this often: waitress looks for idle connections to close only when the loop turns.
TURN_S = 1.0
# While draining, new connections are still served for so long: a balancer needs a moment to see that we are not ready.
DRAIN_GRACE_S = 0.3
HEADER_BYTES_MAX = 32 * 1024


class Front:
    """The loop and what lives in it. `turn` is one pass."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        max_body_bytes: int,
        threads: int,
        parser_error: Callable[[int, str], Response],
        connections: Gauge,
        heavy_max: int = 256,
    ) -> None:
        self.client: Client
        self.parser_error = parser_error
        self._map = Poller()
        self._watched: set[Handle] = set()
        self._serving = Serving()
        self._soon: deque[Callable[[], None]] = deque()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._heavy = 0
        self._heavy_max = heavy_max
        self._connections = connections
        self._drain_at: float | None = None
        self._drain_until = float("inf")
        self._listening = True
        self._server = create_server(
            _no_application,
            map=self._map,
            _dispatcher=self._serving,
            sockets=[listener],
            connection_limit=1000,
            backlog=4096,
            channel_request_lookahead=1,
            max_request_header_size=HEADER_BYTES_MAX,
            max_request_body_size=max_body_bytes + 1,
            inbuf_overflow=max_body_bytes + 1,
            outbuf_overflow=1 << 30,
            recv_bytes=65536,
            clear_untrusted_proxy_headers=False,
            ident=None,
            log_socket_errors=False,
        )
        self._server.channel_class = Channel
        self._server.front = self

    def run(self, application: Callable[..., Iterable[bytes]]) -> None:
        """Serve until drained."""
        self._server.application = application
        while not self._drained():
            self.turn()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def turn(self) -> None:
        """Poll once, serve what has arrived whole, hand over what was gathered, give up what is too late."""
        now = time.monotonic()
        wait_s = min(TURN_S, self.client.expire(now) - now)
        if self._drain_at is not None:
            wait_s = min(wait_s, 0.05)
        self._map.poll(max(wait_s, 0))
        self._serving.serve_all()
        for _ in range(len(self._soon)):
            self._soon.popleft()()
        self.client.flush()
        for handle in self._watched:
            if handle.wants_write:  # what could not be written at once
                self._map.touch(handle.fileno())
        self._connections.set(len(self._server.active_channels))
        if self._drain_at is not None:
            self._continue_drain()

    # -- what the client and the channels need of the loop ---------------------------------------------------------

    def watch(self, handle: Handle) -> None:
        """Put a descriptor of the client's into the loop."""
        self._map[handle.fileno()] = Watched(handle)
        self._watched.add(handle)

    def forget(self, handle: Handle) -> None:
        """Take it out again; it is still open."""
        self._watched.discard(handle)
        if handle.fileno() in self._map:
            del self._map[handle.fileno()]

    def call_soon(self, function: Callable[[], None]) -> None:
        """Run `function` in the loop; the only method for other threads."""
        self._soon.append(function)
        self._server.pull_trigger()

    def begin(self, exchange: Exchange, channel: Channel) -> None:
        """The wait between the halves: prepare (in the pool where heavy), submit, and answer when it is decided."""
        if not exchange.heavy:
            self._submit(exchange, channel)
            return
        if self._heavy >= self._heavy_max:
            channel.answer(exchange.fail(QueueFull("too many bodies wait to be decoded")))
            return
        self._heavy += 1
        self._pool.submit(self._prepare, exchange, channel)

    def _prepare(self, exchange: Exchange, channel: Channel) -> None:
        try:
            exchange.prepare()
        except Exception as error:  # noqa: BLE001 - whatever it is, the exchange turns it into an answer
            failure = error
            self.call_soon(lambda: self._end_heavy(lambda: channel.answer(exchange.fail(failure))))
        else:
            self.call_soon(lambda: self._end_heavy(lambda: self._submit(exchange, channel)))

    def _end_heavy(self, then: Callable[[], None]) -> None:
        self._heavy -= 1
        then()

    def _submit(self, exchange: Exchange, channel: Channel) -> None:
        if not channel.connected:
            return
        try:
            channel.ticket = self.client.submit(
                exchange.target,
                exchange.items,
                exchange.deadline,
                lambda outcomes: channel.answer(exchange.answer(outcomes)),
            )
        except Exception as error:  # noqa: BLE001 - no worker, a full queue, or a defect of ours: this request's alone
            channel.answer(exchange.fail(error))

    # -- drain -----------------------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """Whether answers should say Connection: close."""
        return self._drain_at is not None

    def drain(self, timeout_s: float) -> None:
        """Serve on for a grace, then stop accepting, finish what there is, and let `run` return."""
        self._drain_at = time.monotonic() + DRAIN_GRACE_S
        self._drain_until = time.monotonic() + timeout_s

    def _continue_drain(self) -> None:
        now = time.monotonic()
        if self._drain_at is None or now < self._drain_at:
            return
        if self._listening:
            self._stop_listening()
            return  # what was accepted just now is read on the next turn, before idle connections are closed
        for channel in list(self._server.active_channels.values()):
            if not (channel.requests or channel.request or channel.total_outbufs_len):
                channel.handle_close()

    def _stop_listening(self) -> None:
        """Take what the kernel has accepted for us already, then close; the supervisor has closed its copy."""
        before = -1
        while before < len(self._server.active_channels):
            before = len(self._server.active_channels)
            self._server.handle_accept()
        self._server.del_channel(self._map)
        self._server.socket.close()
        self._listening = False

    def _drained(self) -> bool:
        if self._listening:
            return False
        return not self._server.active_channels or time.monotonic() >= self._drain_until


class Serving:
    """waitress's task dispatcher, without threads: `received` queues a channel under its lock, we serve it later."""

    def __init__(self) -> None:
        self._ready: deque[Channel] = deque()

    def add_task(self, channel: Channel) -> None:
        self._ready.append(channel)

    def serve_all(self) -> None:
        """Serve what is ready; a channel whose next request is here already is queued again and served, too."""
        while self._ready:
            channel = self._ready.popleft()
            try:
                channel.service()
            except Exception:
                # A defect of ours costs this connection, not the loop and with it everybody else's.
                log.exception("a connection is dropped")
                channel.handle_close()

    def set_thread_count(self, count: int) -> None:
        """There are none."""

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        """Nothing runs beside the loop."""
        return True


class Watched:
    """A handle of the client's, as waitress's loop wants it."""

    accepting = False

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return self._handle.wants_write

    def handle_read_event(self) -> None:
        self._handle.on_readable()

    def handle_write_event(self) -> None:
        self._handle.on_writable()

    def handle_expt_event(self) -> None:
        """Nothing is sent out of band."""

    def handle_close(self) -> None:
        if self._handle.fileno() >= 0:
            self._handle.on_readable()  # meets the end of the stream

    def handle_error(self) -> None:
        log.exception("the connection to a worker or the supervisor failed")  # noqa: LOG004 - called by an except
        raise SystemExit(1)  # the supervisor starts another front

    def close(self) -> None:
        """The client closes what is its own."""


def _no_application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    raise RuntimeError("no application yet")
