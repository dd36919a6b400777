"""The shipper's status file: whole at any time, and never in the way of shipping."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from prediction_log.status import NAME, Status, read_status


def test_a_folder_that_nobody_has_shipped_has_a_status(tmp_path: Path) -> None:
    status = read_status(tmp_path / "nowhere")
    assert (status["shipped_rows"], status["pid"], status["last_error"]) == (0, None, None)


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"shipped_', b"\xff"])
def test_a_file_that_is_none_of_ours_is_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    assert read_status(tmp_path)["shipped_rows"] == 0


def test_a_later_shipper_adds_to_what_the_earlier_has_counted(tmp_path: Path) -> None:
    for _ in range(2):
        status = Status(tmp_path, lambda: 0.0)
        status.succeeded(shipped=10, quarantined=2, damaged=1)
        status.failed("53100", "the disk is full")
        status.write()
    found = read_status(tmp_path)
    assert (found["shipped_rows"], found["quarantined_rows"], found["damaged_records"]) == (20, 4, 2)
    assert (found["last_error"]["sqlstate"], found["last_error"]["text"]) == ("53100", "the disk is full")
    assert found["pid"] == os.getpid()
    assert found["last_success"] <= found["last_error"]["at"] <= found["updated"]
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_it_is_written_once_a_second_at_the_most(tmp_path: Path) -> None:
    now = [0.0]
    status = Status(tmp_path, lambda: now[0])
    written = []
    for now[0] in (0.0, 0.5, 0.9, 1.0, 1.9, 2.5):
        status.succeeded(shipped=1, quarantined=0, damaged=0)
        status.write_if_due()
        written.append(read_status(tmp_path)["shipped_rows"])
    assert written == [1, 1, 1, 4, 4, 6]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    Status(tmp_path / "nowhere", lambda: 0.0).write()
    assert not (tmp_path / "nowhere").exists()
