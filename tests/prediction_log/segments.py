"""Segments for tests: written by a real spool, read back with what is damaged, and disks that are really full."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from zlib import crc32

from prediction_log.inbox import Inbox
from prediction_log.segment import HEADER_BYTES, LENGTH_AND_CHECKSUM, SegmentReader, WritableSegment, make_name
from prediction_log.spool import Spool
from tests.harness import SOON_S, wait_until

EVERYTHING = 1 << 30
SMALL = 64 * 1024
NAME = make_name(1_700_000_000_123, "0123456789abcdef", 7)


def write(folder: Path, payloads: Iterable[bytes]) -> Path:
    """What one writer appended before it closed; the path of its first segment."""
    with closing(Spool(folder, max_bytes=None, sync="none", segment_bytes=SMALL)) as spool:
        for payload in payloads:
            put(spool, payload)
    return min(folder.glob("*.log"))


def put(spool: Spool, payload: bytes) -> None:
    """Append, though a busy disk may be late with so small segments."""
    wait_until(lambda: spool.append(payload), SOON_S, "a segment")


def read(path: Path, at: int = HEADER_BYTES) -> tuple[list[bytes], list[tuple[int, bytes]]]:
    """Payloads of one segment, and where and what its damaged bytes are."""
    payloads: list[bytes] = []
    damaged: list[tuple[int, bytes]] = []

    def set_aside(offset: int, data: bytes) -> bool:
        damaged.append((offset, data))
        return True

    with closing(SegmentReader(path)) as reader:
        reader.read(at, payloads, EVERYTHING, EVERYTHING, set_aside)
    return payloads, damaged


@contextmanager
def locked(folder: Path) -> Iterator[Inbox]:
    """The folder's inbox, as its shipper has it."""
    with closing(Inbox(folder)) as inbox:
        inbox.lock()
        yield inbox


def ship(inbox: Inbox, max_records: int = 1000) -> list[bytes]:
    """All that waits, committed."""
    shipped = []
    while (batch := inbox.read(max_records, EVERYTHING)).records:
        shipped += batch.records
        inbox.commit(batch)
    return shipped


class Hand:
    """A segment written by hand: one store after the other, as a writer's would be seen in between."""

    def __init__(self, folder: Path, name: str = NAME) -> None:
        self.segment = WritableSegment(folder, name, SMALL, durable=False)
        self.path = self.segment.path
        self.at = HEADER_BYTES

    def body(self, payload: bytes) -> int:
        """All of the next record but its marker; where it begins."""
        at, size = self.at, len(payload)
        self.segment.view[at + 16 : at + 16 + size] = payload
        LENGTH_AND_CHECKSUM.pack_into(self.segment.view, at + 8, size, crc32(payload, size))
        self.at = at + 16 + size + 7 & -8
        return at

    def record(self, payload: bytes) -> int:
        at = self.body(payload)
        self.segment.words[at // 8] = self.segment.marker
        return at

    def close(self) -> None:
        self.segment.finish(self.at)


class Disk:
    """A folder on a disk that can be full or read-only. Where nobody may mount, limits do what the disk would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_mounted = False

    def _run(self, *command: str) -> bool:
        return subprocess.run([*command, str(self.folder)], stderr=subprocess.DEVNULL).returncode == 0

    def mount(self, size: str) -> None:
        """A disk of that size."""
        self.folder.mkdir()
        self.is_mounted = self._run("mount", "-t", "tmpfs", "-o", f"size={size}", "none")
        if not self.is_mounted:
            _limit_files(SMALL // 2)

    def grow(self) -> None:
        """Make the disk much larger."""
        if self.is_mounted:
            assert self._run("mount", "-o", "remount,size=64m")
        else:
            _limit_files(resource.RLIM_INFINITY)

    def allow_writing(self, *, allowed: bool) -> None:
        if self.is_mounted:
            assert self._run("mount", "-o", f"remount,{'rw' if allowed else 'ro'}")
        else:
            self.folder.chmod(0o700 if allowed else 0o500)

    def umount(self) -> None:
        if self.is_mounted:
            assert self._run("umount")
        else:
            _limit_files(resource.RLIM_INFINITY)
            self.folder.chmod(0o700)


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Disk]:
    """A small disk of its own."""
    made = Disk(folder)
    made.mount(size)
    try:
        yield made
    finally:
        made.umount()


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """A quota that the disk does not tell of."""
    _limit_files(size)
    try:
        yield
    finally:
        _limit_files(resource.RLIM_INFINITY)


@contextmanager
def no_more_open_files() -> Iterator[None]:
    """This process has as many files open as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with closing_fd(os.dup(0)) as lowest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def closing_fd(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _limit_files(size: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
