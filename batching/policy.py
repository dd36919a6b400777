"""When to close a batch, how large it may be, what to give up, whom to turn away. Pure: no clock, no queue, no model.

1. An idle worker takes what there is at once, and batches form because it is busy. A fixed wait (max_wait_s) is paid
   by every lone request and gained nothing in any simulation, so it is 0 unless the operator wants it.
2. A batch is never cut short to save its oldest item: then every batch is short, and the model falls behind for good.
3. When more than a batch waits, heads that could not be answered in time by a full batch are dropped: their places go
   to items that can. The batch stays full for it; with fewer waiting all run, unless their deadline has passed, so a
   cost that was learned wrongly is always found out.
4. Who would wait longer than AIM of the time that is left is told so at the door; never when the worker is idle.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# Of the time left to its deadline, what the estimated wait of a new item may take up.
AIM = 0.75


class State(NamedTuple):
    """What waits for one model in the lane that goes next.

    rows: of all in it. oldest_arrival: since when the head waits. head_rows, head_deadline: of the head. soonest: the
    earliest deadline that is known. Seconds are monotonic.
    """

    rows: int
    oldest_arrival: float
    head_rows: int
    head_deadline: float
    soonest: float


class Run(NamedTuple):
    """Take up to `max_rows` rows now."""

    max_rows: int


class Wait(NamedTuple):
    """Nothing to do before `until` (monotonic seconds) unless more arrives."""

    until: float


class Drop(NamedTuple):
    """Give up heads whose deadline is before that while `keep_rows` rows stay behind them; then ask again."""

    before: float
    keep_rows: int


def decide(
    state: State, now: float, *, max_rows: int, max_wait_s: float = 0.0, full_s: float = 0.0
) -> Run | Wait | Drop:
    """What to do for one model when the worker is free.

    max_rows: of the batch to aim at. full_s: what such a batch is expected to take; 0 where nobody can tell.
    """
    rows, oldest_arrival, head_rows, head_deadline, soonest = state
    if soonest <= now:
        return Drop(now, 0)
    if rows - head_rows >= max_rows:
        if head_deadline < now + full_s:
            return Drop(now + full_s, max_rows)
    elif max_wait_s and rows < max_rows:
        close_at = oldest_arrival + max_wait_s
        if now < close_at:
            return Wait(min(close_at, soonest))
    return Run(max_rows)


def estimated_wait_s(running_s: float, own_s: float, others: Iterable[tuple[float, float]] = ()) -> float:
    """How long a new item would wait for its answer.

    running_s: until the batch that computes now ends. own_s: what its own model has to compute before it, and with it.
    others: for each other model of this worker with something waiting, (seconds of all that, seconds of one batch): as
    models take turns by the time they use, it takes as much as ours in the meantime, but at least one batch.
    """
    return running_s + own_s + sum(min(waiting_s, max(own_s, batch_s)) for waiting_s, batch_s in others)


def admits(wait_s: float, left_s: float) -> bool:
    """Whether an item with so much time left to its deadline may join the line."""
    return wait_s <= AIM * left_s
