"""What a load generator counts in one window, and how it tells the other side. Knows nothing of sockets."""

from __future__ import annotations

import json
import struct
import time
from array import array
from collections import Counter, defaultdict
from typing import Any

from commands.load_answers import timings_of

# A send so much later than it was due is counted as delayed.
DELAYED_S = 0.001
# One answer of so many is asked for its Server-Timing; what happens in the server is much the same in all of them.
SAMPLED = 16
KINDS_MAX = 32  # of failures; the rest is one kind
_LENGTH = struct.Struct("!i")  # as multiprocessing.connection reads it


class Tally:
    """One window, from `start` of time.monotonic.

    latencies: seconds, of good answers only. failures: how often each kind. timings: of the answers that were sampled,
    the sums of what Server-Timing said. opened: connections beyond the first ones. unsent: requests that were due, and
    could not leave yet.
    """

    def __init__(self, start: float) -> None:
        self.latencies = array("d")
        self.failures: Counter[str] = Counter()
        self.timings: defaultdict[str, float] = defaultdict(float)
        self.opened = self.unsent = 0
        self._start, self._cpu = start, time.process_time()
        self._sent = self._delayed = 0
        self._late_max = 0.0

    def count(self, kind: str) -> None:
        """A request without a good answer."""
        self.failures[kind if kind in self.failures or len(self.failures) < KINDS_MAX else "other"] += 1

    def sample(self, head: bytes) -> None:
        """What the server says of one of its answers."""
        timings = timings_of(head)
        if timings:
            self.timings["sampled"] += 1
            rows = timings.pop("batch", 0.0)
            self.timings["batches"] += 1 / rows if rows else 0.0  # a batch of 8 is seen by 8 requests
            for name, ms in timings.items():
                self.timings[name] += ms

    def sent_late(self, seconds: float) -> None:
        """A request of an open loop has left, so long after it was due."""
        self._sent += 1
        self._delayed += seconds > DELAYED_S
        self._late_max = max(self._late_max, seconds)

    def frame(self, now: float, until: float) -> bytes:
        """Everything; until: when the window should have ended."""
        told = {
            "until": until,
            "seconds": now - self._start,
            "cpu_s": time.process_time() - self._cpu,
            "failures": self.failures,
            "timings": self.timings,
            "sent": self._sent,
            "delayed": self._delayed,
            "late_max_s": self._late_max,
            "opened": self.opened,
            "unsent": self.unsent,
        }
        return framed(told, self.latencies.tobytes())


def framed(told: dict[str, Any], data: bytes = b"") -> bytes:
    """One frame: a line of JSON, and bytes."""
    frame = json.dumps(told).encode() + b"\n" + data
    return _LENGTH.pack(len(frame)) + frame
