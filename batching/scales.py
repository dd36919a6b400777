"""Which worker of a group has grown beyond its memory, and whether replacing it would help. Judges; replaces nobody."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from batching.child import Child, resident_bytes
from batching.groups import backoff_s

log = logging.getLogger("inference.supervisor")

# A worker that needs replacing sooner than this after it was ready shows that replacing it helps little.
SHORT_LIFE_S = 60.0
# One that is beyond the limit before its first request would be replaced all the time: no sooner than this, then.
TOO_HEAVY_PAUSE_S = 600.0
MIB = 2**20


class Scales:
    """limit_mb: resident MiB; None: no limit. condition: that even a new worker is beyond it, in words."""

    def __init__(self, limit_mb: int | None) -> None:
        self.condition: str | None = None
        self._limit_mb = limit_mb
        self._short_lives = 0
        self._next_recycling = 0.0

    def too_heavy(self, workers: Sequence[Child]) -> Child | None:
        """The heaviest, when it is beyond the limit and it is time to replace it."""
        now = time.monotonic()
        if self._limit_mb is None or now < self._next_recycling:
            return None
        weights = [(resident_bytes(child.process.pid) // MIB, child.id, child) for child in workers]
        memory_mb, _, child = max(weights, default=(0, 0, None))
        if child is None or memory_mb <= self._limit_mb:
            return None
        self._short_lives = self._short_lives + 1 if now - child.ready_at < SHORT_LIFE_S else 0
        self._next_recycling = now + (backoff_s(self._short_lives) if self._short_lives else 0.0)
        log.warning("worker %d holds %d MiB, more than %d: replacing it", child.process.pid, memory_mb, self._limit_mb)
        return child

    def judge_fresh(self, group: str, memory_mb: int) -> None:
        """Whether a worker that has not served yet is beyond the limit: said once, for replacing it would not help."""
        if self._limit_mb is None or memory_mb <= self._limit_mb:
            self.condition = None
            return
        self._next_recycling = time.monotonic() + TOO_HEAVY_PAUSE_S
        if self.condition is None:
            self.condition = (
                f"a new worker of group {group} holds {memory_mb} MiB, more than its limit of {self._limit_mb} MiB:"
                " replacing it would not help"
            )
            log.warning("%s", self.condition)
