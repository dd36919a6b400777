"""What is wanted is no good, or its worker dies before it serves: whatever serves goes on; real processes."""

from __future__ import annotations

from typing import Any

import pytest

from commands import exits
from tests.batching.load import ask, ready, under_load, until_serving, until_workers, version
from tests.harness import SOON_S, Supervised, gate, supervised, wait_until


def reason(server: Supervised, version: str, name: str = "m") -> str | None:
    """Why this version does not serve, or not as its newest files are."""
    found = [one for one in server.client.view["models"] if (one["name"], one["version"]) == (name, version)]
    return found[0]["reason"] if found else None


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"kind": "refuses"}, "it is refused by design"),
        ({"kind": "broken"}, "loading failed; the server's log has the details"),
        ({"kind": "slow_refusal", "seconds": 0.5}, "it is refused after a while"),
        ({"kind": "dies"}, "its worker died before it was ready (SIGABRT)"),
    ],
    ids=["refused", "broken", "slow", "dies"],
)
@pytest.mark.parametrize("beside", [[], [version(7, "other")]], ids=["alone", "beside another"])
def test_one_that_cannot_be_loaded_touches_nothing_and_says_why(
    bad: dict[str, Any], why: str, beside: list[dict[str, Any]]
) -> None:
    with supervised([version(1), *beside], planned=True) as server:
        before = server.client.view["workers"]
        with under_load(server) as load:
            server.planner.want([version(2, **bad), *beside])
            wait_until(lambda: reason(server, "2") == why, SOON_S, "it is said")
            assert ready(server) == ["1"]
            answered = load.answered["1"]
            wait_until(lambda: load.answered["1"] > answered + 10, SOON_S, "it goes on")
        assert server.client.view["workers"] == before
        until_workers(server, 1)
        assert server.planner.told("failed") == [[{"name": "m", "version": "2", "reason": why}]]
        assert server.counted("inference_reloads_total", "default", "failed") == 1
        assert "generation 2 is refused: model m version 2 cannot be served" in server.log
        assert len(server.planner.proved()) == 1


def test_the_same_version_with_bad_files_serves_on_as_it_was_and_says_what_is_wrong_with_them() -> None:
    with supervised([version(1)], planned=True) as server:
        server.planner.want([version(1, kind="refuses")])
        wait_until(lambda: reason(server, "1") == "it is refused by design", SOON_S, "it is said")
        assert ready(server) == ["1"]
        assert ask(server) == ("1", [1.0] * 8)
        server.planner.want([version(1)])
        wait_until(lambda: reason(server, "1") is None, SOON_S, "all is well again")


def test_what_is_good_beside_it_is_taken_all_the_same() -> None:
    with supervised([version(1), version(1, "other")], planned=True) as server:
        server.planner.want([version(2, kind="refuses"), version(2, "other")])
        until_serving(server, 2, "other")
        assert ready(server) == ["1"]
        assert ask(server) == ("1", [1.0] * 8)
        assert reason(server, "2") == "it is refused by design"
        assert server.planner.proved() == [[("m", "1"), ("other", "1")], [("m", "1"), ("other", "2")]]


def test_of_several_workers_none_serves_before_all_can() -> None:
    with gate() as a_gate, supervised([version(1)], planned=True, workers=2) as server:
        wait_until(lambda: len(server.client.view["workers"]) == 2, SOON_S, "two workers")
        before = server.client.view["workers"]
        server.planner.want([version(2, kind="held", gate=a_gate.path)])
        first, second = a_gate.next_call(), a_gate.next_call()
        first.let_go()
        wait_until(lambda: "and waits for others" in server.log, SOON_S, "one is ready")
        assert server.client.view["workers"] == before
        server.kill(second.pid)
        wait_until(lambda: server.planner.told("failed"), SOON_S, "the other is dead")
        until_workers(server, 2)
        assert server.client.view["workers"] == before
        assert ready(server) == ["1"]


def test_several_workers_that_find_the_same_are_heard_once() -> None:
    with supervised([version(1)], planned=True, workers=3) as server:
        wait_until(lambda: len(server.client.view["workers"]) == 3, SOON_S, "three workers")
        server.planner.want([version(2, kind="refuses"), version(1, "other")])
        until_serving(server, 1, "other")
        assert len(server.planner.told("failed")) == 1
        assert ready(server) == ["1"]


def test_one_that_is_killed_while_it_loads_may_come_again() -> None:
    with gate() as a_gate, supervised([version(1)], planned=True) as server:
        server.planner.want([version(2, kind="held", gate=a_gate.path)])
        server.kill(a_gate.next_call().pid)
        wait_until(lambda: reason(server, "2"), SOON_S, "it is said")
        assert reason(server, "2") == "its worker died before it was ready (SIGKILL)"
        assert server.client.administer("reload", None, 0.05)["ok"] is False  # not decided that soon
        a_gate.next_call().let_go()
        until_serving(server, 2)
        assert reason(server, "2") is None


def test_where_nothing_is_new_the_one_that_died_is_tried_again() -> None:
    with gate() as a_gate:
        held = version(1, kind="held", gate=a_gate.path)
        with supervised([held, version(1, "other")], planned=True, wait=False) as server:
            a_gate.next_call().let_go()
            until_serving(server, 1)
            server.planner.want([held])
            server.kill(a_gate.next_call().pid)
            a_gate.next_call().let_go()
            wait_until(lambda: {one["name"] for one in server.client.view["models"]} == {"m"}, SOON_S, "one is left")
            assert server.planner.told("failed") == []


# -- at the start -----------------------------------------------------------------------------------------------------


def test_what_does_not_load_at_the_start_is_told_once_and_may_be_mended() -> None:
    with supervised([version(1), version(1, "other", kind="refuses")], planned=True, workers=2) as server:
        wait_until(lambda: len(server.client.view["workers"]) == 2, SOON_S, "two workers")
        assert reason(server, "1", "other") == "it is refused by design"
        assert len(server.planner.told("failed")) == 1
        before = server.client.view["workers"]
        server.planner.want([version(1), version(2, "other")])
        until_serving(server, 2, "other")
        assert ready(server) == ["1"]
        assert server.client.view["workers"] != before


@pytest.mark.parametrize("kind", ["refuses", "dies"])
def test_when_nothing_loads_at_the_start_the_planner_may_know_something_else(kind: str) -> None:
    with supervised([version(2, kind=kind, instead=version(1))], planned=True) as server:
        assert ready(server) == ["1"]
        assert reason(server, "2")
        assert ask(server) == ("1", [1.0] * 8)


def test_when_nothing_loads_and_there_is_nothing_else_it_ends_and_says_why() -> None:
    groups = {"one": [version(1, kind="refuses")], "two": [version(1, "other", kind="broken")]}
    with supervised(groups, planned=True, wait=False, attach=False) as server:
        server.expected_exit = exits.NO_MODEL
        assert server.wait() == exits.NO_MODEL
        (line,) = [line for line in server.log.splitlines() if line.startswith("reason: ")]
        assert "model m version 1 cannot be served: it is refused by design" in line
        assert "model other version 1 cannot be served" in line
