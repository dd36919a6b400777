"""Which model a request is for, and what a snapshot becomes."""

from __future__ import annotations

from typing import Any

import pytest

from front.catalog import Ambiguous, Catalog, UnknownModel, cataloguer
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


def test_it_is_ready_while_every_group_has_a_worker_and_it_does_not_drain() -> None:
    assert catalogue(model("m")).is_ready()
    assert not catalogue(model("m"), draining=True).is_ready()
    assert not catalogue(model("m"), workers=[]).is_ready()
    assert not catalogue().is_ready()
