"""Each record is read once, in its writer's order, and a segment goes when the last of it is committed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from prediction_log.inbox import Busy, Inbox
from prediction_log.record import Encoder, Kind
from prediction_log.segment import make_name
from prediction_log.spool import Spool
from tests.harness import SOON_S, wait_until
from tests.prediction_log.segments import EVERYTHING, SMALL, Disk, disk, locked, put, ship, write

OTHERS = ("notes.txt", "1700000000000-xyz-1.log", "shipper.json", ".hidden.log")


def numbers(first: int, last: int, size: int = 100) -> list[bytes]:
    return [b"%d" % number + bytes(size) for number in range(first, last)]


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"shipper.lock"}


def test_a_batch_is_read_again_until_it_is_committed(tmp_path: Path) -> None:
    payloads = numbers(0, 10)
    write(tmp_path, payloads)
    with locked(tmp_path) as inbox:
        first = inbox.read(4, EVERYTHING)
        assert first.records == inbox.read(4, EVERYTHING).records == payloads[:4]
        inbox.commit(first)
        assert inbox.read(4, EVERYTHING).records == payloads[4:8]
    with locked(tmp_path) as inbox:
        assert ship(inbox) == payloads[4:]
    assert not left(tmp_path)


def test_a_batch_holds_records_of_several_segments_within_its_limits(tmp_path: Path) -> None:
    payloads = numbers(0, 30, 10_000)
    write(tmp_path, payloads)
    assert len(left(tmp_path)) > 3
    with locked(tmp_path) as inbox:
        batch = inbox.read(20, EVERYTHING)
        assert batch.records == payloads[:20]
        assert batch.bytes == sum(map(len, payloads[:20]))
        assert inbox.read(20, 55_000).records == payloads[:5]
        assert inbox.read(20, 1).records == payloads[:1], "a record larger than the limit comes alone"
        assert ship(inbox, 7) == payloads


def test_a_living_segment_is_read_as_it_grows_and_stays(tmp_path: Path) -> None:
    with closing(Spool(tmp_path, max_bytes=None)) as spool, locked(tmp_path) as inbox:
        for number in range(3):
            assert inbox.read(9, EVERYTHING).records == []
            assert spool.append(b"%d" % number)
            batch = inbox.read(9, EVERYTHING)
            assert batch.records == [b"%d" % number]
            inbox.commit(batch)
        assert len(list(tmp_path.glob("*.log"))) >= 1
        spool.close()
        assert inbox.read(9, EVERYTHING).records == []
        assert not left(tmp_path)


def test_writers_take_turns_and_keep_their_order(tmp_path: Path) -> None:
    backlog = [b"old %d" % number + bytes(1000) for number in range(500)]
    write(tmp_path, backlog)
    with (
        closing(Spool(tmp_path, max_bytes=None)) as fast,
        closing(Spool(tmp_path, max_bytes=None)) as slow,
        locked(tmp_path) as inbox,
    ):
        shipped: list[bytes] = []
        for number in range(20):
            put(slow, b"slow %d" % number)
            for part in range(50):
                put(fast, b"fast %d" % (number * 50 + part))
            for _ in range(3):  # three writers have had a turn after three batches
                batch = inbox.read(40, EVERYTHING)
                inbox.commit(batch)
                shipped += batch.records
            assert b"slow %d" % number in shipped
        shipped += ship(inbox)
    assert [record for record in shipped if record.startswith(b"old")] == backlog
    assert [record for record in shipped if record.startswith(b"fast")] == [b"fast %d" % n for n in range(1000)]
    assert [record for record in shipped if record.startswith(b"slow")] == [b"slow %d" % n for n in range(20)]


def test_a_large_record_is_not_starved_by_small_ones(tmp_path: Path) -> None:
    write(tmp_path, [bytes(50_000)])
    with closing(Spool(tmp_path, max_bytes=None)) as spool, locked(tmp_path) as inbox:
        for _ in range(3):
            assert spool.append(b"small")
            batch = inbox.read(9, 10_000)
            inbox.commit(batch)
            if bytes(50_000) in batch.records:
                return
    raise AssertionError("the large record never came")


def test_damage_is_set_aside_once_however_often_it_is_read(tmp_path: Path) -> None:
    payloads = numbers(0, 5)
    path = write(tmp_path, payloads)
    size = 16 + 104
    with path.open("r+b") as file:
        file.seek(64 + 2 * size + 30)
        file.write(b"\xff")
    for spoilt in (1, 0):
        with locked(tmp_path) as inbox:
            for _ in range(2):
                assert inbox.read(9, EVERYTHING).records == payloads[:2] + payloads[3:]
            assert inbox.spoilt == spoilt
    [dead] = (tmp_path / "dead").iterdir()
    assert dead.name == f"{path.name}-{64 + 2 * size}.bin"
    assert dead.read_bytes() == path.read_bytes()[64 + 2 * size : 64 + 3 * size].rstrip(b"\0")
    assert dead.stat().st_mode & 0o777 == 0o600
    assert dead.parent.stat().st_mode & 0o777 == 0o700
    with locked(tmp_path) as inbox:
        assert ship(inbox) == payloads[:2] + payloads[3:]
    assert left(tmp_path) == {"dead"}


def test_a_segment_of_nothing_but_damage_is_set_aside_and_deleted(tmp_path: Path) -> None:
    path = write(tmp_path, [b"a"])
    path.write_bytes(b"rubbish" * 1000)
    with locked(tmp_path) as inbox:
        assert inbox.read(9, EVERYTHING).records == []
        assert inbox.spoilt == 1
    assert left(tmp_path) == {"dead"}


def test_what_the_dead_left_without_a_record_is_deleted_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / make_name(1, "a" * 16, 1)).touch()
    (tmp_path / make_name(2, "b" * 16, 1)).write_bytes(bytes(SMALL))
    (tmp_path / (make_name(3, "c" * 16, 1) + ".new")).write_bytes(bytes(SMALL))
    for name in OTHERS:
        (tmp_path / name).write_bytes(b"x")
    folder = tmp_path / make_name(4, "d" * 16, 1)
    folder.mkdir()
    with locked(tmp_path) as inbox:
        assert inbox.read(9, EVERYTHING).records == []
    assert left(tmp_path) == {*OTHERS, folder.name}


def test_one_process_ships_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "made by whoever comes first"
    with locked(folder), closing(Inbox(folder)) as second:
        with pytest.raises(Busy, match=str(os.getpid())) as caught:
            second.lock()
        assert caught.value.pid == os.getpid()
    with locked(folder):
        assert stat.S_IMODE((folder / "shipper.lock").stat().st_mode) == 0o600


def test_a_dead_shippers_lock_is_free(tmp_path: Path) -> None:
    code = "import sys, pathlib; from prediction_log.inbox import Inbox; i = Inbox(pathlib.Path(sys.argv[1])); i.lock()"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}; print('locked', flush=True); sys.stdin.read()", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with closing(Inbox(tmp_path)) as inbox, pytest.raises(Busy) as caught:
            inbox.lock()
        assert caught.value.pid == other.pid
        other.kill()
    with locked(tmp_path) as inbox:
        assert inbox.read(1, 1).records == []


def test_without_the_lock_nothing_is_read_or_changed(tmp_path: Path) -> None:
    write(tmp_path, [b"x" * 104] * 3)
    (tmp_path / make_name(1, "a" * 16, 1)).touch()
    before = left(tmp_path)
    with closing(Inbox(tmp_path)) as inbox:
        with pytest.raises(RuntimeError, match="not locked"):
            inbox.read(9, EVERYTHING)
        assert inbox.waiting_bytes == 3 * (16 + 104)
        assert [info.lives for info in inbox.segments()] == [False, False]
    assert left(tmp_path) == before


def test_a_folder_that_does_not_exist_holds_nothing(tmp_path: Path) -> None:
    with closing(Inbox(tmp_path / "none")) as inbox:
        assert (inbox.segments(), inbox.waiting_bytes, inbox.oldest_s) == ([], 0, 0.0)


def test_what_waits_and_how_long_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prediction_log.inbox._MEASURE_S", 0.0)
    encoder = Encoder()
    with closing(Spool(tmp_path, max_bytes=None)) as spool, locked(tmp_path) as inbox:
        assert (inbox.waiting_bytes, inbox.oldest_s) == (0, 0.0)
        made = []
        for _ in range(3):
            made.append(time.time())
            assert spool.append(encoder.encode(Kind.PREDICTION, "x"))
        one = inbox.waiting_bytes / 3
        for shipped in range(3):
            # The gauge is what a record would be as old as: between the time it was made, and now.
            assert time.time() - inbox.oldest_s == pytest.approx(made[shipped], abs=0.5)
            assert inbox.waiting_bytes == one * (3 - shipped)
            inbox.commit(inbox.read(1, EVERYTHING))
        assert (inbox.waiting_bytes, inbox.oldest_s) == (0, 0.0)
        assert any(info.lives for info in inbox.segments())


def test_what_is_no_record_of_ours_is_as_old_as_its_segment(tmp_path: Path) -> None:
    path = tmp_path / make_name(int(time.time() * 1000) - 60_000, "a" * 16, 1)
    written = write(tmp_path / "other", [b"x"])
    path.write_bytes(written.read_bytes())
    with closing(Inbox(tmp_path)) as inbox:
        assert inbox.waiting_bytes  # under another name it is damage, and waits to be set aside
        assert 59 < inbox.oldest_s < 90


def test_a_disk_too_full_to_set_anything_aside_holds_up_nobody_else(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "1m") as small:
        folder = small.folder
        small.grow()
        damaged = write(folder, numbers(0, 3))
        with damaged.open("r+b") as file:
            file.seek(100)
            file.write(b"\xff")
        write(folder, numbers(10, 13))
        with locked(folder) as inbox, no_room_below(folder / "dead", small):
            batch = inbox.read(9, EVERYTHING)
            assert batch.records == numbers(10, 13)
            assert inbox.spoilt == 0
            inbox.commit(batch)
        with locked(folder) as inbox:
            assert ship(inbox) == numbers(1, 3)
            assert inbox.spoilt == 1


@contextmanager
def no_room_below(folder: Path, small: Disk) -> Iterator[None]:
    """A disk that is full to the last byte; where nobody may mount, a file is in the folder's place."""
    rubbish = folder.parent / "rubbish" if small.is_mounted else folder
    with rubbish.open("wb", buffering=0) as file, suppress(OSError):
        while small.is_mounted:
            file.write(bytes(1 << 20))
    yield
    rubbish.unlink()


