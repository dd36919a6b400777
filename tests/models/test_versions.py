"""Which versions are served: rules as they are written, and the choice by them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import LoadError
from models.repository import ModelReference
from models.versions import Canary, Choice, Policy, Rules, choose, parse_policy, parse_rules, read_rules
from tests.harness import ROOT

LATEST = Policy(latest=1)


def version(number: int | str, refusal: str | None = None, digest: str = "now") -> ModelReference:
    return ModelReference("a", str(number), f"/a/{number}", "keras", refusal=refusal, digest=digest)


def versions(*numbers: int) -> list[ModelReference]:
    return [version(number) for number in numbers]


def nothing_against(one: ModelReference) -> str | None:
    return None


def against(*bad: ModelReference) -> Callable[[ModelReference], str | None]:
    return lambda one: "it failed" if (one.version, one.digest) in {(o.version, o.digest) for o in bad} else None


def numbers(choice: Choice) -> list[int]:
    return [int(one.version) for one in choice.chosen]


# -- rules -------------------------------------------------------------------------------------------------------------


def test_policies_are_written_as_the_setting_says() -> None:
    assert parse_policy("latest:2") == Policy(latest=2)
    assert parse_policy("all") == Policy()
    assert parse_policy("specific:1,3") == Policy(specific=frozenset({1, 3}))


@pytest.mark.parametrize("text", ["", "latest", "latest:0", "latest:-1", "specific:", "specific:1,", "newest", "ALL"])
def test_what_is_no_policy_is_told_what_would_be_one(text: str) -> None:
    with pytest.raises(ValueError, match="latest:N, all, or specific:1,3"):
        parse_policy(text)


def test_a_versions_file_says_policy_labels_and_canary(tmp_path: Path) -> None:
    data = {"policy": "all", "labels": {"stable": 3, "next": "4"}, "canary": {"to": "next", "share": 0.25}}
    (tmp_path / "versions.json").write_text(json.dumps(data))
    expected = Rules(Policy(), {"stable": 3, "next": 4}, Canary(4, 0.25))
    assert read_rules(tmp_path / "versions.json") == expected
    assert parse_rules({}) == Rules()
    assert parse_rules({"canary": {"to": 7, "share": 1}}) == Rules(canary=Canary(7, 1.0))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"polcy": "all"}, "unknown key 'polcy'; known are policy, labels, canary"),
        ({"policy": "some"}, "policy: a version policy is"),
        ({"policy": 1}, "policy: a version policy is"),
        ({"labels": ["stable"]}, "labels: must be an object"),
        ({"labels": {"a b": 1}}, "'a b' is no label"),
        ({"labels": {"12": 1}}, "'12' is no label"),
        ({"labels": {"stable": "newest"}}, "labels: stable: must be the number of a version"),
        ({"labels": {"stable": True}}, "must be the number"),
        ({"labels": {"stable": -1}}, "must be the number"),
        ({"canary": {"to": 1}}, "canary: must be an object"),
        ({"canary": {"to": 1, "share": 0.1, "by": "header"}}, "canary: must be an object"),
        ({"canary": {"to": 1, "share": 1.5}}, "from 0 to 1"),
        ({"canary": {"to": 1, "share": "half"}}, "from 0 to 1"),
        ({"canary": {"to": "next", "share": 0.5}}, "'next' is not among the labels"),
        ({"canary": {"to": None, "share": 0.5}}, "must be the number"),
    ],
    ids=str,
)
def test_a_wrong_versions_file_says_what_is_wrong(data: dict[str, Any], reason: str) -> None:
    with pytest.raises(LoadError) as caught:
        parse_rules(data)
    assert reason in caught.value.reason
    assert caught.value.reason.startswith("versions.json: ")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "versions.json is not valid JSON: line 1"),
        ("[]", "versions.json is not a JSON object"),
        ('{"policy": "all", "policy": "all"}', "versions.json has a key twice"),
        ('{"canary": NaN}', "versions.json has NaN"),
        (" " * 70_000, "versions.json is larger than 64 KiB"),
    ],
    ids=["cut", "list", "twice", "nan", "large"],
)
def test_a_versions_file_is_read_strictly(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "versions.json").write_text(text)
    with pytest.raises(LoadError, match=reason):
        read_rules(tmp_path / "versions.json")


# -- the choice --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("latest:1", [10]),
        ("latest:2", [9, 10]),
        ("latest:9", [2, 9, 10]),
        ("all", [2, 9, 10]),
        ("specific:9,2", [2, 9]),
    ],
)
def test_a_policy_chooses_by_number(policy: str, expected: list[int]) -> None:
    found = versions(10, 2, 9)
    assert numbers(choose(found, Rules(), parse_policy(policy), nothing_against)) == expected
    assert numbers(choose(found, Rules(parse_policy(policy)), LATEST, nothing_against)) == expected


def test_the_next_best_serves_in_place_of_a_bad_version_and_both_are_explained() -> None:
    found = [version(1, "never looked at"), *versions(2, 3), version(4, "half a copy")]
    choice = choose(found, Rules(), LATEST, against(version(3)))
    assert numbers(choice) == [2]
    assert choice.refused == {"3": "it failed; version 2 serves", "4": "half a copy; version 2 serves"}


def test_what_the_policy_would_not_serve_is_not_spoken_of() -> None:
    choice = choose([version(1, "junk"), version(2)], Rules(), LATEST, nothing_against)
    assert (numbers(choice), choice.refused) == ([2], {})
    choice = choose([version(1, "junk"), version(2)], Rules(Policy(specific=frozenset({2}))), LATEST, nothing_against)
    assert (numbers(choice), choice.refused) == ([2], {})


def test_a_specific_version_that_is_not_there_is_missed_and_no_other_serves() -> None:
    choice = choose(versions(1, 2), Rules(parse_policy("specific:1,7")), LATEST, nothing_against)
    assert numbers(choice) == [1]
    assert choice.refused == {"7": "the version policy asks for it, but there is no such version"}


def test_labelled_versions_are_served_whatever_the_policy() -> None:
    choice = choose(versions(1, 2, 3), Rules(labels={"stable": 1, "gone": 9}), LATEST, nothing_against)
    assert numbers(choice) == [1, 3]
    assert choice.routing == {"labels": {"stable": "1"}, "canary": None}
    assert choice.refused == {"9": "the label gone means it, but there is no such version"}


def test_a_label_on_a_bad_version_leads_nowhere_until_it_is_good() -> None:
    rules = Rules(labels={"next": 3})
    choice = choose(versions(2, 3), rules, LATEST, against(version(3)))
    assert (numbers(choice), choice.routing["labels"]) == ([2], {})
    assert choice.refused == {"3": "it failed; version 2 serves"}


def test_the_version_on_trial_does_not_count_among_the_latest() -> None:
    rules = Rules(canary=Canary(3, 0.1))
    choice = choose(versions(1, 2, 3), rules, LATEST, nothing_against)
    assert numbers(choice) == [2, 3]
    assert choice.routing["canary"] == {"version": "3", "share": 0.1}
    assert numbers(choose(versions(3), rules, LATEST, nothing_against)) == [3]
    bad = choose(versions(1, 2, 3), rules, LATEST, against(version(3)))
    assert (numbers(bad), bad.routing["canary"]) == ([2], None)


def test_routing_names_versions_as_their_folders_do() -> None:
    found = [version("007")]
    choice = choose(found, Rules(labels={"bond": 7}, canary=Canary(7, 0.5)), LATEST, nothing_against)
    assert choice.routing == {"labels": {"bond": "007"}, "canary": {"version": "007", "share": 0.5}}


def test_earlier_files_serve_on_where_the_same_version_is_spoilt() -> None:
    earlier = version(2, digest="before")
    choice = choose([version(1), version(2, "half a copy")], Rules(), LATEST, nothing_against, [earlier])
    assert choice.chosen == [earlier]
    assert choice.refused == {"2": "half a copy; its earlier files serve on"}


def test_a_deleted_version_serves_on_only_while_nothing_that_is_there_can() -> None:
    proved = [version(2)]
    assert numbers(choose(versions(1), Rules(), LATEST, nothing_against, proved)) == [1]
    assert numbers(choose([version(3, "junk")], Rules(), LATEST, nothing_against, proved)) == [2]
    assert numbers(choose([], Rules(), LATEST, nothing_against, proved)) == []
    strict = Rules(parse_policy("specific:3"))
    assert numbers(choose([version(3, "junk")], strict, LATEST, nothing_against, proved)) == [2]


def test_twins_are_refused_beside_the_one_that_serves() -> None:
    choice = choose([version("01"), version("1", "another has it")], Rules(), LATEST, nothing_against)
    assert ([one.version for one in choice.chosen], choice.refused) == (["01"], {"1": "another has it"})


@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), unique_by=lambda one: one[0]),
    st.sampled_from(["latest:1", "latest:3", "all", "specific:1,4,7"]),
    st.dictionaries(st.sampled_from(["stable", "next"]), st.integers(0, 9)),
    st.lists(st.integers(0, 9), unique=True),
)
def test_only_what_is_good_is_chosen_once_and_labels_lead_to_it(
    found: list[tuple[int, bool]], policy: str, labels: dict[str, int], proved: list[int]
) -> None:
    references = [version(number, "bad" if is_bad else None) for number, is_bad in found]
    before = [version(number, digest="before") for number in proved]
    choice = choose(references, Rules(labels=labels), parse_policy(policy), nothing_against, before)
    assert all(one.refusal is None for one in choice.chosen)
    assert numbers(choice) == sorted(set(numbers(choice)))
    assert set(choice.routing["labels"].values()) <= {one.version for one in choice.chosen}
    if any(not is_bad for _, is_bad in found) and policy.startswith("latest"):
        assert choice.chosen


def test_the_supervisor_gets_nothing_heavy_with_it() -> None:
    code = (
        "import sys, commands.planning; "
        "print(*{'numpy', 'tensorflow', 'keras', 'orjson', 'google.protobuf'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == ""
