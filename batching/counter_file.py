"""The one file that all processes count in: where everything lies in it, and how a key is written and read.

Owns the layout. Knows nothing of what the numbers mean, nor of adding them up; `batching.counters` holds the rules.

    header   magic, fingerprint of the layout, number of slots, epoch
    totals   two records of what ended processes counted (the epoch's lowest bit says which one counts), and their keys
    slots    one for each process: control words, doubles, keys, and a ring of what it did last (batching.recent)

Keys are lines, one a series, in the order they came; their values follow each other in the same order.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
import zlib

from batching.families import BY_NAME, METRICS, Series

GRANULE = 64 * 1024  # a multiple of every page size in use, so that each slot can be mapped alone
SLOT_WORDS = 8  # 8 bytes each; no two processes write to one cache line
SLOT_VALUES = GRANULE // 8 - SLOT_WORDS
SLOT_TEXT = 4 * GRANULE  # for keys: 32 bytes a value
SLOT_RING = 2 * GRANULE
SLOT_BYTES = GRANULE + SLOT_TEXT + SLOT_RING
# The totals remember every model version ever served, so they get more room. Pages never touched cost nothing.
TOTAL_VALUES = 64 * 1024
TOTAL_TEXT = 64 * GRANULE
RECORD_BYTES = GRANULE + TOTAL_VALUES * 8
TEXT_AT = GRANULE + 2 * RECORD_BYTES
SLOTS_AT = TEXT_AT + TOTAL_TEXT
# What a series without room is counted into: the last values of a slot, which belong to no key and are never read.
WASTE = SLOT_VALUES - max(metric.width for metric in METRICS)

# Indices of control words.
SLOTS, EPOCH = 2, 3  # header, after magic and layout
LENGTH = 0  # slots and records: bytes of keys published
GENERATION = 1  # slots: how many processes before this one had it
FOLDED = 1  # records, one word for each slot from here on: how many generations of it are in the totals

_HEADER = struct.Struct("=4Q")
_MAGIC = int.from_bytes(b"counters", "little")
_LAYOUT = zlib.crc32(repr((METRICS, SLOT_VALUES, SLOT_TEXT, SLOT_RING, TOTAL_VALUES, TOTAL_TEXT)).encode())


class Part:
    """The control words, the doubles, the text and the ring of one stretch of the file; records have only the first."""

    __slots__ = ("ring", "text", "values", "words")

    def __init__(self, view: memoryview, words: int, values: int, text: int = 0) -> None:
        begin = (words + values) * 8
        self.words: memoryview[int] = view[: words * 8].cast("Q")
        self.values: memoryview[float] = view[words * 8 : begin].cast("d")
        self.text: memoryview[int] = view[begin : begin + text]
        self.ring: memoryview[int] = view[begin + text :]


class Keys:
    """The series of one list of keys and the values of each, taken in as far as `length` bytes of the list."""

    __slots__ = ("_max_values", "length", "spans", "values")

    def __init__(self, max_values: int) -> None:
        self.spans: dict[Series, slice] = {}
        self.length = 0
        self.values = 0
        self._max_values = max_values

    def append(self, text: memoryview, series: Series) -> slice | None:
        """Write a new series' line behind the others, not yet published. None when it does not fit."""
        line = json.dumps([series[0], *series[1]]).encode("ascii") + b"\n"
        if self.length + len(line) > len(text) or self.values + BY_NAME[series[0]].width > self._max_values:
            return None
        text[self.length : self.length + len(line)] = line
        return self._take_in(series, len(line))

    def catch_up(self, text: memoryview, length: int) -> None:
        """Take in what was published up to `length`; ends early at a line that no writer of ours wrote.

        Native code gone astray may have spoilt the slot of the process it killed; that must take neither the supervisor
        nor every scrape with it.
        """
        if length <= self.length:
            return
        fence()
        for line in bytes(text[self.length : length]).split(b"\n")[:-1]:
            try:
                name, *labels = json.loads(line)
                metric = BY_NAME[name]
            except (ValueError, TypeError, KeyError, RecursionError):
                return
            if [type(label) for label in labels] != [str] * len(metric.labels):
                return
            if self.values + metric.width > self._max_values:
                return
            self._take_in((name, tuple(labels)), len(line) + 1)

    def _take_in(self, series: Series, line_bytes: int) -> slice:
        span = slice(self.values, self.values + BY_NAME[series[0]].width)
        self.spans[series] = span
        self.values = span.stop
        self.length += line_bytes
        return span


class CounterFile:
    """The mapped file: all of it for its creator to write and for others to read only."""

    def __init__(self, fd: int, *, writable: bool) -> None:
        """For `create` and `attach`."""
        self.fd = fd
        self.writable = writable
        whole = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ))
        self.header: memoryview[int] = whole[:GRANULE].cast("Q")
        records = range(GRANULE, TEXT_AT, RECORD_BYTES)
        self.records = [Part(whole[at : at + RECORD_BYTES], GRANULE // 8, TOTAL_VALUES) for at in records]
        self.text: memoryview[int] = whole[TEXT_AT:SLOTS_AT]
        slots = range(SLOTS_AT, _size(self.header[SLOTS]), SLOT_BYTES)
        self.slots = [Part(whole[at : at + SLOT_BYTES], SLOT_WORDS, SLOT_VALUES, SLOT_TEXT) for at in slots]

    @classmethod
    def create(cls, slots: int) -> CounterFile:
        """A new file without a name. Raises OSError."""
        fd = _nameless_file()
        os.ftruncate(fd, _size(slots))
        os.pwrite(fd, _HEADER.pack(_MAGIC, _LAYOUT, slots, 0), 0)
        return cls(fd, writable=True)

    @classmethod
    def attach(cls, fd: int) -> CounterFile:
        """The file behind a descriptor. Raises ValueError unless it has this very layout."""
        head = os.pread(fd, _HEADER.size, 0)
        if len(head) == _HEADER.size:
            magic, layout, slots, _ = _HEADER.unpack(head)
            if (magic, layout, _size(slots)) == (_MAGIC, _LAYOUT, os.fstat(fd).st_size):
                return cls(fd, writable=False)
        raise ValueError("the descriptor is no counters file, or one of another version of this program")

    def map_slot(self, index: int) -> Part:
        """One slot to write to."""
        at = SLOTS_AT + index * SLOT_BYTES
        view = memoryview(mmap.mmap(self.fd, SLOT_BYTES, access=mmap.ACCESS_WRITE, offset=at))
        return Part(view, SLOT_WORDS, SLOT_VALUES, SLOT_TEXT)


def fence() -> None:
    """Let no load or store pass; ARM needs it. Releasing and retaking a lock is the one barrier that Python offers."""
    lock = threading.Lock()
    lock.acquire()
    lock.release()
    lock.acquire()


def _size(slots: int) -> int:
    return SLOTS_AT + slots * SLOT_BYTES


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("inference-counters")
    import tempfile  # for macOS; too heavy for everybody else

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
