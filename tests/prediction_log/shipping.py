"""A folder of records to ship, whoever listens to the shipper, and a shipper as a process of its own.

Owns what the tests of the shipper share. Knows nothing of what must hold.

`python -m tests.prediction_log.shipping FOLDER` is that process: it reads DATABASE_URL as a line from stdin and ships
until it is killed or stdin ends.
"""

from __future__ import annotations

import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import orjson

from prediction_log.database import Store
from prediction_log.inbox import Busy, Inbox
from prediction_log.journal import Journal
from prediction_log.record import Captured, Timing
from prediction_log.shipper import Shipper
from prediction_log.spool import Spool
from tests.harness import ROOT

SUBJECT = {"model": "dummy", "version": "1", "dialect": "native", "endpoint": "/predict", "rows": None, "value": "x"}
SUBJECT_JSON = orjson.dumps(SUBJECT)
MANY_JSON = orjson.dumps({**SUBJECT, "rows": "instances"})


class Told:
    """What a shipper has reported."""

    def __init__(self) -> None:
        self.rows = 0
        self.refused = 0
        self.spoilt = 0
        self.sqlstates: list[str] = []
        self.conditions: list[str | None] = []
        self.waits: list[tuple[int, float]] = []

    def shipped(self, rows: int) -> None:
        self.rows += rows

    def quarantined(self, rows: int) -> None:
        self.refused += rows

    def damaged(self, records: int) -> None:
        self.spoilt += records

    def retried(self, sqlstate: str) -> None:
        self.sqlstates.append(sqlstate)

    def waiting(self, size: int, oldest_s: float) -> None:
        self.waits.append((size, oldest_s))

    def condition(self, text: str | None) -> None:
        self.conditions.append(text)


@contextmanager
def journal(folder: Path) -> Iterator[Journal]:
    """Into the folder's spool; an AssertionError for what it drops."""

    def dropped(rows: int) -> None:
        raise AssertionError(f"{rows} rows were dropped")

    with closing(Spool(folder, max_bytes=None, sync="none")) as spool:
        yield Journal(spool, lambda rows: None, dropped)


def predict(into: Journal, request_id: str, *, model: str = "dummy", x: float = 0.5, rows: int = 1) -> None:
    """One answered request: x doubled, in as many rows as there shall be."""
    subject = SUBJECT_JSON if rows == 1 else MANY_JSON
    row = {"x": [x]}
    assert into.prediction(
        request_id,
        subject=subject.replace(b"dummy", model.encode()),
        status=200,
        rows=rows,
        total_us=1000,
        items=(Timing(100, 200, rows, 1),),
        features_are=Captured.BODY,
        features=orjson.dumps(row if rows == 1 else {"instances": [row] * rows}),
        outputs_are=Captured.BODY,
        outputs=orjson.dumps({"prediction": 2 * x} if rows == 1 else {"predictions": [2 * x] * rows}),
    )


def fill(folder: Path, count: int, first: int = 0) -> None:
    """So many answered requests, r0, r1, ..."""
    with journal(folder) as into:
        for number in range(first, first + count):
            predict(into, f"r{number}", x=number)


@contextmanager
def shipping(folder: Path, url: str, told: Told | None = None) -> Iterator[Shipper]:
    """A shipper of the folder, in this thread."""
    inbox = Inbox(folder)
    inbox.lock()
    with closing(Shipper(inbox, Store(url), told or Told())) as shipper:
        yield shipper


@contextmanager
def follow(folder: Path, url: str, told: Told) -> Iterator[Callable[[], None]]:
    """A shipper at work in a thread, as in its process. What it yields stops it, as at the end of the block."""
    ending = threading.Event()

    def work() -> None:
        with shipping(folder, url, told) as shipper:
            while not ending.wait(shipper.step()):
                pass

    thread = threading.Thread(target=work)

    def stop() -> None:
        ending.set()
        thread.join()

    thread.start()
    try:
        yield stop
    finally:
        stop()


@contextmanager
def shipper_process(folder: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A shipper that may be killed; killed at the end."""
    command = [sys.executable, "-m", "tests.prediction_log.shipping", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
    assert process.stdin
    try:
        process.stdin.write(url.encode() + b"\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()


def main() -> None:
    """Ship until stdin ends."""
    url = sys.stdin.readline().strip()
    try:
        with shipping(Path(sys.argv[1]), url) as shipper:
            while not select.select([sys.stdin], [], [], shipper.step())[0]:
                pass
    except Busy:
        sys.exit("another process ships this folder")


if __name__ == "__main__":
    main()
