"""Which requests are among the last ones, and what is told of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from webtest import TestApp

from batching.blocking import BlockingClient
from front.recorder import open_journal
from inference_server import Settings, create_app
from tests.application import app_for
from tests.fakes import POISON
from tests.harness import supervised

NAMES = {
    *("at", "request_id", "route", "model", "version", "dialect", "status", "code", "rows", "total_ms", "parse_ms"),
    *("queue_ms", "batch_rows", "compute_ms", "encode_ms", "answer"),
}
MODELS: list[dict[str, Any]] = [
    {"name": "double"},
    {"name": "secret", "narrow": {"log": {"capture": "none"}}},
    {"name": "never", "narrow": {"log": {"sample": 0.0}}},
    {"name": "poison", "kind": "poison"},
]


@pytest.fixture
def server() -> Iterator[Any]:
    with supervised(MODELS) as running:
        yield running


def ask(app: TestApp, model: str, value: Any, request_id: str, status: int = 200) -> None:
    app.post_json(f"/predict/{model}", value, headers={"X-Request-Id": request_id}, status=status)


def recent(client: BlockingClient) -> dict[str, dict[str, Any]]:
    """By request id."""
    return {entry["request_id"]: entry for entry in client.counters.recent(100)}


def test_an_answer_a_refusal_and_a_failure_are_told_with_their_timings(server: Any) -> None:
    app, client = app_for(server)
    ask(app, "double", {"instances": [[1.0], [2.0]]}, "answered")
    ask(app, "double", {"features": ["x"]}, "refused", 400)
    ask(app, "poison", {"features": [POISON]}, "failed", 500)
    ask(app, "nobody", {"features": [1.0]}, "unknown", 404)
    app.get("/health")
    app.get("/nothing", status=404)
    found = recent(client)
    client.close()
    assert found.keys() == {"answered", "refused", "failed", "unknown"}
    assert all(entry.keys() == NAMES for entry in found.values())
    said = ("route", "model", "version", "dialect", "status", "code", "rows")
    route = "/predict/{model}"
    assert [[found[id_][name] for name in said] for id_ in ("answered", "refused", "failed", "unknown")] == [
        [route, "double", "1", "native", 200, "", 2],
        [route, "double", "1", "native", 400, "BAD_INPUT", 0],
        [route, "poison", "1", "native", 500, "PREDICT_FAILED", 1],
        [route, "nobody", "", "native", 404, "NOT_FOUND", 0],
    ]
    one = found["answered"]
    assert one["batch_rows"] >= 2
    assert 0 < one["parse_ms"] + one["queue_ms"] + one["compute_ms"] + one["encode_ms"] <= one["total_ms"]
    assert found["failed"]["parse_ms"] > 0
    assert found["refused"]["batch_rows"] == found["refused"]["compute_ms"] == 0


def test_answers_are_kept_only_where_the_log_keeps_them(server: Any, tmp_path: Path) -> None:
    app, client = app_for(server)
    ask(app, "double", {"features": [1.0]}, "unlogged")
    spool = {"folder": str(tmp_path), "max_bytes": None, "sync": "interval"}
    journal = open_journal(spool, client.slot, lambda text: None)
    assert journal is not None
    logging = TestApp(create_app(Settings(), client, journal))
    for model in ("double", "secret", "never"):
        ask(logging, model, {"features": [21.0]}, model)
    found = {id_: entry["answer"] for id_, entry in recent(client).items() if id_ != "unlogged"}
    without = [entry["answer"] for entry in recent(client).values() if entry["answer"] == ""]
    journal.close()
    client.close()
    assert '"prediction":42.0' in found.pop("double")
    assert set(found.values()) == {""}
    assert len(without) == 3
