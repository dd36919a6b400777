"""What windows of a load add up to: when it has lasted long enough, its percentiles, where throughput ends to rise.

Pure arithmetic. The rule for "long enough" is that of Triton's perf_analyzer, so that figures compare.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from commands.load import Window

# The last so many windows must agree within so much, and there are at most so many.
STABLE_WINDOWS, STABLE_WITHIN, TRIALS_MAX = 3, 0.10, 10
SHOWN_PERCENTILES = (50, 90, 95, 99)
# Of the best rate: who reaches as much is at the knee. Of the rate asked for: who answers as much keeps up.
KNEE_SHARE, KEPT_SHARE = 0.95, 0.97
# Of a core: beyond it a generator may be what limits.
GENERATOR_BUSY = 0.8
# What Server-Timing calls the stages, in their order.
STAGES = ("parse", "queue", "compute", "encode", "total")


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of ascending values: one of them. Raises ValueError where there are none."""
    if not ordered:
        raise ValueError("there is no percentile of nothing")
    return ordered[max(math.ceil(len(ordered) * share / 100), 1) - 1]


def latency_of(window: Window, share: float | None) -> float:
    """The percentile, or the average where `share` is None."""
    if share is None:
        return math.fsum(window.latencies) / len(window.latencies)
    return percentile(sorted(window.latencies), share)


def is_stable(windows: Sequence[Window], share: float | None = None) -> bool:
    """Whether the last three agree within 10 % in throughput and in latency, and none of them is empty."""
    last = windows[-STABLE_WINDOWS:]
    if len(last) < STABLE_WINDOWS or not all(window.latencies for window in last):
        return False
    figures = ([one.requests_per_s for one in last], [latency_of(one, share) for one in last])
    return all(max(figure) <= min(figure) * (1 + STABLE_WITHIN) for figure in figures)


@dataclass(frozen=True)
class Level:
    """What came of one load, in its last three windows. load: connections, or requests a second where `is_rate`.

    failures, sent, delayed, opened: of these windows, too. failed_before: in the windows before. within: good answers
    within the deadline. split: what happens inside the server, in ms; see `split_of`.
    busiest: the share of a core that the busiest generator used. is_whole: false where it was interrupted.
    """

    load: float
    is_rate: bool
    is_stable: bool
    trials: int
    rows: int
    seconds: float
    answers: int
    requests_per_s: float
    average_ms: float
    percentiles_ms: dict[str, float]
    max_ms: float
    failures: dict[str, int]
    failed_before: int
    within: int | None
    sent: int
    delayed: int
    late_max_ms: float
    unsent: int
    opened: int
    busiest: float
    generator_us: float
    split: dict[str, float]
    trial_figures: list[dict[str, float]]
    is_whole: bool = True

    @property
    def rows_per_s(self) -> float:
        return self.requests_per_s * self.rows

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def goodput_per_s(self) -> float | None:
        """Answers a second within the deadline; None where there is no deadline."""
        return None if self.within is None else self.requests_per_s * self.within / max(self.answers, 1)


