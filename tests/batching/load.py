"""Callers that never rest, and know what each version ought to say: version "3" of a model multiplies by three."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from batching.client import Target
from tests.harness import SOON_S, Supervised, values, wait_until

ROWS = 8


def version(number: int, name: str = "m", **more: Any) -> dict[str, Any]:
    """A reference to a version that multiplies by its number."""
    return {"name": name, "version": str(number), "factor": number, **more}


def ready(server: Supervised, name: str = "m") -> list[str]:
    """The versions that serve, as the newest snapshot has them."""
    return [one["version"] for one in server.client.view["models"] if one["name"] == name and one["state"] == "READY"]


def until_serving(server: Supervised, number: int, name: str = "m") -> None:
    wait_until(lambda: ready(server, name) == [str(number)], SOON_S, f"version {number} of {name} serves")


def until_workers(server: Supervised, count: int) -> None:
    wait_until(lambda: len(server.children("worker")) == count, SOON_S, f"{count} workers")


def ask(server: Supervised, name: str = "m", *, patience_s: float = 0.0) -> tuple[str, list[float]]:
    """The version that a request finds in the snapshot, and the factors that its items are answered with.

    patience_s: how long it sits on the snapshot that it has read before it sends its items.
    """
    (entry,) = [one for one in server.client.view["models"] if one["name"] == name and one["state"] == "READY"]
    time.sleep(patience_s)
    target = Target(entry["group"], entry["generation"], entry["index"])
    items = [(1, [np.array([[1.0]], np.float32)])] * ROWS
    return entry["version"], values(server.client.call(target, items, time.monotonic() + SOON_S))


class Load:
    """What the callers have seen. answered: requests by version; wrong: whatever a request should not end in."""

    def __init__(self, server: Supervised, name: str) -> None:
        self.answered: Counter[str] = Counter()
        self.wrong: list[Any] = []
        self._server = server
        self._name = name
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                found, factors = ask(self._server, self._name, patience_s=random.choice([0.0, 0.0, 0.05]))
            except (Exception, AssertionError) as error:  # noqa: BLE001 - it is what the test asks for
                self.wrong.append(error)
                return
            self.answered[found] += 1
            if factors != [float(found)] * ROWS:
                self.wrong.append((found, factors))

    def stop(self) -> None:
        self._stopped.set()


@contextmanager
def under_load(server: Supervised, name: str = "m", callers: int = 4) -> Iterator[Load]:
    """Callers for as long as the block lasts; in the end nothing was wrong with any answer."""
    load = Load(server, name)
    threads = [threading.Thread(target=load.run) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stop()
        for thread in threads:
            thread.join()
    assert load.wrong == []
