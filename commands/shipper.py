"""The shipper's process: it takes the spool into the database until the supervisor says stop, or is gone.

Owns what the shipper tells the rest of the server: counters, and why the log is degraded.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from batching.control import ControlChannel
from batching.counters import Counters, Slot
from batching.errors import ConnectionLost
from batching.life import exit_with_parent
from prediction_log.database import Store
from prediction_log.inbox import Busy, Inbox
from prediction_log.shipper import Shipper

# What a stopping server waits for the last rows; what is left goes with the next start.
STOP_S = 2.0
LOCK_RETRY_S = 1.0
SWITCH_S = 0.0005
# Whoever waits for an answer comes first: rows can wait a little.
NICENESS = 10


class Told:
    """A shipper's report, told to the supervisor and counted for /metrics."""

    def __init__(self, control: ControlChannel, slot: Slot) -> None:
        self._control = control
        self._condition: str | None = None
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
        if text != self._condition:
            self._condition = text
            told = None if text is None else f"the prediction log waits in its spool: {text}"
            self._control.send({"type": "condition", "text": told})


def main(control_fd: int) -> None:
    """Ship until told to stop, then what is left for a moment."""
    # The terminal and the service manager signal the whole group; only the supervisor decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control = ControlChannel(socket.socket(fileno=control_fd))
    hello, (life_fd, counters_fd) = control.wait()
    exit_with_parent(socket.socket(fileno=life_fd))
    os.nice(NICENESS)
    # Two threads share the interpreter: one makes rows, one waits for the database, and wakes often for a moment.
    sys.setswitchinterval(SWITCH_S)
    told = Told(control, Counters.attach(counters_fd).slot(hello["slot"]))
    shipper = make_shipper(hello["settings"], told)
    while shipper is None:
        if not _wait(control, LOCK_RETRY_S):
            os._exit(0)
        shipper = make_shipper(hello["settings"], told)
    while _wait(control, shipper.step()):
        pass
    shipper.drain(time.monotonic() + STOP_S)
    shipper.close()
    os._exit(0)


def make_shipper(settings: dict[str, Any], told: Told) -> Shipper | None:
    """A shipper that owns the folder; None, with the reason told, where it cannot be had just now."""
    folder = Path(settings["folder"])
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = Store(settings["database_url"])
        inbox = Inbox(folder)
        inbox.lock()
    except ValueError as error:
        told.condition(str(error))
    except OSError as error:
        told.condition(os.strerror(error.errno or 0).lower())
    except Busy as error:
        inbox.close()
        store.close()
        told.condition(f"process {error.pid} ships it")
    else:
        told.condition(None)
        return Shipper(inbox, store, told, keep_days=settings["keep_days"])
    return None


def _wait(control: ControlChannel, wait_s: float) -> bool:
    """Wait so long for the supervisor's word; False when it said stop."""
    readable, _, _ = select.select([control], [], [], wait_s)
    if not readable:
        return True
    try:
        return not any(message["type"] == "stop" for message, _ in control.receive())
    except ConnectionLost:
        os._exit(0)
