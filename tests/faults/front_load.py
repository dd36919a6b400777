"""What a front spends: processor time of its threads, its peak of memory, how long others wait meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from tests.harness import Server


class Spent:
    """Filled when the block ends. cpu_ms: of all threads; loop_ms: of the one that serves everybody; peak_mib: above
    what there was before.
    """

    cpu_ms = 0.0
    loop_ms = 0.0
    peak_mib = 0.0


@contextmanager
def spent(server: Server) -> Iterator[Spent]:
    """What the only front spends in the block."""
    (front,) = server.children("front")
    measured = Spent()
    Path(f"/proc/{front}/clear_refs").write_text("5")  # the peak begins anew
    before, rss = _threads(front), _status(front, "VmRSS")
    yield measured
    after = _threads(front)
    measured.cpu_ms = sum(ns - before.get(thread, 0) for thread, ns in after.items()) / 1e6
    measured.loop_ms = (after[str(front)] - before[str(front)]) / 1e6
    measured.peak_mib = (_status(front, "VmHWM") - rss) / 1024


@contextmanager
def others_wait(server: Server) -> Iterator[list[float]]:
    """How many seconds each of somebody else's GET /health took in the block."""
    seconds: list[float] = []
    over = threading.Event()
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=20)

    def ask() -> None:
        while not over.wait(0.002):
            begun = time.monotonic()
            connection.request("GET", "/health")
            response = connection.getresponse()
            response.read()
            seconds.append(time.monotonic() - begun)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seconds
    finally:
        over.set()
        thread.join()
        connection.close()


def _threads(pid: int) -> dict[str, int]:
    """Nanoseconds of processor time by thread."""
    found = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        found[folder.name] = int((folder / "schedstat").read_text().split()[0])
    return found


def _status(pid: int, name: str) -> int:
    """KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
