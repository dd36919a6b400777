"""What batches are thought to cost: from warm-up, from guesses, and from what came since."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batching.cost import COLD_S, Cost

PLENTY_S = 1e6
MEASURED = st.dictionaries(st.integers(1, 256), st.floats(1e-6, 10.0), max_size=9)


def test_between_two_measured_sizes_the_cost_is_a_straight_line() -> None:
    cost = Cost({1: 0.001, 8: 0.008, 16: 0.016}, 16)
    assert [cost.expected_s(rows) for rows in (1, 3, 8, 12, 32)] == pytest.approx([0.001, 0.003, 0.008, 0.012, 0.032])


def test_a_model_that_was_not_warmed_up_is_not_thought_quick_and_nothing_is_sure() -> None:
    cost = Cost({}, 64)
    assert cost.expected_s(1) == COLD_S
    assert not cost.sure


def test_a_model_that_was_not_warmed_up_is_known_after_a_few_batches() -> None:
    cost = Cost({}, 64)
    for rows in (1, 1, 1, 8, 8, 8, 32, 32, 32):
        cost.learn(rows, 0.001 + rows * 1e-5)
    assert cost.sure
    assert cost.expected_s(1) == pytest.approx(0.00101, rel=0.1)
    assert cost.expected_s(32) == pytest.approx(0.00132, rel=0.1)
    assert cost.expected_s(64) == pytest.approx(0.00164, rel=0.1)


def test_a_size_that_warm_up_had_no_time_for_is_guessed_from_the_two_nearest_and_then_known() -> None:
    cost = Cost({1: 0.0105, 2: 0.011}, 32)
    assert cost.expected_s(32) == pytest.approx(0.026)
    for _ in range(3):
        cost.learn(32, 0.060)
    assert cost.expected_s(32) == pytest.approx(0.060)
    assert cost.expected_s(1) == pytest.approx(0.0105), "three batches of one size say nothing of the others"


def test_one_batch_that_was_held_up_changes_nothing_and_a_model_that_turned_slow_is_found_out() -> None:
    cost = Cost({1: 0.0001}, 1)
    for seconds in (0.0001, 0.0001, 1.0):
        cost.learn(1, seconds)
    assert cost.expected_s(1) == 0.0001
    for _ in range(3):
        cost.learn(1, 0.01)
    assert cost.expected_s(1) == pytest.approx(0.01)


def test_three_quick_batches_of_any_size_end_what_a_slow_phase_has_taught() -> None:
    """Nobody is let in while all sizes are thought slow, but single rows always run when the worker is idle."""
    cost = Cost({size: 0.010 + size * 0.0005 for size in (1, 2, 4, 8, 16, 32)}, 32)
    for _ in range(10):
        cost.learn(32, 2.6)
    assert cost.expected_s(32) == pytest.approx(2.6)
    for _ in range(3):
        cost.learn(1, 0.0105)
    assert cost.expected_s(32) == pytest.approx(0.026, rel=0.05)


def test_what_warm_up_measured_wrongly_for_one_size_is_corrected_by_real_batches() -> None:
    rng = random.Random(7)
    cost = Cost({1: 0.001, 32: 0.004}, 32)
    for _ in range(400):
        rows = rng.choice((1, 32))
        cost.learn(rows, (0.001 if rows == 1 else 0.008) * rng.lognormvariate(0, 0.05))
    assert cost.expected_s(1) == pytest.approx(0.001, rel=0.25)
    assert cost.expected_s(32) == pytest.approx(0.008, rel=0.25)


def test_a_batch_is_padded_only_once_that_was_measured_to_be_clearly_cheaper() -> None:
    """A model that compiles for every shape it has not seen: 5 ms for powers of two, 50 ms for the rest."""
    rng = random.Random(3)
    cost = Cost(dict.fromkeys((1, 2, 4, 8, 16, 32), 0.005), 32)
    assert cost.padded(20) == 20
    for _ in range(400):
        rows = cost.padded(rng.choice((1, 4, 8, 16, 20, 27, 32)))
        cost.learn(rows, 0.005 if rows.bit_count() == 1 else 0.050)
    assert [cost.padded(rows) for rows in (17, 20, 31, 32, 8, 5)] == [32, 32, 32, 32, 8, 5]


def test_a_straight_cost_is_never_padded() -> None:
    rng = random.Random(3)
    cost = Cost({size: 0.002 + size * 0.003 for size in (1, 2, 4, 8, 16, 32)}, 32)
    for _ in range(2000):
        rows = rng.randint(1, 32)
        assert cost.padded(rows) == rows
        cost.learn(rows, (0.002 + rows * 0.003) * rng.lognormvariate(0, 0.1))


@pytest.mark.parametrize(
    ("measured", "limit", "budget_s", "expected"),
    [
        ({}, 64, PLENTY_S, 64),
        ({1: 0.001, 8: 0.002, 64: 0.004}, 64, PLENTY_S, 64),
        ({1: 0.001, 8: 0.002, 16: 0.003}, 64, PLENTY_S, 32),
        ({1: 0.001, 8: 0.002, 64: 0.100}, 64, PLENTY_S, 8),
        ({1: 0.001, 8: 0.002, 64: 0.0162}, 64, PLENTY_S, 8),
        ({1: 0.0, 8: 0.0}, 64, PLENTY_S, 16),
        ({1: 0.001, 8: 0.002, 64: 0.100}, 4, PLENTY_S, 2),
        ({size: 0.002 + size * 0.003 for size in (1, 2, 4, 8, 16, 32)}, 32, 0.1, 16),
        ({size: 0.010 + size * 0.0005 for size in (1, 2, 4, 8, 16, 32)}, 32, 0.1, 32),
        ({1: 0.5, 8: 0.6}, 8, 0.1, 8),
    ],
    ids=[
        "nothing measured",
        "more always pays",
        "the largest measured is best, so twice as much is tried",
        "a large batch is slow",
        "larger is hardly better",
        "too quick to measure: twice as much is tried",
        "the limit is lower",
        "two of the largest would not fit into the time that there is",
        "they would",
        "nothing can be done in time anyway",
    ],
)
def test_best_batches(measured: dict[int, float], limit: int, budget_s: float, expected: int) -> None:
    assert Cost(measured, limit).best_rows(budget_s) == expected


def test_larger_batches_are_tried_while_they_pay_and_no_further() -> None:
    """5 ms and then some; from 128 rows on every row costs as much as the first."""

    def seconds(rows: int) -> float:
        return 0.005 + rows * 0.00001 if rows <= 128 else rows * 0.0001

    cost = Cost({size: seconds(size) for size in (1, 2, 4, 8)}, 1024)
    aimed = []
    for _ in range(100):
        aimed.append(cost.best_rows(PLENTY_S))
        cost.learn(aimed[-1], seconds(aimed[-1]))
    assert aimed[0] == 16
    assert aimed[-1] == 128
    assert max(aimed) == 256


def test_a_model_with_a_large_fixed_cost_keeps_most_of_its_rate() -> None:
    """45 ms + 0.5 ms a row in 100 ms: the bound of twice a batch would leave it 200 of 524 rows/s."""
    cost = Cost({size: 0.045 + size * 0.0005 for size in (1, 2, 4, 8, 16, 32)}, 32)
    best = cost.best_rows(0.1)
    assert best / cost.expected_s(best) > 380


@given(
    MEASURED,
    st.integers(1, 300),
    st.lists(st.tuples(st.integers(0, 500), st.floats(0, 1e6)), max_size=200),
    st.floats(1e-6, 1e6),
)
def test_whatever_comes_costs_stay_finite_and_never_fall_as_rows_grow(
    measured: dict[int, float], limit: int, batches: list[tuple[int, float]], budget_s: float
) -> None:
    cost = Cost(measured, limit)
    for rows, seconds in batches:
        cost.learn(rows, seconds)
        assert 1 <= cost.best_rows(budget_s) <= limit
    expected = [cost.expected_s(rows) for rows in range(1, 2 * limit)]
    assert all(0 < one < float("inf") for one in expected)
    assert all(low <= high * (1 + 1e-9) for low, high in pairwise(expected))
    assert all(rows <= cost.padded(rows) <= max(rows, limit) for rows in range(1, 2 * limit))
