"""What happened, counted by all processes in one mapped file: it survives `kill -9`, and any front can show the whole.

Owns the writers and the adding up. Knows nothing of how a total is shown or sent.

The supervisor makes one file (`batching.counter_file`) and hands it on by descriptor; each process gets a slot in it.

1. One process writes a slot. It maps that slot for writing and all the rest for reading only, so a stray pointer in a
   model's native code cannot spoil what others counted. There is no lock, so nobody can die holding one.
2. A key is published by one aligned store, the length of the list, when its line is in place and its values are zero.
   Whoever is killed before that store never registered the key.
3. A fold writes the record that does not count, and publishes it by one aligned store, the epoch. At that instant the
   slot leaves the sum and its counts are in the totals; only then is the slot cleared. A reader who finds another epoch
   at its end than at its start begins again; it never waits for a writer, not even for a dead one.
4. Counts are whole numbers and sums are whole multiples of 2**-20, so addition is exact in any order: no series ever
   goes backwards when a slot moves into the totals, by a rounding neither (Prometheus would take it for a restart).
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from operator import add
from typing import Any

from batching.counter_file import (
    EPOCH,
    FOLDED,
    GENERATION,
    LENGTH,
    SLOT_VALUES,
    TOTAL_VALUES,
    WASTE,
    CounterFile,
    Keys,
    Part,
    fence,
)
from batching.families import BY_NAME, COUNTER, GAUGE, HISTOGRAM, OVERFLOW, Metric, Series
from batching.recent import Recent, clear, entries
from batching.vitals import Seen, seen

# Adding and subtracting 1.5 * 2**32 rounds a double to a multiple of 2**-20, about a microsecond. Sums of such are
# exact up to 2**33 seconds, and sums of rows up to 2**53.
ROUND = 1.5 * 2.0**32
_EXACT_BELOW = 2.0**53
_ZEROS = memoryview(bytes(SLOT_VALUES * 8)).cast("d")


class Counter:
    """One counter's cell. Threads of one process may share it: nothing between load and store gives up the GIL."""

    __slots__ = ("index", "values")

    def __init__(self, values: memoryview[float], index: int) -> None:
        self.values = values
        self.index = index

    def add(self, amount: int = 1) -> None:
        """`amount`: whole, not negative. The hottest paths may write `values[index] += 1` themselves."""
        self.values[self.index] += amount


class Gauge:
    """One gauge's cell: this process's share of a sum. It ends with the process."""

    __slots__ = ("index", "values")

    def __init__(self, values: memoryview[float], index: int) -> None:
        self.values = values
        self.index = index

    def set(self, value: float) -> None:
        """Replace what this process last said."""
        self.values[self.index] = value

    def add(self, amount: float) -> None:
        """Move it up, or down where `amount` is negative."""
        self.values[self.index] += amount


class Histogram:
    """One histogram's cells: the sum, then how many values fell into each bucket and above the last."""

    __slots__ = ("bounds", "index", "values")

    def __init__(self, values: memoryview[float], index: int, bounds: tuple[float, ...]) -> None:
        self.values = values
        self.index = index
        self.bounds = bounds

    def observe(self, value: float) -> None:
        """`value`: finite, not negative, in the metric's unit (seconds, rows)."""
        values = self.values
        index = self.index
        values[index + 1 + bisect_left(self.bounds, value)] += 1.0
        values[index] += (value + ROUND) - ROUND

    def observe_all(self, seen: list[float]) -> None:
        """As `observe` for each; `seen` is not empty. Those of one batch mostly fall into one bucket."""
        values, bounds, first = self.values, self.bounds, self.index + 1
        least = bisect_left(bounds, min(seen))
        if least == bisect_left(bounds, max(seen)):
            values[first + least] += len(seen)
        else:
            for value in seen:
                values[first + bisect_left(bounds, value)] += 1.0
        values[self.index] += (sum(seen) + ROUND) - ROUND


