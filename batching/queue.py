"""One model's line of items. Owns the order, the bounds in rows and bytes, and what has become too late.

Items whose layouts differ never share a batch, so each layout has a lane of its own; the lane whose head has waited
longest goes first. Not safe for threads: the worker's loop alone touches it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Any

from batching.errors import QueueFull


class Item:
    """What one frame asks: `rows` rows of one layout, to be answered to `sender` under `id`."""

    __slots__ = ("arrived", "deadline", "id", "layout", "payload", "rows", "sender")

    def __init__(
        self, sender: Any, id: int, rows: int, layout: bytes, payload: bytes, arrived: float, deadline: float
    ) -> None:
        self.sender = sender
        self.id = id
        self.rows = rows
        self.layout = layout
        self.payload = payload
        self.arrived = arrived
        self.deadline = deadline


class ModelQueue:
    """A bounded line in lanes. `rows` and `bytes` are what waits now."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self.rows = 0
        self.bytes = 0
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._lanes: dict[bytes, deque[Item]] = {}

    def push(self, item: Item) -> None:
        """Add at the end of its lane. Raises QueueFull; an item larger than the bounds is let into an empty queue."""
        if self.rows and (self.rows + item.rows > self._max_rows or self.bytes + len(item.payload) > self._max_bytes):
            raise QueueFull
        lane = self._lanes.get(item.layout)
        if lane is None:
            lane = self._lanes[item.layout] = deque()
        lane.append(item)
        self.rows += item.rows
        self.bytes += len(item.payload)

    def oldest_arrival(self) -> float | None:
        """When the longest-waiting item arrived (monotonic seconds); None when nothing waits."""
        if not self._lanes:
            return None
        return min(lane[0].arrived for lane in self._lanes.values())

    def widest_rows(self) -> int:
        """Rows in the lane that goes next."""
        return sum(item.rows for item in self._next_lane()) if self._lanes else 0

    def take(self, max_rows: int, now: float) -> tuple[list[Item], list[Item]]:
        """(batch, too late): the head of the next lane up to max_rows, and the items found past their deadline.

        An item is never split here: one with more rows than max_rows comes alone.
        """
        batch: list[Item] = []
        late: list[Item] = []
        rows = 0
        lane = self._next_lane()
        while lane:
            item = lane[0]
            if item.deadline <= now:
                late.append(item)
            elif batch and rows + item.rows > max_rows:
                break
            else:
                batch.append(item)
                rows += item.rows
            lane.popleft()
            self.rows -= item.rows
            self.bytes -= len(item.payload)
        self._drop_empty_lanes()
        return batch, late

    def withdraw(self, sender: Any, ids: Collection[int] | None = None) -> list[Item]:
        """Remove the sender's items (those with these ids, or all) and return them: one pass, however many go."""
        gone: list[Item] = []
        for layout, lane in self._lanes.items():
            kept: deque[Item] = deque()
            for item in lane:
                leaves = item.sender is sender and (ids is None or item.id in ids)
                (gone if leaves else kept).append(item)
            self._lanes[layout] = kept
        for item in gone:
            self.rows -= item.rows
            self.bytes -= len(item.payload)
        self._drop_empty_lanes()
        return gone

    def _next_lane(self) -> deque[Item]:
        if len(self._lanes) == 1:
            return next(iter(self._lanes.values()))
        return min(self._lanes.values(), key=lambda lane: lane[0].arrived)

    def _drop_empty_lanes(self) -> None:
        """Lanes go when empty: callers choose the shapes of unknown dimensions, so lanes must not pile up."""
        for layout in [layout for layout, lane in self._lanes.items() if not lane]:
            del self._lanes[layout]
