"""What is appended is there, at once and after the process; what is not taken was refused, never lost in silence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prediction_log.segment import sync_data
from prediction_log.spool import SYNCS, Spool, folder_bytes
from prediction_log.tail import read_all
from tests.harness import ROOT, SOON_S, wait_until
from tests.prediction_log.segments import SMALL, put

DELETED = "the spool's files were deleted"


def opened(folder: Path, sync: str = "none", segment_bytes: int = SMALL) -> Spool:
    return Spool(folder, max_bytes=None, sync=sync, segment_bytes=segment_bytes)


def spare_count(folder: Path) -> int:
    return len(list(folder.glob("*.log")))


@given(st.lists(st.binary(max_size=30_000), max_size=12))
def test_payloads_come_back_in_order_from_as_many_segments_as_they_need(payloads: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder, closing(opened(Path(folder))) as spool:
        for payload in payloads:
            put(spool, payload)
        assert list(read_all(Path(folder))) == payloads
        spool.close()
        assert list(read_all(Path(folder))) == payloads


def test_the_largest_payload_fits_and_a_larger_one_is_dropped(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as spool:
        largest = os.urandom(spool.capacity)
        put(spool, b"before")
        put(spool, largest)
        assert not spool.append(largest + b"x")
        put(spool, b"after")
    assert list(read_all(tmp_path)) == [b"before", largest, b"after"]


def test_threads_share_a_spool(tmp_path: Path) -> None:
    def append(thread: int) -> None:
        for number in range(500):
            put(spool, b"%d %d" % (thread, number) + bytes(400))

    with closing(opened(tmp_path, segment_bytes=1 << 20)) as spool:
        threads = [threading.Thread(target=append, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = [tuple(map(int, record.rstrip(b"\0").split())) for record in read_all(tmp_path)]
    assert sorted(found) == [(thread, number) for thread in range(8) for number in range(500)]
    assert [number for thread, number in found if thread == 3] == list(range(500))


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "spool"
    with closing(opened(folder)) as spool:
        spool.append(b"x")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_closed_spool_takes_the_room_it_needs_and_no_more_records(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    wait_until(lambda: spare_count(tmp_path) == 2, SOON_S, "two spares")
    assert spool.append(b"x" * 100)
    spool.close()
    spool.close()
    assert not spool.append(b"y")
    [path] = tmp_path.iterdir()
    assert path.stat().st_size == 64 + 16 + 104


def test_a_spool_without_a_record_leaves_nothing(tmp_path: Path) -> None:
    opened(tmp_path).close()
    assert not list(tmp_path.iterdir())


def test_other_ways_to_sync_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sync is none, interval, each, not 'often'"):
        opened(tmp_path, "often")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes the active segments had when each sync ended."""
    ends: list[int] = []

    def sync(fd: int) -> None:
        sync_data(fd)
        ends.append(fd)

    monkeypatch.setattr("prediction_log.spool.sync_data", sync)
    return ends


def test_each_append_may_be_synced_before_it_returns(tmp_path: Path, synced: list[int]) -> None:
    with closing(opened(tmp_path, "each")) as spool:
        for number in range(5):
            assert spool.append(b"x")
            assert len(synced) == number + 1


def test_appends_are_synced_together_soon_after_the_first(tmp_path: Path, synced: list[int]) -> None:
    with closing(opened(tmp_path, "interval")) as spool:
        for round_number in (1, 2):
            before = time.monotonic()
            for _ in range(10):
                assert spool.append(b"x")
            wait_until(lambda rounds=round_number: len(synced) >= rounds, SOON_S, "a sync")  # type: ignore[misc]
            assert len(synced) <= round_number + (time.monotonic() - before) // 0.075


def test_nothing_is_synced_where_nobody_asks_for_it(tmp_path: Path, synced: list[int]) -> None:
    with closing(opened(tmp_path)) as spool:
        for _ in range(1000):
            spool.append(bytes(1000))
    assert not synced


