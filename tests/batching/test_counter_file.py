"""The counters' file: who may write where, what is refused, what damage may do, and what is left behind."""

from __future__ import annotations

import gc
import json
import os
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching import counter_file
from batching.counter_file import Keys
from batching.counters import Counters
from tests.batching.counting import M1, attached, m1

ROWS, BATCHES, SECONDS = "inference_rows_total", "inference_batches_total", "inference_compute_seconds"


def test_only_the_creator_folds_and_only_its_own_slot_is_writable_elsewhere(shared: Counters) -> None:
    other = attached(shared)
    other.slot(1).counter(ROWS, **M1).add(1)
    with pytest.raises(ValueError, match="only the creator"):
        other.fold(1)
    for part in (*other._file.slots, *other._file.records):
        assert part.values.readonly
        assert part.words.readonly
    assert other._file.header.readonly
    assert other._file.text.readonly


@pytest.mark.parametrize("index", [-1, 4, 1000])
def test_a_slot_that_does_not_exist_is_a_value_error(shared: Counters, index: int) -> None:
    with pytest.raises(ValueError, match="there is no slot"):
        shared.slot(index)
    with pytest.raises(ValueError, match="there is no slot"):
        shared.fold(index)


def test_what_is_no_counters_file_is_refused(shared: Counters, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "zeros").write_bytes(bytes(100_000))
    (tmp_path / "short").write_bytes(os.pread(shared.fd, 100_000, 0))
    for name in ("empty", "zeros", "short"):
        with (tmp_path / name).open("rb+") as file, pytest.raises(ValueError, match="no counters file"):
            Counters.attach(file.fileno())
    monkeypatch.setattr(counter_file, "_LAYOUT", 1)
    with pytest.raises(ValueError, match="another version"):
        Counters.attach(shared.fd)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, counter_file.SLOT_BYTES - 1), st.binary(min_size=1, max_size=64)), max_size=8))
def test_a_slot_spoilt_by_its_process_harms_no_other(scribbles: list[tuple[int, bytes]]) -> None:
    shared = Counters.create(3)
    shared.slot(1).counter(ROWS, **M1).add(5)
    slot = shared.slot(2)
    slot.counter(BATCHES, model="bad", version=1).add(5)
    spoilt = slot._part
    for offset, garbage in scribbles:
        # Most of a slot is never read: aim at its words, its first values and its first keys as well.
        for place in (offset, offset % 256, counter_file.GRANULE + offset % 256):
            fits = garbage[: counter_file.SLOT_BYTES - place]
            os.pwrite(shared.fd, fits, counter_file.SLOTS_AT + 2 * counter_file.SLOT_BYTES + place)
    spoilt.words[counter_file.LENGTH] |= 200
    assert attached(shared).read()[m1(ROWS)] == [5.0]
    shared.fold(2)
    shared.fold(1)
    assert shared.read()[m1(ROWS)] == [5.0]
    assert all(0 <= n < 2.0**54 for numbers in shared.read().values() for n in numbers)
    shared.slot(2).counter(ROWS, **M1).add(1)
    assert attached(shared).read()[m1(ROWS)] == shared.read()[m1(ROWS)] == [6.0]
    shared.close()


def test_without_memfd_an_unlinked_file_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shared = Counters.create(3)
    attached(shared).slot(1).counter(ROWS, **M1).add(1)
    shared.fold(1)
    assert attached(shared).read()[m1(ROWS)] == [1.0]
    assert list(tmp_path.iterdir()) == []
    shared.close()


def test_closing_leaves_no_descriptor_and_no_dead_cell() -> None:
    gc.collect()
    before = psutil.Process().num_fds()
    shared = Counters.create(3)
    cell = shared.slot(1).counter(ROWS, **M1)
    shared.read()
    shared.close()
    cell.add()
    assert cell.values[cell.index] == 1.0
    del shared, cell
    gc.collect()
    assert psutil.Process().num_fds() == before


def test_a_file_for_64_processes_takes_little_memory_until_it_is_used() -> None:
    shared = Counters.create(64)
    shared.slot(1).counter(ROWS, **M1).add(1)
    attached(shared).read()
    assert os.fstat(shared.fd).st_blocks * 512 < 1024 * 1024
    shared.close()


@pytest.mark.parametrize(
    "line",
    [
        pytest.param([ROWS, "m"], id="a label missing"),
        pytest.param([ROWS, "m", 1], id="a label that is no text"),
        pytest.param(["inference_nothing_total"], id="a name that is not in the table"),
        pytest.param([["m"], "1"], id="a name that is no text"),
        pytest.param([SECONDS, "m", "1"], id="more values than there are"),
        pytest.param({}, id="no list"),
    ],
)
def test_reading_keys_ends_at_a_line_that_no_writer_wrote(line: Any) -> None:
    good = json.dumps([ROWS, "m", "1"]).encode() + b"\n"
    text = good + json.dumps(line).encode() + b"\n" + json.dumps([ROWS, "n", "1"]).encode() + b"\n"
    keys = Keys(max_values=10)
    for _ in range(2):
        keys.catch_up(memoryview(text), len(text))
        assert (keys.spans, keys.length, keys.values) == ({m1(ROWS): slice(0, 1)}, len(good), 1)
