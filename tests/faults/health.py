"""GET /health, asked again and again while something happens: how long the front's loop keeps anybody waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.asking import get
from tests.faults.load import quantile
from tests.harness import SOON_S

PAUSE_S = 0.01


class Health:
    """`seconds` is how long each answer took."""

    def __init__(self, url: str) -> None:
        self.seconds: list[float] = []
        self.failed = 0
        self._url = url
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="health")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Ask while the block lasts; at its end each answer must have been 200."""
        self._thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._thread.join(SOON_S)
        assert not self.failed, f"{self.failed} times GET /health was not answered with 200"

    def _ask(self) -> None:
        while not self._ending.wait(PAUSE_S):
            begun = time.monotonic()
            try:
                self.failed += get(self._url, "/health").status != 200
            except OSError:
                self.failed += 1
            self.seconds.append(time.monotonic() - begun)

    def __str__(self) -> str:
        median, most = quantile(self.seconds, 0.5), quantile(self.seconds, 0.99)
        return f"/health median {median * 1e3:.0f} ms, p99 {most * 1e3:.0f} ms"
