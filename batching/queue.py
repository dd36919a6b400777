"""One model's line of items. Owns the order, the bounds in rows and bytes, and finding what has become too late.

Items whose layouts differ never share a batch, so each layout has a lane of its own, and so has each priority of it; of
the most urgent lanes the one whose head has waited longest goes first. What is too late is found without looking
through the line: deadlines mostly come in the order of arrival, so the head of a lane tells; the few that do not are
kept in a heap besides. Not safe for threads: the worker's loop alone touches it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Any

from batching.errors import QueueFull
from batching.transport import Payload

# Places of items that left out of turn are cleared when there are so many, and more than half of all.
LEFT_MAX = 64


LaneKey = bytes | tuple[int, bytes]
"""A layout, and where it has one, a priority."""


class Item:
    """What one frame asks: `rows` rows of one layout, to be answered to `sender` under `id`.

    alone: it never shares a batch. priority: 1 goes before 2, and both before 0, which is everybody's.
    since: when its turn is counted from; its arrival, but for a slice put back. lane: the key of the one it is in.
    left, early: the queue's own: it has left out of turn; its number in the heap, 0 without.
    """

    __slots__ = (
        "alone", "arrived", "deadline", "early", "id", "lane", "layout", "left", "payload", "priority", "rows",
        "sender", "since",
    )  # fmt: skip

    def __init__(
        self,
        sender: Any,
        id: int,
        rows: int,
        layout: bytes,
        payload: Payload,
        arrived: float,
        deadline: float,
        alone: bool = False,
        priority: int = 0,
    ) -> None:
        self.sender = sender
        self.id = id
        self.rows = rows
        self.layout = layout
        self.payload = payload
        self.arrived = arrived
        self.since = arrived
        self.deadline = deadline
        self.alone = alone
        self.priority = priority
        self.lane: LaneKey = (priority, layout) if priority else layout
        self.left = False
        self.early = 0


class Lane:
    """Items of one layout and priority; `rows` is what waits in it. The head has never left, and it is seldom empty."""

    __slots__ = ("items", "latest", "left", "rank", "rows")

    def __init__(self, priority: int) -> None:
        self.rank = priority or inf
        self.items: deque[Item] = deque()
        self.rows = 0
        self.latest = -inf  # of the deadlines that are in order
        self.left = 0  # places of items that have left


class ModelQueue:
    """A bounded line in lanes. `rows` and `bytes` are what waits now."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self.rows = 0
        self.bytes = 0
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._lanes: dict[LaneKey, Lane] = {}
        # Items whose deadline is before that of one ahead of them: (deadline, number), and who has that number still.
        self._heap: list[tuple[float, int]] = []
        self._early: dict[int, Item] = {}
        self._numbers = count(1)

    def __bool__(self) -> bool:
        """Whether anything waits; an item may have no rows."""
        return bool(self._lanes)

    def push(self, item: Item, behind_rows: int | None = None) -> None:
        """Add at the end of its lane. Raises QueueFull; an item larger than the bounds is let into an empty queue.

        behind_rows: for the next slice of a large item that is in already: it goes behind so many rows of its lane,
        and is never refused. So a large item takes turns with small ones instead of holding them up.
        """
        size = len(item.payload)
        if (
            self.rows
            and behind_rows is None
            and (self.rows + item.rows > self._max_rows or self.bytes + size > self._max_bytes)
        ):
            raise QueueFull("the worker's queue is full")
        lane = self._lanes.get(item.lane)
        if lane is None:
            lane = self._lanes[item.lane] = Lane(item.priority)
        if behind_rows is None:
            lane.items.append(item)
        else:
            self._insert(lane, item, behind_rows)
        if item.deadline >= lane.latest:
            lane.latest = item.deadline
        else:
            item.early = number = next(self._numbers)
            self._early[number] = item
            heappush(self._heap, (item.deadline, number))
        rows = item.rows
        lane.rows += rows
        self.rows += rows
        self.bytes += size

    def oldest_arrival(self) -> float | None:
        """When the longest-waiting head arrived (monotonic seconds); None when nothing waits."""
        if not self._lanes:
            return None
        return min(lane.items[0].arrived for lane in self._lanes.values())

    def next_lane(self) -> Lane:
        """The lane that goes next. Only when something waits."""
        if len(self._lanes) == 1:
            return next(iter(self._lanes.values()))
        return min(self._lanes.values(), key=lambda lane: (lane.rank, lane.items[0].since))

    def soonest(self) -> float:
        """When `expire` may next find something (monotonic seconds, infinite when nothing waits)."""
        soonest = self._heap[0][0] if self._heap else inf
        for lane in self._lanes.values():
            deadline = lane.items[0].deadline
            if deadline < soonest:  # noqa: PLR1730 - min() takes twice as long, and this runs for every batch
                soonest = deadline
        return soonest

    def expire(self, now: float) -> list[Item]:
        """Take out what is past its deadline, wherever it waits: all at the heads of lanes and all in the heap.

        (Behind a slice that was put back one may stay until the slice has run; `take` sets it aside then.)
        """
        late: list[Item] = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            item = self._early.pop(heappop(heap)[1], None)
            if item is None:
                continue
            late.append(item)
            lane = self._lanes[item.lane]
            self._count_out(lane, item)
            item.early = 0
            item.left = True
            item.payload = b""  # its place in the lane may stay for a while; what it carried must not
            lane.left += 1
            self._tidy(lane, item.lane)
        for key, lane in list(self._lanes.items()):
            while lane.items and lane.items[0].deadline <= now:
                late.append(self._pop_head(lane))
            self._tidy(lane, key)
        return late

    def drop(self, before: float, keep_rows: int) -> list[Item]:
        """Take heads out of the next lane whose deadline is before that, as long as so many rows stay behind each."""
        lane = self.next_lane()
        key = lane.items[0].lane
        gone: list[Item] = []
        while lane.items and lane.items[0].deadline < before and lane.rows - lane.items[0].rows >= keep_rows:
            gone.append(self._pop_head(lane))
        self._tidy(lane, key)
        return gone

    def take(self, max_rows: int, now: float) -> tuple[list[Item], list[Item]]:
        """(batch, too late): the head of the next lane up to max_rows, and the items found past their deadline.

        An item is never split here: one with more rows than max_rows comes alone, as does one that asks to.
        """
        batch: list[Item] = []
        late: list[Item] = []
        if not self._lanes:
            return batch, late
        rows = gone = size = 0
        lane = self.next_lane()
        items = lane.items
        key = items[0].lane
        while items:
            item = items[0]
            if item.deadline <= now:
                late.append(item)
            elif batch and (item.alone or rows + item.rows > max_rows):
                break
            else:
                batch.append(item)
                rows += item.rows
            items.popleft()
            gone += item.rows
            size += len(item.payload)
            if item.early:
                self._forget_early(item)
            while lane.left and items and items[0].left:
                items.popleft()
                lane.left -= 1
            if batch and batch[-1].alone:
                break
        lane.rows -= gone
        self.rows -= gone
        self.bytes -= size
        if not items:
            del self._lanes[key]
        return batch, late

    def withdraw(self, sender: Any, ids: Collection[int] | None = None) -> list[Item]:
        """Remove the sender's items (those with these ids, or all) and return them: one pass, however many go."""
        gone: list[Item] = []
        for key, lane in list(self._lanes.items()):
            kept: deque[Item] = deque()
            for item in lane.items:
                if item.left:
                    continue
                if item.sender is sender and (ids is None or item.id in ids):
                    gone.append(item)
                    self._count_out(lane, item)
                    self._forget_early(item)
                else:
                    kept.append(item)
            lane.items = kept
            lane.left = 0
            self._tidy(lane, key)
        return gone

    def _insert(self, lane: Lane, item: Item, behind_rows: int) -> None:
        place = ahead = 0
        for other in lane.items:
            if ahead >= behind_rows:
                item.since = other.since
                break
            place += 1
            ahead += 0 if other.left else other.rows
        else:  # behind all: it must not overtake what waits in other lanes either, old as it is
            item.since = max(item.since, *(one.items[-1].since for one in self._lanes.values() if one.items), -inf)
        lane.items.insert(place, item)

    def _pop_head(self, lane: Lane) -> Item:
        """The head leaves in its turn, and with it the places of those that left before theirs."""
        items = lane.items
        item = items.popleft()
        rows = item.rows
        lane.rows -= rows
        self.rows -= rows
        self.bytes -= len(item.payload)
        if item.early:
            self._forget_early(item)
        while items and items[0].left:
            items.popleft()
            lane.left -= 1
        return item

    def _count_out(self, lane: Lane, item: Item) -> None:
        rows = item.rows
        lane.rows -= rows
        self.rows -= rows
        self.bytes -= len(item.payload)

    def _forget_early(self, item: Item) -> None:
        if item.early:
            del self._early[item.early]
            item.early = 0
            if len(self._heap) > 2 * len(self._early) + LEFT_MAX:
                self._heap = [(one.deadline, number) for number, one in self._early.items()]
                heapify(self._heap)

    def _tidy(self, lane: Lane, key: LaneKey) -> None:
        """Lanes go when empty: callers choose the shapes of unknown dimensions, so lanes must not pile up."""
        while lane.items and lane.items[0].left:
            lane.items.popleft()
            lane.left -= 1
        if lane.left > LEFT_MAX and lane.left > len(lane.items) // 2:
            lane.items = deque(item for item in lane.items if not item.left)
            lane.left = 0
        if not lane.items:
            self._lanes.pop(key, None)
