"""Counters in one process: what is counted, folded and refused, and being cut short at every single instruction."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from types import FrameType
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching import counter_file, counters, families
from batching.counters import Counters
from batching.families import OVERFLOW, Series

CODE = {counters.__file__, counter_file.__file__}
ROWS, BATCHES = "inference_rows_total", "inference_batches_total"
SECONDS, SIZES = "inference_compute_seconds", "inference_batch_rows"
M1 = {"model": "m", "version": "1"}


def m1(name: str) -> Series:
    return name, ("m", "1")


@pytest.fixture
def shared() -> Iterator[Counters]:
    made = Counters.create(4)
    yield made
    made.close()


def attached(to: Counters) -> Counters:
    """As another process would see it. The descriptor stays the creator's."""
    return Counters.attach(to.fd)


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


# Cut short at every instruction


class Killed(BaseException):
    """Stands for SIGKILL at one instruction: nothing after it runs."""


def interrupted(run: Callable[[], object], step: Callable[[int], None]) -> None:
    """Call `run`, and `step(n)` before its n-th bytecode instruction in the code of the counters."""
    numbers = count()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in CODE:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            step(next(numbers))
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(previous)


def at(number: int, act: Callable[[], object]) -> Callable[[int], None]:
    def step(n: int) -> None:
        if n == number:
            act()

    return step


def kill() -> None:
    raise Killed


def points(run: Callable[[], object]) -> range:
    """The numbers of all instructions of one run."""
    numbers: list[int] = []
    interrupted(run, numbers.append)
    assert len(numbers) > 100, "nothing was traced"
    return range(len(numbers))


def test_a_writer_killed_at_any_instruction_leaves_a_slot_that_reads_and_folds() -> None:
    def write(to: Counters) -> None:
        slot = to.slot(1)
        slot.counter(ROWS, **M1).add(5)
        slot.histogram(SIZES, **M1).observe(8)
        slot.counter(BATCHES, **M1).add(2)

    spare = Counters.create(2)
    seen: list[list[Series]] = []
    for number in points(lambda: write(spare)):
        shared = Counters.create(2)
        writer = attached(shared)
        with pytest.raises(Killed):
            interrupted(lambda: write(writer), at(number, kill))  # noqa: B023
        read = attached(shared).read()
        if list(read) not in seen:
            seen.append(list(read))
        assert read.get(m1(ROWS), [0.0])[0] in (0.0, 5.0)
        if m1(BATCHES) in read:
            assert (read[m1(ROWS)], sum(read[m1(SIZES)][1:])) == ([5.0], 1.0)
        shared.fold(1)
        assert shared.read() == read
        attached(shared).slot(1).counter(ROWS, **M1).add(1)
        assert shared.read()[m1(ROWS)][0] == read.get(m1(ROWS), [0.0])[0] + 1
        shared.close()
    order = [(OVERFLOW, ()), m1(ROWS), m1(SIZES), m1(BATCHES)]
    assert seen == [order[:n] for n in range(5)]
    spare.close()


def test_a_reader_at_any_instruction_of_a_fold_sees_the_same_totals(shared: Counters) -> None:
    for index in (1, 2):
        slot = shared.slot(index)
        slot.counter(ROWS, **M1).add(7)
        slot.histogram(SECONDS, **M1).observe(0.3)
        shared.fold(index)
        slot = shared.slot(index)
        slot.counter(ROWS, **M1).add(7)
        slot.counter(BATCHES, model=f"new{index}", version=1).add(1)
    old, readings = attached(shared), 0
    before = old.read()

    def look(_: int) -> None:
        nonlocal readings
        readings += 1
        assert old.read() == attached(shared).read() == before

    interrupted(lambda: shared.fold(1), look)
    interrupted(lambda: shared.fold(2), look)
    assert readings > 500


def test_a_reader_sees_the_same_totals_when_a_fold_and_a_new_writer_fall_into_any_of_its_instructions() -> None:
    def filled() -> tuple[Counters, Counters]:
        shared = Counters.create(3)
        for index in (1, 2):
            shared.slot(index).counter(ROWS, **M1).add(7)
        shared.fold(2)
        shared.slot(2).counter(ROWS, **M1).add(7)
        return shared, attached(shared)

    def disturb(shared: Counters) -> None:
        for index in (1, 2, 1):
            shared.fold(index)
            # The same bytes of the slot now mean something else.
            shared.slot(index).histogram(SIZES, **M1).observe(1)

    shared, reader = filled()
    numbers = points(reader.read)
    shared.close()
    for number in numbers:
        shared, reader = filled()
        if number % 2:
            reader.read()  # a reader that knows the keys from before takes other branches
        found: list[dict[Series, list[float]]] = []
        interrupted(lambda: found.append(reader.read()), at(number, lambda: disturb(shared)))  # noqa: B023
        assert found[0][m1(ROWS)] == [21.0]
        assert sum(found[0].get(m1(SIZES), [0.0])[1:]) in (0.0, 3.0)
        assert reader.read() == shared.read()
        shared.close()


