"""Hearing of changes, on systems that have inotify."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands.watching import Watcher


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    made.close()


def heard(watcher: Watcher, *expected: str) -> bool:
    """Whether exactly these keys were heard of; without inotify nothing ever is."""
    return watcher.heard() == (set(expected) if watcher.works else set())


def test_a_folder_tells_whoever_watches_it(watcher: Watcher, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    watcher.watch("a", [str(tmp_path / "one"), str(tmp_path / "two")])
    watcher.watch("b", [str(tmp_path / "two")])
    assert heard(watcher)
    (tmp_path / "one" / "file").write_text("x")
    assert heard(watcher, "a")
    (tmp_path / "two" / "file").write_text("x")
    (tmp_path / "three" / "file").write_text("x")
    assert heard(watcher, "a", "b")
    watcher.watch("a", [str(tmp_path / "three")])
    (tmp_path / "one" / "file").unlink()
    (tmp_path / "two" / "file").unlink()
    assert heard(watcher, "b")
    watcher.forget("b")
    (tmp_path / "two" / "file").write_text("x")
    (tmp_path / "three" / "file").rename(tmp_path / "three" / "other")
    assert heard(watcher, "a")


def test_folders_come_and_go(watcher: Watcher, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    watcher.watch("a", [str(tmp_path / "one"), str(tmp_path / "not there"), str(tmp_path)])
    (tmp_path / "one").rmdir()
    assert heard(watcher, "a")
    (tmp_path / "one").mkdir()
    assert heard(watcher, "a")
    watcher.watch("a", [str(tmp_path / "one")])
    watcher.heard()
    (tmp_path / "one" / "file").touch()
    assert heard(watcher, "a")


def test_where_the_system_gives_no_more_watches_it_is_said_once_and_the_descriptor_stays(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if sys.platform != "linux":
        assert watcher.fileno() == -1
        return

    def no_more(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fd = watcher.fileno()
    with monkeypatch.context() as patch:
        patch.setattr("commands.watching.INotify.add_watch", no_more)
        watcher.watch("a", [str(tmp_path)])
    watcher.watch("b", [str(tmp_path)])
    (tmp_path / "file").touch()
    assert (watcher.works, watcher.heard(), watcher.fileno()) == (False, set(), fd)
    assert len([one for one in caplog.records if "looked for instead" in one.message]) == 1
