"""Kept copies: what they are made of, whose they are, and what happens where none can be made."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from models import shelf
from models.fingerprint import digest, stamp, walk
from models.repository import ModelReference, scan, single
from models.shelf import BIRTH_S, Moving, Shelf
from tests.models.test_repository import contract, keras_file, saved_model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one SavedModel."""
    saved_model(tmp_path / "models" / "a" / "1")
    return tmp_path / "models"


@pytest.fixture
def kept(root: Path) -> Iterator[Shelf]:
    made = Shelf(root)
    yield made
    made.close()


def reference(root: Path) -> ModelReference:
    return scan(root)[0]


def names(folder: Path) -> list[str]:
    return [seen.inside for seen in walk(folder)]


# -- what changes a digest ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["written", "touched", "replaced", "added", "removed", "renamed", "contract"])
def test_whatever_becomes_of_a_file_makes_another_digest(root: Path, how: str) -> None:
    folder = root / "a" / "1"
    before, mark = reference(root).digest, stamp([folder])[0]
    index = folder / "variables" / "variables.index"
    if how == "written":
        index.write_bytes(b"other")
    elif how == "touched":
        os.utime(index, ns=(0, 1))
    elif how == "replaced":
        status = index.stat()
        (folder / "new").write_bytes(b"INDEX")
        os.utime(folder / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
        (folder / "new").rename(index)
    elif how == "added":
        (folder / "assets").mkdir()
        (folder / "assets" / "words").touch()
    elif how == "removed":
        index.unlink()
    elif how == "renamed":
        index.rename(index.with_name("other"))
    else:
        contract(root / "a" / "contract.json")
    assert reference(root).digest != before
    assert how == "contract" or stamp([folder])[0] != mark


def test_looking_and_linking_change_no_digest(root: Path, tmp_path: Path) -> None:
    before = reference(root)
    (root / "a" / "1" / "saved_model.pb").read_bytes()
    os.link(root / "a" / "1" / "saved_model.pb", tmp_path / "link")
    assert reference(root) == before


def test_a_walk_follows_links_and_comes_back_from_circles(root: Path) -> None:
    folder = root / "a" / "1"
    (folder / "more").symlink_to(folder / "variables")
    (folder / "circle").symlink_to(folder)
    (folder / "gone").symlink_to(folder / "nothing")
    files = ["/variables.data-00000-of-00001", "/variables.index"]
    assert names(folder) == [
        "",
        "/circle",
        "/more",
        *(f"/more{file}" for file in files),
        "/saved_model.pb",
        "/variables",
        *(f"/variables{file}" for file in files),
    ]
    assert digest(root / "nothing", None) == digest(root / "nowhere", None)


# -- copies ------------------------------------------------------------------------------------------------------------


def test_a_copy_is_whole_and_the_same_for_the_same_files(root: Path, kept: Shelf) -> None:
    (root / "a" / "1" / "assets").mkdir()
    (root / "a" / "1" / "assets" / ".words").write_text("hidden, but the model's")
    contract(root / "a" / "contract.json")
    before = reference(root)
    copy = kept.keep(before)
    assert names(Path(copy.path)) == names(Path(before.path))
    assert replace(copy, path=before.path, contract_path=before.contract_path) == before
    assert kept.keep(reference(root)) is copy


def test_the_copy_of_a_file_keeps_its_name_for_its_kind_hangs_on_it(tmp_path: Path) -> None:
    keras_file(tmp_path / "My Model.keras")
    with closing(Shelf(tmp_path)) as made:
        assert Path(made.keep(single(tmp_path / "My Model.keras")[0]).path).name == "My Model.keras"


def test_nothing_is_handed_out_that_changed_meanwhile(root: Path, kept: Shelf) -> None:
    before = reference(root)
    (root / "a" / "1" / "saved_model.pb").write_bytes(b"other")
    with pytest.raises(Moving):
        kept.keep(before)
    for path in (root / "a" / "1").rglob("*.pb"):
        path.unlink()
    with pytest.raises(Moving):
        kept.keep(replace(before, path=str(root / "a" / "2")))


def test_a_copy_that_somebody_removed_is_made_again(root: Path, kept: Shelf) -> None:
    copy = kept.keep(reference(root))
    for path in sorted(Path(copy.path).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    Path(copy.path).rmdir()
    assert names(Path(kept.keep(reference(root)).path)) == names(root / "a" / "1")


def test_where_the_disk_is_full_or_there_are_too_many_files_the_model_is_linked_or_left_where_it_lies(
    root: Path, kept: Shelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shelf, "_cloned", lambda source, target: False)
    monkeypatch.setattr("shutil.copyfile", full)
    copy = kept.keep(reference(root))
    assert (Path(copy.path) / "saved_model.pb").samefile(root / "a" / "1" / "saved_model.pb")
    monkeypatch.setattr("os.link", full)
    (root / "a" / "1" / "saved_model.pb").write_bytes(b"another")
    assert kept.keep(reference(root)) == reference(root)
    monkeypatch.setattr(shelf, "FILES_MAX", 3)
    (root / "a" / "1" / "saved_model.pb").write_bytes(b"other")
    assert kept.keep(reference(root)) == reference(root)
    for _ in range(2):
        kept.complain()
    assert [one.message for one in caplog.records if "No space left" in one.message]
    assert len(caplog.records) == 1


# -- whose they are ----------------------------------------------------------------------------------------------------


def test_folders_of_the_living_stay_and_those_of_the_dead_go(root: Path) -> None:
    living, dead, newborn, old = (root / f".kept-{name}" for name in ("living", "dead", "newborn", "old"))
    for folder in (living, dead, newborn, old):
        folder.mkdir()
    (living / "lock").touch()
    (dead / "lock").touch()
    os.utime(old, (time.time() - 2 * BIRTH_S, time.time() - 2 * BIRTH_S))
    with (living / "lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = Shelf(root)
        assert (living.exists(), dead.exists(), newborn.exists(), old.exists()) == (True, False, True, False)
        made.close()
    assert sorted(folder.name for folder in root.glob(".kept-*")) == [".kept-living", ".kept-newborn"]


def test_only_what_is_needed_is_retained(root: Path, kept: Shelf) -> None:
    first = kept.keep(reference(root))
    (root / "a" / "1" / "saved_model.pb").write_bytes(b"other")
    second = kept.keep(reference(root))
    kept.retain([second])
    assert (Path(first.path).exists(), Path(second.path).exists()) == (False, True)
    kept.close()
    assert not list(root.glob(".kept-*"))
