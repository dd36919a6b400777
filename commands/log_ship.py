"""`log ship`: be a folder's shipper, until nothing is left or, beside a foreign WSGI server, until told to stop."""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from commands import exits, terminal
from commands.shipper import STOP_S
from front.settings import Settings
from prediction_log.database import Store
from prediction_log.inbox import Busy, Inbox
from prediction_log.shipper import Shipper


def ship(folder: Path, settings: Settings, *, follow: bool, as_json: bool) -> int:
    """Ship; 0 when all there was is in the tables, 1 when something was left or set aside.

    Raises terminal.Complaint where there is nothing to ship from or to, or another process ships.
    """
    if settings.database_url is None:
        raise terminal.Complaint("DATABASE_URL is not set: there is no database to ship to", exits.USAGE)
    if not follow and not folder.is_dir():
        raise terminal.Complaint(f"there is no folder {folder}")
    try:
        store = Store(settings.database_url)
    except ValueError as error:
        raise terminal.Complaint(str(error), exits.USAGE) from None
    inbox = Inbox(folder)
    told = _Told()
    with closing(store), closing(inbox):
        try:
            inbox.lock()
        except Busy as busy:
            raise terminal.Complaint(
                f"process {busy.pid} ships {folder} already: the shipper of a running server, or another log ship"
            ) from None
        shipper = Shipper(inbox, store, told, keep_days=settings.prediction_log_keep_days)
        with _signals() as stop, closing(shipper):
            if follow:
                while not stop.wait(shipper.step()):
                    pass
                shipper.drain(time.monotonic() + STOP_S)
            else:
                with _quiet(), terminal.bar() as bar:
                    _until_empty(shipper, told, stop, bar)
            left = sum(segment.waiting for segment in inbox.segments())
    return _summary(told, left, as_json=as_json)


class _Told:
    """A shipper's report. moved: a batch is through; trouble: why nothing is shipped, and it will not pass soon."""

    def __init__(self) -> None:
        self.rows = self.set_aside = self.broken = self.size = 0
        self.moved = self.failed = False
        self.trouble: str | None = None

    def shipped(self, rows: int) -> None:
        self.rows += rows
        self.moved = True

    def quarantined(self, rows: int) -> None:
        self.set_aside += rows

    def damaged(self, records: int) -> None:
        self.broken += records

    def retried(self, sqlstate: str) -> None:
        self.failed = True

    def waiting(self, size: int, oldest_s: float) -> None:
        self.size = size

    def condition(self, text: str | None) -> None:
        self.trouble = text


def _until_empty(shipper: Shipper, told: _Told, stop: _Stop, bar: terminal.Bar) -> None:
    """Step until a step finds nothing, or what keeps us will not pass by itself; a signal ends it after a step."""
    most = 0
    while True:
        told.moved = told.failed = False
        wait_s = shipper.step()
        most = max(most, told.size)
        bar.done(most - told.size, f"shipping, {terminal.number(told.rows, 'row')}", most)
        is_empty = not told.moved and not told.failed and wait_s > 0  # at 0 it has some in hand
        if told.trouble or is_empty or stop.wait(wait_s):
            return


def _summary(told: _Told, left: int, *, as_json: bool) -> int:
    if as_json:
        terminal.say_json(
            {
                "shipped_rows": told.rows,
                "set_aside_rows": told.set_aside,
                "damaged_records": told.broken,
                "left_bytes": left,
                "error": told.trouble if left else None,
            }
        )
    else:
        terminal.Page().rows(
            [
                ["shipped", terminal.number(told.rows, "row")],
                ["set aside", f"{terminal.number(told.set_aside, 'row')}, {told.broken} damaged (see log status)"],
                ["left", terminal.size(left) + (f": {told.trouble}" if told.trouble and left else "")],
            ]
        )
    return exits.WRONG if left or told.set_aside or told.broken else exits.OK


class _Stop:
    """SIGTERM and SIGINT, noted: what is in hand is finished first."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def wait(self, seconds: float) -> bool:
        """Whether one came, now or within that time."""
        readable, _, _ = select.select([self._fd], [], [], seconds)
        return bool(readable)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the shipper's own warnings: the summary says it once."""
    log = logging.getLogger("inference.log")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


@contextmanager
def _signals() -> Iterator[_Stop]:
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    woken = signal.set_wakeup_fd(writable)
    try:
        yield _Stop(readable)
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        os.close(readable)
        os.close(writable)
