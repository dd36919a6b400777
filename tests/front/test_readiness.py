"""What GET /ready says, by the vital signs of workers that the test gives."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from batching.counters import Counters
from batching.vitals import Vitals
from front.readiness import readiness
from tests.front.test_catalog import catalogue, model

AGO_NS = 5_000_000_000


@pytest.fixture
def counters() -> Iterator[Counters]:
    made = Counters.create(4)
    yield made
    made.close()


def test_a_worker_that_responds_makes_its_group_ready(counters: Counters) -> None:
    Vitals(counters.slot(2).words)
    is_ready, body = readiness(catalogue(model("m")), counters, 2.0)
    assert is_ready
    assert (body["status"], body["degraded"]) == ("ready", [])
    assert body["workers"] == [
        {
            "group": "default",
            "responding": True,
            "computing_ms": None,
            "oldest_queued_ms": None,
            "last_answer_ms": None,
        }
    ]


def test_a_worker_whose_loop_is_silent_does_not(counters: Counters) -> None:
    slot = counters.slot(2)
    Vitals(slot.words).begin()
    slot.words[2] -= AGO_NS
    slot.words[3] -= AGO_NS
    is_ready, body = readiness(catalogue(model("m")), counters, 2.0)
    assert not is_ready
    assert body["degraded"] == ["a worker of group default has not responded for 5.0 s"]
    assert body["workers"][0]["computing_ms"] == pytest.approx(5000, abs=900)


def test_one_silent_worker_of_two_degrades_only(counters: Counters) -> None:
    Vitals(counters.slot(2).words)
    slot = counters.slot(3)
    Vitals(slot.words)
    slot.words[2] -= AGO_NS
    both = [{"id": 1, "group": "default", "slot": 2}, {"id": 2, "group": "default", "slot": 3}]
    is_ready, body = readiness(catalogue(model("m"), workers=both), counters, 2.0)
    assert is_ready
    assert len(body["degraded"]) == 1


def test_an_item_that_waits_beyond_any_deadline_is_told(counters: Counters) -> None:
    vitals = Vitals(counters.slot(2).words)
    vitals.oldest(time.monotonic() - 5)
    vitals.prove()
    is_ready, body = readiness(catalogue(model("m")), counters, 2.0)
    assert is_ready
    assert body["degraded"] == ["an item has waited 5.0 s for a worker of group default"]
    assert body["workers"][0]["last_answer_ms"] < 900
