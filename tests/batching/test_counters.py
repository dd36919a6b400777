"""Counters in one process: what is counted, folded and refused."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching import counter_file, counters, families
from batching.counters import Counters
from batching.families import OVERFLOW
from tests.batching.counting import M1, attached, m1

ROWS, BATCHES = "inference_rows_total", "inference_batches_total"
SECONDS, SIZES = "inference_compute_seconds", "inference_batch_rows"


# What is counted


def test_a_count_is_seen_by_whoever_attaches(shared: Counters) -> None:
    reader = attached(shared)
    cell = attached(shared).slot(1).counter(ROWS, **M1)
    cell.add()
    cell.add(4)
    assert reader.read()[m1(ROWS)] == shared.read()[m1(ROWS)] == [5.0]


def test_the_raw_cell_is_the_same_cell(shared: Counters) -> None:
    slot = shared.slot(1)
    cell = slot.counter(ROWS, **M1)
    slot.values[cell.index] += 2
    cell.add(1)
    assert shared.read()[m1(ROWS)] == [3.0]


def test_counts_of_all_processes_add_up_and_of_one_series_asked_for_twice(shared: Counters) -> None:
    for index in range(4):
        slot = attached(shared).slot(index)
        slot.counter(ROWS, model="m", version=1).add(10)
        slot.counter(ROWS, version="1", model="m").add(1)
    assert shared.read()[m1(ROWS)] == [44.0]


def test_a_process_that_opens_its_slot_again_goes_on_where_it_was(shared: Counters) -> None:
    for names in ((ROWS, BATCHES), (BATCHES, ROWS)):
        slot = attached(shared).slot(1)
        for name in names:
            slot.counter(name, **M1).add({ROWS: 1, BATCHES: 10}[name])
    assert shared.read() == {(OVERFLOW, ()): [0.0], m1(ROWS): [2.0], m1(BATCHES): [20.0]}


def test_a_histogram_s_bounds_are_inclusive_and_its_last_bucket_has_none(shared: Counters) -> None:
    histogram = shared.slot(1).histogram(SIZES, **M1)
    for rows in (1, 2, 3, 1024, 1025, 5000):
        histogram.observe(rows)
    total, *buckets = shared.read()[m1(SIZES)]
    assert total == 1 + 2 + 3 + 1024 + 1025 + 5000
    filled = dict(zip([*families.ROWS, "above"], buckets, strict=True))
    assert {bound: n for bound, n in filled.items() if n} == {1.0: 1, 2.0: 1, 4.0: 1, 1024.0: 1, "above": 2}


def test_a_sum_of_seconds_is_right_to_half_a_microsecond_each(shared: Counters) -> None:
    histogram = shared.slot(1).histogram(SECONDS, **M1)
    values = [0.0003 + n * 1.7e-5 for n in range(1000)]
    for value in values:
        histogram.observe(value)
    assert shared.read()[m1(SECONDS)][0] == pytest.approx(sum(values), abs=1000 * 0.5e-6)


@pytest.mark.parametrize("rows", [(3,), (3, 4, 3), (1, 2, 3, 1024, 5000)], ids=["one", "one bucket", "several"])
def test_values_observed_at_once_count_as_if_observed_one_by_one(shared: Counters, rows: Sequence[float]) -> None:
    one_by_one = shared.slot(1).histogram(SIZES, **M1)
    at_once = shared.slot(1).histogram(SIZES, model="m", version="2")
    for value in rows:
        one_by_one.observe(value)
    at_once.observe_all(list(rows))
    read = shared.read()
    assert read[SIZES, ("m", "2")] == read[m1(SIZES)]


def test_a_gauge_is_the_sum_over_living_processes(shared: Counters) -> None:
    gauges = [attached(shared).slot(index).gauge("inference_in_flight") for index in (1, 2)]
    gauges[0].set(7)
    gauges[1].set(5)
    gauges[1].add(-2)
    assert shared.read()["inference_in_flight", ()] == [10.0]
    shared.fold(1)
    assert shared.read()["inference_in_flight", ()] == [3.0]
    shared.fold(2)
    assert ("inference_in_flight", ()) not in shared.read()


def test_threads_of_one_process_may_share_a_cell(shared: Counters) -> None:
    slot = shared.slot(1)
    cell, histogram = slot.counter(ROWS, **M1), slot.histogram(SIZES, **M1)

    def work() -> None:
        for _ in range(20_000):
            cell.add()
            histogram.observe(3)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert shared.read()[m1(ROWS)] == [80_000.0]
    assert shared.read()[m1(SIZES)][:4] == [240_000.0, 0.0, 0.0, 80_000.0]


# Folding


def test_folding_changes_no_total_and_frees_the_slot(shared: Counters) -> None:
    reader = attached(shared)
    for generation in range(1, 4):
        slot = attached(shared).slot(1)
        slot.counter(ROWS, **M1).add(100)
        slot.histogram(SECONDS, model="m", version=generation).observe(0.25)
        before = reader.read()
        shared.fold(1)
        assert reader.read() == shared.read() == before
        assert before[m1(ROWS)] == [100.0 * generation]


def test_a_reader_that_attaches_late_sees_what_was_folded_before(shared: Counters) -> None:
    shared.slot(1).counter(ROWS, **M1).add(3)
    shared.fold(1)
    assert attached(shared).read() == shared.read()


def test_folding_a_slot_that_nobody_used_changes_nothing(shared: Counters) -> None:
    shared.slot(1).counter(ROWS, **M1).add(3)
    before = shared.read()
    for _ in range(3):
        shared.fold(2)
    assert shared.read() == before


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(0, 1e5), max_size=6), min_size=1, max_size=4))
def test_no_rounding_shows_when_slots_move_into_the_totals(observed: Sequence[Sequence[float]]) -> None:
    # Prometheus takes the smallest decrease for a restart, and would count the whole sum again.
    shared = Counters.create(4)
    for index, values in enumerate(observed):
        histogram = shared.slot(index).histogram(SECONDS, **M1)
        for value in values:
            histogram.observe(value)
    before = shared.read()
    for index in reversed(range(len(observed))):
        shared.fold(index)
        assert shared.read() == before
    shared.close()


# Limits


def test_series_that_do_not_fit_are_counted_and_harm_no_other(shared: Counters) -> None:
    slot = shared.slot(1)
    kept = slot.counter(ROWS, **M1)
    taken = 0
    while shared.read()[OVERFLOW, ()] == [0.0]:
        slot.histogram(SECONDS, model=f"m{taken}", version=1).observe(1)
        taken += 1
    slot.histogram(SECONDS, model="one more", version=1).observe(1)
    slot.counter(BATCHES, model="another", version=1).add(1000)
    kept.add(3)
    read = shared.read()
    assert taken > 400
    assert read[m1(ROWS)] == [3.0]
    assert {sum(numbers[1:]) for (name, _), numbers in read.items() if name == SECONDS} == {1.0}
    # A counter still fits where a histogram does not.
    assert read[BATCHES, ("another", "1")] == [1000.0]
    assert read[OVERFLOW, ()] == [2.0]
    shared.fold(1)
    assert shared.read() == read


def test_long_labels_overflow_too(shared: Counters) -> None:
    slot = shared.slot(1)
    for n in range(4):
        slot.counter(ROWS, model=f"{n}" * 100_000, version=1).add(1)
    read = shared.read()
    assert read[OVERFLOW, ()] == [2.0]
    assert [numbers for (name, _), numbers in read.items() if name == ROWS] == [[1.0], [1.0]]


def test_totals_without_room_count_what_they_lose(shared: Counters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_totals", counter_file.Keys(3))
    slot = shared.slot(1)
    for model in "abcd":
        slot.counter(ROWS, model=model, version=1).add(1)
    shared.fold(1)
    read = shared.read()
    assert read == {(OVERFLOW, ()): [2.0], (ROWS, ("a", "1")): [1.0], (ROWS, ("b", "1")): [1.0]}
    assert attached(shared).read() == read


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_any_label_comes_back_as_it_was(labels: list[tuple[str, str]]) -> None:
    shared = Counters.create(2)
    for model, version in labels:
        shared.slot(1).counter(ROWS, model=model, version=version).add(1)
    for _ in range(2):
        read = attached(shared).read()
        assert {key: numbers[0] for (name, key), numbers in read.items() if name == ROWS} == {
            pair: labels.count(pair) for pair in labels
        }
        shared.fold(1)
    shared.close()


def test_a_lone_surrogate_in_a_label_is_written_out(shared: Counters) -> None:
    shared.slot(1).counter(ROWS, model="a\ud800", version=1).add(1)
    assert shared.read()[ROWS, ("a\\ud800", "1")] == [1.0]


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda slot: slot.counter("inference_nothing_total"), id="a name that is not in the table"),
        pytest.param(lambda slot: slot.counter(ROWS, model="m"), id="a label missing"),
        pytest.param(lambda slot: slot.counter(ROWS, **M1, route="/"), id="a label too many"),
        pytest.param(lambda slot: slot.gauge(ROWS, **M1), id="a counter asked for as a gauge"),
        pytest.param(lambda slot: slot.counter(SECONDS, **M1), id="a histogram asked for as a counter"),
    ],
)
def test_a_series_that_the_table_does_not_have_is_a_value_error(
    shared: Counters, ask: Callable[[counters.Slot], object]
) -> None:
    slot = shared.slot(1)
    slot.counter(ROWS, **M1)
    slot.histogram(SECONDS, **M1)
    with pytest.raises(ValueError, match="there is no"):
        ask(slot)
