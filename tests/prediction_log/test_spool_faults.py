"""Full, read-only and limited disks, for real: what cannot be logged is refused at once, why is said, and it heals."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from prediction_log.spool import Spool, folder_bytes
from prediction_log.tail import read_all
from tests.harness import SOON_S, wait_until
from tests.prediction_log.segments import SMALL, Disk, disk, locked, no_file_larger_than, no_more_open_files, ship

NO_SPACE = "no space left on the spool's disk"
LIMIT = "the spool holds as much as it may"
PAYLOAD = bytes(range(250)) * 4
MIB = 1 << 20


class Watched:
    """A spool, what it said of its condition, and what it took."""

    def __init__(self, folder: Path, max_bytes: int | None = None, segment_bytes: int = 4 * MIB) -> None:
        self.told: list[str | None] = []
        self.taken: list[bytes] = []
        self.spool = Spool(folder, max_bytes=max_bytes, segment_bytes=segment_bytes, on_condition=self.told.append)

    def append(self) -> bool:
        payload = b"%d " % len(self.taken) + PAYLOAD
        if self.spool.append(payload):
            self.taken.append(payload)
            return True
        return False

    def fill(self, reason: str) -> None:
        """Append until records are refused, and that has been said to be why."""
        wait_until(lambda: self._fill() and self.told[-1:] == [reason], SOON_S, reason)

    def _fill(self) -> bool:
        while self.append():
            pass
        return True

    def heals(self) -> None:
        """It takes records again, within a second and the time that a busy machine takes for it."""
        wait_until(self.append, 1.0, "records are taken again")
        wait_until(lambda: self.told[-1] is None, SOON_S, "all is well")

    def close(self) -> None:
        self.spool.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    with disk(tmp_path / "disk", "1m") as made:
        yield made


def test_a_full_disk_is_used_to_its_end_and_refused_records_are_counted_right(small_disk: Disk) -> None:
    folder = small_disk.folder / "spool"
    with closing(Watched(folder)) as watched:
        watched.fill(NO_SPACE)
        before = time.thread_time()
        assert not any(watched.append() for _ in range(1000))
        assert time.thread_time() - before < 0.5, "nothing is waited for while the disk is full"
        if small_disk.is_mounted:
            assert sum(map(len, watched.taken)) > 0.85 * MIB
        assert list(read_all(folder)) == watched.taken
        small_disk.grow()
        watched.heals()
        assert list(read_all(folder)) == watched.taken


def test_a_shipped_segment_makes_room_on_a_full_disk(small_disk: Disk) -> None:
    folder = small_disk.folder / "spool"
    with closing(Watched(folder)) as watched, locked(folder) as inbox:
        watched.fill(NO_SPACE)
        shipped = ship(inbox)
        if not small_disk.is_mounted:
            small_disk.grow()
        watched.heals()
        shipped += ship(inbox)
        assert shipped == watched.taken


def test_large_records_are_taken_again_once_there_is_room_for_them(small_disk: Disk) -> None:
    """The small spares of a full disk must not outlive it: nobody would ever use them up."""
    with closing(Spool(small_disk.folder, max_bytes=None)) as spool:
        large = bytes(2 * MIB)
        wait_until(lambda: spool._spares or spool._trouble, SOON_S, "the disk has been met")
        assert not spool.append(large)
        small_disk.grow()
        wait_until(lambda: spool.append(large), SOON_S, "a large segment")


def test_a_read_only_disk_is_said_and_heals(small_disk: Disk) -> None:
    folder = small_disk.folder
    small_disk.grow()
    small_disk.allow_writing(allowed=False)
    with closing(Watched(folder)) as watched:
        assert not watched.append()
        said = "the spool's disk is read-only" if small_disk.is_mounted else "the spool's folder may not be written"
        wait_until(lambda: watched.told == [said], SOON_S, "a condition")
        small_disk.allow_writing(allowed=True)
        watched.heals()
    assert list(read_all(folder)) == watched.taken
    assert watched.taken


def test_a_file_in_the_folders_place_is_said_and_heals(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.touch()
    with closing(Watched(folder)) as watched:
        assert not watched.append()
        wait_until(lambda: watched.told == ["the spool's folder is no folder"], SOON_S, "a condition")
        folder.unlink()
        watched.heals()


def test_a_process_without_a_file_to_open_is_said_and_heals(tmp_path: Path) -> None:
    with ExitStack() as ends:
        with no_more_open_files():
            watched = ends.enter_context(closing(Watched(tmp_path)))
            assert not watched.append()
            wait_until(lambda: watched.told == ["too many open files"], SOON_S, "a condition")
        watched.heals()


def test_a_quota_that_the_disk_does_not_tell_of_makes_smaller_segments(tmp_path: Path) -> None:
    with no_file_larger_than(300 * 1024), closing(Watched(tmp_path)) as watched:
        assert watched.append()
        assert {path.stat().st_size for path in tmp_path.glob("*.log")} == {256 * 1024}
        assert watched.told == []


def test_the_limit_holds_for_the_whole_folder_and_opens_when_something_is_deleted(tmp_path: Path) -> None:
    other = tmp_path / "dead" / "old"
    other.parent.mkdir()
    other.write_bytes(bytes(MIB))
    with closing(Watched(tmp_path, max_bytes=2 * MIB)) as watched:
        watched.fill(LIMIT)
        assert 1.9 * MIB < folder_bytes(tmp_path) <= 2 * MIB
        shutil.rmtree(other.parent)
        watched.heals()
    assert list(read_all(tmp_path)) == watched.taken


def test_a_limit_of_less_than_one_segment_refuses_everything(tmp_path: Path) -> None:
    with closing(Watched(tmp_path, max_bytes=1000)) as watched:
        assert not watched.append()
        wait_until(lambda: watched.told == [LIMIT], SOON_S, "a condition")


def test_segments_are_small_beside_the_limit_that_they_share(tmp_path: Path) -> None:
    with closing(Spool(tmp_path, max_bytes=16 * MIB + 99)) as spool:
        assert spool.append(bytes(spool.capacity))
        assert {path.stat().st_size for path in tmp_path.glob("*.log")} == {MIB}
        assert spool.capacity > 0.99 * MIB
        assert spool.capacity > SMALL