class Slot:
    """The writer of one slot, in the one process it was given to. Any thread there may ask for cells.

    index: its number. values: all its doubles; those of a cell begin at `values[cell.index]`.
    words: its control words, for batching.vitals. recent: the ring of its last requests.
    """

    def __init__(self, part: Part, index: int) -> None:
        self.index = index
        self.values = part.values
        self.words = part.words
        self.recent = Recent(part.ring, part.words)
        self._part = part
        self._keys = Keys(WASTE)
        self._keys.catch_up(part.text, part.words[LENGTH])
        self._cells: dict[tuple[object, ...], Any] = {}
        self._lock = threading.Lock()
        self._overflow = self.counter(OVERFLOW)

    def counter(self, name: str, **labels: str | int) -> Counter:
        """The cell of one series; cached. Raises ValueError unless the table of families has that name and labels.

        Label values must come from closed sets. A series that does not fit gets a cell that nobody reads, and is
        counted as overflow each time it is asked for.
        """
        cell: Counter = self._cell(COUNTER, name, labels)
        return cell

    def gauge(self, name: str, **labels: str | int) -> Gauge:
        """As `counter`."""
        cell: Gauge = self._cell(GAUGE, name, labels)
        return cell

    def histogram(self, name: str, **labels: str | int) -> Histogram:
        """As `counter`."""
        cell: Histogram = self._cell(HISTOGRAM, name, labels)
        return cell

    def _cell(self, kind: str, name: str, labels: dict[str, str | int]) -> Any:
        call = (kind, name, *labels.items())
        cell = self._cells.get(call)
        if cell is not None:
            return cell
        metric = BY_NAME.get(name)
        if metric is None or metric.kind != kind or labels.keys() != set(metric.labels):
            raise ValueError(f"there is no {kind} {name} with labels {sorted(labels)}")
        series = (name, tuple(_label(labels[label]) for label in metric.labels))
        with self._lock:
            span = self._keys.spans.get(series) or self._register(series)
            if span is None:
                self._overflow.add()
                return self._make(metric, WASTE)
            return self._cells.setdefault(call, self._make(metric, span.start))

    def _register(self, series: Series) -> slice | None:
        span = self._keys.append(self._part.text, series)
        fence()
        self._part.words[LENGTH] = self._keys.length
        return span

    def _make(self, metric: Metric, index: int) -> Counter | Gauge | Histogram:
        if metric.kind == HISTOGRAM:
            return Histogram(self.values, index, metric.buckets)
        return Counter(self.values, index) if metric.kind == COUNTER else Gauge(self.values, index)


