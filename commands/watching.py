"""Hearing that something has happened in a folder: inotify, where there is one.

Owns the watches. Says in whose folders something happened, not what: whoever asks looks for himself. Where the system
has no inotify, or no more watches to give, it says so once and `works` is false from then on (but the descriptor stays
open until the end: somebody may be waiting for it).
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Iterable
from contextlib import suppress

log = logging.getLogger("inference.models")

if sys.platform == "linux":
    import inotify_simple  # type: ignore[import-untyped]
    from inotify_simple import INotify, flags

    # It would start ldconfig, and where there is none a compiler, to find what this very process is linked with.
    inotify_simple._libc = ctypes.CDLL(None, use_errno=True)  # noqa: SLF001 - there is no other way to say so

    # Without MODIFY: a large file that is being written would wake us all the time, and is heard of when it is closed.
    _MASK = (
        flags.ATTRIB
        | flags.CLOSE_WRITE
        | flags.CREATE
        | flags.DELETE
        | flags.DELETE_SELF
        | flags.MOVED_FROM
        | flags.MOVED_TO
        | flags.MOVE_SELF
        | flags.ONLYDIR
    )


class Watcher:
    """Folders are watched for somebody, named by a key; one folder may be for several."""

    def __init__(self) -> None:
        self._keys: dict[int, set[str]] = {}  # by watch
        self._watches: dict[str, set[int]] = {}  # by key
        self._inotify: INotify | None = None
        self.works = False
        if sys.platform == "linux":
            try:
                self._inotify = INotify(nonblocking=True)
                self.works = True
            except OSError as error:
                self._do_without(error)

    def fileno(self) -> int:
        """Readable when something has happened; -1 where nothing is heard."""
        return -1 if self._inotify is None else self._inotify.fileno()

    def watch(self, key: str, folders: Iterable[str]) -> None:
        """From now on these folders, and no others, for `key`."""
        if self._inotify is None or not self.works:
            return
        watches = set()
        for folder in folders:
            try:
                watches.add(self._inotify.add_watch(folder, _MASK))
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue  # gone already, which the folder above tells
            except OSError as error:
                self._do_without(error)
                return
        for watch in watches:
            self._keys.setdefault(watch, set()).add(key)
        for watch in self._watches.get(key, set()) - watches:
            self._let_go(watch, key)
        self._watches[key] = watches

    def forget(self, key: str) -> None:
        """Its folders are of no interest any more."""
        for watch in self._watches.pop(key, set()):
            self._let_go(watch, key)

    def heard(self) -> set[str] | None:
        """The keys in whose folders something has happened since the last time; None: perhaps in any."""
        if self._inotify is None:
            return set()
        keys: set[str] = set()
        everything = False
        for event in self._inotify.read(timeout=0):
            everything |= bool(event.mask & flags.Q_OVERFLOW)
            keys |= self._keys.get(event.wd, set())
            if event.mask & flags.IGNORED:  # the folder is gone, and its watch with it
                for key in self._keys.pop(event.wd, set()):
                    self._watches.get(key, set()).discard(event.wd)
        return None if everything else keys

    def close(self) -> None:
        """Watch nothing any more. A second time does no harm."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def _let_go(self, watch: int, key: str) -> None:
        keys = self._keys.get(watch, set())
        keys.discard(key)
        if not keys and self._inotify is not None:
            self._keys.pop(watch, None)
            with suppress(OSError):  # the folder went first
                self._inotify.rm_watch(watch)

    def _do_without(self, error: OSError) -> None:
        log.warning("changes of the models are looked for instead of heard of (%s)", error.strerror)
        self.works = False
