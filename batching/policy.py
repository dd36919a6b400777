"""When to close a batch and how large it may be. Pure: no clock, no queue, no model; everything comes as arguments.

The rule is work-conserving: an idle worker takes what there is at once, and batches form because it is busy. A fixed
wait (max_wait_s) is paid by every lone request, so it is 0 unless the operator wants it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class State:
    """What waits for one model: rows in the lane that goes next, and when the oldest of them arrived (seconds)."""

    rows: int
    oldest_arrival: float


@dataclass(frozen=True)
class Run:
    """Take up to `max_rows` rows now."""

    max_rows: int


@dataclass(frozen=True)
class Wait:
    """Nothing to do before `until` (monotonic seconds) unless more arrives."""

    until: float


def decide(state: State, now: float, *, max_rows: int, max_wait_s: float) -> Run | Wait:
    """Run when the batch is full or its oldest row has waited long enough, else say how long to wait."""
    close_at = state.oldest_arrival + max_wait_s
    if state.rows >= max_rows or now >= close_at:
        return Run(max_rows)
    return Wait(close_at)


def best_rows(costs: Mapping[int, float], limit: int, tolerance: float = 0.2) -> int:
    """The largest batch worth running: the greatest measured size whose rows/s are within `tolerance` of the best.

    The tolerance is wide: a short measurement on a busy machine is off by so much, and only a size that is clearly
    worse (a large convolution out of cache) is worth avoiding.

    costs: rows -> seconds of one call, as measured at warm-up. When the best is the largest size measured, nothing
    speaks against more, so the answer is `limit`.
    """
    if not costs:
        return limit
    rate = {rows: rows / max(seconds, 1e-9) for rows, seconds in costs.items()}
    good = max(rows for rows in rate if rate[rows] >= (1 - tolerance) * max(rate.values()))
    return limit if good == max(rate) else min(good, limit)
