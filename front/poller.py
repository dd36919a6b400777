"""waitress's map of sockets, with their interest kept registered: a turn costs what happened, not what is connected.

`wasyncore.poll2` asks every connection's readable() and writable() and builds its list anew on each pass; with a
thousand idle connections that is most of a request's time. Here an object is asked again after something happened to
it (an event, or `touch`), and all of them once a second, for what waitress's own maintenance decides.

epoll where there is one (Linux); elsewhere poll2 does it in its own way.
"""

from __future__ import annotations

import select
import time
from typing import Any

from waitress import wasyncore

SWEEP_S = 1.0


class Poller(dict[int, Any]):
    """File descriptor -> waitress dispatcher, or what looks like one."""

    def __init__(self) -> None:
        super().__init__()
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._interest: dict[int, int] = {}
        self._touched: set[int] = set()
        self._sweep_at = 0.0

    def __setitem__(self, fd: int, dispatcher: Any) -> None:
        super().__setitem__(fd, dispatcher)
        self._touched.add(fd)

    def __delitem__(self, fd: int) -> None:
        super().__delitem__(fd)
        if self._interest.pop(fd, None) is not None and self._epoll is not None:
            self._epoll.unregister(fd)  # before whoever owns the descriptor closes it

    def touch(self, fd: int) -> None:
        """Ask this one before the next poll what it waits for."""
        self._touched.add(fd)

    def poll(self, timeout_s: float) -> None:
        """Wait for events and dispatch them."""
        if self._epoll is None:
            wasyncore.poll2(timeout_s, self)
            return
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            self._touched.update(self)
        while self._touched:
            self._register(self._touched.pop(), self._epoll)
        for fd, events in self._epoll.poll(timeout_s):
            dispatcher = self.get(fd)
            if dispatcher is not None:
                wasyncore.readwrite(dispatcher, events)
                self._touched.add(fd)

    def _register(self, fd: int, epoll: select.epoll) -> None:
        dispatcher = self.get(fd)
        if dispatcher is None:
            return
        interest = select.EPOLLIN | select.EPOLLPRI if dispatcher.readable() else 0
        if dispatcher.writable() and not dispatcher.accepting:
            interest |= select.EPOLLOUT
        known = self._interest.get(fd)
        if interest == known:
            return
        self._interest[fd] = interest
        if known is None:
            epoll.register(fd, interest)
        else:
            epoll.modify(fd, interest)