class Counters:
    """The whole. `fd` may be handed to other processes, which `attach` it."""

    def __init__(self, file: CounterFile) -> None:
        """For `create` and `attach`."""
        self.fd = file.fd
        self._file = file
        self._lock = threading.Lock()  # between threads of this process; never between processes
        self._totals = Keys(TOTAL_VALUES)
        self._known = [(0, Keys(WASTE)) for _ in file.slots]  # generation and keys
        self._writers: dict[int, Slot] = {}

    @classmethod
    def create(cls, slots: int) -> Counters:
        """New counters for that many processes at once; for the supervisor. Raises OSError."""
        return cls(CounterFile.create(slots))

    @classmethod
    def attach(cls, fd: int) -> Counters:
        """Counters that another process created. Raises ValueError if `fd` is anything else, or of another version."""
        return cls(CounterFile.attach(fd))

    def slot(self, index: int) -> Slot:
        """The writer of a slot that the supervisor gave to this process. Raises ValueError for no such slot."""
        self._check(index)
        if index not in self._writers:
            self._writers[index] = Slot(self._file.map_slot(index), index)
        return self._writers[index]

    def vitals(self, index: int) -> Seen:
        """The vital signs of the process that has this slot. Raises ValueError for no such slot."""
        self._check(index)
        return seen(self._file.slots[index].words)

    def read(self) -> dict[Series, list[float]]:
        """Everything counted so far, by ended and living processes; gauges by living ones.

        A counter or gauge is one value; a histogram is its sum, then the count of each bucket by itself and of what
        lies above the last. No value but a gauge's is ever less than an earlier call gave, in whatever process.
        """
        with self._lock:
            while True:
                epoch = self._file.header[EPOCH]
                fence()
                copies = self._copies(self._file.records[epoch & 1])
                fence()
                if self._file.header[EPOCH] == epoch:
                    return _sum(copies)

    def recent(self, limit: int) -> list[dict[str, Any]]:
        """The last requests of all living processes, newest first; see `batching.recent`."""
        found = [entry for slot in self._file.slots for entry in entries(slot.ring, slot.words, limit)]
        found.sort(key=lambda entry: entry["at"], reverse=True)
        return found[:limit]

    def fold(self, index: int) -> None:
        """Move what a slot's process counted into the totals, and clear the slot for another process.

        For the creator alone, and only when that process can write no more: it was reaped or, if it is no child, is
        known to have ended. Raises ValueError for no such slot, or for anyone but the creator.
        """
        self._check(index)
        if not self._file.writable:
            raise ValueError("only the creator of the counters folds them")
        with self._lock:
            slot = self._file.slots[index]
            epoch = self._file.header[EPOCH]
            record = self._next_record(epoch)
            self._add_up(record, self._keys_of(index), slot.values)
            record.words[FOLDED + index] += 1
            record.words[LENGTH] = self._totals.length
            fence()
            self._file.header[EPOCH] = epoch + 1
            fence()
            slot.words[LENGTH] = 0
            slot.values[:] = _ZEROS
            clear(slot.ring, slot.words)
            fence()
            slot.words[GENERATION] = record.words[FOLDED + index]
            self._writers.pop(index, None)

    def close(self) -> None:
        """Close the descriptor. Cells stay usable; the memory goes with the last of them."""
        os.close(self.fd)

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self._file.slots):
            raise ValueError(f"there is no slot {index}: they are 0 to {len(self._file.slots) - 1}")

    def _copies(self, record: Part) -> list[tuple[Keys, list[float]]]:
        copies: list[tuple[Keys, list[float]]] = []
        self._totals.catch_up(self._file.text, record.words[LENGTH])
        copies.append((self._totals, list(record.values[: self._totals.values])))
        for index, slot in enumerate(self._file.slots):
            # A generation that is in the totals already: its process has gone, its slot is about to be cleared.
            if record.words[FOLDED + index] > slot.words[GENERATION]:
                continue
            keys = self._keys_of(index)
            copies.append((keys, list(slot.values[: keys.values])))
        return copies

    def _keys_of(self, index: int) -> Keys:
        """The keys a slot has now; what a fold in the meantime spoils belongs to a generation that never comes back."""
        slot = self._file.slots[index]
        generation = slot.words[GENERATION]
        fence()
        if self._known[index][0] != generation:
            self._known[index] = (generation, Keys(WASTE))
        keys = self._known[index][1]
        keys.catch_up(slot.text, slot.words[LENGTH])
        return keys

    def _next_record(self, epoch: int) -> Part:
        """The record that does not count now, made equal to the one that does."""
        current, following = self._file.records[epoch & 1], self._file.records[~epoch & 1]
        words, values = FOLDED + len(self._file.slots), self._totals.values
        following.words[:words] = current.words[:words]
        following.values[:values] = current.values[:values]
        return following

    def _add_up(self, record: Part, keys: Keys, values: memoryview[float]) -> None:
        lost = 0
        for series, span in keys.spans.items():
            if BY_NAME[series[0]].kind == GAUGE:
                continue
            total = self._totals.spans.get(series) or self._totals.append(self._file.text, series)
            if total is None:
                lost += 1
                continue
            for index, amount in enumerate(values[span], total.start):
                if 0.0 <= amount < _EXACT_BELOW:  # else spoilt, see Keys.catch_up
                    record.values[index] += amount
        if lost:
            record.values[self._totals.spans[OVERFLOW, ()].start] += lost


def _label(value: str | int) -> str:
    """A label's text such as UTF-8 can carry: a lone surrogate would break every later scrape."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def _sum(copies: list[tuple[Keys, list[float]]]) -> dict[Series, list[float]]:
    sums: dict[Series, list[float]] = {}
    for keys, values in copies:
        for series, span in keys.spans.items():
            found = sums.get(series)
            sums[series] = values[span] if found is None else list(map(add, found, values[span]))
    return sums
