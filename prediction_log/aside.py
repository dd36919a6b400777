"""What cannot be shipped, set aside in a spool's folder under `dead/`, so that nobody has to guess what is missing.

Owns the files' names and that they outlive a crash. The names follow from the contents: setting aside twice, as after
a crash before the commit, makes one file. Knows nothing of databases.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import orjson

DEAD = "dead"


class Aside:
    """The dead of one folder, which need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / DEAD

    def row(self, table: str, row: bytes, sqlstate: str, error: str) -> None:
        """A row that the database refuses, as JSON: `<record id>-<row number>.json`. Raises OSError."""
        columns = orjson.loads(row)
        told = orjson.dumps({"table": table, "sqlstate": sqlstate, "error": error})
        # The row as it was: what was parsed may have lost digits.
        self._write(f"{columns['record_id']}-{columns['row_number']}.json", told[:-1] + b',"row":' + row + b"}")

    def record(self, payload: bytes) -> None:
        """A record that is whole and yet no record of ours: `<digest>.record`. Raises OSError."""
        self._write(f"{hashlib.sha256(payload).hexdigest()[:32]}.record", payload)

    def damage(self, segment: str, offset: int, data: bytes) -> bool:
        """Bytes of a segment that are no record: `<segment>-<offset>.bin`. False: they lie there. Raises OSError."""
        name = f"{segment}-{offset}.bin"
        if (self._folder / name).exists():
            return False
        self._write(name, data)
        return True

    def _write(self, name: str, data: bytes) -> None:
        """A file is there whole or not at all, and on disk before this returns."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        half = self._folder / f".{name}"
        fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        half.rename(self._folder / name)
        for folder in (self._folder, self._folder.parent):
            _sync(folder)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
