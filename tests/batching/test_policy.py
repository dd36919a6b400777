"""When a batch is closed, what is given up and who is turned away, by their properties."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batching.policy import AIM, Drop, Run, State, Wait, admits, decide, estimated_wait_s

SECONDS = st.floats(0, 1e6)
ROWS = st.integers(1, 10_000)
NEVER = float("inf")


def waiting(rows: int, arrived: float) -> State:
    """Items of one row that are in no hurry."""
    return State(rows, arrived, 1, NEVER, NEVER)


@given(ROWS, SECONDS, SECONDS, ROWS)
def test_without_a_wait_whatever_is_there_runs_at_once(rows: int, arrived: float, age: float, max_rows: int) -> None:
    assert decide(waiting(rows, arrived), arrived + age, max_rows=max_rows, max_wait_s=0.0) == Run(max_rows)


@given(ROWS, SECONDS, st.floats(-1e6, 1e6), st.floats(0, 10))
def test_a_full_batch_runs_at_once(max_rows: int, arrived: float, age: float, max_wait_s: float) -> None:
    assert decide(waiting(max_rows, arrived), arrived + age, max_rows=max_rows, max_wait_s=max_wait_s) == Run(max_rows)


@given(st.integers(2, 100), SECONDS, SECONDS, st.floats(0, 10))
def test_a_batch_that_is_not_full_waits_for_its_oldest_row_and_no_longer(
    max_rows: int, arrived: float, age: float, max_wait_s: float
) -> None:
    now = arrived + age
    decision = decide(waiting(1, arrived), now, max_rows=max_rows, max_wait_s=max_wait_s)
    if isinstance(decision, Wait):
        assert now < decision.until
        again = decide(waiting(1, arrived), decision.until, max_rows=max_rows, max_wait_s=max_wait_s)
        assert again == Run(max_rows)
    else:
        assert now >= arrived + max_wait_s


@given(ROWS, st.integers(1, 64), SECONDS, st.floats(0, 10))
def test_what_has_expired_is_dropped_before_anything_else(rows: int, max_rows: int, now: float, full_s: float) -> None:
    state = State(rows, now, 1, now + 100, soonest=now)
    assert decide(state, now, max_rows=max_rows, max_wait_s=1.0, full_s=full_s) == Drop(now, 0)


def test_a_head_that_a_full_batch_could_not_answer_in_time_gives_up_its_place_to_one_it_can() -> None:
    state = State(9, 0.0, 1, head_deadline=1.04, soonest=1.04)
    assert decide(state, 1.0, max_rows=8, full_s=0.05) == Drop(1.05, 8)
    assert decide(state, 1.0, max_rows=8, full_s=0.03) == Run(8)


@given(st.integers(1, 64), st.integers(1, 64), st.floats(1e-6, 1e6))
def test_with_no_more_than_a_batch_waiting_all_run_whatever_that_is_thought_to_take(
    rows: int, max_rows: int, full_s: float
) -> None:
    """Never everything is dropped: a cost that was learned wrongly must be found out."""
    state = State(rows, 0.0, 1, head_deadline=1.01, soonest=1.01)
    decision = decide(state, 1.0, max_rows=max_rows, full_s=full_s)
    if rows - 1 < max_rows:
        assert decision == Run(max_rows)
    elif isinstance(decision, Drop):
        assert decision.keep_rows == max_rows


def test_a_wait_ends_when_the_first_of_those_who_wait_would_expire() -> None:
    assert decide(State(1, 0.0, 1, 5.0, 3.0), 1.0, max_rows=8, max_wait_s=10.0) == Wait(3.0)


def test_other_models_are_waited_for_as_long_as_ones_own_takes_but_a_batch_of_each_at_least() -> None:
    assert estimated_wait_s(0.5, 2.0) == 2.5
    assert estimated_wait_s(0.5, 2.0, [(1.0, 0.1)]) == 3.5, "all it has"
    assert estimated_wait_s(0.5, 2.0, [(9.0, 0.1)]) == 4.5, "its fair share"
    assert estimated_wait_s(0.5, 2.0, [(9.0, 3.0)]) == 5.5, "a batch cannot be divided"


@given(st.floats(1e-6, 1e6))
def test_who_would_wait_longer_than_the_aim_is_turned_away(left_s: float) -> None:
    assert admits(AIM * left_s, left_s)
    assert not admits(AIM * left_s * 1.001, left_s)
