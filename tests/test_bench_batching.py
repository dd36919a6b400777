"""The bench's arrivals, its open loop, the verdicts of the batching matrix, and what is drawn of a report."""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from benchmarks import arrivals, batching, open_loop, plots, shapes, wrk
from benchmarks.cells import GOODPUT, OURS, P99, Cell, Seen, good_in, tables
from benchmarks.rounds import Options
from benchmarks.targets import ConstantServer

# -- arrivals ----------------------------------------------------------------------------------------------------------

RATE, SECONDS = 1000.0, 40.0


def gaps(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


@pytest.mark.parametrize("process", [arrivals.EVEN, arrivals.POISSON, arrivals.BURSTY])
def test_the_mean_rate_is_what_was_asked_for(process: str) -> None:
    times = arrivals.times(process, RATE, SECONDS, seed=1)
    assert len(times) == pytest.approx(RATE * SECONDS, rel=0.03)
    assert times == sorted(times)
    assert all(0 <= at < SECONDS for at in times)


def test_poisson_gaps_are_exponential() -> None:
    """Their deviation is their mean, a share of 1/e is longer than it, and the next knows nothing of the last."""
    found = gaps(arrivals.times(arrivals.POISSON, RATE, SECONDS, seed=2))
    mean = statistics.fmean(found)
    assert statistics.pstdev(found) == pytest.approx(mean, rel=0.05)
    assert sum(gap > mean for gap in found) / len(found) == pytest.approx(0.368, abs=0.02)
    assert abs(statistics.correlation(found[:-1], found[1:])) < 0.03


def test_bursts_come_at_nine_times_the_rate_of_the_phases_between_them() -> None:
    times = arrivals.times(arrivals.BURSTY, RATE, SECONDS, seed=3)
    counts = [0] * round(SECONDS / arrivals.PHASE_S)
    for at in times:
        counts[min(int(at / arrivals.PHASE_S), len(counts) - 1)] += 1
    high, low = sorted((sum(counts[::2]), sum(counts[1::2])), reverse=True)
    assert high / low == pytest.approx(arrivals.HIGH / arrivals.LOW, rel=0.1)
    assert high + low == pytest.approx(RATE * SECONDS, rel=0.05)


def test_a_seed_says_when_and_even_arrivals_have_none() -> None:
    for process in (arrivals.POISSON, arrivals.BURSTY):
        once, again, other = (arrivals.times(process, 100, 2, seed) for seed in (5, 5, 6))
        assert once == again != other
    assert arrivals.times(arrivals.EVEN, 4, 1, 1) == [0, 0.25, 0.5, 0.75]
    with pytest.raises(ValueError, match="no arrivals are called hourly"):
        arrivals.times("hourly", 1, 1)


# -- the open loop -----------------------------------------------------------------------------------------------------


def test_one_generator_carries_out_many_orders_and_says_how_late_it_was(tmp_path: Path) -> None:
    bodies = wrk.Bodies.write(tmp_path / "bodies", [b"{}"], "application/json")
    with ConstantServer(1) as constant, open_loop.Generator() as generator:
        for seed in range(2):
            order = open_loop.order_of(
                f"{constant.url}/predict",
                bodies,
                rate=200,
                seconds=0.5,
                connections=8,
                process=arrivals.POISSON,
                seed=seed,
                deadline_ms=60_000,
            )
            load = generator.load(order)
            due = len(arrivals.times(arrivals.POISSON, 200, 0.5, seed))
            assert (load.requests, load.within, load.due, load.errors) == (due, due, due, 0)
            assert 0 < load.p50_ms <= load.p99_ms <= load.max_ms
            assert load.late_ms >= 0
            assert load.cpu_ms_per_request > 0


def test_what_comes_after_the_deadline_is_not_within_it(tmp_path: Path) -> None:
    bodies = wrk.Bodies.write(tmp_path / "bodies", [b"{}"], "application/json")
    with ConstantServer(1) as constant, open_loop.Generator() as generator:
        url = f"{constant.url}/predict"
        load = generator.load(open_loop.order_of(url, bodies, rate=50, seconds=0.2, connections=2, deadline_ms=0.001))
    assert (load.requests, load.within) == (10, 0)


def test_what_cannot_be_sent_in_time_is_not_answered(tmp_path: Path) -> None:
    """How a capacity is found: more is due than can be answered, and no more is sent when the time is over."""
    bodies = wrk.Bodies.write(tmp_path / "bodies", [b"{}"], "application/json")
    with ConstantServer(1) as constant, open_loop.Generator() as generator:
        url = f"{constant.url}/predict"
        load = generator.load(open_loop.order_of(url, bodies, rate=200_000, seconds=0.2, connections=4, give_up_s=0.0))
    assert 0 < load.requests < load.due == 40_000
    assert load.errors == load.due - load.requests


# -- verdicts ----------------------------------------------------------------------------------------------------------

BIG, SMALL = "size 64, wait 0 ms", "size 16, wait 30 ms"


def cell(**goodputs: Sequence[float]) -> Cell:
    """Six rounds of each setting; p99 is what is missing to a goodput of 1, times 100."""
    names = {"ours": OURS, "big": BIG, "small": SMALL}
    legs = {names[name]: [Seen(value, (1 - value) * 100) for value in values] for name, values in goodputs.items()}
    return Cell("small", 0.5, "poisson", legs)


NOISY = [0.90, 0.97, 0.93, 0.95, 0.94, 0.92]


def test_the_best_fixed_setting_is_not_ours() -> None:
    one = cell(ours=[0.99] * 6, big=[0.9] * 6, small=[0.8] * 6)
    assert (one.best(GOODPUT), one.best(P99)) == (BIG, BIG)
    assert one.is_as_good_in_both(OURS)


@pytest.mark.parametrize(
    ("ours", "as_good"),
    [
        ([value - 0.1 for value in NOISY], False),  # always worse
        ([value - 0.001 for value in NOISY], True),  # hardly worse
        ([0.95, 0.91, 0.95, 0.92, 0.96, 0.90], True),  # now better, now worse
        ([value + 0.02 for value in NOISY], True),
    ],
    ids=["always worse", "hardly worse", "now better, now worse", "better"],
)
def test_noise_is_what_the_rounds_differ_by(ours: list[float], as_good: bool) -> None:
    assert cell(ours=ours, big=NOISY, small=[0.5] * 6).is_as_good_in_both(OURS) is as_good


def test_each_setting_is_counted_and_each_cell_told() -> None:
    cells = [
        cell(ours=[0.9] * 6, big=[0.9] * 6, small=[0.5] * 6),
        cell(ours=[0.9] * 6, big=[0.5] * 6, small=[0.9] * 6),
    ]
    assert good_in(cells) == {OURS: 2, BIG: 1, SMALL: 1}
    by_cell, by_setting = tables(cells)
    assert [row[-1] for row in by_cell] == ["within noise", "yes", "yes"]
    assert by_cell[1][1:4] == ["90.0 (90.0 to 90.0)", "90.0 (90.0 to 90.0)", BIG]
    assert by_setting[1] == [OURS, "2"]


def test_the_matrix_has_every_size_with_every_wait_and_ours_without_either(tmp_path: Path) -> None:
    options = Options(6, 1, 1, 5, quick=False, scratch=tmp_path, say=lambda text: None)
    settings = batching.settings_of(options)
    assert len(settings) == 11
    assert settings[OURS] == {}
    assert settings["size 16, wait 3 ms"] == {"BATCH_MAX_SIZE": "16", "BATCH_MAX_WAIT_MS": "3"}


def test_a_models_cost_is_a_line_through_what_was_seen() -> None:
    cost = shapes.Cost({1: 1.1, 16: 2.6, 64: 7.4})
    assert cost.fixed == pytest.approx(1.0)
    assert cost.by_row == pytest.approx(0.1)
    assert cost.by_row_share == pytest.approx(6.4 / 7.4)
    assert str(cost) == "1.00 ms + 0.100 ms a row (1 rows 1.10 ms, 16 rows 2.60 ms, 64 rows 7.40 ms)"


# -- plots -------------------------------------------------------------------------------------------------------------


def leg(name: str, concurrency: int | None, rate: float) -> dict[str, Any]:
    figures = {"requests_per_s": rate, "p99_ms": 5.0, "cpu_ms_per_request": 0.1}
    spread = {column: [value * 0.9, value * 1.1] for column, value in figures.items()}
    return {"name": name, "concurrency": concurrency, "median": figures, "range": spread}


def canned() -> dict[str, Any]:
    made = [leg(name, c, rate) for c in (1, 64) for name, rate in (("ours", 2000.0), ("<peer> & co", 100.0))]
    cells = [cell(ours=[0.9] * 6, big=[0.5] * 6, small=[0.8] * 6).to_json()]
    return {"title": "Beside <others>", "legs": [*made, leg("loop", None, 5.0)], "cells": cells}


def test_a_report_is_drawn_as_svg_that_parses(tmp_path: Path) -> None:
    made = plots.draw(canned(), tmp_path / "latest-peers")
    assert sorted(path.name for path in made) == [
        f"latest-peers-{name}.svg" for name in ("cpu", "goodput", "latency", "p99", "throughput")
    ]
    names = {"svg": "http://www.w3.org/2000/svg"}
    for path in made:
        root = ET.fromstring(path.read_text())  # noqa: S314 - our own
        width = float(root.attrib["width"])
        bars = [one for one in root.iterfind("svg:rect", names) if "class" in one.attrib]
        assert bars
        assert all(float(one.attrib["x"]) + float(one.attrib["width"]) <= width for one in bars)
        assert any(one.attrib["class"] == "ours" for one in bars)


def test_bars_are_as_long_as_their_figures_and_carry_their_names(tmp_path: Path) -> None:
    panels, columns = plots.legs(canned(), "requests_per_s", "requests/s")
    assert ([panel.title for panel in panels], columns) == (["requests/s at c=1", "requests/s at c=64"], 2)
    text = plots.svg("Title", panels, columns)
    root = ET.fromstring(text)  # noqa: S314 - our own
    names = {"svg": "http://www.w3.org/2000/svg"}
    long, short = [float(one.attrib["width"]) for one in root.iterfind("svg:rect", names) if "class" in one.attrib][:2]
    assert long / short == pytest.approx(20, rel=0.01)
    assert [one.text for one in root.iterfind("svg:text", names)][1:5] == ["ours", "2,000", "<peer> & co", "100"]


def test_a_report_without_bars_is_not_drawn(tmp_path: Path) -> None:
    assert plots.draw({"title": "Nothing", "legs": [leg("loop", None, 5.0)]}, tmp_path / "x") == []
