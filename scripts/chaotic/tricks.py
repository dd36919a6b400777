"""What chaos does to the server's processes while it is asked: kills and stops workers and fronts, one after another.

Knows nothing of requests. Owns its signals: whoever was stopped for a while goes on, whatever happens.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from contextlib import suppress
from random import Random

from tests.harness import Server

# (what is done, its share): a stop without end is for the watchdog to find.
TRICKS = {
    ("kill", "worker"): 4,
    ("stop", "worker"): 2,
    ("pause", "worker"): 2,
    ("kill", "front"): 1,
    ("pause", "front"): 2,
}
PAUSE_S = 0.4


class Tricks:
    """A thread that plays them from time to time; `played` counts them."""

    def __init__(self, server: Server, seed: int, between_s: tuple[float, float]) -> None:
        self.played: Counter[tuple[str, str]] = Counter()
        self._server = server
        self._rng = Random(seed)  # noqa: S311 - to be repeatable
        self._between_s = between_s
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._play, name="tricks")

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """No more of them."""
        self._ending.set()
        self._thread.join()

    def _play(self) -> None:
        while not self._ending.wait(self._rng.uniform(*self._between_s)):
            ((what, whom),) = self._rng.choices(list(TRICKS), list(TRICKS.values()))
            there = self._server.children(whom)
            if what == "stop":  # how long a model may take to load is nobody's to say, so no watchdog looks at that
                there = [pid for pid in there if f"worker {pid} is ready" in self._server.log]
            if not there:
                continue
            pid = self._rng.choice(there)
            with suppress(ProcessLookupError):  # it has just died of another
                if what == "kill":
                    self._server.kill(pid)
                else:
                    os.kill(pid, signal.SIGSTOP)
                self.played[what, whom] += 1
            if what == "pause":
                self._ending.wait(PAUSE_S)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
