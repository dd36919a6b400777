"""The front door: who is let in, how many at once, and who must leave for it.

Owns the listening socket and the cap. What a connection says is front.channel's, whether it is a request front.heads',
front.parser's and front.chunks', how long it may take front.patience's.

Every part of the front that stands in for one of waitress's names the flaw that it closes, and was checked against
waitress 3.0.2. All of them together:

| what of waitress | its flaw | where |
|---|---|---|
| select() by default | the 1,100th connection ends the process | front.poller |
| wasyncore.poll2 | walks all connections on every pass | front.poller |
| TcpWSGIServer.handle_accept | one connection a pass; out of descriptors it spins and logs 4 MB/s | here |
| TcpWSGIServer.readable | at its limit nobody is accepted any more, until somebody leaves | here |
| TcpWSGIServer.maintenance | goes by the wall clock; any byte renews its only limit | front.patience |
| HTTPChannel | 413 is forgotten after `Expect`, and cut off by a reset; slow readers are never cut | front.channel |
| HTTPRequestParser | smuggling; 5,000 digits; what is no HTTP is waited for | front.heads, front.parser |
| ChunkedReceiver | 21 s of CPU for one endless line | front.chunks |
| run() | drops what is in flight on SIGTERM | front.drain |

Not closed, as it cannot be from here: a client that sends its next request at the very instant at which its idle
connection is closed for age, for another's sake or at the end is reset by the kernel. Nothing of that request was read,
and HTTP tells clients to repeat it.
"""

from __future__ import annotations

import errno
import logging
import resource
import socket
import time
from typing import Any

from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from batching.counters import Slot
from front.channel import Channel
from front.heads import Heads
from front.patience import Patience

log = logging.getLogger("inference.front")

BACKLOG = 4096
# One pass lets so many in before it reads what the others have sent.
ACCEPTS_PER_PASS = 64
HEADER_BYTES_MAX = 32 * 1024
# Descriptors for all that is no client: workers, supervisor, spool, epoll and what Python has open.
OTHER_DESCRIPTORS = 64
OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
# Nobody is let in for so long when there is no descriptor and nobody to take one from.
PAUSE_S = 0.25
SAY_EVERY_S = 10.0
HELD_BYTES_MIN = 256 * 1024 * 1024


def connections_allowed(wanted: int) -> int:
    """How many connections this process can have, up to `wanted`; takes as many descriptors as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    allowed = max(soft - OTHER_DESCRIPTORS, soft // 2, 1)
    log.warning("only %d connections at a time: %d descriptors are allowed here (ulimit -n)", allowed, soft)
    return allowed


class Door(TcpWSGIServer):
    """The listening socket in the loop. `let_in` does what its event asked for, after the pass: a descriptor closed
    for another's sake must not be in use again while the pass still has events for its former owner.

    front: what the channels live in, see front.channel.Carrier.
    """

    channel_class = Channel

    def __init__(
        self,
        front: Any,
        listener: socket.socket,
        slot: Slot,
        *,
        map: Any,
        dispatcher: Any,
        max_connections: int,
        max_body_bytes: int,
        header_timeout_s: float,
        body_timeout_s: float,
    ) -> None:
        self.front = front
        self.patience = Patience(
            header_s=header_timeout_s,
            body_s=body_timeout_s,
            held_bytes_max=max(HELD_BYTES_MIN, 4 * max_body_bytes),
        )
        self.knocked = False
        self._slot = slot
        self._max_connections = max_connections
        self._paused_until = 0.0
        self._say_at = 0.0
        adjustments = Adjustments(
            sockets=[listener],
            backlog=BACKLOG,
            recv_bytes=65536,
            max_request_header_size=HEADER_BYTES_MAX,
            max_request_body_size=max_body_bytes,
            clear_untrusted_proxy_headers=False,
            ident=None,
            log_socket_errors=False,
        )
        super().__init__(
            _no_application,
            map,
            _sock=listener,
            dispatcher=dispatcher,
            adj=adjustments,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
        )
        self.heads = Heads(
            header_bytes_max=HEADER_BYTES_MAX,
            body_bytes_max=max_body_bytes,
            server={"SERVER_NAME": self.server_name, "SERVER_PORT": str(self.effective_port), "SERVER_SOFTWARE": None},
        )

    def readable(self) -> bool:
        return self.accepting and not self._paused_until

    def handle_accept(self) -> None:
        self.knocked = True

    def handle_error(self) -> None:
        log.exception("the listening socket failed")  # noqa: LOG004 - called by an except
        self._pause()

    def let_in(self, most: int = ACCEPTS_PER_PASS) -> int:
        """Accept whoever waits, up to `most`; how many."""
        self.knocked = False
        for done in range(most):
            full = len(self.active_channels) >= self._max_connections
            if full and self.patience.spare() is None:
                self._pause()
                return done
            try:
                conn, addr = self._accept()
            except BlockingIOError:
                return done
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    self._say("out of descriptors (%s): the longest idle connections are closed", error.strerror)
                    self._pause()
                return done  # else one that had gone already, or the like: the next pass goes on
            if full:
                self._make_room()
            try:
                self.set_socket_options(conn)
            except OSError:  # macOS says so of a client that has gone already
                conn.close()
                continue
            self.patience.rest(self.channel_class(self, conn, addr, self.adj, map=self._map))
        return most

    def look_over(self, now: float) -> None:
        """What time has changed; as often as the loop likes."""
        if self._paused_until and now >= self._paused_until:
            self._paused_until = 0.0
            self._map.touch(self._fileno)
        self.patience.look_over(now)

    @property
    def is_waiting(self) -> bool:
        """Whether there is something for look_over to come back to soon."""
        return bool(self.patience.pending or self._paused_until)

    def close_early(self, channel: Any, reason: str) -> None:
        """Close a connection against its will, and count it."""
        self.count(reason)
        channel.handle_close()

    def count(self, reason: str) -> None:
        """One more connection that was closed against its will."""
        self._slot.counter("inference_connections_cut_total", reason=reason).add(1)

    def _accept(self) -> tuple[socket.socket, Any]:
        try:
            return self.socket.accept()  # type: ignore[no-any-return]
        except OSError as error:
            if error.errno not in OUT_OF_DESCRIPTORS or not self._make_room():
                raise
        return self.socket.accept()  # type: ignore[no-any-return]

    def _make_room(self) -> bool:
        spare = self.patience.spare()
        if spare is None:
            return False
        self.close_early(spare, "evicted")
        return True

    def _pause(self) -> None:
        self._paused_until = time.monotonic() + PAUSE_S
        self._map.touch(self._fileno)

    def _say(self, text: str, *arguments: object) -> None:
        now = time.monotonic()
        if now >= self._say_at:
            self._say_at = now + SAY_EVERY_S
            log.warning(text, *arguments)


def _no_application(environ: dict[str, Any], start_response: Any) -> Any:
    raise RuntimeError("no application yet")
