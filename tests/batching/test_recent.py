"""The ring of last requests: what is in it, how often, for whom, and that nobody ever sees half of an entry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching import recent
from batching.counter_file import SLOT_BYTES, SLOT_RING, SLOTS_AT
from batching.counters import Counters, Slot
from tests.batching.counting import attached
from tests.harness import wait_until

ROOT = Path(__file__).resolve().parents[2]
# A process that fills its ring without end, each entry of one character throughout.
HAMMER = """
import itertools, sys
from batching import recent
from batching.counters import Counters
recent.PER_SECOND = recent.AT_ONCE = 10**9
slot = Counters.attach(int(sys.argv[1])).slot(2)
for number in itertools.count(1):
    letter = chr(97 + number % 26)
    slot.recent.add(letter * 100, letter * 60, letter * 60, "1", letter * 9, 200, "", number, number, number)
"""


@pytest.fixture
def unpaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "PER_SECOND", 10**9)


def add(slot: Slot, request_id: str = "r", status: int = 200, **more: Any) -> None:
    code = "" if status == 200 else "BAD_INPUT"
    slot.recent.add(request_id, "/predict", "m", "1", "native", status, code, 1, 500, **more)


def ids(counters: Counters, limit: int = 1000) -> list[str]:
    return [entry["request_id"] for entry in counters.recent(limit)]


def test_an_entry_is_read_back_by_another_process_as_it_was_written(shared: Counters) -> None:
    before = time.time()
    shared.slot(1).recent.add(
        "id-1", "/predict/{model}", "iris", "7", "native", 503, "OVERLOADED", 3, 1500, 20, 310, 8, 400, 5, b'{"ok":1}'
    )
    (entry,) = attached(shared).recent(10)
    assert before <= entry.pop("at") <= time.time()
    assert entry == {
        "request_id": "id-1",
        "route": "/predict/{model}",
        "model": "iris",
        "version": "7",
        "dialect": "native",
        "status": 503,
        "code": "OVERLOADED",
        "rows": 3,
        "total_ms": 1.5,
        "parse_ms": 0.02,
        "queue_ms": 0.31,
        "batch_rows": 8,
        "compute_ms": 0.4,
        "encode_ms": 0.005,
        "answer": '{"ok":1}',
    }


@pytest.mark.usefixtures("unpaced")
def test_the_newest_of_all_processes_come_first_and_no_more_than_asked_for(shared: Counters) -> None:
    for number in range(6):
        add(shared.slot(1 + number % 3), f"r{number}")
    assert ids(attached(shared)) == ["r5", "r4", "r3", "r2", "r1", "r0"]
    assert ids(attached(shared), 2) == ["r5", "r4"]
    assert ids(shared, 0) == []


@pytest.mark.usefixtures("unpaced")
def test_failures_are_not_crowded_out_by_any_number_of_answers(shared: Counters) -> None:
    add(shared.slot(1), "failed", 500)
    for number in range(1000):
        add(shared.slot(1), f"r{number}")
    found = ids(shared)
    assert found[0] == "r999"
    assert found[-1] == "failed"
    assert 100 < len(found) < 300


def test_after_a_burst_there_are_some_fifty_a_second_and_failures_have_their_own_share(
    shared: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("batching.recent.time.monotonic", lambda: now)
    slot = shared.slot(1)
    for number in range(3000):  # one each millisecond
        now = 1000.0 + number / 1000
        if now >= slot.recent.opens_at:
            add(slot, f"r{number}")
    assert 150 <= len(ids(shared)) <= 190
    add(slot, "failed", 500)
    assert "failed" in ids(shared)
    assert slot.recent.failures_open_at < now


def test_a_fold_clears_it_for_the_next_process(shared: Counters) -> None:
    add(shared.slot(1), "old", answer=b"secret")
    add(shared.slot(1), "old", 500)
    add(shared.slot(2), "other")
    shared.fold(1)
    assert ids(shared) == ["other"]
    add(shared.slot(1), "new")
    assert ids(attached(shared)) == ["new", "other"]
    assert b"secret" not in os.pread(shared.fd, SLOT_BYTES, SLOTS_AT + SLOT_BYTES)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(alphabet=st.characters(), max_size=300), min_size=6, max_size=6), st.binary(max_size=300))
def test_any_text_comes_out_as_json_can_say_it(texts: list[str], answer: bytes) -> None:
    shared = Counters.create(2)
    request_id, route, model, version, dialect, code = texts
    shared.slot(1).recent.add(request_id, route, model, version, dialect, 200, code, 2**40, -1, answer=answer)
    (entry,) = shared.recent(1)
    assert json.loads(json.dumps(entry, ensure_ascii=False).encode()) == entry
    for name, given_text in zip(("request_id", "route", "model"), texts, strict=False):
        whole = given_text.encode("utf-8", "backslashreplace").decode()
        assert whole.startswith(entry[name].rstrip("\N{REPLACEMENT CHARACTER}"))
        assert len(whole.encode()) > 60 or entry[name] == whole
    shared.close()


def spoil(shared: Counters, at: int, data: bytes) -> None:
    os.pwrite(shared.fd, data, SLOTS_AT + 2 * SLOT_BYTES - SLOT_RING + at)


@pytest.mark.parametrize("at", [0, 5, 20, 60, recent.ENTRY_BYTES - 1])
def test_an_entry_with_a_wrong_byte_is_not_shown(shared: Counters, at: int) -> None:
    add(shared.slot(1), "good", 500)
    add(shared.slot(1), "torn")
    byte = os.pread(shared.fd, 1, SLOTS_AT + 2 * SLOT_BYTES - SLOT_RING + at)
    spoil(shared, at, bytes([byte[0] ^ 0x40]))
    assert ids(shared) == ["good"]


@pytest.fixture
def hammer(shared: Counters) -> Iterator[subprocess.Popen[bytes]]:
    program = subprocess.Popen([sys.executable, "-c", HAMMER, str(shared.fd)], cwd=ROOT, pass_fds=[shared.fd])
    yield program
    program.kill()
    program.wait()


def test_whoever_reads_beside_a_busy_writer_or_after_its_death_sees_whole_entries_only(
    shared: Counters, hammer: subprocess.Popen[bytes]
) -> None:
    def whole(entries: list[dict[str, Any]]) -> int:
        for entry in entries:
            letter = chr(97 + entry["rows"] % 26)
            texts = (letter * 100, letter * 60, letter * 60, letter * 9)
            assert (entry["request_id"], entry["route"], entry["model"], entry["dialect"]) == texts
            assert entry["total_ms"] == entry["parse_ms"] == entry["rows"] / 1000
        return len(entries)

    other = attached(shared)
    wait_until(lambda: whole(other.recent(1000)) > 100, 10, "entries of the other process")
    for _ in range(100):
        whole(other.recent(1000))
    hammer.send_signal(signal.SIGKILL)
    hammer.wait()
    assert whole(other.recent(1000)) > 100
    shared.fold(2)
    assert other.recent(1000) == []
