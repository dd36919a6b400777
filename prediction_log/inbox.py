"""The reader's end of the spool: each record once, from all writers of a folder, for the one process that ships them.

Owns what happens to segments once they are read: cursors, deletion, damaged bytes set aside. Of records it knows only
when they were made.

A cursor lies in its segment's header, so that moving it takes no room on a disk that may be full, and the segment's end
is its end too. Where it cannot be moved, as on a read-only disk, this process remembers it, and the next one reads
those records again.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from prediction_log.aside import Aside
from prediction_log.record import decode
from prediction_log.segment import SegmentReader, is_abandoned
from prediction_log.walk import Batch, Entry, Walk

LOCK = "shipper.lock"

_MEASURE_S = 1.0


class Busy(Exception):
    """Another process ships this folder. pid: its, or 0 where it has not said so yet."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"the spool is shipped by process {pid}")
        self.pid = pid


class SegmentInfo(NamedTuple):
    """A segment as it stands. lives: its writer does, and may add to it. size: of the file; waiting: not committed yet,
    both in bytes. oldest: when the first waiting record was made, Unix time in seconds; None where none waits.
    """

    name: str
    lives: bool
    size: int
    waiting: int
    oldest: float | None


@dataclass(slots=True)
class _Look:
    """What was seen of a segment when its cursor was at `at`."""

    at: int = 0
    ended: bool = False
    size: int = 0
    end: int = 0
    oldest: float | None = None


class Inbox:
    """One folder, which need not exist yet. Without `lock` it only looks, and changes nothing.

    spoilt: how many stretches of damaged bytes this one has set aside in `dead/`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spoilt = 0
        self._aside = Aside(folder)
        self._walk = Walk(folder, self._set_aside, resume=True)
        self._lock_fd: int | None = None
        self._measured_at = -_MEASURE_S
        self._measured: list[SegmentInfo] = []
        self._looks: dict[str, _Look] = {}

    def lock(self) -> None:
        """Become the one who ships. Raises Busy, or OSError where no lock file can be."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            with suppress(OSError):  # a full disk: the lock holds without a name on it
                os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            pid = os.pread(fd, 20, 0).strip()
            os.close(fd)
            raise Busy(int(pid) if pid.isdigit() else 0) from None
        except BaseException:
            os.close(fd)
            raise
        self._lock_fd = fd

    def close(self) -> None:
        self._walk.close()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def read(self, max_records: int, max_bytes: int) -> Batch:
        """The next records that nobody has committed: the same again until then. Empty when none waits.

        At most `max_bytes` of payload, or one record that is larger. Raises OSError for a folder that cannot be read,
        RuntimeError without the lock.
        """
        if self._lock_fd is None:
            raise RuntimeError("the inbox is not locked")
        batch = self._walk.read(max_records, max_bytes)
        self._tidy()
        empty = {name: end for name, end in batch.positions.items() if end.finished and not end.records}
        self.commit(Batch(positions=empty))
        for name in empty:
            del batch.positions[name]
        return batch

    def commit(self, batch: Batch) -> None:
        """These records are safe elsewhere: move the cursors behind them, delete what is finished. Never raises."""
        for name, position in batch.positions.items():
            entry = self._walk.entries.get(name)
            with suppress(OSError):
                if position.finished:
                    (self.folder / name).unlink()
                elif entry and entry.reader:
                    entry.reader.move_cursor(position.at)
        self._walk.advance(batch)

    @property
    def waiting_bytes(self) -> int:
        """What is not committed yet, as of at most a second ago. Raises OSError."""
        return sum(info.waiting for info in self._recent())

    @property
    def oldest_s(self) -> float:
        """How long the oldest record has waited, 0 where none does; as of at most a second ago. Raises OSError."""
        made = [info.oldest for info in self._recent() if info.oldest is not None]
        return max(time.time() - min(made), 0.0) if made else 0.0

    def segments(self) -> list[SegmentInfo]:
        """All segments as they stand, the oldest first. Raises OSError."""
        self._walk.refresh()
        self._looks = {name: look for name, look in self._looks.items() if name in self._walk.entries}
        infos = []
        for name in sorted(self._walk.entries):
            with suppress(OSError):  # gone meanwhile, or not ours to read
                infos.append(self._look_at(self._walk.entries[name]))
        return infos

    def _recent(self) -> list[SegmentInfo]:
        now = time.monotonic()
        if now >= self._measured_at + _MEASURE_S:
            self._measured = self.segments()
            self._measured_at = now
        return self._measured

    def _look_at(self, entry: Entry) -> SegmentInfo:
        """What has changed since the last look; of a backlog's segments that is nothing."""
        look = self._looks.setdefault(entry.name, _Look())
        if not look.ended or look.at != entry.at or not entry.at:
            with self._walk.look_into(entry) as reader:
                look.ended = reader.ended()
                look.size = reader.size()
                look.end = reader.used(max(look.end, entry.at))
                if look.at != entry.at and look.end > entry.at:
                    look.oldest = _made(reader, entry)
                if look.ended or look.end > entry.at:
                    look.at = entry.at
        waiting = max(look.end - entry.at, 0)
        return SegmentInfo(entry.name, not look.ended, look.size, waiting, look.oldest if waiting else None)

    def _tidy(self) -> None:
        """Delete what could not be deleted before, and what dead writers were about to make."""
        for name in self._walk.done:
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)
        for name in self._walk.unfinished:
            path = self.folder / name
            with suppress(OSError):
                if is_abandoned(path):
                    path.unlink()

    def _set_aside(self, name: str, offset: int, data: bytes) -> bool:
        """Keep damaged bytes, once: their name says which they are. False where there is no room for them yet."""
        try:
            self.spoilt += self._aside.damage(name, offset, data)
        except OSError:
            return False
        return True


def _made(reader: SegmentReader, entry: Entry) -> float:
    """When the first waiting record was made, Unix time in seconds; what is no record of ours is as old as its file."""
    first: list[bytes] = []
    reader.read(entry.at, first, 1, 0, lambda offset, data: True)
    try:
        return decode(first[0]).created_us / 1e6
    except (ValueError, IndexError):
        return entry.created_ms / 1000
