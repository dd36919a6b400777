"""Counters cut short, or looked at, before every single bytecode instruction of a writer, a reader and a fold."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from types import FrameType
from typing import Any

import pytest

from batching import counter_file, counters
from batching.counters import Counters
from batching.families import OVERFLOW, Series
from tests.batching.counting import M1, attached, m1

CODE = {counters.__file__, counter_file.__file__}
ROWS, BATCHES = "inference_rows_total", "inference_batches_total"
SECONDS, SIZES = "inference_compute_seconds", "inference_batch_rows"


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
        # What the slot's last process left in it must never shine through: its gauges ended with it.
        for model in "abcdef":
            shared.slot(1).gauge("inference_queue_rows", model=model).set(1)
        shared.fold(1)
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
    assert seen == [order[:n] for n in range(1, 5)]
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
