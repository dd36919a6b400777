"""A worker's whole line, on a clock that the test sets: who is let in, whose turn it is, what is given up."""

from __future__ import annotations

from itertools import count
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batching.cost import Cost
from batching.errors import Failure, QueueFull
from batching.queue import Item, ModelQueue
from batching.schedule import Line, Schedule

_ids = count(1)
NOBODY = object()


def item(rows: int = 1, *, arrived: float = 0.0, deadline: float = 100.0, layout: bytes = b"a") -> Item:
    return Item(NOBODY, next(_ids), rows, layout, b"1234", arrived, deadline)


def line(seconds: float = 0.01, limit: int = 4, *, max_wait_s: float = 0.0, max_rows: int = 1000) -> Line:
    """A model whose batches take so long, however many rows they have."""
    measured = dict.fromkeys((1, 2, limit), seconds) if seconds else {}
    return Line("a model", ModelQueue(max_rows, 100_000), Cost(measured, limit), max_wait_s)


def offered(schedule: Schedule, one: Line, *items: Item, now: float = 0.0) -> list[Item]:
    for each in items:
        schedule.offer(one, each, now, None)
    return list(items)


@given(
    st.dictionaries(st.sampled_from([1, 2, 4, 8, 16, 32]), st.floats(1e-4, 1.0)),
    st.lists(st.tuples(st.integers(1, 40), st.floats(1e-4, 1.0)), max_size=40),
    st.integers(1, 200),
)
def test_what_is_reckoned_quickly_is_never_less_than_the_wait(
    measured: dict[int, float], batches: list[tuple[int, float]], rows: int
) -> None:
    schedule, one = Schedule(), Line("a model", ModelQueue(1000, 100_000), Cost(measured, 32))
    for size, seconds in batches:
        schedule.ran(one, size, seconds)
    assert one.most_s(rows) >= one.expected_s(rows) * (1 - 1e-9)


def test_a_lone_item_runs_at_once() -> None:
    schedule, one = Schedule(), line()
    items = offered(schedule, one, item())
    assert schedule.oldest_arrival() == 0.0
    assert schedule.next(0.0)[:3] == (one, items, [])
    assert schedule.next(0.0)[:] == (None, [], [], inf)
    assert schedule.oldest_arrival() is None


def test_a_model_with_a_wait_is_asked_again_when_it_is_over() -> None:
    schedule, one = Schedule(), line(max_wait_s=0.03)
    items = offered(schedule, one, item())
    assert schedule.next(0.01)[:] == (None, [], [], 0.03)
    assert schedule.next(0.03)[:2] == (one, items)


def test_a_model_with_a_wait_runs_as_soon_as_its_batch_is_full() -> None:
    schedule, one = Schedule(), line(max_wait_s=0.03)
    items = offered(schedule, one, *(item() for _ in range(4)))
    assert schedule.next(0.0).items == items


def test_what_has_expired_is_given_up_and_never_runs() -> None:
    schedule, one = Schedule(), line()
    first, hurried, last = offered(schedule, one, item(), item(deadline=1.0), item())
    work = schedule.next(1.0)
    assert work.items == [first, last]
    assert work.dropped == [(one, hurried, Failure.DEADLINE)]


def test_while_a_long_batch_computes_what_expires_is_given_up_too() -> None:
    schedule, one = Schedule(), line()
    _, hurried = offered(schedule, one, item(), item(deadline=1.0))
    assert schedule.expire(0.9) == []
    assert schedule.expire(1.0) == [(one, hurried, Failure.DEADLINE)]


def test_heads_that_a_full_batch_could_not_answer_in_time_give_up_their_places() -> None:
    schedule, one = Schedule(), line(seconds=1.0)
    late = offered(schedule, one, *(item(deadline=8.0) for _ in range(6)))
    good = offered(schedule, one, *(item(deadline=20.0) for _ in range(3)))
    work = schedule.next(7.5)
    assert work.items == [late[5], *good], "the batch stays full"
    assert work.dropped == [(one, each, Failure.QUEUE_FULL) for each in late[:5]]


