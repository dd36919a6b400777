"""What is read back and what is deleted, in both kinds of database."""

from __future__ import annotations

from datetime import timedelta

import pytest

from prediction_log import table
from prediction_log.database import Store
from tests.postgres import Postgres
from tests.prediction_log.samples import NOON, failure, feedback, prediction, predictions


def select(store: Store, since_s: int = 0, limit: int = 1000, model: str = "dummy") -> list[str | None]:
    """The request ids of what is read back."""
    return [row.request_id for row in store.select(model, NOON + timedelta(seconds=since_s), limit)]


def test_a_models_answers_are_read_oldest_first(any_store: Store) -> None:
    any_store.insert("predictions", predictions(3, 1, 2))
    any_store.insert("predictions", [prediction(4, model="other"), prediction(5, status=504, outputs=None)])
    assert select(any_store) == ["request-1", "request-2", "request-3"]
    assert select(any_store, since_s=2) == ["request-2", "request-3"]
    assert select(any_store, limit=1) == ["request-1"]
    assert select(any_store, model="other") == ["request-4"]
    assert select(any_store, limit=0) == []


def test_a_row_is_read_as_it_was_logged(any_store: Store) -> None:
    features = '{"a": [1.50, "\\u0000"]}'
    any_store.insert("predictions", [prediction(1, features=features, row_number=3, top_label="cat", truncated=True)])
    (row,) = any_store.select("dummy", NOON, 10)
    assert row == table.Logged(
        id=1,
        created_at=NOON + timedelta(seconds=1),
        request_id="request-1",
        row_number=3,
        version="1",
        dialect="native",
        endpoint="/predict",
        features=features,
        outputs="[2.0]",
        prediction=2.0,
        top_label="cat",
        batch_size=16,
        queue_ms=1.25,
        compute_ms=0.5,
        truncated=True,
    )


def test_pages_neither_repeat_nor_lose_rows_of_one_instant(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "PAGE_ROWS", 3)
    instant = (NOON + timedelta(seconds=50, microseconds=123456)).isoformat()
    any_store.insert("predictions", predictions(*range(5)))
    any_store.insert("predictions", [prediction(n, created_at=instant) for n in range(5, 15)])
    assert select(any_store) == [f"request-{n}" for n in range(15)]
    assert select(any_store, limit=8) == [f"request-{n}" for n in range(8)]


def test_old_rows_go_in_steps(any_store: Store) -> None:
    any_store.insert("predictions", predictions(*range(10)))
    before = NOON + timedelta(seconds=7)
    assert [any_store.delete_older(before, 3) for _ in range(4)] == [3, 3, 1, 0]
    assert select(any_store) == ["request-7", "request-8", "request-9"]


def test_a_step_looks_no_further_than_its_limit(any_store: Store) -> None:
    """A late row among younger ones waits until it is among the oldest: no index on the time is needed."""
    any_store.insert("predictions", predictions(*range(10, 20), 1))
    assert any_store.delete_older(NOON + timedelta(seconds=5), 10) == 0
    assert any_store.delete_older(NOON + timedelta(seconds=5), 11) == 1


def test_old_feedback_goes_too(any_store: Store) -> None:
    any_store.insert("feedback", [feedback(1, "cat"), feedback(2, "dog")])
    assert any_store.delete_older(NOON, 10) == 0
    assert any_store.delete_older(NOON + timedelta(seconds=1), 10) == 2


def test_counts_are_exact_while_that_is_cheap(any_store: Store) -> None:
    assert any_store.counts() == table.Counts(0, 0, estimated=False, oldest=None, newest=None)
    any_store.insert("predictions", predictions(*range(10)))
    ends = NOON, NOON + timedelta(seconds=9)
    assert any_store.counts() == table.Counts(10, 0, estimated=False, oldest=ends[0], newest=ends[1])


def test_a_large_table_is_estimated(postgres: Postgres, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.insert("predictions", predictions(*range(100)))
    postgres.execute("ANALYZE inference_logs")
    store.insert("predictions", predictions(100))
    monkeypatch.setattr(table, "COUNTED_ROWS", 50)
    counts = store.counts()
    assert (counts.predictions, counts.estimated) == (100, True)


def test_reading_says_what_is_wrong_as_well(postgres: Postgres, store: Store) -> None:
    postgres.execute("REVOKE SELECT ON inference_logs FROM app")
    for call in (lambda: select(store), store.counts):
        assert failure(call).said == ("configuration", "42501")


@pytest.mark.parametrize(
    ("question", "index"),
    [
        (
            "model = 'dummy' AND created_at >= now() - interval '1 hour' ORDER BY created_at",
            "inference_logs_model_created_at_idx",
        ),
        ("request_id = 'request-7'", "inference_logs_request_id_idx"),
    ],
)
def test_common_questions_have_an_index(postgres: Postgres, store: Store, question: str, index: str) -> None:
    store.insert("predictions", predictions(*range(2000)))
    postgres.execute("ANALYZE inference_logs")
    plan = postgres.execute(f"EXPLAIN SELECT prediction FROM inference_logs WHERE {question} LIMIT 10")  # noqa: S608
    assert index in str(plan)
