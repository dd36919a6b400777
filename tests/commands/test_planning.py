"""The planner against a real disk: what it wants, and when it wants something else."""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from batching.groups import Wanted
from tests.commands.desk import SETTLE_S, Start, keras_file, saved_model, say
from tests.harness import SOON_S, wait_until

# -- what is wanted ----------------------------------------------------------------------------------------------------


def test_the_newest_version_of_each_model_is_wanted_at_once(root: Path, start: Start) -> None:
    desk = start(root)
    assert (desk.versions("a"), desk.versions("b")) == (["2"], ["1"])
    assert (desk.wanted.refused, desk.wanted.routing) == ([], {})
    assert list(desk.wanted.groups) == ["default"]
    assert desk.look() is None


def test_a_model_that_asks_for_it_has_a_group_of_its_own(root: Path, start: Start) -> None:
    (root / "b" / "contract.json").write_text('{"isolate": true}')
    assert sorted(start(root).wanted.groups) == ["b", "default"]


@pytest.mark.parametrize(("policy", "versions"), [("all", ["1", "2"]), ("specific:1", ["1"]), ("latest:7", ["1", "2"])])
def test_the_policy_for_all_models_is_a_setting(root: Path, start: Start, policy: str, versions: list[str]) -> None:
    assert start(root, policy).versions() == versions


def test_a_new_version_is_wanted_once_it_has_rested(root: Path, start: Start) -> None:
    desk = start(root)
    keras_file(root / "a" / "3" / "x.keras")
    assert desk.glance() is None
    assert desk.glance(SETTLE_S / 2) is None
    assert desk.glance(SETTLE_S) is not None
    assert desk.versions() == ["3"]


def test_a_version_that_is_still_being_written_is_not_wanted(root: Path, start: Start) -> None:
    desk = start(root)
    path = keras_file(root / "a" / "3" / "x.keras")
    for step in range(10):
        os.utime(path, ns=(0, step))
        assert desk.glance(SETTLE_S / 2) is None
    assert desk.glance(SETTLE_S / 2) is None
    assert desk.glance(SETTLE_S) is not None
    assert desk.versions() == ["3"]


def test_half_a_version_leaves_the_last_good_one_serving_and_says_why(root: Path, start: Start) -> None:
    desk = start(root)
    whole = keras_file(root.parent / "whole.keras").read_bytes()
    (root / "a" / "3").mkdir()
    (root / "a" / "3" / "x.keras").write_bytes(whole[:40])
    assert desk.look() is not None
    assert desk.versions() == ["2"]
    assert "still being copied" in desk.reason("3")
    assert desk.reason("3").endswith("; version 2 serves")
    (root / "a" / "3" / "x.keras").write_bytes(whole)
    desk.look()
    assert (desk.versions(), desk.reason("3")) == (["3"], "")


def test_a_changed_file_or_contract_makes_another_reference_of_that_model_alone(root: Path, start: Start) -> None:
    desk = start(root)
    before = desk.wanted.groups["default"]
    keras_file(root / "a" / "2" / "x.keras", '{"other": 1}')
    desk.look()
    changed = desk.wanted.groups["default"]
    assert changed[0] != before[0]
    assert changed[1] == before[1]
    (root / "a" / "contract.json").write_text("{}")
    desk.look()
    assert desk.wanted.groups["default"][0] not in (before[0], changed[0])
    assert json.loads(Path(desk.wanted.groups["default"][0]["contract_path"]).read_text()) == {}


def test_what_is_deleted_is_not_wanted_after_it_has_settled(root: Path, start: Start) -> None:
    desk = start(root)
    shutil.rmtree(root / "a" / "2")
    assert desk.glance() is None
    desk.look()
    assert desk.versions() == ["1"]
    shutil.rmtree(root / "a")
    desk.look()
    assert (desk.versions("a"), desk.versions("b"), desk.wanted.refused) == ([], ["1"], [])


def test_a_model_comes_and_a_version_goes_back_to_an_older_number(root: Path, start: Start) -> None:
    desk = start(root)
    keras_file(root / "new.keras")
    (root / "a" / "2").rename(root / "a" / "0")
    desk.look()
    assert (desk.versions("new"), desk.versions("a")) == (["1"], ["1"])


def test_a_link_that_leads_outside_leaves_the_last_good_version_serving(root: Path, start: Start) -> None:
    desk = start(root)
    (root / "a" / "3").symlink_to(saved_model(root.parent / "outside"))
    desk.look()
    assert desk.versions() == ["2"]
    assert "leads outside" in desk.reason("3")


def test_a_folder_of_models_that_vanishes_whole_changes_nothing_but_what_is_said(root: Path, start: Start) -> None:
    desk = start(root, keep_dir=root.parent)
    before = desk.wanted
    root.rename(root.parent / "elsewhere")
    desk.look()
    assert desk.wanted.groups == before.groups
    assert "not there" in desk.reason("2")
    (root.parent / "elsewhere").rename(root)
    desk.look()
    assert desk.wanted == before
    keras_file(root / "a" / "3" / "x.keras")
    desk.look()
    assert desk.versions() == ["3"]


