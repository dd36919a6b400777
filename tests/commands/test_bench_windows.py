"""The arithmetic of windows: percentiles, when a load has lasted long enough, where the knee is."""

from __future__ import annotations

import random
from array import array
from typing import Any

import numpy as np
import pytest

from commands.bench_plot import draw
from commands.bench_report import notes, sentence
from commands.bench_windows import Level, is_stable, keeps_up, knee, level, percentile, split_between, split_of
from commands.load import Window


def window(*latencies_ms: float, count: int = 100, **told: Any) -> Window:
    """`count` answers in a second, of these latencies in turn."""
    made = Window()
    seconds = array("d", [latencies_ms[n % len(latencies_ms)] / 1000 for n in range(count)] if latencies_ms else [])
    plain = {
        "seconds": 1.0, "cpu_s": 0.1, "failures": {}, "timings": {}, "sent": 0, "delayed": 0, "unsent": 0, "opened": 0,
        "late_max_s": 0.0,
    }  # fmt: skip
    made.add({**plain, **told}, seconds)
    return made


def at(load: float, *windows: Window, is_rate: bool = False, **more: Any) -> Level:
    options: dict[str, Any] = {"rows": 1, "share": None, "deadline_ms": None, **more}
    return level(windows, load=load, is_rate=is_rate, **options)


def test_a_percentile_is_one_of_the_values_by_the_nearest_rank() -> None:
    chance = random.Random(7)
    for count in (1, 2, 3, 10, 99, 100, 101, 1000):
        values = sorted(chance.random() for _ in range(count))
        for share in (0.1, 50, 75, 90, 95, 99, 100):
            assert percentile(values, share) == np.percentile(values, share, method="inverted_cdf")


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


@pytest.mark.parametrize(
    ("windows", "share", "expected"),
    [
        ([window(10), window(10)], None, False),
        ([window(10), window(10), window(10)], None, True),
        ([window(50), window(10), window(10), window(10)], None, True),
        ([window(10), window(10), window(10), window(50)], None, False),
        ([window(10), window(10.5), window(11)], None, True),
        ([window(10), window(10.5), window(11.2)], None, False),
        ([window(10, count=100), window(10, count=105), window(10, count=110)], None, True),
        ([window(10, count=100), window(10, count=105), window(10, count=112)], None, False),
        ([window(10), window(), window(10)], None, False),
        ([window(10, 10, 10, 50), window(20), window(20)], None, True),
        ([window(10, 10, 10, 50), window(20), window(20)], 99, False),
        ([window(10, 10, 10, 50), window(10, 10, 10, 40), window(10, 10, 10, 30)], 50, True),
    ],
    ids=[
        "two are too few", "three that agree", "what was before does not count", "the last one differs",
        "latencies within 10 %", "latencies beyond it", "rates within 10 %", "rates beyond it", "an empty one",
        "the average agrees", "the percentile does not", "the percentile agrees, the average does not",
    ],
)  # fmt: skip
def test_when_a_load_has_lasted_long_enough(windows: list[Window], share: float | None, expected: bool) -> None:
    assert is_stable(windows, share) == expected


def test_a_level_is_what_its_last_three_windows_add_up_to() -> None:
    failing = window(10, count=100, failures={"503 OVERLOADED": 2})
    found = at(4, window(500, failures={"504": 1}), failing, failing, window(10, 30), rows=8, deadline_ms=20)
    assert found.answers == 300
    assert found.requests_per_s == 100
    assert found.rows_per_s == 800
    assert found.failures == {"503 OVERLOADED": 4}
    assert (found.failed, found.failed_before, found.trials) == (4, 1, 4)
    assert found.percentiles_ms == {"50": 10, "90": 30, "95": 30, "99": 30}
    assert found.max_ms == 30
    assert found.within == 250
    assert found.goodput_per_s == pytest.approx(250 / 3)
    assert not found.is_stable


def test_failures_alone_are_a_level_without_latencies() -> None:
    found = at(1, *[window(failures={"500": 9})] * 3)
    assert (found.answers, found.failed, found.percentiles_ms, found.is_stable) == (0, 27, {}, False)
    assert sentence([found]) == "There was no good answer."


