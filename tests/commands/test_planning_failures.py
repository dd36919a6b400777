"""What the planner does about versions that fail, operators who ask, and files that go away under what serves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from commands.planning import RETRIES_S
from models import shelf
from tests.commands.desk import Start, keras_file
from tests.harness import ROOT

# -- what fails, and what operators say --------------------------------------------------------------------------------


def test_what_could_not_be_loaded_is_tried_again_a_bounded_number_of_times(root: Path, start: Start) -> None:
    desk = start(root)
    desk.serve()
    keras_file(root / "a" / "3" / "x.keras")
    desk.look()
    for pause_s in RETRIES_S:
        desk.fail("3")
        assert desk.glance(0.0) is not None
        assert (desk.versions(), desk.reason("3")) == (["2"], "it is broken; version 2 serves")
        assert desk.glance(pause_s - 0.1) is None
        assert desk.glance(0.2) is not None
        assert (desk.versions(), desk.reason("3")) == (["3"], "")
    desk.fail("3")
    desk.glance()
    assert desk.versions() == ["2"]
    assert desk.glance(100_000.0) is None
    keras_file(root / "a" / "3" / "x.keras", '{"mended": 1}')
    desk.look()
    assert desk.versions() == ["3"]


def test_files_that_are_spoilt_in_place_leave_their_earlier_ones_serving(root: Path, start: Start) -> None:
    desk = start(root)
    desk.serve()
    before = desk.wanted
    (root / "a" / "2" / "x.keras").write_bytes(b"not a model")
    desk.look()
    assert desk.wanted.groups == before.groups
    assert desk.reason("2").endswith("; its earlier files serve on")
    assert zipfile.is_zipfile(desk.file_of("2"))
    keras_file(root / "a" / "2" / "x.keras", '{"whole": "but wrong"}')
    desk.look()
    assert desk.wanted.groups != before.groups
    desk.fail("2", "its signature has changed")
    desk.glance()
    assert desk.wanted.groups == before.groups


def test_a_version_that_was_replaced_by_a_bad_one_serves_on_from_its_copy(root: Path, start: Start) -> None:
    shutil.rmtree(root / "a" / "1")
    desk = start(root)
    desk.serve()
    keras_file(root / "a" / "3" / "x.keras")
    shutil.rmtree(root / "a" / "2")
    desk.look()
    assert desk.versions() == ["3"]
    desk.fail("3")
    desk.glance()
    assert desk.versions() == ["2"]
    assert desk.file_of("2").exists()


def test_a_version_that_was_taken_back_comes_again_only_when_asked_for_or_changed(root: Path, start: Start) -> None:
    desk = start(root)
    desk.serve()
    keras_file(root / "a" / "3" / "x.keras")
    desk.look()
    desk.serve()
    desk.planner.rolled_back(desk.wanted.groups["default"])
    desk.glance()
    assert (desk.versions("a"), desk.versions("b")) == (["2"], ["1"])
    assert "took it back" in desk.reason("3")
    desk.serve()
    assert desk.look() is None
    desk.planner.ask("reload", "a")
    desk.glance()
    assert desk.versions() == ["3"]


def test_an_unloaded_model_stays_away_until_it_is_asked_for(root: Path, start: Start) -> None:
    desk = start(root)
    desk.planner.ask("unload", "a")
    desk.glance()
    assert (desk.versions("a"), desk.versions("b")) == ([], ["1"])
    assert desk.wanted.refused == [
        {"name": "a", "version": "2", "reason": "an operator unloaded it", "state": "UNLOADED"}
    ]
    keras_file(root / "a" / "3" / "x.keras")
    desk.look()
    desk.planner.ask("reload", None)
    desk.glance()
    assert desk.versions("a") == []
    desk.planner.ask("load", "a")
    desk.glance()
    assert desk.versions("a") == ["3"]


@pytest.mark.parametrize(
    ("action", "model", "reason"),
    [("load", "nobody", "no model nobody"), ("unload", None, "must be named"), ("rollback", "a", "none of load")],
)
def test_what_cannot_be_done_is_said(root: Path, start: Start, action: str, model: str | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        start(root).planner.ask(action, model)


def test_without_a_time_to_settle_only_a_word_changes_anything(root: Path, start: Start) -> None:
    desk = start(root, settle_s=0.0)
    keras_file(root / "a" / "3" / "x.keras")
    assert (desk.look(), desk.planner.fileno()) == (None, -1)
    desk.planner.ask("reload", None)
    desk.glance()
    assert desk.versions() == ["3"]
    desk.fail("3")
    desk.glance()
    assert desk.versions() == ["2"]
    assert desk.glance(100_000.0) is None


# -- copies ------------------------------------------------------------------------------------------------------------


def test_what_is_handed_out_survives_deletion_and_writing_over(root: Path, start: Start) -> None:
    (root / "a" / "contract.json").write_text("{}")
    desk = start(root)
    reference = desk.wanted.groups["default"][0]
    content = Path(reference["path"]).read_bytes()
    with (root / "a" / "2" / "x.keras").open("r+b") as file:
        file.write(b"something else")
    shutil.rmtree(root / "a")
    assert Path(reference["path"]).read_bytes() == content
    assert Path(reference["contract_path"]).read_text() == "{}"


def test_copies_that_nobody_needs_go_and_the_last_good_one_stays(root: Path, start: Start) -> None:
    desk = start(root)
    kept = [desk.file_of("2")]
    for round_ in range(4):
        desk.serve()
        keras_file(root / "a" / "2" / "x.keras", json.dumps({"round": round_}))
        desk.look()
        kept.append(desk.file_of("2"))
    desk.serve()
    assert [path.exists() for path in kept] == [False, False, False, True, True]


def test_large_models_are_linked_and_links_within_are_copied_by_content(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "SMALL_BYTES", 0)
    monkeypatch.setattr(shelf, "_cloned", lambda source, target: False)
    variables = root / "b" / "1" / "variables"
    (root / ".store").mkdir()
    (variables / "variables.index").rename(root / ".store" / "index")
    (variables / "variables.index").symlink_to(root / ".store" / "index")
    kept = start(root).file_of("1", "b")
    assert (kept / "saved_model.pb").samefile(root / "b" / "1" / "saved_model.pb")
    assert not (kept / "variables" / "variables.index").is_symlink()
    assert (kept / "variables" / "variables.index").read_bytes() == b"index"


def test_where_nothing_can_be_kept_the_files_are_served_where_they_lie(
    root: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    no_folder = keras_file(root.parent / "file")
    desk = start(root, keep_dir=no_folder)
    assert desk.file_of("2") == root.resolve() / "a" / "2" / "x.keras"
    keras_file(root / "a" / "3" / "x.keras")
    desk.look()
    assert desk.file_of("3") == root.resolve() / "a" / "3" / "x.keras"
    assert len([one for one in caplog.records if "cannot be kept" in one.message]) == 1


def test_a_version_that_is_written_to_while_it_is_kept_waits(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = start(root)
    path = keras_file(root / "a" / "3" / "x.keras")
    copy_all = shelf._copy_all

    def copy_while_it_grows(source: Path, target: Path) -> None:
        copy_all(source, target)
        os.utime(source, ns=(0, source.stat().st_mtime_ns + 1))

    with monkeypatch.context() as patch:
        patch.setattr(shelf, "_copy_all", copy_while_it_grows)
        desk.look()
        assert (desk.versions(), desk.reason("3")) == (["2"], "its files are still changing; version 2 serves")
    assert path.exists()
    desk.look()
    assert (desk.versions(), desk.reason("3")) == (["3"], "")


def test_the_copies_of_a_server_that_was_killed_are_swept_by_the_next(root: Path, start: Start) -> None:
    code = (
        "import sys; from pathlib import Path; from models.shelf import Shelf; shelf = Shelf(Path(sys.argv[1]))\n"
        "print(shelf._folder, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(root)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        theirs = Path(other.stdout.readline().strip())
        ours = start(root).file_of("2").parents[2]
        assert theirs.exists()  # its owner lives
        other.kill()
        other.wait()
    assert theirs.exists()
    shelf.sweep(root)
    assert (theirs.exists(), ours.exists()) == (False, True)
