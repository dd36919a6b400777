"""The file format of the spool: names, sealed records, the writer's end of one segment and the reader's.

Owns what the bytes of a segment mean. Knows nothing of other segments, of records' contents, or of threads.

    header   64 bytes: magic, then the reader's cursor and its checksum
    record   marker (8) | length (4) | checksum of length and payload (4) | payload | zeros up to a multiple of 8

All numbers are little-endian.

1. A marker is derived from the file's name, whose random part no client knows: no payload can pass for a record, and
   the reader needs nothing of the header.
2. The marker is written last, by one aligned store. Where it is, the record is whole; where there are zeros, a living
   writer has not come yet; everything else is damage, and reading goes on at the next marker.
3. A segment is locked (flock) from before it has its name until its writer closes it or dies.
4. The reader copies with pread. A mapping would end it with SIGBUS when the writer truncates, or when a disk fails.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import re
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

HEADER_BYTES = 64
SEAL_BYTES = 16
LENGTH_AND_CHECKSUM = struct.Struct("<II")
UNFINISHED = ".new"  # what the name of a segment ends with while it is being made

_MAGIC = b"predlog1"
_SEAL = struct.Struct("<QII")
_CURSOR = struct.Struct("<II")  # an offset and its checksum
_CURSOR_AT = 8
_NAME = re.compile(r"(\d{13})-([0-9a-f]{16})-\d{6,}\.log")
_FIRST_CHUNK = 4096  # most looks at a living segment find nothing
_CHUNK = 256 * 1024
_SEARCH_AGAIN_S = 1.0
_LOCKED_BY_S = 10.0  # an empty file that old is not one whose maker is about to lock it

sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class Name(NamedTuple):
    """What a segment's name says. writer: 16 hexadecimal digits, one process's."""

    created_ms: int
    writer: str


def make_name(created_ms: int, writer: str, number: int) -> str:
    """The name of a process's segment; names sort by time."""
    return f"{created_ms:013d}-{writer}-{number:06d}.log"


def parse_name(name: str) -> Name | None:
    """None for a name that is no segment's."""
    match = _NAME.fullmatch(name)
    return Name(int(match[1]), match[2]) if match else None


def marker_of(name: str) -> int:
    """What each record of a segment begins with; never 0."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") | 1


def is_abandoned(path: Path) -> bool:
    """Whether nobody writes to a segment, finished or not, any more. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        told = os.fstat(fd)
        if not told.st_size and time.time() - told.st_mtime < _LOCKED_BY_S:
            return False
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


class WritableSegment:
    """A new segment, all zeros, with its room on the disk and its pages in memory: to fill it takes no system call.

    Raises OSError, and leaves nothing behind, when it cannot be made. `durable`: whether it is worth syncing at all.
    """

    def __init__(self, folder: Path, name: str, size: int, *, durable: bool) -> None:
        self.path = folder / name
        self.size = size
        self.marker = marker_of(name)
        self._durable = durable
        unfinished = folder / (name + UNFINISHED)
        self.fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX)  # who looks whether it is locked has it for a moment
            _allocate(self.fd, size)
            self._map = mmap.mmap(self.fd, size)
            self.view = memoryview(self._map)
            self.words: memoryview[int] = self.view.cast("Q")
            self._touch()
            self.view[: len(_MAGIC)] = _MAGIC
            if durable:
                sync_data(self.fd)
            unfinished.rename(self.path)
            if durable:
                _sync_folder(folder)
        except BaseException:
            for path in (unfinished, self.path):
                with suppress(OSError):
                    path.unlink()
            os.close(self.fd)
            raise

    def _touch(self) -> None:
        """Have the kernel map every page, lest the hot path does: with the GIL let go, which madvise would keep."""
        zeros = os.open("/dev/zero", os.O_RDONLY)
        try:
            os.readv(zeros, [self.view])
        finally:
            os.close(zeros)

    def is_deleted(self) -> bool:
        """Whether somebody removed the file under its writer."""
        return os.fstat(self.fd).st_nlink == 0

    def finish(self, used: int) -> None:
        """Keep the first `used` bytes, or nothing of a segment without a record, and let go. Raises OSError."""
        self.words.release()
        self.view.release()
        self._map.close()
        try:
            if used <= HEADER_BYTES:
                self.path.unlink(missing_ok=True)
                return
            os.ftruncate(self.fd, used)
            if self._durable:
                sync_data(self.fd)
        finally:
            os.close(self.fd)


class Piece(NamedTuple):
    """How far a read came. at: where the next begins; bytes: payload taken; full: it stopped at a limit; finished:
    nothing is left, and nobody can add anything.
    """

    at: int
    bytes: int
    full: bool
    finished: bool


