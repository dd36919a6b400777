"""What is wanted changes while everything serves: new generations, new groups, groups that go; real processes.

When the new ones are no good: test_supervisor_reload_failures.py. Taking it back: test_supervisor_rollback.py. Who
asks for it: test_supervisor_admin.py.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.batching.direct import column
from tests.batching.load import ask, ready, under_load, until_serving, until_workers, version
from tests.harness import SOON_S, Supervised, gate, supervised, values, wait_until


def of_group(server: Supervised, group: str) -> list[dict[str, Any]]:
    return [worker for worker in server.client.view["workers"] if worker["group"] == group]


# -- one group ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"workers": 2}, {"standby": 1}], ids=["one", "two", "a standby"])
def test_a_change_under_load_fails_no_request_and_mixes_no_answer(settings: dict[str, Any]) -> None:
    with supervised([version(1)], planned=True, rollback_s=0.0, **settings) as server:
        workers = settings.get("workers", 1)
        wait_until(lambda: len(server.client.view["workers"]) == workers, SOON_S, "all workers")
        with under_load(server) as load:
            for number in (2, 3, 1):
                server.planner.want([version(number)])
                until_serving(server, number)
                seen = load.answered[str(number)]
                wait_until(lambda n=str(number), s=seen: load.answered[n] > s + 10, SOON_S, "it answers")  # type: ignore[misc]
        assert {"1", "2", "3"} == set(load.answered)
        assert len(server.client.view["workers"]) == workers
        until_workers(server, workers + settings.get("standby", 0))
        assert server.counted("inference_reloads_total", "default", "switched") == 3
        assert server.counted("inference_generation", "default") == 4
        assert server.counted("inference_worker_deaths_total", "default", "crashed") == 0
        assert server.counted("inference_retries_total") == 0
        assert server.planner.proved() == [[("m", str(number))] for number in (1, 2, 3, 1)]


def test_no_snapshot_holds_both_or_neither() -> None:
    with supervised([version(1)], planned=True, workers=2) as server:
        wait_until(lambda: len(server.client.view["workers"]) == 2, SOON_S, "two workers")
        snapshots: list[dict[str, Any]] = []
        with closing(server.attach(snapshots.append)) as client:
            assert client.wait_until(lambda view: view["serial"] > 0, SOON_S)
            server.planner.want([version(2, load_seconds=0.2)])
            wait_until(lambda: snapshots[-1]["workers"][0]["generation"] == 2, SOON_S, "the second generation")
        snapshots = [one for one in snapshots if one["serial"]]
        held = [[worker["generation"] for worker in one["workers"]] for one in snapshots]
        assert all(generations in ([1, 1], [2, 2]) for generations in held)
        states = [{model["version"]: model["state"] for model in one["models"]} for one in snapshots]
        assert {"1": "READY", "2": "LOADING"} in states
        assert states[-1] == {"2": "READY"}


def test_a_request_that_has_read_the_old_snapshot_is_answered_by_the_old_generation() -> None:
    with supervised([version(1)], planned=True, predict_timeout_ms=SOON_S * 1000, rollback_s=0.0) as server:
        target = server.target("m")
        server.planner.want([version(2)])
        until_serving(server, 2)
        outcomes = server.client.call(target, [(1, [column(1.0)])], time.monotonic() + SOON_S)
        assert values(outcomes) == [1.0]
        assert ask(server) == ("2", [2.0] * 8)


def test_what_the_old_generation_has_begun_it_answers_however_long_that_takes() -> None:
    with (
        gate() as a_gate,
        supervised([a_gate.model("m")], planned=True, predict_timeout_ms=50, rollback_s=0.0) as server,
        ThreadPoolExecutor() as pool,
    ):
        waiting = pool.submit(server.call, "m", [21.0])
        call = a_gate.next_call()
        server.planner.want([version(2)])
        until_serving(server, 2)
        assert ask(server) == ("2", [2.0] * 8)
        assert call.pid in server.children("worker")
        call.let_go()
        assert values(waiting.result(SOON_S)) == [42.0]
        wait_until(lambda: call.pid not in server.children("worker"), SOON_S, "its process has ended")


def test_the_generation_before_is_kept_for_a_while_and_then_really_gone() -> None:
    with supervised([version(1)], planned=True, rollback_s=1.0, predict_timeout_ms=100) as server:
        (old,) = server.children("worker")
        server.planner.want([version(2)])
        until_serving(server, 2)
        begun = time.monotonic()
        assert old in server.children("worker")
        assert len(server.client.view["workers"]) == 1
        wait_until(lambda: old not in server.children("worker"), SOON_S, "it is gone")
        assert time.monotonic() - begun > 0.9
        assert "group default: generation 1 is kept no longer" in server.log
        assert server.counted("inference_worker_deaths_total", "default", "crashed") == 0


def test_there_are_never_three_generations() -> None:
    with supervised([version(1)], planned=True, predict_timeout_ms=100) as server:
        most = 0
        for number in (2, 3, 4):
            server.planner.want([version(number, load_seconds=0.2)])
            while ready(server) != [str(number)]:
                most = max(most, len(server.children("worker")))
        assert most == 2
        until_workers(server, 2)


def test_what_is_wanted_may_change_while_it_is_loading() -> None:
    with supervised([version(1)], planned=True) as server:
        server.planner.want([version(2, load_seconds=60)])
        wait_until(lambda: len(server.children("worker")) == 2, SOON_S, "it is loading")
        server.planner.want([version(3)])
        until_serving(server, 3)
        server.planner.want([version(4, load_seconds=60)])
        wait_until(lambda: "generation 4 is to come" in server.log, SOON_S, "another")
        server.planner.want([version(3)])
        wait_until(lambda: "generation 4 is not wanted any more" in server.log, SOON_S, "back again")
        until_serving(server, 3)
        until_workers(server, 2)  # the second is the kept one
        assert server.planner.told("failed") == []


def test_before_anything_serves_what_is_wanted_may_change_as_well() -> None:
    with supervised([version(1, load_seconds=60)], planned=True, wait=False) as server:
        wait_until(lambda: server.children("worker"), SOON_S, "it is loading")
        server.planner.want([version(2)])
        until_serving(server, 2)
        until_workers(server, 1)


def test_a_worker_that_dies_while_the_next_generation_loads_is_replaced_by_one_of_its_own() -> None:
    with gate() as a_gate, supervised([version(1)], planned=True) as server:
        (old,) = server.children("worker")
        server.planner.want([version(2, kind="held", gate=a_gate.path)])
        held = a_gate.next_call()
        before = server.client.view["workers"]
        server.kill(old)
        server.until_replaced(before)
        assert ask(server) == ("1", [1.0] * 8)
        held.let_go()
        until_serving(server, 2)
        assert server.planner.told("failed") == []


def test_one_that_stands_by_takes_a_dead_ones_place_while_the_next_generation_loads() -> None:
    with gate() as a_gate, supervised([version(1)], planned=True, standby=1) as server:
        until_workers(server, 2)
        wait_until(lambda: "and stands by" in server.log, SOON_S, "one stands by")
        with under_load(server) as load:
            server.planner.want([version(2, kind="held", gate=a_gate.path)])
            held = a_gate.next_call()
            before = server.client.view["workers"]
            server.kill(min(server.children("worker")))  # the older one serves
            server.until_replaced(before)
            answered = load.answered["1"]
            wait_until(lambda: load.answered["1"] > answered + 10, SOON_S, "it goes on")
            held.let_go()
            until_serving(server, 2)
            wait_until(lambda: load.answered["2"] > 10, SOON_S, "the second answers")


def test_the_supervisor_drains_in_the_middle_of_a_load() -> None:
    with gate() as a_gate, supervised([version(1)], planned=True) as server:
        server.planner.want([version(2, kind="held", gate=a_gate.path)])
        a_gate.next_call()
        server.signal()
        assert server.wait() == 0
        assert server.survivors() == []


def test_twenty_changes_leave_no_process_and_no_descriptor_behind() -> None:
    with supervised([version(1)], planned=True, predict_timeout_ms=100, rollback_s=0.0) as server:
        fds = Path(f"/proc/{server.pid}/fd")
        assert ask(server) == ("1", [1.0] * 8)
        before = len(os.listdir(fds))
        begun = time.monotonic()
        for number in range(2, 22):
            server.planner.want([version(number)])
            until_serving(server, number)
        sys.stdout.write(f"20 changes in {time.monotonic() - begun:.1f} s\n")
        until_workers(server, 1)
        wait_until(lambda: len(os.listdir(fds)) == before, SOON_S, f"as many descriptors as before: {before}")
        wait_until(lambda: len(server.client._client._links) == 1, SOON_S, "one link")
        assert ask(server) == ("21", [21.0] * 8)


def test_a_front_that_attaches_in_the_middle_gets_what_serves() -> None:
    with gate() as a_gate, supervised([version(1)], planned=True) as server:
        server.planner.want([version(2, kind="held", gate=a_gate.path)])
        held = a_gate.next_call()
        with closing(server.attach()) as another:
            assert another.wait_until(lambda view: view["serial"] > 0, SOON_S)
            first, server.client = server.client, another
            assert ask(server) == ("1", [1.0] * 8)
            held.let_go()
            until_serving(server, 2)
            assert ask(server) == ("2", [2.0] * 8)
            server.client = first


# -- groups, and what no worker has to do with ------------------------------------------------------------------------


def test_one_groups_change_leaves_anothers_workers_alone() -> None:
    with (
        gate() as a_gate,
        supervised({"a": [version(1)], "b": [a_gate.model("other")]}, planned=True) as server,
        ThreadPoolExecutor() as pool,
    ):
        before = of_group(server, "b")
        waiting = pool.submit(server.call, "other", [1.0])
        call = a_gate.next_call()
        server.planner.want({"a": [version(2)], "b": [a_gate.model("other")]})
        until_serving(server, 2)
        assert of_group(server, "b") == before
        assert call.pid in server.children("worker")
        call.let_go()
        assert values(waiting.result(SOON_S)) == [2.0]


def test_a_new_group_comes_and_one_that_is_not_wanted_goes() -> None:
    with supervised({"a": [version(1)]}, planned=True, predict_timeout_ms=100) as server:
        (old,) = server.children("worker")
        server.planner.want({"a": [version(1)], "b": [version(5, "other")]})
        until_serving(server, 5, "other")
        assert ask(server, "other") == ("5", [5.0] * 8)
        assert old in server.children("worker")
        server.planner.want({"b": [version(5, "other")]})
        wait_until(lambda: {one["name"] for one in server.client.view["models"]} == {"other"}, SOON_S, "one is left")
        wait_until(lambda: old not in server.children("worker"), SOON_S, "its process is gone")
        generation = server.target("other").generation
        server.planner.want({"a": [version(2)], "b": [version(5, "other")]})
        until_serving(server, 2)
        assert server.target("m").generation == 2  # a number that no link to the old one can have
        assert server.target("other").generation == generation


def test_a_model_that_gets_workers_of_its_own_serves_all_the_while() -> None:
    with supervised({"m": [version(1)], "b": [version(5, "other")]}, planned=True, rollback_s=0.0) as server:
        with under_load(server) as load:
            server.planner.want({"b": [version(5, "other"), version(1, load_seconds=0.3)]})
            wait_until(lambda: server.target("m").group == "b", SOON_S, "it shares others' workers")
            answered = load.answered["1"]
            wait_until(lambda: load.answered["1"] > answered + 10, SOON_S, "it answers")
        until_workers(server, 1)


def test_what_is_refused_and_where_requests_go_change_without_any_worker() -> None:
    routing = {"m": {"labels": {"stable": "1"}, "canary": None}}
    refused = {"name": "bad", "version": "3", "reason": "it is no model"}
    with supervised([version(1)], planned=True) as server:
        before = server.client.view["workers"]
        assert server.client.view["routing"] == {}
        server.planner.want([version(1)], refused=[refused], routing=routing)
        wait_until(lambda: server.client.view["routing"] == routing, SOON_S, "it is known")
        assert [(one["name"], one["state"]) for one in server.client.view["models"]] == [
            ("m", "READY"),
            ("bad", "FAILED"),
        ]
        assert server.client.view["workers"] == before
        assert "is to come" not in server.log
