"""Which process counts where. Owns the places in the counters' file: who has one, and when it is free again."""

from __future__ import annotations

import os

from batching.child import is_alive, peer
from batching.control import ControlChannel
from batching.counters import Counters
from batching.errors import StartupFailed

SLOTS = 64
# Foreign processes may attach as they like; that many places stay for our own, so that what dies can be replaced.
OURS = 16


class Slots:
    """Places 2 to 63: 0 is nobody's and 1 the supervisor's own."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._free = list(range(SLOTS - 1, 1, -1))
        self._held: list[tuple[int, int]] = []  # (slot, process id) of fronts that have detached

    def take(self) -> int:
        """A place for a process of ours. Raises StartupFailed where there is none."""
        self._collect()
        if not self._free:
            raise StartupFailed(f"more than {SLOTS - 2} processes")
        return self._free.pop()

    def take_for_foreigner(self) -> int | None:
        """A place for a foreign process; None where the rest is for our own."""
        self._collect()
        return self._free.pop() if len(self._free) > OURS else None

    def free(self, slot: int) -> None:
        """Its process has ended: what it counted goes to the totals."""
        self._counters.fold(slot)
        self._free.append(slot)

    def free_later(self, slot: int, channel: ControlChannel) -> None:
        """A foreign process has let go of its channel. It may count on until it ends: the place is nobody's before."""
        pid = peer(channel.socket)
        if pid is None or pid == os.getpid():
            self.free(slot)
        else:
            self._held.append((slot, pid))

    def _collect(self) -> None:
        for held in [held for held in self._held if not is_alive(held[1])]:
            self._held.remove(held)
            self.free(held[0])