def test_parts_of_several_generators_add_up_each_by_its_own_clock() -> None:
    both = window(10, count=100)
    more = window(20, count=50)
    both.add(
        {"seconds": 0.5, "cpu_s": 0.4, "failures": {"500": 1}, "timings": {"queue": 1.0}, "sent": 1, "delayed": 1,
         "unsent": 2, "opened": 3, "late_max_s": 0.1},
        more.latencies,
    )  # fmt: skip
    assert both.requests_per_s == 200
    assert len(both.latencies) == 150
    assert (both.busiest, both.unsent, both.opened, both.failures) == (0.8, 2, 3, {"500": 1})


@pytest.mark.parametrize(
    ("rates", "place", "words"),
    [
        ([100, 400, 500, 505], 4, "The knee is at 4 connections"),
        ([100, 200, 400, 800], 8, "still rises at 8 connections"),
        ([100, 800, 400, 300], 2, "The knee is at 2 connections"),
        ([100], 1, "100 requests/s at 1 connection."),
    ],
    ids=["flat in the end", "never flat", "it falls", "one load"],
)
def test_the_knee_is_the_least_load_with_nearly_the_best_rate(rates: list[int], place: int, words: str) -> None:
    levels = [at(2**n, *[window(10, count=rate)] * 3) for n, rate in enumerate(rates)]
    found = knee(levels)
    assert found is not None
    assert found.load == place
    assert words in sentence(levels)


def test_the_highest_rate_that_is_kept_up_with_is_found() -> None:
    kept = at(100, *[window(10, count=100, sent=100)] * 3, is_rate=True)
    behind = at(200, *[window(10, count=150, sent=150, unsent=50)] * 3, is_rate=True)
    refused = at(300, *[window(10, count=200, sent=300, failures={"503": 100})] * 3, is_rate=True)
    assert [keeps_up(one) for one in (kept, behind, refused)] == [True, False, False]
    assert knee([behind, kept, refused]) is kept
    assert sentence([kept, behind]) == "It keeps up with 100 requests/s (p99 10.0 ms), not with 200."
    assert sentence([behind]) == "It keeps up with none of these rates."


def test_what_is_to_be_doubted_is_said() -> None:
    loose = at(8, window(10), window(50), window(10, cpu_s=0.85, opened=2))
    (stable, busy, closed) = notes([loose], 1, 1.0)
    assert stable.startswith("not stable at 8:")
    assert "85% of a core" in busy
    assert "closed 2 of them" in closed
    late = at(100, *[window(10, sent=100, delayed=50, late_max_s=0.2, unsent=7)] * 3, is_rate=True)
    (delayed, unsent) = notes([late], 1, 1.0)
    assert "50% of the requests left over 1 ms after they were due (at most 200 ms)" in delayed
    assert "7 requests that were due could not leave" in unsent
    assert notes([at(1, *[window(10)] * 3)], 1, 1.0) == []


def test_what_servers_say_of_themselves_is_taken_from_either_place() -> None:
    # Three requests of one batch of 3, and one alone: two batches.
    assert split_of({"sampled": 4, "queue": 8.0, "total": 12.0, "batches": 2.0}) == {"queue": 2, "total": 3, "batch": 2}
    assert split_of({}) == {}

    def stats(rows: int, calls: int, ns: int) -> dict[str, Any]:
        each = {name: {"count": rows, "ns": ns} for name in ("queue", "compute_input", "compute_infer")}
        inside = {**each, "compute_output": {"count": 0, "ns": 0}}
        return {"model_stats": [{"inference_count": rows, "execution_count": calls, "inference_stats": inside}]}

    assert split_between(stats(10, 5, 10_000_000), stats(30, 10, 30_000_000)) == {"queue": 1, "compute": 2, "batch": 4}
    assert split_between(stats(1, 1, 1), stats(1, 1, 1)) == {}
    assert split_between({}, stats(1, 1, 1)) == {}
    assert split_between({"model_stats": "?"}, {"model_stats": [{}]}) == {}


def test_a_picture_has_a_point_for_each_load_and_hollow_ones_where_it_was_not_stable() -> None:
    from xml.etree import ElementTree as ET

    drawn = draw("a <model> & more", [at(1, *[window(10)] * 3), at(4, window(10), window(50), window(10))])
    root = ET.fromstring(drawn)  # noqa: S314 - our own
    points = [one.get("class") or "" for one in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert len(points) == 6  # throughput, p50 and p99 of two loads
    assert sum("loose" in one for one in points) == 3
    assert root.findtext("{http://www.w3.org/2000/svg}title") == "a <model> & more"