def test_a_supervisor_killed_at_any_instruction_of_a_fold_leaves_its_readers_the_same_totals() -> None:
    def filled() -> Counters:
        shared = Counters.create(3)
        shared.slot(1).counter(ROWS, **M1).add(7)
        shared.fold(1)
        slot = shared.slot(1)
        slot.counter(ROWS, **M1).add(7)
        slot.histogram(SIZES, **M1).observe(1)
        return shared

    shared = filled()
    numbers = points(lambda: shared.fold(1))
    shared.close()
    for number in numbers:
        shared = filled()
        survivor = attached(shared)
        before = survivor.read()
        with pytest.raises(Killed):
            interrupted(lambda: shared.fold(1), at(number, kill))  # noqa: B023
        assert survivor.read() == attached(survivor).read() == before
        survivor.slot(2).counter(ROWS, **M1).add(1)
        assert survivor.read()[m1(ROWS)] == [15.0]
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


# The file


def test_only_the_creator_folds_and_only_its_own_slot_is_writable_elsewhere(shared: Counters) -> None:
    other = attached(shared)
    other.slot(1).counter(ROWS, **M1).add(1)
    with pytest.raises(ValueError, match="only the creator"):
        other.fold(1)
    for part in (*other._file.slots, *other._file.records):
        assert part.values.readonly
        assert part.words.readonly
    assert other._file.header.readonly
    assert other._file.text.readonly


@pytest.mark.parametrize("index", [-1, 4, 1000])
def test_a_slot_that_does_not_exist_is_a_value_error(shared: Counters, index: int) -> None:
    with pytest.raises(ValueError, match="there is no slot"):
        shared.slot(index)
    with pytest.raises(ValueError, match="there is no slot"):
        shared.fold(index)


def test_what_is_no_counters_file_is_refused(shared: Counters, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "zeros").write_bytes(bytes(100_000))
    (tmp_path / "short").write_bytes(os.pread(shared.fd, 100_000, 0))
    for name in ("empty", "zeros", "short"):
        with (tmp_path / name).open("rb+") as file, pytest.raises(ValueError, match="no counters file"):
            Counters.attach(file.fileno())
    monkeypatch.setattr(counter_file, "_LAYOUT", 1)
    with pytest.raises(ValueError, match="another version"):
        Counters.attach(shared.fd)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, counter_file.SLOT_BYTES - 1), st.binary(min_size=1, max_size=64)), max_size=8))
def test_a_slot_spoilt_by_its_process_harms_no_other(scribbles: list[tuple[int, bytes]]) -> None:
    shared = Counters.create(3)
    shared.slot(1).counter(ROWS, **M1).add(5)
    slot = shared.slot(2)
    slot.counter(BATCHES, model="bad", version=1).add(5)
    spoilt = slot._part
    for offset, garbage in scribbles:
        # Most of a slot is never read: aim at its words, its first values and its first keys as well.
        for place in (offset, offset % 256, counter_file.GRANULE + offset % 256):
            os.pwrite(shared.fd, garbage, counter_file.SLOTS_AT + 2 * counter_file.SLOT_BYTES + place)
    spoilt.words[counter_file.LENGTH] |= 200
    assert attached(shared).read()[m1(ROWS)] == [5.0]
    shared.fold(2)
    shared.fold(1)
    assert shared.read()[m1(ROWS)] == [5.0]
    assert all(0 <= n < 2.0**54 for numbers in shared.read().values() for n in numbers)
    shared.slot(2).counter(ROWS, **M1).add(1)
    assert attached(shared).read()[m1(ROWS)] == shared.read()[m1(ROWS)] == [6.0]
    shared.close()


def test_without_memfd_an_unlinked_file_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shared = Counters.create(3)
    attached(shared).slot(1).counter(ROWS, **M1).add(1)
    shared.fold(1)
    assert attached(shared).read()[m1(ROWS)] == [1.0]
    assert list(tmp_path.iterdir()) == []
    shared.close()


def test_closing_leaves_no_descriptor_and_no_dead_cell() -> None:
    gc.collect()
    before = psutil.Process().num_fds()
    shared = Counters.create(3)
    cell = shared.slot(1).counter(ROWS, **M1)
    shared.read()
    shared.close()
    cell.add()
    assert cell.values[cell.index] == 1.0
    del shared, cell
    gc.collect()
    assert psutil.Process().num_fds() == before


def test_a_file_for_64_processes_takes_little_memory_until_it_is_used() -> None:
    shared = Counters.create(64)
    shared.slot(1).counter(ROWS, **M1).add(1)
    attached(shared).read()
    assert os.fstat(shared.fd).st_blocks * 512 < 1024 * 1024
    shared.close()
