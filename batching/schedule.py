"""A worker's whole line: several models that share one processor, one batch at a time.

Owns whose turn it is, who is let in, and what was given up. The decisions are the policy's, the order within a model
is the queue's, what a batch costs is the cost's. Knows no clock (every call is told the time), no sockets, no models.

Models take turns by the time they have used, not by who has waited longest: a slow model with many waiting would
otherwise hold up a quick one for ever. Each has a virtual time, which grows by what its batches take; the least goes
next. One that had nothing waiting begins where the others are, so nobody saves up turns by being idle.
"""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

from batching import policy
from batching.cost import Cost
from batching.errors import Failure, QueueFull
from batching.queue import Item, ModelQueue

# What the time from arrival to deadline is thought to be before anybody has come, and how slowly that is unlearned: a
# few callers in a great hurry must not make everybody's batches small.
BUDGET_S = 2.0
BUDGET_MEMORY = 64
# Batches that say how large the next one will become.
USUAL_MEMORY = 4


class Line:
    """One model's place in the schedule. `owner` is whoever the model is to the caller.

    best: rows of the batch to aim at now, and of one slice of an item that is too large for one batch. full_s: what
    such a batch is expected to take, 0 while nothing is known. usual: rows of its last batches.
    """

    __slots__ = ("best", "budget_s", "cost", "full_s", "max_wait_s", "owner", "queue", "used_s", "usual")

    def __init__(self, owner: Any, queue: ModelQueue, cost: Cost, max_wait_s: float = 0.0) -> None:
        self.owner = owner
        self.queue = queue
        self.cost = cost
        self.max_wait_s = max_wait_s
        self.budget_s = BUDGET_S
        self.used_s = 0.0
        self.usual = 1.0
        self.aim()

    def aim(self) -> None:
        """Choose the batch to aim at by what is known now."""
        cost = self.cost
        self.best = best = cost.best_rows(self.budget_s)
        self.full_s = cost.expected_s(best) if cost.sure else 0.0
        self.usual = min(self.usual, best)

    def expected_s(self, rows: int) -> float:
        """What so many waiting rows will take, in batches of the best size and a last one of the rest; 0 if unknown.

        More will join that last one before it runs, so it is taken to become as large as the last batches were: who
        is let in by a smaller estimate is answered too late when many come.
        """
        best, full_s = self.best, self.full_s
        if not (full_s and rows):
            return 0.0
        if rows <= best:
            return self.cost.expected_s(max(rows, int(self.usual)))
        whole, rest = divmod(rows - 1, best)
        return whole * full_s + self.cost.expected_s(max(rest + 1, int(self.usual)))

    def most_s(self, rows: int) -> float:
        """What `expected_s` says, or more: quickly reckoned."""
        return (rows // self.best + 1) * self.full_s


class Dropped(NamedTuple):
    """An item that was given up before it reached the model, and why."""

    line: Line
    item: Item
    failure: Failure


class Work(NamedTuple):
    """What to run now: items of one layout, or none, and then when to ask again unless more arrives (monotonic
    seconds, infinite if never). `dropped` are to be told so either way.
    """

    line: Line | None
    items: list[Item]
    dropped: list[Dropped]
    until: float


class Schedule:
    """All lines of one worker. After `next` has given a batch, `ran` is told of it before `next` is asked again."""

    def __init__(self) -> None:
        self._active: dict[Line, None] = {}  # where something waits, or did until it was withdrawn or expired
        self._floor_s = 0.0  # the virtual time of whoever went last when its turn came

    def offer(self, line: Line, item: Item, now: float, busy_until: float | None, rows: int | None = None) -> None:
        """Let an item in, or raise QueueFull with the wait it would have had.

        rows: of the whole, where the item is but its first slice. busy_until: when the batch that computes now is
        expected to end (monotonic seconds); None when none computes.
        """
        active = self._active
        if rows is None:
            rows = item.rows
        if busy_until is not None or active:
            left_s = item.deadline - now
            running_s = 0.0 if busy_until is None else busy_until - now
            alone = not active or (len(active) == 1 and line in active)
            # The exact wait takes long to reckon, and mostly this much says already that it is short enough.
            if not (alone and policy.admits(running_s + line.most_s(line.queue.rows + rows), left_s)):
                self._check_wait(line, rows, left_s, now, busy_until)
        try:
            line.queue.push(item)
        except QueueFull as full:
            raise QueueFull(str(full), self._wait_s(line, rows, now, busy_until)) from None
        line.budget_s += (item.deadline - item.arrived - line.budget_s) / BUDGET_MEMORY
        if line not in active:
            self._activate(line)

    def put_back(self, line: Line, item: Item) -> None:
        """The next slice of an item that is in already: it goes behind a batch of what waits, and is never refused."""
        line.queue.push(item, behind_rows=line.best)
        if line not in self._active:
            self._activate(line)

    def next(self, now: float) -> Work:
        """The next batch, of the model that has used the least time among those with one ready."""
        dropped: list[Dropped] = []
        chosen: Line | None = None
        until = inf
        idle: list[Line] = []
        for line in self._active:
            decision = self._decision(line, now, dropped)
            if decision is None:
                idle.append(line)
            elif isinstance(decision, policy.Wait):
                until = min(until, decision.until)
            elif chosen is None or line.used_s < chosen.used_s:
                chosen = line
        for line in idle:
            del self._active[line]
        if chosen is None:
            return Work(None, [], dropped, until)
        self._floor_s = chosen.used_s
        items, late = chosen.queue.take(chosen.best, now)
        if not chosen.queue:
            del self._active[chosen]
        if late:
            dropped += [Dropped(chosen, item, Failure.DEADLINE) for item in late]
        return Work(chosen, items, dropped, now)

    def ran(self, line: Line, rows: int, seconds: float, *, clean: bool = True) -> None:
        """A batch of so many rows (padding counted) has taken so long.

        clean: it was one call of the model, so that its cost can be learned from; not one that failed and was divided.
        """
        line.used_s += seconds
        line.usual += (min(rows, line.best) - line.usual) / USUAL_MEMORY
        if clean:
            line.cost.learn(rows, seconds)
            line.aim()

    def wait_s(self, line: Line, now: float, busy_until: float | None) -> float:
        """About how long one more row would wait for its answer; 0 when the worker is idle, so none is refused then."""
        if busy_until is None and not any(other.queue for other in self._active):
            return 0.0
        return self._wait_s(line, 1, now, busy_until)

    def expire(self, now: float) -> list[Dropped]:
        """What has passed its deadline meanwhile; `next` does the same. For the time while a long batch computes."""
        return [
            Dropped(line, item, Failure.DEADLINE)
            for line in self._active
            if line.queue.soonest() <= now
            for item in line.queue.expire(now)
        ]

    def oldest_arrival(self) -> float | None:
        """When the longest-waiting item of all arrived (monotonic seconds); None when nothing waits."""
        arrivals = [arrived for line in self._active if (arrived := line.queue.oldest_arrival()) is not None]
        return min(arrivals, default=None)

    def _check_wait(self, line: Line, rows: int, left_s: float, now: float, busy_until: float | None) -> None:
        if busy_until is not None or any(other.queue for other in self._active):
            wait_s = self._wait_s(line, rows, now, busy_until)
            if left_s > 0 and not policy.admits(wait_s, left_s):
                raise QueueFull("it could not be answered in time", wait_s)

    def _activate(self, line: Line) -> None:
        line.used_s = max(line.used_s, self._floor_s)
        self._active[line] = None

    def _wait_s(self, line: Line, rows: int, now: float, busy_until: float | None) -> float:
        running_s = max(busy_until - now, 0.0) if busy_until is not None else 0.0
        own_s = line.expected_s(line.queue.rows + rows)
        active = self._active
        if not active or (len(active) == 1 and line in active):
            return policy.estimated_wait_s(running_s, own_s)
        others = [(other.expected_s(other.queue.rows), other.full_s) for other in active if other is not line]
        return policy.estimated_wait_s(running_s, own_s, others)

    def _decision(self, line: Line, now: float, dropped: list[Dropped]) -> policy.Run | policy.Wait | None:
        """The policy's, once what it gives up is gone; None when nothing waits."""
        queue = line.queue
        while queue:
            lane = queue.next_lane()
            head = lane.items[0]
            state = policy.State(lane.rows, head.since, head.rows, head.deadline, queue.soonest())
            decision = policy.decide(state, now, max_rows=line.best, max_wait_s=line.max_wait_s, full_s=line.full_s)
            if not isinstance(decision, policy.Drop):
                return decision
            if decision.keep_rows:
                hopeless = queue.drop(decision.before, decision.keep_rows)
                dropped += [Dropped(line, item, Failure.QUEUE_FULL) for item in hopeless]
            else:
                dropped += [Dropped(line, item, Failure.DEADLINE) for item in queue.expire(now)]
        return None