class SegmentReader:
    """One segment as its readers see it. `writable`: the cursor may be moved. Raises OSError."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self._fd = -1
        if writable:
            with suppress(OSError):  # a disk may be read-only, and is worth reading then
                self._fd = os.open(path, os.O_RDWR)
        if self._fd < 0:
            self._fd = os.open(path, os.O_RDONLY)
        self._marker = marker_of(path.name)
        self._marker_bytes = self._marker.to_bytes(8, "little")
        self._ended = False
        self._search_at = 0.0

    def close(self) -> None:
        os.close(self._fd)

    def ended(self) -> bool:
        """Whether its writer has closed it or is dead: what is read after that is all there will ever be."""
        if not self._ended:
            with suppress(BlockingIOError):
                fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                self._ended = True
        return self._ended

    def cursor(self) -> int:
        """Where the first record begins that nobody has committed. A spoilt cursor is the beginning."""
        data = os.pread(self._fd, _CURSOR.size, _CURSOR_AT)
        if len(data) == _CURSOR.size:
            at, checksum = _CURSOR.unpack(data)
            if checksum == crc32(data[:4]) and at % 8 == 0 and HEADER_BYTES <= at <= self.size():
                return int(at)
        return HEADER_BYTES

    def move_cursor(self, at: int) -> None:
        """Set it, in one write. Takes no room, so a full disk does not matter. Raises OSError."""
        offset = at.to_bytes(4, "little")
        os.pwrite(self._fd, offset + crc32(offset).to_bytes(4, "little"), _CURSOR_AT)

    def size(self) -> int:
        """Of the file, in bytes."""
        return os.fstat(self._fd).st_size

    def has_record(self, at: int) -> bool:
        """Whether anything was appended at a place."""
        return any(os.pread(self._fd, 8, at))

    def used(self, at: int) -> int:
        """Where the last record ends, seen from a place where one begins; zeros at its very end may be left out."""
        if not self.ended():
            return self._skip(at)
        end = self.size()
        while end > at:  # the rest of a dead writer's segment is zeros
            begin = max(at, end - _CHUNK)
            data = os.pread(self._fd, end - begin, begin)
            if not _is_zero(data):
                return begin + len(data.rstrip(b"\0"))
            end = begin
        return at

    def read(
        self, at: int, into: list[bytes], max_records: int, max_bytes: int, set_aside: Callable[[int, bytes], bool]
    ) -> Piece:
        """Add the payloads from `at` on to `into`, at most until that holds `max_records`, and `max_bytes` of payload
        unless the first of `into` alone is larger.

        set_aside: called with the offset and bytes of whatever is damaged; False from it stops there. Raises OSError.
        """
        total = 0
        chunk_bytes = _FIRST_CHUNK
        marker = self._marker
        unpack = _SEAL.unpack_from
        while True:
            chunk = os.pread(self._fd, chunk_bytes, at)
            last = len(chunk) - SEAL_BYTES
            place = 0
            whole = True
            while place <= last:
                mark, length, checksum = unpack(chunk, place)
                if mark != marker:
                    whole = False
                    break
                end = place + SEAL_BYTES + length
                if len(into) >= max_records or (total + length > max_bytes and into and at + end <= self.size()):
                    return Piece(at + place, total, full=True, finished=False)
                if end > len(chunk):
                    break
                payload = chunk[place + SEAL_BYTES : end]
                if crc32(payload, length) != checksum:
                    whole = False
                    break
                into.append(payload)
                total += length
                place = end + 7 & -8
            at += place
            if place and whole:
                chunk_bytes = _CHUNK
                continue
            found = self._look_again(at)
            if isinstance(found, bool):  # which is an int, too
                return Piece(at, total, full=False, finished=found)
            if isinstance(found, int):
                chunk_bytes = found
                continue
            if not set_aside(at, found.rstrip(b"\0") or found):
                return Piece(at, total, full=False, finished=False)
            at += len(found) + 7 & -8

    def _look_again(self, at: int) -> int | bytes | bool:
        """What lies where no whole record was seen: a record of so many bytes, damaged bytes, or the end (True: for
        good). A second look also is what makes damage certain while the writer lives.
        """
        ended = self.ended()  # first, see there
        size = self.size()
        seal = os.pread(self._fd, SEAL_BYTES, at)
        mark, length, checksum = _SEAL.unpack(seal.ljust(SEAL_BYTES, b"\0"))
        end = at + SEAL_BYTES + length
        if mark == self._marker and end <= size:
            payload = os.pread(self._fd, length, at + SEAL_BYTES)
            if crc32(payload, length) == checksum:
                return SEAL_BYTES + int(length)
        if not ended and (mark == 0 or time.monotonic() < self._search_at):
            return False
        rest = os.pread(self._fd, max(size - at, 0), at)
        following = rest.find(self._marker_bytes, 8)
        while following % 8 and following > 0:
            following = rest.find(self._marker_bytes, following + 1)
        if following > 0:
            return rest[:following]
        if not ended:  # what is damaged ends where the next record begins: that one is still to come
            self._search_at = time.monotonic() + _SEARCH_AGAIN_S
            return False
        return True if _is_zero(rest) else rest

    def _skip(self, at: int) -> int:
        """As far as there are markers, whatever lies between them."""
        while True:
            chunk = os.pread(self._fd, _CHUNK, at)
            place = 0
            while place <= len(chunk) - SEAL_BYTES:
                mark, length, _ = _SEAL.unpack_from(chunk, place)
                if mark != self._marker:
                    return at + place
                place += SEAL_BYTES + length + 7 & -8
            if not place:
                return at
            at += place


def _is_zero(data: bytes) -> bool:
    return data == bytes(len(data))  # megabytes at the speed of memory; strip and any look at each byte


def _allocate(fd: int, size: int) -> None:
    """Take the room now: a full disk is met here, and never by a store into the mapping."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    elif os.pwrite(fd, bytes(size), 0) < size:  # macOS
        raise OSError(ENOSPC, os.strerror(ENOSPC))


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
