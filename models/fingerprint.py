"""What the file system says of a model's files: whether they have changed, and which folders they lie in.

Owns the walk through a model's files, links followed. Reads no contents, so it is cheap enough to be repeated.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

# A saved model has some ten files, one with a vocabulary some twenty; whoever serves "/" is not to hang the server.
FILES_MAX = 10_000
# How the folders begin in which models.shelf keeps copies: they are no part of what they lie in.
KEPT = ".kept-"


class Seen(NamedTuple):
    """One file or folder. inside: its path below where the walk began ("" for that itself)."""

    path: str
    inside: str
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


def walk(start: str | Path) -> Iterator[Seen]:
    """`start` and all below it, each folder before what it holds, by name; nothing where nothing is.

    A folder that a link in it leads back to is not entered again.
    """
    todo: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(str(start), "", ())]
    left = FILES_MAX
    while todo and left:
        path, inside, above = todo.pop()
        left -= 1
        try:
            seen = Seen(path, inside, os.stat(path))  # noqa: PTH116 - this runs for every file several times a minute
            names = sorted(os.listdir(path), reverse=True) if seen.is_folder else []  # noqa: PTH208
        except OSError:
            continue
        yield seen
        if seen.is_folder:
            identity = seen.status.st_dev, seen.status.st_ino
            if identity in above:
                continue
            above = (*above, identity)
        todo += [(f"{path}/{name}", f"{inside}/{name}", above) for name in names if not name.startswith(KEPT)]


def digest(path: str | Path, contract: str | Path | None) -> str:
    """Another text whenever a file of the model, or its contract, was written, replaced, came or went."""
    files = [seen for seen in walk(path) if not seen.is_folder]
    if contract is not None:
        files += walk(contract)
    marks = [
        (seen.inside, seen.status.st_mtime_ns, seen.status.st_size, seen.status.st_dev, seen.status.st_ino)
        for seen in files
    ]
    return hashlib.sha256(repr(marks).encode()).hexdigest()[:24]


def stamp(paths: Iterable[str | Path]) -> tuple[int, list[str]]:
    """(a number that changes with anything below these paths, the folders among it). Links' own targets included."""
    marks: list[object] = []
    folders: list[str] = []
    for path in paths:
        for seen in walk(path):
            status = seen.status
            if seen.is_folder:
                folders.append(seen.path)
                marks.append((seen.path, status.st_dev, status.st_ino, status.st_mode))
            else:
                marks.append((seen.path, status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode))
    return hash(tuple(marks)), folders
