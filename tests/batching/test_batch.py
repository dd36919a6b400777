"""What a worker expects a batch to take, from warm-up and from what came since."""

from __future__ import annotations

from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from batching.batch import COLD_S, Served
from inference_server import Settings
from tests.fakes import Fake


def served(costs: dict[int, float]) -> Served:
    one = Served(0, Fake({"name": "m", "version": "1"}), {"name": "m", "version": "1"}, asdict(Settings()))
    one.model.warm_up = lambda sizes, budget_s: costs  # type: ignore[method-assign]
    one.warm_up(1.0)
    return one


def test_a_batch_is_expected_to_take_what_the_next_larger_size_took() -> None:
    one = served({1: 0.001, 8: 0.004})
    assert [one.expected_s(rows) for rows in (1, 2, 8, 16)] == [0.001, 0.004, 0.004, 0.008]


def test_a_model_that_was_not_warmed_up_is_not_expected_to_be_quick() -> None:
    assert served({}).expected_s(1) == COLD_S


def test_one_batch_that_was_held_up_changes_nothing_and_a_model_that_turned_slow_is_found_out() -> None:
    one = served({1: 0.0001})
    for seconds in (0.0001, 0.0001, 1.0):
        one.learn(1, seconds)
    assert one.expected_s(1) == 0.0001
    for _ in range(3):
        one.learn(1, 0.01)
    assert one.expected_s(1) == 0.01


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1e6)), max_size=200))
def test_expectations_stay_finite(batches: list[tuple[int, float]]) -> None:
    one = served({1: 0.001, 64: 0.002})
    for rows, seconds in batches:
        one.learn(rows, seconds)
        assert 0 <= one.expected_s(rows) < float("inf")
