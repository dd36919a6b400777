"""waitress's map of sockets, with their interest kept registered: a turn costs what happened, not what is connected.

`wasyncore.poll2` asks every connection's readable() and writable() and builds its list anew on each pass; with a
thousand idle connections that is most of a request's time. Here an object is asked again only after something happened
to it: an event, or `touch`; one that has `tells_interest` only after `touch`, which it calls itself whenever what it
waits for may have changed. Checked against waitress 3.0.2.

epoll where there is one (Linux); elsewhere poll2 does it in its own way.
"""

from __future__ import annotations

import select
from typing import Any

from waitress import wasyncore

# Events taken at once: the rest come with the next poll, and whoever is behind them waits for no more than these.
EVENTS_MAX = 256


class Poller(dict[int, Any]):
    """File descriptor -> waitress dispatcher, or what looks like one."""

    def __init__(self) -> None:
        super().__init__()
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._interest: dict[int, int] = {}
        self._touched: set[int] = set()

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
        while self._touched:
            self._register(self._touched.pop(), self._epoll)
        for fd, events in self._epoll.poll(timeout_s, EVENTS_MAX):
            dispatcher = self.get(fd)
            # Not yet asked what it waits for, it is new: the event is of whoever had this descriptor before.
            if dispatcher is None or fd not in self._interest:
                continue
            if events == select.EPOLLIN:
                wasyncore.read(dispatcher)
            else:
                wasyncore.readwrite(dispatcher, events)
            if not getattr(dispatcher, "tells_interest", False):
                self._touched.add(fd)

    def _register(self, fd: int, epoll: select.epoll) -> None:
        dispatcher = self.get(fd)
        if dispatcher is None:
            return
        interest = select.EPOLLIN if dispatcher.readable() else 0
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
