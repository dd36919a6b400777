"""The supervisor's loop: descriptors to read, messages still to be written, timers, signals. No threads.

Owns waiting. Knows nothing of processes.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from batching.control import ControlChannel


class Loop:
    """`turn` is one pass."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()  # of timers that are due at once
        self._signals: list[int] = []

    def watch(self, source: Any, on_readable: Callable[[], object]) -> None:
        """Call `on_readable` whenever `source`, anything with a descriptor, has something to read."""
        self._selector.register(source, selectors.EVENT_READ, on_readable)

    def forget(self, source: Any) -> None:
        """The opposite; `source` is still open."""
        self._selector.unregister(source)

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call `action` once."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), action))

    def every(self, period_s: float, action: Callable[[], None]) -> None:
        """Call `action` now, and so long after each call again."""
        action()
        self.after(period_s, lambda: self.every(period_s, action))

    def catch_signals(self, actions: Mapping[signal.Signals, Callable[[], None]]) -> None:
        """Call a signal's action when it comes. The handlers only note it; the wake-up descriptor wakes the loop."""
        woken, wake = socket.socketpair()
        woken.setblocking(False)
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        for number in actions:
            signal.signal(number, lambda number, _frame: self._signals.append(number))

        def act() -> None:
            woken.recv(4096)
            while self._signals:
                actions[signal.Signals(self._signals.pop())]()

        self._wake = wake  # closed, it would wake nobody
        self.watch(woken, act)

    def turn(self) -> None:
        """Wait for a message, a signal or a timer, and deal with it."""
        self._watch_unsent()
        wait_s = max(self._timers[0][0] - time.monotonic(), 0) if self._timers else None
        for key, events in self._selector.select(wait_s):
            if events & selectors.EVENT_WRITE and isinstance(key.fileobj, ControlChannel):
                key.fileobj.flush()
            if events & selectors.EVENT_READ:
                key.data()
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()

    def _watch_unsent(self) -> None:
        """A message larger than a socket's buffer goes on as its receiver reads."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, ControlChannel):
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if key.fileobj.wants_write else 0)
                if events != key.events:
                    self._selector.modify(key.fileobj, events, key.data)
