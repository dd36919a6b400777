"""Walks over the segments of a spool's folder: which there are, what is new in them, where one has read to.

Owns the order. Writers take turns, so that none starves, neither one that logs little behind one that logs much nor
the living behind a backlog; the records of one writer come in the order it appended them. Changes nothing on disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from prediction_log.segment import HEADER_BYTES, UNFINISHED, Piece, SegmentReader, parse_name


class Position(NamedTuple):
    """How far a batch goes in one segment: to which offset, by how many records, and whether that is all for good."""

    at: int
    records: int
    finished: bool


@dataclass(slots=True)
class Batch:
    """Payloads, together so many bytes, and what has been read with them."""

    records: list[bytes] = field(default_factory=list)
    bytes: int = 0
    positions: dict[str, Position] = field(default_factory=dict)


@dataclass(slots=True)
class Entry:
    """A segment that is not done with. at: where one has read to, 0 before it was first opened."""

    name: str
    created_ms: int
    writer: str
    at: int = 0
    reader: SegmentReader | None = None


class Walk:
    """For one reader of a folder, which need not exist yet.

    set_aside: called with segment, offset and bytes of whatever is damaged; where it returns False, reading goes on
    only later. resume: begin at the segments' cursors, and open the files so that these can be moved.

    entries: what is not done with, by name. done: segments read to their end and not seen to be gone. unfinished: names
    of segments still being made, or whose maker died.
    """

    def __init__(self, folder: Path, set_aside: Callable[[str, int, bytes], bool], *, resume: bool) -> None:
        self._folder = folder
        self._set_aside = set_aside
        self._resume = resume
        self._chains: dict[str, list[Entry]] = {}  # by writer, the one with the oldest segment first
        self.entries: dict[str, Entry] = {}
        self._first = ""  # the writer whose turn it is
        self.done: set[str] = set()
        self.unfinished: list[str] = []

    def close(self) -> None:
        for entry in self.entries.values():
            if entry.reader:
                entry.reader.close()
        self.entries.clear()
        self._chains.clear()

    def read(self, max_records: int, max_bytes: int) -> Batch:
        """What follows where one has advanced to; of payload `max_bytes`, or one larger record. Raises OSError."""
        batch = Batch()
        # The folder is listed once all that is known was read: a backlog of thousands of files is not listed each time.
        while not self._pass(batch, max_records, max_bytes) and self.refresh():
            pass
        return batch

    def advance(self, batch: Batch) -> None:
        """The next read begins behind this batch."""
        for name, position in batch.positions.items():
            if entry := self.entries.get(name):
                entry.at = position.at
                if position.finished:
                    self._forget(entry)
                    self.done.add(name)

    def refresh(self) -> bool:
        """List the folder; True if it holds a segment that was not known. Raises OSError."""
        try:
            names = set(os.listdir(self._folder))  # noqa: PTH208 - Path.iterdir makes thousands of paths
        except FileNotFoundError:
            names = set()
        self.done &= names
        self.unfinished = [name for name in names if name.endswith(UNFINISHED) and parse_name(name[: -len(UNFINISHED)])]
        found = False
        for name in sorted(names - self.entries.keys() - self.done):
            if said := parse_name(name):
                entry = self.entries[name] = Entry(name, *said)
                self._chains.setdefault(entry.writer, []).append(entry)
                found = True
        if found:
            for chain in self._chains.values():
                chain.sort(key=lambda entry: entry.name)
            self._chains = dict(sorted(self._chains.items(), key=lambda item: item[1][0].name))
        return found

    @contextmanager
    def look_into(self, entry: Entry) -> Iterator[SegmentReader]:
        """Its reader, for a look: thousands of segments must not be open at once. Raises OSError."""
        was_open = entry.reader is not None
        try:
            yield self._open(entry)
        finally:
            if entry.reader and not was_open:
                entry.reader.close()
                entry.reader = None

    def _open(self, entry: Entry) -> SegmentReader:
        """Its reader, left open until the segment is done with. Raises OSError."""
        if entry.reader is None:
            entry.reader = SegmentReader(self._folder / entry.name, writable=self._resume)
            if not entry.at:
                entry.at = entry.reader.cursor() if self._resume else HEADER_BYTES
        return entry.reader

    def _pass(self, batch: Batch, max_records: int, max_bytes: int) -> bool:
        """Look once at every writer; True if the batch is full."""
        writers = list(self._chains)
        start = writers.index(self._first) if self._first in self._chains else 0
        writers = writers[start:] + writers[:start]
        for index, writer in enumerate(writers):
            before = len(batch.records)
            if self._follow(self._chains[writer], batch, max_records, max_bytes):
                # Whoever found no room is the first next time; whoever filled it the last.
                has_had_a_turn = len(batch.records) > before
                self._first = writers[(index + has_had_a_turn) % len(writers)]
                return True
        return False

    def _follow(self, chain: list[Entry], batch: Batch, max_records: int, max_bytes: int) -> bool:
        for entry, following in zip(tuple(chain), (*chain[1:], None), strict=True):
            piece = self._take(entry, batch, max_records, max_bytes)
            if not piece.finished and not piece.full:
                # A living writer's other segments are empty spares, unless it has turned to the next; and then it may
                # have added to this one after we looked.
                if following is None or not self._is_begun(following):
                    return False
                piece = self._take(entry, batch, max_records, max_bytes)
            if piece.full:
                return True
        return False

    def _take(self, entry: Entry, batch: Batch, max_records: int, max_bytes: int) -> Piece:
        known = len(batch.records)
        at, records, _ = batch.positions.get(entry.name, (entry.at, 0, False))
        try:
            reader = self._open(entry)
            aside = partial(self._set_aside, entry.name)
            piece = reader.read(at or entry.at, batch.records, max_records, max_bytes - batch.bytes, aside)
        except OSError as error:
            del batch.records[known:]
            if isinstance(error, FileNotFoundError):
                self._forget(entry)
            return Piece(at, 0, full=False, finished=True)  # others go on; if it is still there, it is tried again
        batch.bytes += piece.bytes
        if piece.finished or piece.at != entry.at:
            batch.positions[entry.name] = Position(piece.at, records + len(batch.records) - known, piece.finished)
        return piece

    def _is_begun(self, entry: Entry) -> bool:
        try:
            return self._open(entry).has_record(HEADER_BYTES)
        except OSError:
            return False

    def _forget(self, entry: Entry) -> None:
        del self.entries[entry.name]
        chain = self._chains[entry.writer]
        chain.remove(entry)
        if not chain:
            del self._chains[entry.writer]
        if entry.reader:
            entry.reader.close()
