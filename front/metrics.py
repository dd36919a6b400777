"""The counters as Prometheus reads them: its text format 0.0.4, written by hand. Owns that translation.

Knows nothing of routes, nor of where the numbers lie. What is only known at the moment of asking is asked here: how
long the oldest item has waited (the workers' vital signs), and which version of the program this is.

prometheus-client took 7 us a line for the same text, ten times as long, and the loop of a front stands still meanwhile.
Its parser is what the tests read this with.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate

from batching.counters import Counters
from batching.families import HISTOGRAM, METRICS, Metric
from front.catalog import ActiveWorker

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Family = dict[tuple[str, ...], list[float]]
"""Label values -> numbers, as batching.counters has them."""


def render(counters: Counters, workers: Iterable[ActiveWorker] = (), version: str = "") -> tuple[bytes, str]:
    """The body of an answer and its content type: every family of the table; one without labels begins at 0.

    workers: those that serve. version: of this program.
    """
    families: dict[str, Family] = defaultdict(dict)
    for (name, labels), numbers in counters.read().items():
        families[name][labels] = numbers
    families["inference_queue_oldest_seconds"] = _oldest(counters, workers)
    families["inference_build_info"] = {(version,): [1.0]} if version else {}
    lines: list[str] = []
    for metric in METRICS:
        lines.append(f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n")
        series = families[metric.name]
        if not metric.labels:
            series.setdefault((), [0.0] * metric.width)
        add = _add_histogram if metric.kind == HISTOGRAM else _add_number
        for labels, numbers in series.items():
            add(lines, metric, labels, numbers)
    return "".join(lines).encode(), CONTENT_TYPE


def _oldest(counters: Counters, workers: Iterable[ActiveWorker]) -> Family:
    """Of each group the longest wait in any of its workers."""
    now = time.monotonic_ns()
    found: Family = {}
    for worker in workers:
        arrived = counters.vitals(worker.slot).oldest
        waits_s = max(now - arrived, 0) / 1e9 if arrived else 0.0
        (longest,) = found.get((worker.group,), [0.0])
        found[worker.group,] = [max(longest, waits_s)]
    return found


def _add_number(lines: list[str], metric: Metric, labels: tuple[str, ...], numbers: list[float]) -> None:
    said = _labels(metric, labels)
    lines.append(f"{metric.name}{{{said}}} {numbers[0]}\n" if said else f"{metric.name} {numbers[0]}\n")


def _add_histogram(lines: list[str], metric: Metric, labels: tuple[str, ...], numbers: list[float]) -> None:
    """Each bucket with all below it, then the count and the sum."""
    total, *counts = numbers
    said = _labels(metric, labels)
    start = f"{metric.name}_bucket{{{said},le=" if said else f"{metric.name}_bucket{{le="
    up_to = 0.0
    for bound, up_to in zip((*metric.buckets, "+Inf"), accumulate(counts), strict=True):
        lines.append(f'{start}"{bound}"}} {up_to}\n')
    lines.append(f"{metric.name}_count{{{said}}} {up_to}\n{metric.name}_sum{{{said}}} {total}\n")


def _labels(metric: Metric, values: tuple[str, ...]) -> str:
    """In the order of their names."""
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in sorted(zip(metric.labels, values, strict=True))])


def _escaped(value: str) -> str:
    if value.isalnum():
        return value
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
