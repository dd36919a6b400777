"""Keeps a spool that nobody ships within its limits: the folder is the log, and its oldest segments go first.

Owns which files go. Never touches what a living writer has, nor a name that is not the spool's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from prediction_log.aside import DEAD
from prediction_log.segment import HEADER_BYTES, UNFINISHED, SegmentReader, is_abandoned, parse_name


class Deleted(NamedTuple):
    """A file that is gone, and the bytes it held."""

    name: str
    bytes: int


class _File(NamedTuple):
    written: float
    name: str
    bytes: int


def keep(folder: Path, max_bytes: int, max_age_s: float | None) -> list[Deleted]:
    """Delete what nobody writes to any more, the oldest first: all that is `max_age_s` seconds old (None: no age is too
    much), and more until all segments and what was set aside of them hold at most `max_bytes`; empty segments always.

    A segment is as old as the last record in it. Raises OSError for a folder that cannot be read.
    """
    files = sorted((*_files(folder, ""), *_files(folder, DEAD)))
    too_much = sum(file.bytes for file in files) - max_bytes
    before = -1.0 if max_age_s is None else time.time() - max_age_s
    deleted = []
    for file in files:
        with suppress(OSError):  # somebody was faster
            path = folder / file.name
            if is_abandoned(path) and (too_much > 0 or file.written < before or _is_empty(path)):
                path.unlink()
                too_much -= file.bytes
                deleted.append(Deleted(file.name, file.bytes))
    return deleted


def _files(folder: Path, below: str) -> Iterator[_File]:
    """The spool's files in a folder, or in one below it."""
    try:
        entries = os.scandir(folder / below)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if parse_name(entry.name.removesuffix(UNFINISHED)) or (below and parse_name(entry.name.rpartition("-")[0])):
                with suppress(OSError):
                    told = entry.stat(follow_symlinks=False)
                    yield _File(told.st_mtime, str(Path(below, entry.name)), told.st_size)


def _is_empty(path: Path) -> bool:
    """Whether it is a segment that never got a record: a spare, or one half made."""
    if parse_name(path.name.removesuffix(UNFINISHED)) is None:
        return False
    reader = SegmentReader(path)
    try:
        return not reader.has_record(HEADER_BYTES) and reader.used(HEADER_BYTES) == HEADER_BYTES
    finally:
        reader.close()
