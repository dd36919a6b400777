"""Reads a spool's folder without touching it, beside whoever ships or rotates it: for a log that is only looked at.

Knows nothing of cursors: what is in the folder is read, delivered elsewhere or not. Damaged records are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prediction_log.walk import Walk

_RECORDS = 1000
_BYTES = 4 * 1024 * 1024


class Tail:
    """What a folder holds, then what comes. It need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self._walk = Walk(folder, lambda name, offset, data: True, resume=False)

    def read(self) -> list[bytes]:
        """The next records, some thousand at most; none where nothing is new. Raises OSError."""
        batch = self._walk.read(_RECORDS, _BYTES)
        self._walk.advance(batch)
        return batch.records

    def close(self) -> None:
        self._walk.close()


def read_all(folder: Path) -> Iterator[bytes]:
    """Every record in a folder, a writer's in the order it appended them. Raises OSError."""
    tail = Tail(folder)
    try:
        while records := tail.read():
            yield from records
    finally:
        tail.close()