def test_a_lone_file_is_looked_after_as_well(tmp_path: Path, start: Start) -> None:
    path = keras_file(tmp_path / "churn.keras")
    desk = start(path)
    before = desk.wanted
    keras_file(tmp_path / "other.keras")
    assert desk.look() is None
    keras_file(path, '{"other": 1}')
    assert desk.look() is not None
    assert desk.wanted != before
    path.unlink()
    desk.look()
    assert desk.wanted == Wanted({})


def test_a_link_that_is_led_elsewhere_is_followed(tmp_path: Path, start: Start) -> None:
    for release in ("one", "two"):
        keras_file(tmp_path / "releases" / release / "x.keras", json.dumps(release))
    (tmp_path / "live").symlink_to(tmp_path / "releases" / "one")
    desk = start(tmp_path / "live" / "x.keras")
    assert b"one" in zipfile.ZipFile(desk.file_of("1", "x")).read("config.json")
    (tmp_path / "next").symlink_to(tmp_path / "releases" / "two")
    (tmp_path / "next").rename(tmp_path / "live")
    desk.look()
    assert b"two" in zipfile.ZipFile(desk.file_of("1", "x")).read("config.json")


# -- versions.json and models.config -----------------------------------------------------------------------------------


def test_policy_labels_and_canary_change_without_a_restart(root: Path, start: Start) -> None:
    desk = start(root)
    say(root / "a", labels={"stable": 1}, canary={"to": 2, "share": 0.1})
    desk.look()
    assert desk.versions() == ["1", "2"]
    assert desk.wanted.routing == {"a": {"labels": {"stable": "1"}, "canary": {"version": "2", "share": 0.1}}}
    say(root / "a", policy="specific:1")
    desk.look()
    assert (desk.versions(), desk.wanted.routing) == (["1"], {})


def test_a_spoilt_versions_json_means_what_it_meant_and_says_what_is_wrong(root: Path, start: Start) -> None:
    say(root / "a", policy="specific:1")
    desk = start(root)
    (root / "a" / "versions.json").write_text('{"polcy": "all"}')
    desk.look()
    assert desk.versions() == ["1"]
    assert "unknown key 'polcy'" in desk.reason("1")
    say(root / "a", policy="all")
    desk.look()
    assert (desk.versions(), desk.wanted.refused) == (["1", "2"], [])


def test_a_folder_made_for_tensorflow_serving_is_served_as_its_config_says(root: Path, start: Start) -> None:
    (root / "models.config").write_text(
        """model_config_list { config {
            name: "half" base_path: "/models/a" model_platform: "tensorflow"
            model_version_policy { specific { versions: 1 versions: 2 } }
            version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 } } }"""
    )
    desk = start(root)
    assert (desk.versions("half"), desk.versions("a"), desk.versions("b")) == (["1", "2"], [], [])
    assert desk.wanted.routing["half"]["labels"] == {"stable": "1", "canary": "2"}
    (root / "models.config").write_text("model_config_list { nonsense: 1 }")
    desk.look()
    assert desk.versions("half") == ["1", "2"]
    assert "models.config" in desk.reason("2", "half")
    (root / "models.config").write_text(f'model_config_list {{ config {{ name: "b" base_path: "{root}/b" }} }}')
    desk.look()
    desk.look()
    assert (desk.versions("half"), desk.versions("b")) == ([], ["1"])
    assert desk.wanted.refused == []


# -- hearing of it -----------------------------------------------------------------------------------------------------


def test_the_descriptor_is_readable_when_something_happened_until_it_was_looked_at(root: Path, start: Start) -> None:
    desk = start(root)
    desk.look()
    fd = desk.planner.fileno()
    if sys.platform != "linux":
        assert fd == -1
        return
    assert not select.select([fd], [], [], 0)[0]
    keras_file(root / "a" / "3" / "x.keras")
    wait_until(lambda: select.select([fd], [], [], 0)[0], SOON_S, "inotify says so")
    desk.glance()
    assert not select.select([fd], [], [], 0)[0]
    assert desk.glance(0.2) is None
    assert desk.glance(SETTLE_S) is not None  # sooner than everything is looked at in turn
    assert desk.versions() == ["3"]


def test_without_inotify_changes_are_found_by_looking(
    root: Path, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_inotify(**_: bool) -> None:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr("commands.watching.INotify", no_inotify, raising=False)
    desk = start(root)
    assert desk.planner.fileno() == -1
    keras_file(root / "a" / "3" / "x.keras")
    for _ in range(8):
        desk.glance()
    assert desk.versions() == ["3"]
