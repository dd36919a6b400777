"""What a front calls never fails it, and counts each row as written or as dropped."""

from __future__ import annotations

import logging
from typing import Any

import orjson
import pytest

from prediction_log.journal import Journal
from prediction_log.record import Captured, Kind, decode
from prediction_log.rows import feedback


class Spool:
    """Takes payloads, or refuses them, or fails."""

    capacity = 1000

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.is_full = False
        self.is_closed = False
        self.error: Exception | None = None

    def append(self, payload: bytes) -> bool:
        if self.error:
            raise self.error
        if not self.is_full:
            self.payloads.append(payload)
        return not self.is_full

    def close(self) -> None:
        self.is_closed = True


class Written:
    """A journal, what it was given, and what it counted."""

    def __init__(self) -> None:
        self.spool = Spool()
        self.counts = {"written": 0, "dropped": 0}
        self.journal = Journal(self.spool, self._adder("written"), self._adder("dropped"))

    def _adder(self, name: str) -> Any:
        def add(rows: int) -> None:
            self.counts[name] += rows

        return add


@pytest.fixture
def written() -> Written:
    return Written()


def test_an_answer_is_a_record_in_the_spool(written: Written) -> None:
    assert written.journal.prediction("r-1", subject=b"{}", status=200, rows=3)
    record = decode(written.spool.payloads[0])
    assert (record.kind, record.request_id, record.status, record.rows) == (Kind.PREDICTION, "r-1", 200, 3)
    assert written.counts == {"written": 3, "dropped": 0}


def test_an_answer_of_one_item_is_a_record_in_the_spool(written: Written) -> None:
    assert written.journal.answer(b"{}", "r-1", 3, 1500, (1, 2, 3, 4), b"body", b"answer")
    record = decode(written.spool.payloads[0])
    assert (record.status, record.rows, record.items, record.features) == (200, 3, ((1, 2, 3, 4),), b"body")
    assert written.counts == {"written": 3, "dropped": 0}


def test_feedback_is_a_record_in_the_spool(written: Written) -> None:
    assert written.journal.feedback("r-1", 2, b'"cat"')
    record = decode(written.spool.payloads[0])
    row = orjson.loads(feedback(record))
    assert (record.kind, row["request_id"], row["row_number"], row["label"]) == (Kind.FEEDBACK, "r-1", 2, "cat")
    assert written.counts == {"written": 1, "dropped": 0}


def test_what_the_spool_cannot_take_is_counted_as_dropped(written: Written) -> None:
    written.spool.is_full = True
    assert not written.journal.prediction("r-1", rows=5)
    assert not written.journal.feedback("r-1", 0, b"1")
    assert not written.journal.answer(b"{}", "r-1", 2, 0, (1, 2, 3, 4), b"", b"")
    assert written.counts == {"written": 0, "dropped": 8}


@pytest.mark.parametrize(
    ("request_id", "told"),
    [("\ud800", {}), ("x" * 2**16, {}), ("r-1", {"status": -1}), ("r-1", {"nonsense": 1}), ("r-1", {"rows": 1.5})],
    ids=["surrogate", "long", "status", "name", "type"],
)
def test_what_cannot_be_a_record_is_dropped_and_said_once(
    written: Written, request_id: str, told: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert not written.journal.prediction(request_id, **told)
        assert not written.journal.prediction(request_id, features_are=Captured.BODY, features=b"secret", **told)
    assert written.counts == {"written": 0, "dropped": 2 * told.get("rows", 1)}
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text


def test_a_defect_of_the_spool_fails_nobody(written: Written) -> None:
    written.spool.error = OSError("no such disk")
    assert not written.journal.prediction("r-1", rows=2)
    assert not written.journal.answer(b"{}", "r-1", 3, 0, (1, 2, 3, 4), b"", b"")
    assert written.counts == {"written": 0, "dropped": 5}


def test_the_end_and_the_largest_record_are_the_spools(written: Written) -> None:
    assert written.journal.capacity == Spool.capacity
    written.journal.close()
    assert written.spool.is_closed