def level(
    windows: Sequence[Window],
    *,
    load: float,
    is_rate: bool,
    rows: int,
    share: float | None,
    deadline_ms: float | None,
    stats: dict[str, float] | None = None,
    is_whole: bool = True,
) -> Level:
    """The sum of the last windows; of all, where there are fewer. stats: the split, where the server says it apart."""
    last = windows[-STABLE_WINDOWS:]
    latencies = array("d")
    failures: Counter[str] = Counter()
    timings: defaultdict[str, float] = defaultdict(float)
    for window in last:
        latencies += window.latencies
        failures.update(window.failures)
        for name, value in window.timings.items():
            timings[name] += value
    ordered = sorted(latencies)
    shown = {*SHOWN_PERCENTILES, *([] if share is None else [share])}
    seconds = sum(window.seconds for window in last)
    return Level(
        load=load,
        is_rate=is_rate,
        is_stable=is_whole and is_stable(windows, share),
        trials=len(windows),
        rows=rows,
        seconds=seconds,
        answers=len(ordered),
        requests_per_s=sum(one.requests_per_s * one.seconds for one in last) / seconds if seconds else 0.0,
        average_ms=math.fsum(ordered) * 1000 / len(ordered) if ordered else 0.0,
        percentiles_ms={f"{one:g}": percentile(ordered, one) * 1000 for one in sorted(shown)} if ordered else {},
        max_ms=ordered[-1] * 1000 if ordered else 0.0,
        failures=dict(failures),
        failed_before=sum(sum(window.failures.values()) for window in windows[:-STABLE_WINDOWS]),
        within=None if deadline_ms is None else sum(one * 1000 <= deadline_ms for one in ordered),
        sent=sum(window.sent for window in last),
        delayed=sum(window.delayed for window in last),
        late_max_ms=max((window.late_max_s for window in last), default=0.0) * 1000,
        unsent=last[-1].unsent if last else 0,
        opened=sum(window.opened for window in last),
        busiest=max((window.busiest for window in last), default=0.0),
        generator_us=sum(window.cpu_s for window in last) * 1e6 / max(len(ordered) + failures.total(), 1),
        split=split_of(timings) or stats or {},
        trial_figures=[
            {
                "requests_per_s": round(window.requests_per_s, 2),
                "latency_ms": round(latency_of(window, share) * 1000, 4) if window.latencies else 0.0,
                "failed": sum(window.failures.values()),
            }
            for window in windows
        ],
        is_whole=is_whole,
    )


def split_of(timings: dict[str, float]) -> dict[str, float]:
    """Mean ms of each stage a server told, and `batch`, the requests that were computed together; empty for none."""
    count = timings.get("sampled", 0.0)
    if not count:
        return {}
    split = {name: timings[name] / count for name in STAGES if name in timings}
    batches = timings.get("batches", 0.0)
    return {**split, "batch": count / batches} if batches else split


def split_between(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """The same from two answers of /v2/models/M/stats; empty where nothing was executed, or it has another form."""
    try:
        first, last = (_totals(one["model_stats"]) for one in (before, after))
    except (KeyError, TypeError, ValueError):
        return {}
    grown = {name: last[name] - first.get(name, 0.0) for name in last}
    if grown["executions"] <= 0:
        return {}
    split = {name: grown[name] / grown[count] / 1e6 for name, count in _COUNTS.items() if grown[count] > 0}
    return {**split, "batch": grown["rows"] / grown["executions"]}


def _totals(stats: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Over all versions, nanoseconds."""
    totals: Counter[str] = Counter()
    for one in stats:
        inside = one["inference_stats"]
        totals["rows"] += one["inference_count"]
        totals["executions"] += one["execution_count"]
        for name, parts in _PARTS.items():
            totals[name] += sum(inside[part]["ns"] for part in parts)
            totals[_COUNTS[name]] += inside[parts[-1]]["count"]
    return dict(totals)


# Triton counts the copy to the device, and the one back, beside the computing. Each has its own count of requests.
_PARTS = {"queue": ("queue",), "compute": ("compute_input", "compute_infer"), "encode": ("compute_output",)}
_COUNTS = {name: f"{name} count" for name in _PARTS}


def knee(levels: Sequence[Level]) -> Level | None:
    """The least load with nearly the best throughput, or the highest rate that the server keeps up with."""
    measured = [one for one in levels if one.answers]
    if not measured:
        return None
    ascending = sorted(measured, key=lambda one: one.load)
    if ascending[0].is_rate:
        kept = [one for one in ascending if keeps_up(one)]
        return kept[-1] if kept else None
    best = max(one.requests_per_s for one in ascending)
    return next(one for one in ascending if one.requests_per_s >= best * KNEE_SHARE)


def keeps_up(one: Level) -> bool:
    """Whether nearly all requests that were due have a good answer."""
    asked = max(one.sent + one.unsent, one.answers + one.failed, 1)
    return one.answers >= asked * KEPT_SHARE
