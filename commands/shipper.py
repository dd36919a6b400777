"""The shipper's process: it takes the spool into the database until the supervisor says stop, or is gone.

Owns what the shipper tells the rest of the server: counters, and why the log is degraded.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from pathlib import Path

from prediction_log.database import Store
from prediction_log.inbox import Inbox
from prediction_log.shipper import Shipper

from batching.control import ControlChannel
from batching.counters import Counters, Slot
from batching.errors import ConnectionLost
from batching.life import exit_with_parent

# What a stopping server waits for the last rows; what is left goes with the next start.
STOP_S = 2.0


class Told:
    """A shipper's report, told to the supervisor and counted for /metrics."""

    def __init__(self, control: ControlChannel, slot: Slot) -> None:
        self._control = control
        self._slot = slot
        self._shipped = slot.counter("inference_log_rows_shipped_total")
        self._quarantined = slot.counter("inference_log_rows_quarantined_total")
        self._damaged = slot.counter("inference_log_records_damaged_total")
        self._bytes = slot.gauge("inference_log_spool_bytes")
        self._oldest = slot.gauge("inference_log_oldest_seconds")

    def shipped(self, rows: int) -> None:
        self._shipped.add(rows)

    def quarantined(self, rows: int) -> None:
        self._quarantined.add(rows)

    def damaged(self, records: int) -> None:
        self._damaged.add(records)

    def retried(self, sqlstate: str) -> None:
        self._slot.counter("inference_log_retries_total", sqlstate=sqlstate).add(1)

    def waiting(self, size: int, oldest_s: float) -> None:
        self._bytes.set(size)
        self._oldest.set(oldest_s)

    def condition(self, text: str | None) -> None:
        self._control.send({"type": "condition", "text": text})


def main(control_fd: int) -> None:
    """Ship until told to stop, then what is left for a moment."""
    # The terminal and the service manager signal the whole group; only the supervisor decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control = ControlChannel(socket.socket(fileno=control_fd))
    hello, (life_fd, counters_fd) = control.wait()
    exit_with_parent(socket.socket(fileno=life_fd))
    slot = Counters.attach(counters_fd).slot(hello["slot"])
    settings = hello["settings"]
    inbox = Inbox(Path(settings["folder"]))
    inbox.lock()
    shipper = Shipper(inbox, Store(settings["database_url"]), Told(control, slot), keep_days=settings["keep_days"])
    while not _is_stopped(control, shipper.step()):
        pass
    shipper.drain(time.monotonic() + STOP_S)
    shipper.close()
    os._exit(0)


def _is_stopped(control: ControlChannel, wait_s: float) -> bool:
    """Wait so long for the supervisor's word; whether it said stop."""
    readable, _, _ = select.select([control], [], [], wait_s)
    if not readable:
        return False
    try:
        return any(message["type"] == "stop" for message, _ in control.receive())
    except ConnectionLost:
        os._exit(0)
