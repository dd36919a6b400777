"""The writer's end of the spool: appends from any thread at the cost of a copy in memory, whatever the disk does.

Owns a process's segments while it writes them: making them ahead, turning to the next, syncing, putting away. Knows
nothing of what is written, nor of who reads it.

Three threads meet under one lock, which nobody holds while the disk works (except `sync="each"`, which asks for that):

    append         writes into the active segment; turns to a spare one when that is full
    "spool"        keeps two spares ready, and says why when it cannot
    "spool-sync"   syncs what was appended, puts full segments away, notices a deleted file

All wait on conditions: an idle process costs nothing.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from prediction_log.segment import (
    HEADER_BYTES,
    LENGTH_AND_CHECKSUM,
    SEAL_BYTES,
    WritableSegment,
    make_name,
    sync_data,
)

SEGMENT_BYTES = 4 * 1024 * 1024
SMALLEST_BYTES = 64 * 1024
SYNCS = ("none", "interval", "each")

_SPARES = 2
_WAIT_S = 0.02  # what one append may wait for a segment while the disk is well
_RETRY_S = 0.25
_SYNC_AFTER_S = 0.075  # leaves 25 ms for the sync itself
_CALM_S = 1.0  # how long after a refusal for want of room all is well again
_LOOK_AFTER_S = 1.0  # where nothing is synced: for a deleted file alone
_TURN_AFTER_S = 3600.0  # lest the first record of a quiet writer's segment outlive what may be deleted by age
_CLOSE_S = 5.0
_LIMIT_SHARE = 16  # a segment is at most this part of `max_bytes`: several writers with three segments each share it

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DELETED = "the spool's files were deleted"
_FULL = "no space left on the spool's disk"
_SLOW = "the spool's disk is too slow"
_LIMIT = "the spool holds as much as it may"
_WORDS = {
    **dict.fromkeys(_NO_SPACE, _FULL),
    errno.EROFS: "the spool's disk is read-only",
    errno.EACCES: "the spool's folder may not be written",
    errno.EPERM: "the spool's folder may not be written",
    errno.ENOTDIR: "the spool's folder is no folder",
    errno.EEXIST: "the spool's folder is no folder",
    errno.ENOENT: _DELETED,
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
    errno.EIO: "the spool's disk fails",
}


class Spool:
    """Appends from any thread, never waits for a disk (unless told to by `sync`), and never raises for its sake.

    folder: made if missing. max_bytes: what the whole folder may hold, all writers' segments and set-aside files
    together, before nothing more is appended (None: no limit, somebody rotates). sync: "none", "interval" (within
    100 ms), "each" (before append returns). on_condition: called from a background thread on every change with why
    records are being dropped, in words without paths, or with None once all is well again.

    capacity: bytes of the largest payload that `append` takes. Raises ValueError for any other `sync`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int | None,
        sync: str = "interval",
        segment_bytes: int = SEGMENT_BYTES,
        on_condition: Callable[[str | None], None] = lambda text: None,
    ) -> None:
        if sync not in SYNCS:
            raise ValueError(f"sync is {', '.join(SYNCS)}, not {sync!r}")
        if max_bytes is not None:
            segment_bytes = min(segment_bytes, max_bytes // _LIMIT_SHARE)
        self._segment_bytes = max(segment_bytes, SMALLEST_BYTES) & -mmap.PAGESIZE
        self.capacity = self._segment_bytes - HEADER_BYTES - SEAL_BYTES
        self._folder = folder
        self._max_bytes = max_bytes
        self._durable = sync != "none"
        self._each = sync == "each"
        self._sync_after_s = _SYNC_AFTER_S if sync == "interval" else _LOOK_AFTER_S
        self._on_condition = on_condition
        self._writer = os.urandom(8).hex()
        self._made = 0
        self._made_ms = 0
        self._said: str | None = None

        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)  # a spare, or a reason why there is none
        self._wanted = threading.Condition(self._lock)  # for the maker
        self._touched = threading.Condition(self._lock)  # for the syncer
        self._spares: deque[WritableSegment] = deque()
        self._retired: list[tuple[WritableSegment, int]] = []  # and how much of each is used
        self._trouble: str | None = None  # why no segment can be made: appends do not wait for one
        self._lost: str | None = None  # why the active segment was given up
        self._refused_at = -_CALM_S
        self._late = False
        self._closed = False
        self._segment: WritableSegment | None = None
        self._view = self._words = memoryview(b"")
        self._marker = self._at = self._end = 0
        self._turn_at = 0.0
        self._unsynced = False

        self._threads = [
            threading.Thread(target=self._make_ahead, name="spool", daemon=True),
            threading.Thread(target=self._tend, name="spool-sync", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        with self._lock:  # the first append shall find a segment
            self._ready.wait_for(lambda: self._spares or self._trouble, 1.0)
        _spools.add(self)

    def append(self, payload: bytes) -> bool:
        """Whether the record is in the spool, where it outlives this process; else it is dropped, to be counted."""
        size = len(payload)
        checksum = crc32(payload, size)
        with self._lock:
            at = self._at
            end = at + SEAL_BYTES + 7 + size & -8
            while end > self._end:
                if not self._turn(size):
                    return False
                at = self._at
                end = at + SEAL_BYTES + 7 + size & -8
            begin = at + SEAL_BYTES
            self._view[begin : begin + size] = payload
            LENGTH_AND_CHECKSUM.pack_into(self._view, at + 8, size, checksum)
            self._words[at >> 3] = self._marker
            self._at = end
            return self._unsynced or self._touch()

    def close(self) -> None:
        """Cut the active segment to what is used and let go of it, remove the spares. Later appends are dropped."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._retire()
            for condition in (self._ready, self._wanted, self._touched):
                condition.notify_all()
        for thread in self._threads:
            thread.join(_CLOSE_S)  # a disk that hangs must not hang the end of the process
        _spools.discard(self)

    # Called with the lock held.

    def _turn(self, size: int) -> bool:
        """Make room for a payload by turning to a spare segment; False when there is none."""
        if size > self.capacity or self._closed:
            return False
        if not (self._spares or self._trouble or self._late):
            segment = self._segment
            self._ready.wait_for(
                lambda: self._spares or self._trouble or self._closed or self._segment is not segment, _WAIT_S
            )
            if self._segment is not segment:
                return not self._closed  # another thread has turned meanwhile: look again
            self._late = not self._spares  # nobody waits again until one has come
        if not self._spares or size > self._spares[0].size - HEADER_BYTES - SEAL_BYTES:
            self._refused_at = time.monotonic()
            if self._at > self._end // 2:
                self._retire()  # else, on a disk that it fills, nobody could ever ship and delete it
            return False
        self._retire()
        self._segment = segment = self._spares.popleft()
        self._view, self._words, self._marker = segment.view, segment.words, segment.marker
        self._at, self._end = HEADER_BYTES, segment.size
        self._turn_at = time.monotonic() + _TURN_AFTER_S
        self._wanted.notify()
        return True

    def _retire(self) -> None:
        if self._segment:
            self._retired.append((self._segment, self._at))
            self._touched.notify()
        self._segment = None
        self._view = self._words = memoryview(b"")
        self._at = self._end = 0

    def _touch(self) -> bool:
        """After the first append since the last sync; after every one when each is synced."""
        if not self._each:
            self._unsynced = True
            self._touched.notify()
            return True
        segment = self._segment
        trouble = self._sync(segment) if segment else None
        if segment and trouble:
            self._give_up(segment, trouble)
        return not trouble

    def _give_up(self, segment: WritableSegment, trouble: str) -> None:
        """Write no more to a segment that was deleted, or that the disk would not take."""
        if self._segment is segment:
            self._retire()
        for spare in [spare for spare in self._spares if spare.is_deleted()]:
            self._spares.remove(spare)
            self._retired.append((spare, 0))
        self._lost = trouble
        self._wanted.notify()

    # The maker's thread.

    def _make_ahead(self) -> None:
        while self._wait_for_work():
            if self._lost:
                self._say(self._lost)
                self._lost = None
            segment, reason = self._make()
            with self._lock:
                if segment:
                    self._spares.append(segment)
                    self._late = False
                lacking = len(self._spares) < _SPARES
                self._trouble = reason if lacking and not segment else None
                small = None if len(self._spares) <= _SPARES else self._small_spare()
                refused = time.monotonic() - self._refused_at < _CALM_S
                empty = not self._spares
                self._ready.notify_all()
            self._remove([small] if small else [])
            self._say((reason or _SLOW) if refused else reason if empty else None)
        self._remove(list(self._spares))

    def _wait_for_work(self) -> bool:
        """Until a segment is lacking, or may be had again; False at the end."""
        with self._lock:
            in_need = self._trouble or self._said or self._small_spare()
            self._wanted.wait_for(
                lambda: self._closed or self._lost or (not self._trouble and len(self._spares) < _SPARES),
                _RETRY_S if in_need else None,
            )
            return not self._closed

    def _small_spare(self) -> WritableSegment | None:
        return next((spare for spare in self._spares if spare.size < self._segment_bytes), None)

    def _make(self) -> tuple[WritableSegment | None, str | None]:
        """Another segment, of the largest size there is room for, if one is lacking or could replace a small one.

        Also why there is none, or only a small one.
        """
        with self._lock:
            small = self._small_spare()
            above = 0 if len(self._spares) < _SPARES else small.size if small else self._segment_bytes
        if above >= self._segment_bytes:
            return None, None
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            room, reason = self._room()
            size = self._segment_bytes
            while size > SMALLEST_BYTES and size * 2 > room:  # a small disk is not for one segment alone
                size = _half(size)
            segment = self._make_of(size) if room >= size > above else None
        except OSError as error:
            return None, _words(error)
        return segment, None if segment and segment.size == self._segment_bytes else reason

    def _make_of(self, size: int) -> WritableSegment:
        """A segment of that size or, where a quota is met that the disk did not tell of, of less. Raises OSError."""
        while True:
            self._made_ms = max(self._made_ms + 1, time.time_ns() // 1_000_000)  # no clock set back disorders them
            self._made += 1
            name = make_name(self._made_ms, self._writer, self._made)
            try:
                return WritableSegment(self._folder, name, size, durable=self._durable)
            except OSError as error:
                if error.errno not in _NO_SPACE or size <= SMALLEST_BYTES:
                    raise
                size = _half(size)

    def _remove(self, segments: list[WritableSegment]) -> None:
        """Spares, unless they were taken in the meantime."""
        for segment in segments:
            with self._lock:
                if segment not in self._spares:
                    continue
                self._spares.remove(segment)
            with suppress(OSError):
                segment.finish(0)

    def _room(self) -> tuple[int, str]:
        """Bytes that a new segment may take, and what to say if that is too little. Raises OSError."""
        disk = os.statvfs(self._folder)
        free = disk.f_bavail * disk.f_frsize if disk.f_blocks else self._segment_bytes  # some disks tell nothing
        if self._max_bytes is not None:
            left = self._max_bytes - folder_bytes(self._folder)
            if left < free:
                return left, _LIMIT
        return free, _FULL

    def _say(self, text: str | None) -> None:
        if text != self._said:
            self._said = text
            self._on_condition(text)

    # The syncer's thread.

    def _tend(self) -> None:
        closed = False
        while not closed:
            with self._lock:
                if not self._touched.wait_for(
                    lambda: self._unsynced or self._retired or self._closed,
                    self._turn_at - time.monotonic() if self._segment else None,
                ):
                    self._retire()
                self._touched.wait_for(lambda: self._retired or self._closed, self._sync_after_s)
                segment, self._unsynced = (self._segment if self._unsynced else None), False
                retired, self._retired = self._retired, []
                closed = self._closed
            for full, used in retired:
                with suppress(OSError):
                    full.finish(used)
            if segment and (trouble := self._sync(segment)):
                with self._lock:
                    self._give_up(segment, trouble)

    def _sync(self, segment: WritableSegment) -> str | None:
        """What went wrong."""
        try:
            if self._durable:
                sync_data(segment.fd)
        except OSError as error:
            return _words(error)
        return _DELETED if segment.is_deleted() else None

    def forget(self) -> None:
        """In a forked child: its parent goes on writing, its threads are not here. Who forks makes a new spool."""
        self._lock = threading.Lock()  # another thread may have held it
        self._closed = True
        for segment in (self._segment, *self._spares, *(segment for segment, _ in self._retired)):
            if segment:
                os.close(segment.fd)  # else the lock outlives the parent
        self._segment = None
        self._spares.clear()
        self._retired.clear()
        self._view = self._words = memoryview(b"")
        self._end = 0


def folder_bytes(folder: Path) -> int:
    """What all files in a folder and below hold. Raises OSError only for the folder itself."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # a reader deletes meanwhile
                if entry.is_dir(follow_symlinks=False):
                    total += folder_bytes(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def _half(size: int) -> int:
    return max(size // 2 & -mmap.PAGESIZE, SMALLEST_BYTES)


def _words(error: OSError) -> str:
    code = error.errno or 0
    return _WORDS.get(code) or os.strerror(code).lower()


_spools: weakref.WeakSet[Spool] = weakref.WeakSet()


def _forget_all() -> None:
    for spool in _spools:
        spool.forget()


os.register_at_fork(after_in_child=_forget_all)
