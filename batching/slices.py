"""An item with more rows than a batch may have: it goes through the queue slice by slice, and is answered once.

So a large request shares the model with small ones instead of holding them up. Knows no sockets and no loop.
"""

from __future__ import annotations

import numpy as np

from batching import arrays
from batching.errors import Failure
from batching.queue import Item
from batching.transport import Payload


class Slice(Item):
    """The rows of a larger item that go into one batch."""

    __slots__ = ("whole",)
    whole: Whole


class Whole:
    """The item that the slices are of. `first` and `next` make them; `add` gathers what comes of them."""

    __slots__ = ("_arrays", "_at", "_item", "_limit", "_outputs", "compute_s", "queued_s")

    def __init__(self, item: Item, limit: int) -> None:
        """Slices of at most `limit` rows. Raises ValueError or IndexError where the item's bytes do not fit."""
        self._item = item
        self._limit = limit
        self._arrays = arrays.decode(arrays.layout_of(item.layout), item.payload, item.rows)
        self._at = 0
        self._outputs: list[list[np.ndarray]] = []
        self.queued_s = 0.0
        self.compute_s = 0.0

    @property
    def rows(self) -> int:
        """Rows of the whole item."""
        return self._item.rows

    def first(self) -> Slice:
        """The first slice."""
        return self._cut()

    def next(self) -> Slice | None:
        """The next one; None after the last."""
        return self._cut() if self._at < self._item.rows else None

    def _cut(self) -> Slice:
        stop = min(self._at + self._limit, self._item.rows)
        layout, payload = arrays.encode([array[self._at : stop] for array in self._arrays])
        item = self._item
        rows = stop - self._at
        made = Slice(
            item.sender, item.id, rows, layout, payload, item.arrived, item.deadline, item.alone, item.priority
        )
        made.whole = self
        self._at = stop
        return made

    def add(self, rows: int, outcome: tuple[bytes, Payload], queued_s: float, compute_s: float) -> None:
        """One slice's answer. Its wait began when the one before was answered; only the first waited for us."""
        layout, payload = outcome
        self._outputs.append(arrays.decode(arrays.layout_of(layout), payload, rows))
        self.queued_s = self.queued_s or queued_s
        self.compute_s += compute_s

    def outcome(self) -> tuple[bytes, Payload] | Failure:
        """All answers as one, once there is no next slice."""
        try:
            joined = [np.concatenate(pieces) for pieces in zip(*self._outputs, strict=True)]
        except ValueError:  # outputs whose shapes differ from slice to slice
            return Failure.BAD_OUTPUT
        return arrays.encode(joined)
