"""How much memory our processes hold, by kind, for /metrics. The supervisor looks: it alone knows them all."""

from __future__ import annotations

import os
from collections.abc import Iterable

from batching.child import Child, resident_bytes
from batching.counters import Slot

PERIOD_S = 1.0


class Weights:
    """Gauges in the supervisor's slot, for each of these roles and for itself; one that nobody has stands at 0."""

    def __init__(self, slot: Slot, roles: Iterable[str]) -> None:
        self._roles = ["supervisor", *roles]
        self._slot = slot

    def look(self, children: Iterable[Child]) -> None:
        """A chore. Foreign fronts are not among the children, nor their memory ours to tell."""
        held = dict.fromkeys(self._roles, 0)
        held["supervisor"] = resident_bytes(os.getpid())
        for child in children:
            held[child.role] += resident_bytes(child.process.pid)
        for role, size in held.items():
            self._slot.gauge("inference_resident_memory_bytes", process=role).set(size)
