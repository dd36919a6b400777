"""Inputs that killed their worker, by digest, and until when no worker shall see them. Knows neither."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

KEPT_MAX = 1000
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Quarantine:
    """What fronts have blamed, for all of them. One of them may be a foreign process: anything may be said to us."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until: dict[str, float] = {}  # the oldest first

    def add(self, digest: str) -> bool:
        """A front blames this input; whether that is news. Where there are too many, the oldest is let go."""
        if not _SHA256.fullmatch(digest) or digest in self.current():
            return False
        if len(self._until) >= KEPT_MAX:
            del self._until[next(iter(self._until))]
        self._until[digest] = self._clock() + self._seconds
        return True

    def current(self) -> dict[str, float]:
        """Digest -> until when (monotonic seconds), without what is over."""
        now = self._clock()
        while self._until and next(iter(self._until.values())) <= now:
            del self._until[next(iter(self._until))]
        return dict(self._until)