def test_whoever_comes_to_an_idle_worker_is_let_in_whatever_the_cost_is_thought_to_be() -> None:
    schedule, one = Schedule(), line(seconds=50.0)
    assert schedule.wait_s(one, 0.0, None) == 0.0
    items = offered(schedule, one, item(deadline=1.0))
    assert schedule.next(0.0).items == items
    schedule.ran(one, 1, 0.01)
    offered(schedule, one, item(deadline=1.0))


def test_a_model_that_was_slow_for_a_while_is_not_locked_out() -> None:
    schedule, one = Schedule(), line(seconds=0.01)
    for seconds in [30.0] * 10 + [0.01] * 3:
        offered(schedule, one, item(deadline=100.0))
        schedule.next(0.0)
        schedule.ran(one, 1, seconds)
    schedule.offer(one, item(deadline=1.0), 0.0, 0.01)


def test_whoever_would_wait_too_long_is_told_how_long() -> None:
    schedule, one = Schedule(), line(seconds=1.0)
    for _ in range(8):
        schedule.offer(one, item(), 0.0, 0.5)
    with pytest.raises(QueueFull) as caught:
        schedule.offer(one, item(deadline=3.0), 0.0, 0.5)
    assert caught.value.wait_s == pytest.approx(3.5)
    assert schedule.wait_s(one, 0.0, 0.5) == pytest.approx(3.5)
    schedule.offer(one, item(deadline=6.0), 0.0, 0.5)


def test_nobody_is_turned_away_on_a_guess() -> None:
    schedule, one = Schedule(), line(seconds=0.0)
    for _ in range(500):
        schedule.offer(one, item(deadline=0.1), 0.0, 0.05)


def test_the_bounds_of_the_queue_hold_and_the_refusal_says_how_long() -> None:
    schedule, one = Schedule(), line(seconds=1.0, max_rows=4)
    offered(schedule, one, item(4))
    with pytest.raises(QueueFull) as caught:
        schedule.offer(one, item(), 0.0, 0.5)
    assert caught.value.wait_s == pytest.approx(2.5)


def test_another_models_backlog_is_part_of_the_wait_up_to_its_fair_share() -> None:
    schedule, one, other = Schedule(), line(seconds=1.0), line(seconds=1.0)
    offered(schedule, other, *(item() for _ in range(40)))
    assert schedule.wait_s(one, 0.0, None) == pytest.approx(2.0)


def test_models_take_turns_by_the_time_they_use() -> None:
    schedule, slow, quick = Schedule(), line(), line()
    used = {slow: 0.0, quick: 0.0}
    for number in range(400):
        for one in (slow, quick):
            offered(schedule, one, item(arrived=number))
        ran = schedule.next(0.0).line
        assert ran is not None
        seconds = 0.1 if ran is slow else 0.01
        used[ran] += seconds
        schedule.ran(ran, 1, seconds)
    assert used[slow] == pytest.approx(used[quick], abs=0.2)


def test_a_model_that_had_nothing_to_do_has_saved_up_no_turns() -> None:
    schedule, busy, idle = Schedule(), line(), line()
    for _ in range(100):
        offered(schedule, busy, item())
        schedule.next(0.0)
        schedule.ran(busy, 1, 1.0)
    turns = []
    for _ in range(10):
        offered(schedule, idle, item())
        offered(schedule, busy, item())
        ran = schedule.next(0.0).line
        assert ran is not None
        turns.append(ran)
        schedule.ran(ran, 1, 1.0)
    assert 4 <= turns.count(busy) <= 6


def test_the_next_slice_of_a_large_item_lets_a_batch_of_others_pass() -> None:
    schedule, one = Schedule(), line()
    (first,) = offered(schedule, one, item(one.best))
    assert schedule.next(0.0).items == [first]
    small = offered(schedule, one, *(item() for _ in range(6)))
    following = item(one.best)
    schedule.put_back(one, following)
    schedule.ran(one, 4, 0.01)
    assert [schedule.next(0.0).items for _ in range(3)] == [small[:4], [following], small[4:]]


def test_a_batch_that_failed_counts_as_time_used_but_teaches_nothing() -> None:
    schedule, one = Schedule(), line(seconds=0.01)
    for _ in range(5):
        schedule.ran(one, 1, 3.0, clean=False)
    assert one.cost.expected_s(1) == pytest.approx(0.01)
    assert one.used_s == pytest.approx(15.0)
