"""Whether the files that models are loaded from have changed. Compares what the file system says; reads no contents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# A saved model has some ten files; more than this are not looked at, so that a look stays cheap.
FILES_MAX = 200

Fingerprint = tuple[tuple[str, int, int, int], ...]


def fingerprint(references: Sequence[dict[str, Any]]) -> Fingerprint:
    """Equal to an earlier one of the same references unless a file of theirs came, went or was written."""
    roots = [one[key] for one in references for key in ("path", "contract_path") if one.get(key)]
    return tuple(seen for root in roots for seen in _files(root))


def _files(root: str) -> Iterator[tuple[str, int, int, int]]:
    left, todo = FILES_MAX, [Path(root)]
    while todo and left:
        path = todo.pop()
        left -= 1
        try:
            stat = path.stat()
            inside = sorted(path.iterdir()) if path.is_dir() else []
        except OSError:
            continue
        yield str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino
        todo += inside


class Files:
    """What models were loaded from at the last try, and whether another one is worthwhile."""

    def __init__(self) -> None:
        self._tried: Fingerprint = ()
        self._last_look: Fingerprint = ()

    def tried(self, references: Sequence[dict[str, Any]]) -> None:
        """They are loaded now."""
        self._tried = fingerprint(references)

    def are_worth_a_try(self, references: Sequence[dict[str, Any]]) -> bool:
        """Whether they have changed since, and are no longer being written: twice in a row they look the same."""
        look = fingerprint(references)
        is_worth_it = look == self._last_look and look != self._tried
        self._last_look = look
        return is_worth_it