def test_a_read_only_disk_is_read_and_what_was_shipped_is_not_shipped_again(tmp_path: Path) -> None:
    payloads = numbers(0, 4)
    with disk(tmp_path / "disk", "1m") as small:
        if not small.is_mounted:
            small.grow()
        write(small.folder, payloads)
        with locked(small.folder) as inbox:
            batch = inbox.read(2, EVERYTHING)
            inbox.commit(batch)
            [path] = small.folder.glob("*.log")
            # The lock file is open for writing, so the disk cannot turn read-only under it: the file does.
            path.chmod(0o400)
            assert ship(inbox, 1) == payloads[2:]
            assert inbox.read(9, EVERYTHING).records == []


def test_a_deleted_segment_does_not_end_the_shipper(tmp_path: Path) -> None:
    write(tmp_path, numbers(0, 3)).rename(tmp_path / "aside")
    second = write(tmp_path, numbers(3, 6))
    with locked(tmp_path) as inbox:
        batch = inbox.read(1, EVERYTHING)
        assert inbox.segments()
        second.unlink()
        inbox.commit(batch)
        assert ship(inbox) == numbers(4, 6), "what is open stays readable"
    with locked(tmp_path) as inbox:
        assert ship(inbox) == []


def test_finished_segments_do_not_stay_open(tmp_path: Path) -> None:
    for _ in range(30):
        write(tmp_path, [b"x"])
    before = len(os.listdir("/proc/self/fd"))
    with locked(tmp_path) as inbox:
        assert len(inbox.segments()) == 30
        assert len(os.listdir("/proc/self/fd")) == before + 1, "the lock"
        assert len(ship(inbox)) == 30
        assert len(os.listdir("/proc/self/fd")) == before + 1
    wait_until(lambda: len(os.listdir("/proc/self/fd")) == before, SOON_S, "nothing is left open")
