"""Many rows at once as arrays: a row that has no answer costs the others nothing, and a lost worker is waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from batching.client import Answer, Outcome, Target
from batching.errors import ItemFailed, NoWorker
from front.bulk import Bulk
from front.catalog import Entry
from models.contract import Contract, Tensor
from models.schema import compile_contract

POISON, NAN = 6.0, 7.0


class Client:
    """Doubles; fails on POISON, has no number for NAN, and raises what it is told to first."""

    view: Any = None

    def __init__(self, raises: Sequence[Exception] = (), answer: Callable[[Any], list[Any]] | None = None) -> None:
        self._raises = list(raises)
        self._answer = answer
        self.calls: list[int] = []

    def call(
        self, target: Target, items: Sequence[tuple[int, Sequence[np.ndarray]]], deadline: float, priority: int = 0
    ) -> list[Outcome]:
        self.calls.append(items[0][0])
        if self._raises:
            raise self._raises.pop(0)
        x = items[0][1][0]
        if (x == POISON).any():
            return [ItemFailed("model_error")]
        outputs = [np.where(x == NAN, np.nan, x * 2)] if self._answer is None else self._answer(x)
        return [Answer(outputs, 0, 0, len(x), 1)]


def bulk(client: Client, **more: Any) -> Bulk:
    contract = Contract("m", "1", (Tensor("x", "float32", ()),), (Tensor("y", "float64", ()),), **more)
    return Bulk(client, Entry("m", "1", "READY", None, Target("", 0, 0), compile_contract(contract), {}))


def rows(*values: float) -> list[np.ndarray]:
    return [np.array(values)]


def test_rows_that_can_all_be_answered_take_one_call() -> None:
    client = Client()
    found = bulk(client).compute(rows(1, 2, 3))
    assert (found.kept, found.failures, client.calls) == (None, {}, [3])
    assert found.outputs[0].tolist() == [2, 4, 6]


def test_each_row_that_fails_is_found_and_the_others_are_answered() -> None:
    found = bulk(Client()).compute(rows(1, POISON, 2, 3, POISON, NAN, 4))
    assert found.kept is not None
    assert found.kept.tolist() == [0, 2, 3, 6]
    assert found.outputs[0].tolist() == [2, 4, 6, 8]
    assert {place: str(error)[:11] for place, error in found.failures.items()} == {
        1: "model_error", 4: "model_error", 5: "the model a",
    }  # fmt: skip


def test_where_nan_is_allowed_it_is_an_answer() -> None:
    found = bulk(Client(), null_for_nan=True).compute(rows(1, NAN))
    assert found.kept is None
    assert np.isnan(found.outputs[0][1])


def test_only_bad_rows_leave_no_outputs() -> None:
    found = bulk(Client()).compute(rows(POISON, POISON))
    assert (found.kept is not None and len(found.kept), set(found.failures)) == (0, {0, 1})


@pytest.mark.parametrize(
    "answer",
    [lambda x: [x[:-1]], lambda x: [x, x], lambda x: [x.astype(np.complex64)]],
    ids=["rows", "outputs", "dtype"],
)
def test_an_answer_that_the_contract_does_not_promise_is_none(answer: Callable[[Any], list[Any]]) -> None:
    found = bulk(Client(answer=answer)).compute(rows(1, 2))
    assert set(found.failures) == {0, 1}
    assert all("the model answered with" in str(error) for error in found.failures.values())


def test_a_worker_that_is_being_replaced_is_waited_for() -> None:
    client = Client([NoWorker("gone"), NoWorker("gone")])
    assert bulk(client).compute(rows(1)).outputs[0].tolist() == [2]
    assert client.calls == [1, 1, 1]


def test_who_is_stopped_waits_for_no_worker() -> None:
    asked = bulk(Client([NoWorker("gone")] * 1000))
    threading.Timer(0.05, asked.stop).start()
    with pytest.raises(NoWorker):
        asked.compute(rows(1))
