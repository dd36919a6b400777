"""A request's place in a trace: taken where it is well-formed, and found again in the log's lines and in the rows."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batching.blocking import BlockingClient
from front.tracing import traceparent_of
from tests.application import app_for
from tests.faults.asking import post
from tests.harness import SOON_S, Server, fake_http_server, supervised, wait_until

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
BAD = [
    "",
    "no trace at all",
    GOOD.replace("00-", "01-", 1),
    GOOD.replace("00-", "ff-", 1),
    GOOD.upper(),
    GOOD + "-more",
    f"{GOOD}, {GOOD}",
    "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
    GOOD[:-1],
    GOOD.replace("4bf9", "4bg9"),
    GOOD + "\n",
]


@pytest.mark.parametrize("given", BAD, ids=range(len(BAD)))
def test_what_is_malformed_is_ignored(given: str) -> None:
    assert traceparent_of({"HTTP_TRACEPARENT": given}) == ""
    assert traceparent_of({}) == ""
    assert traceparent_of({"HTTP_TRACEPARENT": GOOD}) == GOOD


def rows(database: Path) -> dict[str, Any]:
    """request_id -> traceparent; none where there is no table yet."""
    with closing(sqlite3.connect(database)) as connection:
        try:
            return dict(connection.execute("SELECT request_id, traceparent FROM inference_logs").fetchall())
        except sqlite3.OperationalError:
            return {}


def lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]


def test_it_is_in_the_row_of_every_request_that_had_one_and_in_the_line_about_it(tmp_path: Path) -> None:
    database = tmp_path / "log.db"
    settings: dict[str, Any] = {"prediction_log_dir": str(tmp_path / "spool"), "prediction_log_refusal_sample": 1.0}
    with fake_http_server([{"name": "double"}], database_url=f"sqlite:///{database}", **settings) as server:

        def ask(request_id: str, path: str, value: Any, traceparent: str, status: int) -> None:
            headers = {"X-Request-Id": request_id, **({"traceparent": traceparent} if traceparent else {})}
            reply = post(server.url, path, value, **headers)
            assert reply.status == status, reply.body

        one, many = {"features": [1.0]}, {"instances": [[1.0], [2.0]]}
        tensors = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}]}
        for again in range(3):  # from the second on the header is known
            ask("native", "/predict/double", one, GOOD, 200)
            ask(f"plain-{again}", "/predict/double", one, "", 200)
        ask("many", "/predict/double", many, GOOD, 200)
        ask("v1", "/v1/models/double:predict", {"instances": [[1.0]]}, GOOD, 200)
        ask("v2", "/v2/models/double/infer", tensors, GOOD, 200)
        ask("malformed", "/predict/double", one, GOOD.upper(), 200)
        ask("refused", "/predict/double", {"features": ["x"]}, GOOD, 400)
        expected = {
            **dict.fromkeys(("native", "many", "v1", "v2", "refused"), GOOD),
            **dict.fromkeys(("plain-0", "plain-1", "plain-2", "malformed"), None),
        }
        wait_until(lambda: rows(database).keys() >= expected.keys(), SOON_S, "all rows")
        assert rows(database) == expected
        ask("reload-1", "/reload", b"{}", GOOD, 400)
        found = wait_until(
            lambda: [line for line in lines(server) if line.get("request_id") == "reload-1"], SOON_S, "its line"
        )
        assert found[0]["traceparent"] == GOOD


def test_a_defect_of_ours_is_logged_with_the_trace_of_the_request_that_met_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("a defect")

    with supervised([{"name": "double"}]) as server:
        app, client = app_for(server)
        monkeypatch.setattr(BlockingClient, "call", fails)
        headers = {"traceparent": GOOD, "X-Request-Id": "r-1"}
        response = app.post_json("/predict/double", {"features": [1.0]}, headers=headers, status=500)
        client.close()
    assert response.json["error"] == "INTERNAL_ERROR"
    (record,) = [record for record in caplog.records if record.getMessage() == "request r-1 failed"]
    assert vars(record)["traceparent"] == GOOD
