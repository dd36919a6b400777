"""Which model a request is for, and what a snapshot becomes."""

from __future__ import annotations

from typing import Any

import pytest

from front.catalog import Ambiguous, Catalog, UnknownLabel, UnknownModel, cataloguer
from models.contract import Contract, Example, Tensor


def model(name: str, version: str = "1", state: str = "READY", **contract: Any) -> dict[str, Any]:
    """A snapshot's entry for a model of one number in and one out."""
    described = Contract(name, version, (Tensor("x", "float32", (1,)),), (Tensor("y", "float32", (1,)),), **contract)
    return {
        "name": name,
        "version": version,
        "group": "default",
        "generation": 1,
        "index": 0,
        "state": state,
        "reason": None,
        "description": described.to_json(),
        "costs": {},
    }


def catalogue(*models: dict[str, Any], default: str | None = None, **more: Any) -> Catalog:
    snapshot = {"serial": 1, "models": list(models), "workers": [{"id": 1, "group": "default", "slot": 2}], **more}
    return cataloguer(default)(snapshot)


def test_the_highest_version_is_the_newest_by_number_not_by_letter() -> None:
    found = catalogue(model("m", "9"), model("m", "10"), model("m", "2"))
    assert found.find("m").version == "10"
    assert [entry.version for entry in found.models["m"]] == ["10", "9", "2"]


def test_a_newer_version_that_failed_leaves_the_older_one_serving() -> None:
    assert catalogue(model("m", "1"), model("m", "2", "FAILED")).find("m").version == "1"


@pytest.mark.parametrize("state", ["LOADING", "FAILED", "UNLOADED"])
def test_a_newer_version_that_does_not_serve_yet_leaves_the_older_one_serving(state: str) -> None:
    assert catalogue(model("m", "1"), model("m", "2", state)).choose("m").version == "1"


def test_labels_name_versions() -> None:
    routing = {"m": {"labels": {"stable": "1", "gone": "9"}, "canary": None}}
    found = catalogue(model("m", "1"), model("m", "2"), routing=routing)
    assert found.choose("m").version == "2"
    assert found.choose("m", label="stable").version == "1"
    assert found.choose("m", "02").version == "2"
    with pytest.raises(UnknownLabel, match="has no label 'new'; it has: stable, gone"):
        found.choose("m", label="new")
    with pytest.raises(UnknownModel, match="no version '9'"):
        found.choose("m", label="gone")
    with pytest.raises(UnknownModel, match="there is no model 'n'"):
        found.choose("n", label="stable")


def test_a_canary_gets_its_share_of_what_names_no_version() -> None:
    routing = {"m": {"labels": {}, "canary": {"version": "2", "share": 0.25}}}
    found = catalogue(model("m", "1"), model("m", "2"), routing=routing)
    chosen = [found.choose("m").version for _ in range(2000)]
    assert 350 < chosen.count("2") < 650
    assert {found.choose("m", "1").version for _ in range(50)} == {"1"}
    assert found.find("m").version == "1"


@pytest.mark.parametrize("state", ["LOADING", "FAILED"])
def test_a_canary_that_does_not_serve_gets_nothing(state: str) -> None:
    routing = {"m": {"labels": {}, "canary": {"version": "2", "share": 1.0}}}
    assert catalogue(model("m", "1"), model("m", "2", state), routing=routing).choose("m").version == "1"


def test_signatures_are_found_by_every_name_they_have() -> None:
    usual = model("m", signature="serving_default", aliases=("serve",))
    other = Contract("m", "1", (Tensor("z", "float32", (2,)),), (Tensor("y", "float32", (1,)),), signature="other")
    usual["signatures"] = [{"name": "other", "index": 1, "description": other.to_json(), "costs": {}}]
    entry = catalogue(usual).find("m")
    assert set(entry.signatures) == {"serving_default", "serve", "other"}
    assert entry.compiled_for(None) is entry.compiled_for("serve")
    assert [entry.targets[name].place for name in ("serve", "other")] == [0, 1]


def test_a_contract_that_no_request_could_satisfy_fails_its_model_alone() -> None:
    bad = model("bad", examples=(Example({"features": [1, 2, 3]}),))
    found = catalogue(bad, model("good"))
    assert found.find("good").compiled is not None
    assert found.find("bad").state == "FAILED"
    assert found.find("bad").reason
    assert found.is_ready()


def test_contracts_that_stay_the_same_are_compiled_once() -> None:
    compile_snapshot = cataloguer(None)
    snapshot = {"serial": 1, "models": [model("m")], "workers": []}
    first = compile_snapshot(snapshot).find("m").compiled
    assert compile_snapshot({**snapshot, "serial": 2}).find("m").compiled is first
    changed = {**snapshot, "models": [model("m", description="new")]}
    assert compile_snapshot(changed).find("m").compiled is not first


def test_without_a_name_the_default_or_the_only_model_is_meant() -> None:
    assert catalogue(model("m")).for_predict().name == "m"
    assert catalogue(model("a"), model("b"), default="b").for_predict().name == "b"
    with pytest.raises(Ambiguous, match="a, b"):
        catalogue(model("a"), model("b")).for_predict()


def test_what_is_not_there_is_unknown() -> None:
    found = catalogue(model("m"))
    with pytest.raises(UnknownModel, match="there are: m"):
        found.find("n")
    with pytest.raises(UnknownModel, match="it has: 1"):
        found.find("m", "7")
    assert found.for_route("/nobodys") is None


def test_a_group_that_comes_later_does_not_keep_traffic_away_while_it_loads() -> None:
    compile_snapshot = cataloguer(None)
    workers = [{"id": 1, "group": "default", "slot": 2}]
    snapshot = {"serial": 1, "models": [model("m")], "workers": workers}
    other = {**model("n", state="LOADING"), "group": "n", "description": None}
    at_the_start = cataloguer(None)({**snapshot, "models": [model("m"), other]})
    assert not at_the_start.is_ready()
    assert compile_snapshot(snapshot).is_ready()
    assert compile_snapshot({**snapshot, "models": [model("m"), other]}).is_ready()
    compile_snapshot({**snapshot, "models": [model("m"), {**other, "state": "READY"}]})
    assert not compile_snapshot({**snapshot, "models": [model("m"), other]}).is_ready()


def test_it_is_ready_while_every_group_has_a_worker_and_it_does_not_drain() -> None:
    assert catalogue(model("m")).is_ready()
    assert not catalogue(model("m"), draining=True).is_ready()
    assert not catalogue(model("m"), workers=[]).is_ready()
    assert not catalogue().is_ready()
