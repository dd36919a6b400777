"""What is found on disk: every layout, what is refused and why, and that nothing outside the folder is ever served."""

from __future__ import annotations

import errno
import json
import os
import string
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import repository
from models.errors import LoadError
from models.repository import ModelReference, find, scan, single
from tests.harness import ROOT


def keras_file(path: Path) -> Path:
    """A file that looks whole from outside; what is inside is for the loader to say."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    return path


def h5_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    return path


def saved_model(folder: Path, shards: int = 1) -> Path:
    variables = folder / "variables"
    variables.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph with _CHECKPOINTABLE_OBJECT_GRAPH")
    (variables / "variables.index").write_bytes(b"index")
    for shard in range(shards):
        (variables / f"variables.data-{shard:05}-of-{shards:05}").write_bytes(b"data")
    return folder


def contract(path: Path, **content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def found(references: list[ModelReference]) -> list[tuple[str, str, str, str | None]]:
    return [(one.name, one.version, one.kind, one.refusal) for one in references]


def refusal(references: list[ModelReference]) -> str:
    assert len(references) == 1
    assert references[0].refusal is not None
    return references[0].refusal


# -- layouts -----------------------------------------------------------------------------------------------------------


def test_every_layout_is_found_sorted_by_name_and_version_number(tmp_path: Path) -> None:
    saved_model(tmp_path / "served" / "10")
    saved_model(tmp_path / "served" / "9", shards=3)
    keras_file(tmp_path / "boxed" / "2" / "whatever.keras")
    keras_file(tmp_path / "lone.keras")
    saved_model(tmp_path / "bare")
    assert found(scan(tmp_path)) == [
        ("bare", "1", "saved_model", None),
        ("boxed", "2", "keras", None),
        ("lone", "1", "keras", None),
        ("served", "9", "saved_model", None),
        ("served", "10", "saved_model", None),
    ]
    paths = {one.name: Path(one.path) for one in scan(tmp_path)}
    assert paths["boxed"] == tmp_path.resolve() / "boxed" / "2" / "whatever.keras"
    assert paths["served"] == tmp_path.resolve() / "served" / "10"


def test_what_is_hidden_or_no_model_is_passed_over(tmp_path: Path) -> None:
    keras_file(tmp_path / ".half.keras")
    saved_model(tmp_path / ".trash" / "1")
    (tmp_path / "README.md").write_text("hello")
    contract(tmp_path / "lone.contract.json")
    saved_model(tmp_path / "real" / "1")
    saved_model(tmp_path / "real" / ".2")
    (tmp_path / "real" / "notes").mkdir()
    assert found(scan(tmp_path)) == [("real", "1", "saved_model", None)]


def test_a_saved_model_without_variables_is_whole(tmp_path: Path) -> None:
    (tmp_path / "old" / "1").mkdir(parents=True)
    (tmp_path / "old" / "1" / "saved_model.pb").write_bytes(b"graph")
    assert found(scan(tmp_path)) == [("old", "1", "saved_model", None)]


def test_legacy_files_are_found_where_they_are_allowed(tmp_path: Path) -> None:
    h5_file(tmp_path / "old.h5")
    h5_file(tmp_path / "boxed" / "1" / "model.h5")
    assert all("legacy" in (one.refusal or "") for one in scan(tmp_path))
    assert found(scan(tmp_path, allow_h5=True)) == [("boxed", "1", "h5", None), ("old", "1", "h5", None)]


@pytest.mark.parametrize(
    "name", ["with space", "_first", "-first", "per%cent", "ü", "a" * 65], ids=lambda name: name[:8]
)
def test_a_name_that_no_route_could_have_is_refused(tmp_path: Path, name: str) -> None:
    saved_model(tmp_path / name / "1")
    assert "its name is not made of" in refusal(scan(tmp_path))


@given(st.text(max_size=70))
def test_names_are_exactly_the_promised_ones(name: str) -> None:
    first = string.ascii_letters + string.digits
    expected = 1 <= len(name) <= 64 and name[0] in first and all(letter in f"{first}._-" for letter in name)
    assert bool(repository.NAME.fullmatch(name)) == expected


def test_folders_that_are_no_version_are_not_taken_for_one(tmp_path: Path) -> None:
    for folder in ("v1", "1.0", "1" * 19, "\u0661"):  # the last is a digit, in Arabic
        saved_model(tmp_path / "odd" / folder)
    assert "there is no saved_model.pb" in refusal(scan(tmp_path))


def test_twins_are_served_once(tmp_path: Path) -> None:
    saved_model(tmp_path / "a" / "1")
    saved_model(tmp_path / "a" / "01")
    keras_file(tmp_path / "a.keras")
    assert [one.refusal is None for one in scan(tmp_path)] == [True, False, False]
    assert "same name and version" in (scan(tmp_path)[-1].refusal or "")


@pytest.mark.parametrize(
    ("graph", "is_whole"),
    [(b"no variables at all", True), (b"save/RestoreV2", False), (b"_CHECKPOINTABLE_OBJECT_GRAPH", False)],
    ids=["without variables", "of TensorFlow 1", "of TensorFlow 2"],
)
def test_an_empty_variables_folder_is_whole_where_the_graph_restores_none(
    tmp_path: Path, graph: bytes, is_whole: bool
) -> None:
    (tmp_path / "m" / "1" / "variables").mkdir(parents=True)
    (tmp_path / "m" / "1" / "saved_model.pb").write_bytes(graph)
    (reference,) = scan(tmp_path)
    assert (reference.refusal is None) == is_whole


# -- half copies -------------------------------------------------------------------------------------------------------


def test_what_is_still_being_copied_is_refused_until_it_is_whole(tmp_path: Path) -> None:
    """The files of a version appear one after the other; only the last one makes it whole."""
    whole = saved_model(tmp_path / "whole" / "1", shards=2)
    root = tmp_path / "copy"
    target = root / "model" / "1"
    target.mkdir(parents=True)
    for file in [*sorted(path for path in whole.rglob("*") if path.is_file())]:
        assert "being copied" in refusal(scan(root))
        (target / file.relative_to(whole)).parent.mkdir(exist_ok=True)
        (target / file.relative_to(whole)).write_bytes(file.read_bytes())
    assert found(scan(root)) == [("model", "1", "saved_model", None)]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_the_beginning_of_a_keras_file_is_not_taken_for_the_whole(tmp_path: Path, share: float) -> None:
    whole = keras_file(tmp_path / "whole.zip").read_bytes()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "half.keras").write_bytes(whole[: int(share * len(whole))])
    assert "not a whole .keras file" in refusal(scan(tmp_path / "models"))


def test_two_files_in_one_version_are_a_question_we_do_not_answer(tmp_path: Path) -> None:
    keras_file(tmp_path / "a" / "1" / "one.keras")
    keras_file(tmp_path / "a" / "1" / "two.keras")
    assert "more than one model file" in refusal(scan(tmp_path))


def test_an_empty_graph_and_a_false_h5_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a" / "1").mkdir(parents=True)
    (tmp_path / "a" / "1" / "saved_model.pb").touch()
    (tmp_path / "b.h5").write_bytes(b"nothing of the kind")
    first, second = scan(tmp_path, allow_h5=True)
    assert "saved_model.pb is empty" in (first.refusal or "")
    assert "not a whole .h5 file" in (second.refusal or "")


def test_a_bad_version_leaves_the_good_ones_alone(tmp_path: Path) -> None:
    saved_model(tmp_path / "a" / "1")
    (tmp_path / "a" / "2").mkdir()
    assert [one.refusal is None for one in scan(tmp_path)] == [True, False]


# -- links -------------------------------------------------------------------------------------------------------------


def test_links_that_stay_inside_are_followed(tmp_path: Path) -> None:
    saved_model(tmp_path / ".store" / "abc")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1").symlink_to(tmp_path / ".store" / "abc")
    assert found(scan(tmp_path)) == [("a", "1", "saved_model", None)]
    assert scan(tmp_path)[0].path == str(tmp_path.resolve() / ".store" / "abc")


@pytest.mark.parametrize("what", ["model", "version", "file", "variables", "shard", "contract"])
def test_links_that_lead_outside_are_refused(tmp_path: Path, what: str) -> None:
    outside, root = tmp_path / "outside", tmp_path / "models"
    saved_model(outside / "1")
    keras_file(outside / "x.keras")
    contract(outside / "contract.json")
    root.mkdir()
    if what == "model":
        (root / "a").symlink_to(outside)
    elif what == "version":
        (root / "a").mkdir()
        (root / "a" / "1").symlink_to(outside / "1")
    elif what == "file":
        (root / "a.keras").symlink_to(outside / "x.keras")
    else:
        version = saved_model(root / "a" / "1")
        target = {
            "variables": version / "variables",
            "shard": version / "variables" / "variables.data-00000-of-00001",
            "contract": version / "contract.json",
        }[what]
        inside = outside / "1" / target.relative_to(version) if what != "contract" else outside / "contract.json"
        if target.is_dir():
            for file in target.iterdir():
                file.unlink()
            target.rmdir()
        target.unlink(missing_ok=True)
        target.symlink_to(inside)
    assert "leads outside" in refusal(scan(root))


def test_a_dangling_link_and_a_loop_are_refused_or_passed_over(tmp_path: Path) -> None:
    (tmp_path / "gone.keras").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.keras").symlink_to(tmp_path / "loop.keras")
    (tmp_path / "void").symlink_to(tmp_path / "nothing")
    assert [one.name for one in scan(tmp_path)] == ["gone", "loop"]
    assert all(one.refusal for one in scan(tmp_path))


# -- contracts ---------------------------------------------------------------------------------------------------------


def test_the_contract_of_a_version_comes_before_the_models(tmp_path: Path) -> None:
    saved_model(tmp_path / "a" / "1")
    saved_model(tmp_path / "a" / "2")
    models = contract(tmp_path / "a" / "contract.json")
    own = contract(tmp_path / "a" / "2" / "contract.json", isolate=True)
    contract(tmp_path / "contract.json")
    first, second = scan(tmp_path)
    assert (first.contract_path, first.isolate) == (str(models.resolve()), False)
    assert (second.contract_path, second.isolate) == (str(own.resolve()), True)


def test_a_model_without_version_folders_has_its_contract_inside(tmp_path: Path) -> None:
    saved_model(tmp_path / "1")  # a model that is called 1
    contract(tmp_path / "contract.json")
    assert scan(tmp_path)[0].contract_path is None
    own = contract(tmp_path / "1" / "contract.json")
    assert scan(tmp_path)[0].contract_path == str(own.resolve())


def test_the_contract_of_a_single_file_lies_beside_it(tmp_path: Path) -> None:
    keras_file(tmp_path / "a.keras")
    contract(tmp_path / "contract.json")
    contract(tmp_path / "a.json")
    beside = contract(tmp_path / "a.contract.json", isolate=True)
    assert (scan(tmp_path)[0].contract_path, scan(tmp_path)[0].isolate) == (str(beside.resolve()), True)


def test_a_contract_that_cannot_be_read_refuses_its_model(tmp_path: Path) -> None:
    saved_model(tmp_path / "a" / "1")
    (tmp_path / "a" / "contract.json").write_text("{")
    assert "not valid JSON" in refusal(scan(tmp_path))


# -- one model ---------------------------------------------------------------------------------------------------------


def test_a_single_file_has_its_stem_for_a_name(tmp_path: Path) -> None:
    keras_file(tmp_path / "churn.keras")
    contract(tmp_path / "churn.contract.json")
    (reference,) = single(tmp_path / "churn.keras")
    assert (reference.name, reference.version, reference.kind, reference.refusal) == ("churn", "1", "keras", None)
    assert reference.contract_path == str((tmp_path / "churn.contract.json").resolve())


@pytest.mark.parametrize(
    ("stem", "name"),
    [("My Model", "My-Model"), ("Étude (2)", "tude-2"), ("___", "model"), ("a" * 80, "a" * 64), (".v1.2", "v1.2")],
)
def test_a_stem_that_is_no_name_is_made_one(tmp_path: Path, stem: str, name: str) -> None:
    keras_file(tmp_path / f"{stem}.keras")
    assert found(single(tmp_path / f"{stem}.keras")) == [(name, "1", "keras", None)]


def test_a_link_named_by_the_operator_may_lead_anywhere(tmp_path: Path) -> None:
    keras_file(tmp_path / "releases" / "2031.keras")
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "current.keras").symlink_to(tmp_path / "releases" / "2031.keras")
    beside = contract(tmp_path / "live" / "current.contract.json")
    (reference,) = single(tmp_path / "live" / "current.keras")
    assert (reference.name, reference.refusal) == ("current", None)
    assert reference.contract_path == str(beside.resolve())
    (tmp_path / "latest").symlink_to(saved_model(tmp_path / "releases" / "saved"))
    assert found(single(tmp_path / "latest")) == [("latest", "1", "saved_model", None)]


def test_a_saved_model_a_version_and_a_folder_of_versions(tmp_path: Path) -> None:
    saved_model(tmp_path / "a" / "3")
    saved_model(tmp_path / "a" / "4")
    keras_file(tmp_path / "b" / "7" / "x.keras")
    saved_model(tmp_path / "Plain")
    models = contract(tmp_path / "a" / "contract.json")
    assert found(single(tmp_path / "a")) == [("a", "3", "saved_model", None), ("a", "4", "saved_model", None)]
    assert found(single(tmp_path / "a" / "3")) == [("a", "3", "saved_model", None)]
    assert single(tmp_path / "a" / "3")[0].contract_path == str(models.resolve())
    assert found(single(tmp_path / "b" / "7")) == [("b", "7", "keras", None)]
    assert found(single(tmp_path / "Plain")) == [("Plain", "1", "saved_model", None)]
    assert found(single(tmp_path / "Plain" / "saved_model.pb")) == [("Plain", "1", "saved_model", None)]


def test_a_relative_path_is_named_after_where_it_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_model(tmp_path / "here" / "1")
    monkeypatch.chdir(tmp_path / "here")
    assert found(single(Path())) == [("here", "1", "saved_model", None)]
    monkeypatch.chdir(tmp_path / "here" / "1")
    assert found(single(Path(".."))) == [("here", "1", "saved_model", None)]


def test_a_folder_of_models_is_scanned(tmp_path: Path) -> None:
    keras_file(tmp_path / "a.keras")
    saved_model(tmp_path / "b" / "1")
    assert [one.name for one in single(tmp_path)] == ["a", "b"]


def test_a_file_of_another_kind_says_what_is_served(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert "neither a .keras file nor a SavedModel" in refusal(single(tmp_path / "model.onnx"))


# -- nothing there -----------------------------------------------------------------------------------------------------


def test_what_is_missing_is_named_without_its_folder(tmp_path: Path) -> None:
    for call in (single, scan):
        with pytest.raises(LoadError, match=r"gone\.keras is missing") as caught:
            call(tmp_path / "gone.keras")
        assert str(tmp_path) not in caught.value.reason


def test_a_missing_dummy_model_names_the_script_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"scripts/create_dummy_model\.py makes it"):
        single(tmp_path / "dummy_model.keras")


def test_a_folder_without_models_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert scan(tmp_path / "empty") == []
    with pytest.raises(LoadError, match="no model in the folder empty"):
        single(tmp_path / "empty")
    with pytest.raises(LoadError, match="no model in the folder empty"):
        find(model_dir=str(tmp_path / "empty"))
    with pytest.raises(LoadError, match="not a folder of models"):
        scan(keras_file(tmp_path / "a.keras"))


def test_the_path_comes_before_the_folder_and_the_folder_before_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras_file(tmp_path / "path.keras")
    keras_file(tmp_path / "folder" / "a.keras")
    monkeypatch.setattr(repository, "DEFAULT_FOLDER", tmp_path / "saved")
    monkeypatch.setattr(repository, "DEFAULT_FILE", tmp_path / "dummy_model.keras")
    path, folder = str(tmp_path / "path.keras"), str(tmp_path / "folder")
    assert [one.name for one in find(path, folder)] == ["path"]
    assert [one.name for one in find(None, folder)] == ["a"]
    with pytest.raises(LoadError, match="create_dummy_model"):
        find()
    keras_file(tmp_path / "dummy_model.keras")
    assert [one.name for one in find()] == ["dummy_model"]
    keras_file(tmp_path / "saved" / "demo" / "1" / "x.keras")
    assert [one.name for one in find()] == ["demo"]


def test_what_may_not_be_read_is_refused_and_the_others_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_model(tmp_path / "closed" / "1")
    saved_model(tmp_path / "open" / "1")
    exists = Path.exists

    def forbidden(path: Path, **how: bool) -> bool:  # as for anybody but root
        if path.is_relative_to(tmp_path / "closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return exists(path, **how)

    monkeypatch.setattr(Path, "exists", forbidden)
    assert [(one.name, one.refusal) for one in scan(tmp_path)] == [
        ("closed", "it cannot be read: Permission denied"),
        ("open", None),
    ]


# -- across processes --------------------------------------------------------------------------------------------------


@given(st.builds(ModelReference, st.text(), st.text(), st.text(), st.sampled_from(["keras", "h5", "saved_model"])))
def test_a_reference_survives_json(reference: ModelReference) -> None:
    assert ModelReference.from_json(json.loads(json.dumps(reference.to_json()))) == reference


def test_the_supervisor_gets_nothing_heavy_with_it() -> None:
    code = "import sys, models.repository; print(*{'numpy', 'tensorflow', 'keras', 'orjson'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == ""
