"""The last logged requests of a model in a file, for a new version to be tried on: a process of its own.

Owns the one way by which what is in the prediction log reaches a worker, which must not know the database's address.
The order comes as JSON on stdin; each line of the file is {"instance", "outputs"}, the newest request last.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from commands.log_records import Damage
from commands.replay_rows import LoggedRow, Skipped, from_database, from_folder, instance_of, outputs_of

log = logging.getLogger("inference.log")

BEGINNING = datetime.fromtimestamp(0, UTC)


class Order(NamedTuple):
    """rows: so many at most. database_url: None where the folder is the log itself. to: the file to be written."""

    model: str
    rows: int
    folder: str
    database_url: str | None
    to: str


def main() -> int:
    """Do what stdin says; 1 where the log cannot be read."""
    # The terminal and the service manager signal the whole group; only the supervisor decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    order = Order(**json.load(sys.stdin))
    try:
        written = write(order)
    except Exception as error:  # noqa: BLE001 - a driver may raise anything, and its words may hold a password
        log.error("the prediction log cannot be read for a rehearsal: %s", type(error).__name__)  # noqa: TRY400
        Path(order.to).touch()  # nobody need wait for it
        return 1
    log.info("%d logged requests of model %s are there for a rehearsal", written, order.model)
    return 0


def write(order: Order) -> int:
    """Write the file, whole or not at all; how many rows are in it."""
    lines = [orjson.dumps(line) for line in lines_of(last_rows(order))]
    unfinished = Path(f"{order.to}.{os.getpid()}")
    unfinished.write_bytes(b"\n".join(lines))
    unfinished.replace(order.to)
    return len(lines)


def last_rows(order: Order) -> Iterator[LoggedRow]:
    """The newest of the model's answered rows, oldest first."""
    if order.database_url is None:
        return iter(deque(from_folder(Path(order.folder), order.model, BEGINNING, Damage()), order.rows))
    since = _since(order.database_url, order.model, order.rows)
    return iter(deque(from_database(order.database_url, order.model, since), order.rows))


def lines_of(rows: Iterator[LoggedRow]) -> Iterator[dict[str, Any]]:
    """What can be run again; what was kept as a digest only, or is a picture, cannot."""
    for row in rows:
        try:
            yield {"instance": instance_of(row, None), "outputs": outputs_of(row)}
        except Skipped:
            continue


def _since(url: str, model: str, rows: int) -> datetime:
    from prediction_log.database import Store

    store = Store(url)
    try:
        return store.time_of(model, rows - 1) or BEGINNING
    finally:
        store.close()
