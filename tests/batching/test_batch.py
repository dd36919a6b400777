"""One batch on its way through the model: padding where that is cheaper, and what isolation costs."""

from __future__ import annotations

import time
from dataclasses import asdict

import numpy as np
import pytest

from batching import arrays
from batching.batch import Batch, Served
from batching.counters import Counters
from batching.errors import Failure
from batching.queue import Item
from batching.vitals import Vitals
from inference_server import Settings
from tests.batching.direct import column
from tests.fakes import POISON, Fake


def served(costs: dict[int, float], counters: Counters | None = None, **reference: str) -> Served:
    """A fake model that says its batches cost so much."""
    named = {"name": "m", "version": "1", **reference}
    one = Served(0, Fake(named), named, asdict(Settings()))
    one.model.warm_up = lambda sizes, budget_s: costs  # type: ignore[method-assign]
    one.warm_up(1.0)
    if counters is not None:
        slot = counters.slot(1)
        one.count_with(slot, Vitals(slot.words))
    return one


def items(*values: float) -> list[Item]:
    now = time.monotonic()
    return [Item(None, id, 1, *arrays.encode([column(value)]), now, now + 10) for id, value in enumerate(values)]


def results(batch: Batch) -> list[float | Failure]:
    """What came of each item: the only number of its answer, or why it failed."""
    return [
        outcome if isinstance(outcome, Failure) else float(np.frombuffer(outcome[1], np.float32)[0])
        for outcome in batch.divide()
    ]


@pytest.mark.parametrize(
    ("guilty", "most_calls"), [([5], 12), ([0], 12), ([31], 12), ([1, 5, 9, 13, 17, 21, 25, 29], 35), (range(32), 35)]
)
def test_exactly_the_guilty_fail_and_finding_them_costs_few_calls(
    guilty: list[int], most_calls: int, shared: Counters
) -> None:
    one = served({1: 0.001, 32: 0.001}, shared, kind="poison")
    batch = Batch(one, items(*[POISON if place in guilty else place for place in range(32)]), 1)
    batch.run()
    assert results(batch) == [Failure.MODEL_ERROR if place in guilty else 2.0 * place for place in range(32)]
    assert isinstance(one.model, Fake)
    assert one.model.calls <= most_calls
    assert not batch.clean


def test_a_batch_runs_padded_only_where_a_larger_size_was_found_to_be_cheaper(shared: Counters) -> None:
    one = served({1: 0.001, 4: 0.002, 8: 0.002}, shared)
    assert isinstance(one.model, Fake)
    batch = Batch(one, items(*range(5)), 1)
    batch.run()
    assert one.model.call_rows == [5]
    for _ in range(100):  # whatever lies between 4 and 8 takes three times as long as 8
        one.line.cost.learn(5, 0.006)
        one.line.cost.learn(8, 0.002)
        one.line.cost.learn(4, 0.002)
    batch = Batch(one, items(*range(5)), 2)
    batch.run()
    assert one.model.call_rows == [5, 8]
    assert results(batch) == [2.0 * value for value in range(5)]
    assert batch.clean
