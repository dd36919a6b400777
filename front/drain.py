"""How a front ends: not ready first, then nobody new, then nobody idle, and at last nobody at all.

Owns the order of these and their times. waitress 3.0.2 has none: on SIGTERM it drops what is in flight, on SIGINT what
is queued. The supervisor closes its own copy of the listening socket when it says drain, so it is we who hold it.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
import time
from contextlib import suppress

from batching.errors import NoWorker
from front.door import Door

# New connections are still served for so long, every answer saying Connection: close: a balancer needs a moment to see
# that we are not ready.
GRACE_S = 0.3
# Handshakes have so long to end, between the last that may begin and the closing of the listening socket; and so long a
# connection has to bring its request: it was on its way when we let it in.
FRESH_S = 0.1
TURN_S = 0.05

# In Linux's words: drop packets that are SYN and not ACK, take all others. (Byte 13 of TCP's header has the flags.)
SO_ATTACH_FILTER = 26
NO_SYN = ctypes.create_string_buffer(
    struct.pack("HBBI", 0x30, 0, 0, 13)  # A = flags
    + struct.pack("HBBI", 0x54, 0, 0, 0x12)  # A &= SYN | ACK
    + struct.pack("HBBI", 0x15, 0, 1, 0x02)  # A == SYN ? go on : skip one
    + struct.pack("HBBI", 0x06, 0, 0, 0)  # drop
    + struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF)  # take
)


class Drain:
    """One front's end. Before `begin` nothing happens, and `done` is false."""

    def __init__(self, door: Door) -> None:
        self.begun = False
        self._door = door
        self._listening = True
        self._admits = True
        self._close_at = float("inf")
        self._give_up_at = float("inf")

    def begin(self, timeout_s: float) -> None:
        """From now on; whatever is still in flight after so long is given up."""
        if self.begun:
            return
        self.begun = True
        now = time.monotonic()
        self._close_at = now + GRACE_S
        self._give_up_at = now + timeout_s
        self._door.patience.hurry()

    def step(self) -> None:
        """What is due by now; once a turn."""
        now = time.monotonic()
        if self._admits and now >= self._close_at - FRESH_S:
            self._admits = False
            admit_no_more(self._door.socket)
        if now < self._close_at:
            return
        if self._listening:
            self._stop_listening()
        for channel in [one for one in self._door.active_channels.values() if one.idle_since <= now - FRESH_S]:
            channel.close_if_idle()

    @property
    def done(self) -> bool:
        """Whether nobody is left, or there is no time left for them."""
        if self._listening:
            return False
        return not self._door.active_channels or time.monotonic() >= self._give_up_at

    def give_up(self) -> None:
        """Who still waits for an answer hears that there will be none from us."""
        for channel in list(self._door.active_channels.values()):
            if channel.exchange is not None:
                channel.answer(channel.exchange.fail(NoWorker("the server is stopping")))

    def _stop_listening(self) -> None:
        """Take whom the kernel has accepted for us already, then close."""
        while self._door.let_in():
            pass
        self._door.del_channel(self._door._map)  # noqa: SLF001 - waitress has no method that leaves the trigger open
        self._door.socket.close()
        self._listening = False


def admit_no_more(listener: socket.socket) -> None:
    """Let no handshake begin any more; those under way end as they would, and can be accepted.

    What is in a listening socket's queue when it closes is reset, though its client may have sent a request already,
    and the queue is never known to be empty while others may come. Now nobody comes: a client that tries hears nothing,
    tries again after a second, and is refused or reaches whoever listens then. Only Linux has this; elsewhere, and
    where it is forbidden, a connection that comes between the last accept and the close is lost.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            program = struct.pack("HP", len(NO_SYN) // 8, ctypes.addressof(NO_SYN))
            listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
