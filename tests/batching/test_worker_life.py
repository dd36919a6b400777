"""How a worker starts, what it reports and holds, and how it ends; in a real process that the test speaks to itself."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from batching.errors import Failure
from tests.batching.direct import QUICK, SLOW, both_ways, column, failure, worker
from tests.harness import SOON_S, Gate


def test_it_reports_what_it_holds_and_what_it_cannot_load() -> None:
    with worker({"name": "a"}, {"name": "b", "kind": "refuses"}, {"name": "c", "kind": "broken"}) as process:
        assert process.report["type"] == "ready"
        assert [model["name"] for model in process.report["models"]] == ["a"]
        assert process.report["failures"] == [
            {"name": "b", "version": "1", "reason": "it is refused by design"},
            {"name": "c", "version": "1", "reason": "loading failed; the server's log has the details"},
        ]


def test_a_models_number_does_not_depend_on_what_else_could_be_loaded() -> None:
    """Another worker of the group may hold what this one could not load; a number must not mean two models."""
    with worker({"name": "a", "kind": "refuses"}, {"name": "b", "kind": "nan"}, {"name": "c"}) as process:
        peer = process.link()
        peer.send(0, column(1), model=0)
        peer.send(2, column(1), model=2)
        assert failure(peer.answer(0)) == Failure.UNKNOWN_MODEL
        assert peer.values(2) == [2.0]


def test_a_report_larger_than_a_sockets_buffer_arrives() -> None:
    with worker(
        {"name": "a", "description_bytes": 2_000_000}, {"name": "b", "description_bytes": 2_000_000}
    ) as process:
        assert [len(model["description"]["description"]) for model in process.report["models"]] == [2_000_000] * 2
        peer = process.link()
        peer.send(1, column(1))
        assert peer.values(1) == [2.0]


def test_it_ends_when_it_can_load_nothing() -> None:
    with worker({"name": "a", "kind": "refuses"}) as process:
        assert process.report["type"] == "failed"
        assert process.process.wait(SOON_S) == 0


@both_ways
def test_told_to_stop_it_answers_what_is_queued_and_ends(cost: dict[str, Any], a_gate: Gate) -> None:
    with worker(a_gate.model(**cost)) as process:
        peer = process.link()
        peer.send(0, column(0))
        held = a_gate.next_call()
        for id in range(1, 100):
            peer.send(id, column(id))
        process.stop()
        held.let_go()
        a_gate.open()
        assert [peer.values(id) for id in range(100)] == [[2.0 * id] for id in range(100)]
        assert process.process.wait(SOON_S) == 0


def test_told_to_stop_with_nothing_to_do_it_ends_at_once() -> None:
    with worker({"name": "m"}) as process:
        process.link()
        process.stop()
        assert process.process.wait(SOON_S) == 0


@pytest.mark.parametrize("line", ["control", "life"])
def test_it_ends_with_its_supervisor_even_while_the_model_computes(line: str, a_gate: Gate) -> None:
    with worker(a_gate.model(**QUICK if line == "life" else SLOW)) as process:
        process.link().send(0, column(0))
        a_gate.next_call()
        (process.control if line == "control" else process.life).close()
        assert process.process.wait(1.0) == 0


def test_signals_to_the_whole_group_do_not_end_it() -> None:
    with worker({"name": "m"}) as process:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(process.process.pid, number)
        peer = process.link()
        peer.send(1, column(1))
        assert peer.values(1) == [2.0]


def test_it_imports_nothing_of_http_sql_or_schemas() -> None:
    unwanted = [
        "bottle",
        "waitress",
        "sqlalchemy",
        "pg8000",
        "jsonschema",
        "jsonschema_rs",
        "front.loop",
        "http.server",
    ]
    with worker({"name": "m", "kind": "modules", "modules": unwanted}) as process:
        peer = process.link()
        peer.send(1, column(1))
        assert peer.values(1) == [0.0]
