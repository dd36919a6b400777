"""What lies on disk, as far as it has settled: versions, and what is said of them in versions.json and models.config.

Owns when to look where: at what inotify tells of, at what has not settled, and at everything in turn every few seconds
(or, without inotify, twice in the time in which things settle), a few milliseconds' worth at a time. A change counts
once it has been the same for `settle_s`. Knows nothing of which versions are wanted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands.watching import Watcher
from models.errors import LoadError
from models.fingerprint import stamp
from models.repository import ModelReference, Repository, merged
from models.serving_config import FILE as CONFIG
from models.serving_config import Served
from models.versions import FILE as RULES
from models.versions import Rules, parse_rules, read_rules

ROUND_S = 5.0  # what inotify does not tell of (network file systems, targets of links) is found within so long
LOOK_S = 0.003  # one look at files takes no longer than this and one entry more
EVENTS_S = 0.1  # an entry in which very much happens is looked at no more often

ROOT = ""  # the key of what lies in the folder of models itself
Key = tuple[str, str]
"""(entry, version), (entry, versions.json), or (ROOT, models.config)."""


@dataclass
class Entry:
    """A place where a model may be, as it was at the last look.

    path: None once nothing is meant to be there. keys: of all that was ever seen there and is not known to be gone.
    """

    path: Path | None
    stamp: int | None = None
    looked_at: float = 0.0
    keys: set[Key] = field(default_factory=set)


class Survey:
    """settle_s: 0 takes what is there whenever it is told to look at everything, and looks at nothing by itself."""

    def __init__(self, repository: Repository, settle_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_gone = False
        self._repository = repository
        self._settle_s = settle_s
        self._clock = clock
        self._watcher = Watcher() if settle_s else None
        self._entries: dict[str, Entry] = {}
        self._settled: dict[Key, Any] = {}
        self._in_force: dict[Key, Any] = {}  # the same, or where that is a complaint what was there before
        self._coming: dict[Key, tuple[Any, float]] = {}  # what is seen instead, and since when
        self._dirty: set[str] = set()
        self._root: tuple[int, int] | None = None
        self._listed_at = 0.0
        self.look_at_all()

    # -- what has settled ----------------------------------------------------------------------------------------

    def models(self) -> dict[str, list[ModelReference]]:
        """Every model's versions, ascending."""
        found: dict[str, list[ModelReference]] = {}
        for one in merged(value for value in self._settled.values() if isinstance(value, ModelReference)):
            found.setdefault(one.name, []).append(one)
        return found

    def rules(self) -> dict[str, tuple[Rules, str | None]]:
        """For each model what is said of it, and what is wrong with that; it means then what it meant before."""
        said: dict[str, tuple[Rules, str | None]] = {}
        config = self._in_force.get((ROOT, CONFIG)) or {}
        wrong = self._settled.get((ROOT, CONFIG))
        for (entry, _), value in self._settled.items():
            if isinstance(value, ModelReference):
                rules, fault = self._in_force.get((entry, RULES)), self._settled.get((entry, RULES))
                if rules is None and entry in config:
                    rules = config[entry].rules
                fault = fault if isinstance(fault, LoadError) else wrong
                said[value.name] = rules or Rules(), fault.reason if isinstance(fault, LoadError) else None
        return said

    # -- looking -------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self._watcher is None else self._watcher.fileno()

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()

    def look_at_all(self) -> None:
        """Take everything as it is at this moment."""
        if self._has_root():
            self._list(self._clock(), at_once=True)
            for name in self._entries:
                self._look_at(name, self._clock(), at_once=True)

    def look(self) -> bool:
        """Look where it is due; whether anything has settled into something else (or the whole disk went or came)."""
        if self._watcher is None:
            return False
        heard, now = self._watcher.heard(), self._clock()
        was_gone = self.is_gone
        if not self._has_root():
            return self.is_gone != was_gone
        if heard is None:
            heard = {ROOT, *self._entries}
        changed = self.is_gone != was_gone
        if ROOT in heard or now - self._listed_at >= self._round_s or any(key[0] == ROOT for key in self._coming):
            changed |= self._list(now)
        self._dirty |= heard & self._entries.keys()
        for name in self._due(now):
            changed |= self._look_at(name, self._clock())
            if self._clock() - now > LOOK_S:
                break
        return changed

    @property
    def _round_s(self) -> float:
        return ROUND_S if self._watcher is not None and self._watcher.works else self._settle_s / 2

    def _due(self, now: float) -> list[str]:
        """Entries to be looked at, the one that was longest ago in front."""
        unsettled = {key[0] for key in self._coming} | self._dirty
        due = [
            (entry.looked_at, name)
            for name, entry in self._entries.items()
            if now - entry.looked_at >= (EVENTS_S if name in unsettled else self._round_s)
        ]
        return [name for _, name in sorted(due)]

    def _has_root(self) -> bool:
        """Whether the folder of models is there. One that is empty and on another disk is a place to mount it at."""
        try:
            root = self._repository.root
            status = root.stat()
            identity = status.st_dev, status.st_ino
            is_other = self._root is not None and identity != self._root
            self.is_gone = is_other and identity[0] != (self._root or identity)[0] and not os.listdir(root)  # noqa: PTH208
        except OSError:
            self.is_gone = True
        if self.is_gone:
            return False
        if is_other:  # all we know of it may be wrong
            self._dirty |= self._entries.keys()
            self._listed_at = 0.0
        self._root = identity
        return True

    def _list(self, now: float, *, at_once: bool = False) -> bool:
        """See which entries there are."""
        self._listed_at = now
        if self._watcher is not None:
            self._watcher.watch(ROOT, [str(self._repository.root)])
        config: dict[str, Any] | LoadError | None
        try:
            served = self._repository.config()
            config = None if served is None else {name: Configured.of(one) for name, one in served.items()}
        except LoadError as error:
            config = error
        except OSError:  # the folder has gone this very moment
            return False
        changed = self._see({(ROOT, CONFIG): config}, {(ROOT, CONFIG)}, now, at_once=at_once)
        entries = self._repository.entries(self._base_paths())
        for name in entries.keys() | self._entries.keys():
            path, entry = entries.get(name), self._entries.setdefault(name, Entry(entries.get(name)))
            if entry.path != path or (path is not None and path.suffix):
                self._dirty.add(name)  # for a file there is no folder to be heard from but this
            entry.path = path
        for name in self._entries.keys() - entries.keys() if changed else ():
            self._look_at(name, now, at_once=True)  # models.config has rested; what it leaves out need not
        for name in [name for name, entry in self._entries.items() if entry.path is None and not self._holds(entry)]:
            del self._entries[name]
            self._dirty.discard(name)
            if self._watcher is not None:
                self._watcher.forget(name)
        return changed

    def _holds(self, entry: Entry) -> bool:
        return bool(entry.keys & (self._settled.keys() | self._coming.keys()))

    def _base_paths(self) -> dict[str, str] | None:
        config = self._in_force.get((ROOT, CONFIG))
        return None if config is None else {name: one.base_path for name, one in config.items()}

    def _look_at(self, name: str, now: float, *, at_once: bool = False) -> bool:
        """See what has become of an entry; whether something of it has settled."""
        entry = self._entries[name]
        entry.looked_at = now
        self._dirty.discard(name)
        mark, folders = stamp([] if entry.path is None else self._repository.parts(entry.path))
        if mark == entry.stamp and not at_once:
            return self._settle(entry.keys, now, at_once=False)
        entry.stamp = mark
        if self._watcher is not None:
            self._watcher.watch(name, folders)
        seen: dict[Key, Any] = {}
        if entry.path is not None:
            seen = {(name, one.version): one for one in self._repository.read(name, entry.path)}
            seen[name, RULES] = _said_in(entry.path / RULES)
        entry.keys |= seen.keys()
        return self._see(seen, entry.keys, now, at_once=at_once)

    def _see(self, seen: dict[Key, Any], keys: set[Key], now: float, *, at_once: bool) -> bool:
        """Note what differs from what has settled, and since when."""
        for key in keys:
            value = seen.get(key)
            if _same(value, self._settled.get(key)):
                self._coming.pop(key, None)
            elif key not in self._coming or not _same(self._coming[key][0], value):
                self._coming[key] = value, now
        return self._settle(keys, now, at_once=at_once)

    def _settle(self, keys: set[Key], now: float, *, at_once: bool) -> bool:
        changed = False
        for key in keys & self._coming.keys():
            value, since = self._coming[key]
            if not at_once and now - since < self._settle_s:
                continue
            del self._coming[key]
            changed = True
            if value is None:
                self._settled.pop(key, None)
                self._in_force.pop(key, None)
                continue
            self._settled[key] = value
            if not isinstance(value, LoadError):
                self._in_force[key] = value
        return changed


@dataclass(frozen=True)
class Configured:
    """One model of a models.config."""

    base_path: str
    rules: Rules

    @classmethod
    def of(cls, served: Served) -> Configured:
        """Raises LoadError for what is no rule."""
        try:
            return cls(served.base_path, parse_rules(served.rules))
        except LoadError as error:
            raise LoadError(error.reason.replace(RULES, CONFIG, 1)) from None


def _said_in(path: Path) -> Rules | LoadError | None:
    try:
        return read_rules(path) if path.is_file() else None
    except LoadError as error:
        return error
    except OSError as error:
        return LoadError(f"{RULES} cannot be read: {error.strerror}")


def _same(a: Any, b: Any) -> bool:
    """Equal; of two complaints, the same one."""
    if isinstance(a, LoadError) and isinstance(b, LoadError):
        return a.reason == b.reason
    return bool(a == b)
