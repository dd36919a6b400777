"""A spool's records for whoever only looks: beside a running server, without a lock, changing nothing.

Owns which segments are read, from where, and in which order. Knows nothing of what is done with the rows.

A writer fills one segment after the other, so what is in its later ones is later; between writers nothing is certain.
"""

from __future__ import annotations

import heapq
import itertools
import struct
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from prediction_log.record import Kind, Record, decode
from prediction_log.rows import expand, feedback
from prediction_log.segment import HEADER_BYTES, SegmentReader, parse_name

_RECORDS, _BYTES = 1000, 4 << 20  # at a time
_HEAD = struct.Struct("<4xIq")  # how prediction_log.record begins


class Head(NamedTuple):
    """What a record begins with. created_us: Unix time in microseconds."""

    rows: int
    created_us: int


class Damage:
    """How much could not be read."""

    def __init__(self) -> None:
        self.records = 0

    def skip(self, at: int, data: bytes) -> bool:
        """For SegmentReader.read: count it and go on."""
        self.records += 1
        return True


class Reading:
    """One segment, read from its beginning, or from what nobody has committed. Raises OSError."""

    def __init__(self, path: Path, damage: Damage, *, waiting: bool = False) -> None:
        self._damage = damage
        self.reader = SegmentReader(path)
        self.at = self.reader.cursor() if waiting else HEADER_BYTES
        self.finished = False

    def payloads(self) -> Iterator[bytes]:
        """What there is from where the last call ended; `finished` says then whether there can be more."""
        more = True
        while more:
            found: list[bytes] = []
            piece = self.reader.read(self.at, found, _RECORDS, _BYTES, self._damage.skip)
            self.at, self.finished, more = piece.at, piece.finished, piece.full
            yield from found

    def records(self) -> Iterator[Record]:
        """As `payloads`, decoded."""
        for payload in self.payloads():
            try:
                yield decode(payload)
            except ValueError:
                self._damage.records += 1

    def heads(self) -> Iterator[Head]:
        """As `records`, a tenth of the work: what can be told without decoding."""
        for payload in self.payloads():
            try:
                yield Head._make(_HEAD.unpack_from(payload))
            except struct.error:
                self._damage.records += 1

    def close(self) -> None:
        self.reader.close()


def segments(folder: Path) -> list[Path]:
    """The segments of a folder, oldest first; none where there is no folder. Raises OSError."""
    try:
        return sorted(path for path in folder.iterdir() if parse_name(path.name))
    except FileNotFoundError:
        return []


def by_writer(paths: list[Path]) -> dict[str, list[Path]]:
    """Segments by who wrote them, in the order they were filled."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        name = parse_name(path.name)
        if name:
            found.setdefault(name.writer, []).append(path)
    return found


def all_records(folder: Path, damage: Damage) -> Iterator[Record]:
    """Every record in the order of time, as far as each writer has kept to it. Raises OSError."""
    chains = [_chain(paths, damage) for paths in by_writer(segments(folder)).values()]
    return heapq.merge(*chains, key=lambda record: record.created_us)


def _chain(paths: list[Path], damage: Damage) -> Iterator[Record]:
    for path in paths:
        try:
            reading = Reading(path, damage)
        except FileNotFoundError:  # shipped, or deleted by age, in the meantime
            continue
        try:
            yield from reading.records()
        finally:
            reading.close()


def rows_of(record: Record, damage: Damage) -> list[bytes]:
    """A record's rows, of either table, as JSON."""
    try:
        return [feedback(record)] if record.kind == Kind.FEEDBACK else expand(record)
    except ValueError:
        damage.records += 1
        return []


class Tail:
    """The end of a folder's records, and then what comes. keep: which records are meant."""

    def __init__(self, folder: Path, damage: Damage, keep: Callable[[Record], bool]) -> None:
        self._folder = folder
        self._damage = damage
        self._keep = keep
        self._open: dict[str, Reading] = {}
        self._over: set[str] = set()

    def last(self, rows: int) -> list[bytes]:
        """The last rows there are. Reads of each writer no more segments than need be. Raises OSError."""
        found: list[Record] = []
        for paths in by_writer(segments(self._folder)).values():
            missing = rows
            for path in reversed(paths):
                if missing <= 0:
                    self._over.add(path.name)  # its writer has long turned to the next
                    continue
                ending = self._ending(path, missing)
                missing -= sum(record.rows for record in ending)
                found += ending
        found.sort(key=lambda record: record.created_us)
        expanded: deque[bytes] = deque(maxlen=rows)
        for record in found:
            expanded.extend(rows_of(record, self._damage))
        return list(expanded)

    def new(self) -> list[bytes]:
        """Rows that came since, in the order of time. Raises OSError."""
        paths = {path.name: path for path in segments(self._folder)}
        self._over &= paths.keys()
        found: list[Record] = []
        for name in [*self._open.keys(), *(paths.keys() - self._open.keys() - self._over)]:
            found += self._read(self._folder / name)
            if name not in paths and name in self._open:  # deleted under its writer
                self._open.pop(name).close()
        found.sort(key=lambda record: record.created_us)
        return list(itertools.chain.from_iterable(rows_of(record, self._damage) for record in found))

    def close(self) -> None:
        for reading in self._open.values():
            reading.close()
        self._open.clear()

    def _ending(self, path: Path, rows: int) -> list[Record]:
        """A segment's last records, that hold so many rows together where it has them."""
        ending: deque[Record] = deque()
        total = 0
        for record in self._read(path):
            ending.append(record)
            total += record.rows
            while total - ending[0].rows >= rows:
                total -= ending.popleft().rows
        return list(ending)

    def _read(self, path: Path) -> Iterator[Record]:
        reading = self._open.get(path.name)
        if reading is None:
            try:
                reading = self._open[path.name] = Reading(path, self._damage)
            except FileNotFoundError:
                return
        yield from filter(self._keep, reading.records())
        if reading.finished:
            self._over.add(path.name)
            self._open.pop(path.name).close()