@pytest.mark.parametrize("sync", SYNCS)
def test_an_idle_spool_costs_nothing(tmp_path: Path, sync: str) -> None:
    with closing(opened(tmp_path, sync)) as spool:
        assert spool.append(b"x")

        def switches() -> list[str]:
            status = [Path(f"/proc/self/task/{thread.native_id}/status").read_text() for thread in spool._threads]
            return [line for text in status for line in text.splitlines() if "ctxt_switches" in line]

        def rests() -> bool:
            before = switches()
            time.sleep(0.5)
            return before == switches()

        wait_until(rests, SOON_S, "half a second in which no thread of it runs")


def test_a_quiet_writer_turns_to_another_segment_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prediction_log.spool._TURN_AFTER_S", 0.05)
    with closing(opened(tmp_path)) as spool:
        assert spool.append(b"first")
        wait_until(lambda: min(tmp_path.glob("*.log")).stat().st_size < SMALL, SOON_S, "a segment that is put away")
        assert spool.append(b"second")
        assert list(read_all(tmp_path)) == [b"first", b"second"]


def appended_again(spool: Spool, folder: Path) -> Callable[[], bool]:
    return lambda: spool.append(b"again") and b"again" in read_all(folder)


@pytest.mark.parametrize("sync", SYNCS)
def test_a_deleted_segment_is_noticed_and_replaced(tmp_path: Path, sync: str) -> None:
    told: list[str | None] = []
    with closing(Spool(tmp_path, max_bytes=None, sync=sync, on_condition=told.append)) as spool:
        assert spool.append(b"x")
        for path in tmp_path.glob("*.log"):
            path.unlink()
        wait_until(appended_again(spool, tmp_path), SOON_S, "a new segment")
        wait_until(lambda: DELETED in told and told[-1] is None, SOON_S, "a condition that has passed")


def test_a_deleted_folder_is_noticed_and_made_again(tmp_path: Path) -> None:
    told: list[str | None] = []
    folder = tmp_path / "spool"
    with closing(Spool(folder, max_bytes=None, on_condition=told.append)) as spool:
        assert spool.append(b"x")
        shutil.rmtree(folder.rename(tmp_path / "gone"))  # aside first: the next segment may be in the making
        wait_until(appended_again(spool, folder), SOON_S, "a new folder")
        wait_until(lambda: DELETED in told and told[-1] is None, SOON_S, "a condition that has passed")


def test_a_disk_that_hangs_delays_one_append_a_little_and_the_others_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = threading.Event()
    moves.set()

    def sync(fd: int) -> None:
        moves.wait(SOON_S)

    monkeypatch.setattr("prediction_log.segment.sync_data", sync)
    told: list[str | None] = []
    payload = bytes(SMALL - 200)
    with closing(Spool(tmp_path, max_bytes=None, segment_bytes=SMALL, on_condition=told.append)) as spool:
        wait_until(lambda: spare_count(tmp_path) == 2, SOON_S, "two spares")
        moves.clear()
        assert spool.append(payload)
        assert spool.append(payload)
        wait_until(lambda: not spool._spares, SOON_S, "no spares")
        before = time.monotonic()
        assert not spool.append(payload)
        assert time.monotonic() - before >= 0.02
        before = time.thread_time()
        assert not any(spool.append(payload) for _ in range(1000))
        assert time.thread_time() - before < 0.5
        moves.set()
        wait_until(lambda: spool.append(payload), SOON_S, "a segment")
        wait_until(lambda: told == ["the spool's disk is too slow", None], SOON_S, "a condition that has passed")


def test_a_forked_child_refuses_what_its_parent_appends(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, sys, warnings
warnings.simplefilter("ignore")  # of threads, which are what is at stake
from prediction_log.spool import Spool
spool = Spool(pathlib.Path({str(tmp_path)!r}), max_bytes=None)
assert spool.append(b"parent")
if not (pid := os.fork()):
    refused = not spool.append(b"child")
    spool.close()
    os._exit(0 if refused else 1)
assert os.waitpid(pid, 0)[1] == 0
assert spool.append(b"parent again")
spool.close()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert list(read_all(tmp_path)) == [b"parent", b"parent again"]


def test_a_folders_bytes_are_those_of_all_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / "a").write_bytes(bytes(10))
    (tmp_path / "b").write_bytes(bytes(5))
    assert folder_bytes(tmp_path) == 15
