"""When a batch is closed and how large it may be: `decide` and `best_rows`, by their properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batching.policy import Run, State, Wait, best_rows, decide

SECONDS = st.floats(0, 1e6)
ROWS = st.integers(1, 10_000)
COSTS = st.dictionaries(st.integers(1, 256), st.floats(1e-6, 10.0), min_size=1, max_size=9)


@given(ROWS, SECONDS, SECONDS, ROWS)
def test_without_a_wait_whatever_is_there_runs_at_once(rows: int, arrived: float, age: float, max_rows: int) -> None:
    assert decide(State(rows, arrived), arrived + age, max_rows=max_rows, max_wait_s=0.0) == Run(max_rows)


@given(ROWS, SECONDS, st.floats(-1e6, 1e6), st.floats(0, 10))
def test_a_full_batch_runs_at_once(max_rows: int, arrived: float, age: float, max_wait_s: float) -> None:
    assert decide(State(max_rows, arrived), arrived + age, max_rows=max_rows, max_wait_s=max_wait_s) == Run(max_rows)


@given(st.integers(2, 100), SECONDS, SECONDS, st.floats(0, 10))
def test_a_batch_that_is_not_full_waits_for_its_oldest_row_and_no_longer(
    max_rows: int, arrived: float, age: float, max_wait_s: float
) -> None:
    now = arrived + age
    decision = decide(State(1, arrived), now, max_rows=max_rows, max_wait_s=max_wait_s)
    if isinstance(decision, Wait):
        assert now < decision.until
        again = decide(State(1, arrived), decision.until, max_rows=max_rows, max_wait_s=max_wait_s)
        assert again == Run(max_rows)
    else:
        assert now >= arrived + max_wait_s


@given(COSTS, ROWS)
def test_the_best_batch_is_never_above_the_limit(costs: dict[int, float], limit: int) -> None:
    assert 1 <= best_rows(costs, limit) <= limit


@given(COSTS, st.floats(0, 0.5))
def test_the_best_batch_is_worth_its_size(costs: dict[int, float], tolerance: float) -> None:
    """Within the tolerance of the best rate measured; and nothing larger that was measured is."""
    rates = {rows: rows / seconds for rows, seconds in costs.items()}
    enough = (1 - tolerance) * max(rates.values())
    best = best_rows(costs, max(costs), tolerance)
    assert rates[best] >= enough
    assert all(rates[rows] < enough for rows in rates if rows > best)


@pytest.mark.parametrize(
    ("costs", "limit", "expected"),
    [
        ({}, 64, 64),
        ({1: 0.001, 8: 0.002, 64: 0.004}, 64, 64),
        ({1: 0.001, 8: 0.002, 16: 0.003}, 64, 64),
        ({1: 0.001, 8: 0.002, 64: 0.100}, 64, 8),
        ({1: 0.001, 8: 0.002, 64: 0.0161}, 64, 64),
        ({1: 0.0, 8: 0.0}, 64, 64),
        ({1: 0.001, 8: 0.002, 64: 0.100}, 4, 4),
    ],
    ids=[
        "nothing measured",
        "more always pays",
        "the largest measured is best, so nothing speaks against more",
        "a large batch is slow",
        "larger is nearly as good",
        "too quick to measure",
        "the limit is lower",
    ],
)
def test_best_batches(costs: dict[int, float], limit: int, expected: int) -> None:
    assert best_rows(costs, limit) == expected
