"""What a folder's shippers have done since ever, in `shipper.json` beside the spool, for whoever has no other access.

Owns the file. It tells a reader how things stand; nothing depends on it, and a crash may cost it the last second.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

NAME = "shipper.json"
PERIOD_S = 1.0


def read_status(folder: Path) -> dict[str, Any]:
    """The file's members, those of a folder that nobody has shipped where there is none.

    shipped_rows, quarantined_rows, damaged_records: since ever. pid: of the last shipper. updated, last_success: Unix
    time in seconds. last_error: {"at", "sqlstate", "text"}, text in words. Times and last_error may be None.
    """
    status: dict[str, Any] = {
        "shipped_rows": 0,
        "quarantined_rows": 0,
        "damaged_records": 0,
        "pid": None,
        "updated": None,
        "last_success": None,
        "last_error": None,
    }
    try:
        found = orjson.loads((folder / NAME).read_bytes())
    except (OSError, ValueError):
        return status
    return {**status, **found} if isinstance(found, dict) else status


class Status:
    """The file's one writer. clock: monotonic, in seconds."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._values = {**read_status(folder), "pid": os.getpid()}
        self._write_at = clock()

    def succeeded(self, shipped: int, quarantined: int, damaged: int) -> None:
        """A batch is through: so many rows and records."""
        self._values["shipped_rows"] += shipped
        self._values["quarantined_rows"] += quarantined
        self._values["damaged_records"] += damaged
        self._values["last_success"] = time.time()

    def failed(self, sqlstate: str, text: str) -> None:
        """A try has failed."""
        self._values["last_error"] = {"at": time.time(), "sqlstate": sqlstate, "text": text}

    def write_if_due(self) -> None:
        """At most one file a second."""
        if self._clock() >= self._write_at:
            self._write_at = self._clock() + PERIOD_S
            self.write()

    def write(self) -> None:
        """Replace the file at once; where that is impossible, as on a full disk, the old one stays."""
        self._values["updated"] = time.time()
        half = self._folder / f".{NAME}"
        with contextlib.suppress(OSError):
            fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(orjson.dumps(self._values))
            half.rename(self._folder / NAME)
