"""A front asks for a change of models, or an operator by a signal: what is done and answered; real processes."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from tests.batching.load import ask, ready, until_serving, version
from tests.harness import SOON_S, Supervised, gate, supervised, wait_until


def administer(server: Supervised, action: str, model: str | None = None) -> tuple[bool, str | None]:
    answer = server.client.administer(action, model, SOON_S)
    return answer["ok"], answer["reason"]


@pytest.mark.parametrize("action", ["load", "reload"])
def test_where_nothing_has_to_change_it_is_said_at_once(action: str) -> None:
    with supervised([version(1)], planned=True) as server:
        before = server.client.view["workers"]
        answer = server.client.administer(action, "m", SOON_S)
        models = [{"name": "m", "version": "1", "state": "READY", "reason": None}]
        assert answer == {"ok": True, "reason": None, "models": models}
        assert server.client.view["workers"] == before
        assert server.planner.told("ask") == [[action, "m"]]


def test_the_answer_comes_when_what_was_set_off_serves_everywhere() -> None:
    with gate() as a_gate, supervised([version(1)], planned=True) as server, closing(server.attach()) as another:
        server.planner.want([version(2, kind="held", gate=a_gate.path)])
        held = a_gate.next_call()
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(administer, server, "reload")
            wait_until(lambda: server.planner.told("ask"), SOON_S, "it is asked")
            assert not waiting.done()
            held.let_go()
            assert waiting.result(SOON_S) == (True, None)
        assert ready(server) == ["2"]
        assert [one["version"] for one in another.view["models"]] == ["2"]


def test_what_cannot_be_loaded_is_the_answer_and_asking_again_tries_again() -> None:
    with supervised([version(1)], planned=True) as server:
        server.planner.want([version(2, kind="refuses")])
        wait_until(lambda: server.planner.told("failed"), SOON_S, "it has failed")
        for tries in (2, 3):
            answer = server.client.administer("load", "m", SOON_S)
            assert (answer["ok"], answer["reason"]) == (
                False,
                "model m version 2 cannot be served: it is refused by design",
            )
            states = {one["version"]: (one["state"], one["reason"]) for one in answer["models"]}
            assert states == {"1": ("READY", None), "2": ("FAILED", "it is refused by design")}
            assert len(server.planner.told("failed")) == tries


def test_a_failure_of_another_model_is_none_of_its_answer() -> None:
    with supervised({"a": [version(1)], "b": [version(1, "other")]}, planned=True) as server:
        server.planner.want({"a": [version(2)], "b": [version(2, "other", kind="refuses")]})
        wait_until(lambda: server.planner.told("failed"), SOON_S, "it has failed")
        assert administer(server, "load", "m") == (True, None)
        ok, reason = administer(server, "reload")
        assert not ok
        assert reason is not None
        assert reason.startswith("model other version 2 cannot be served")


def test_a_model_is_unloaded_and_its_worker_is_gone() -> None:
    with supervised({"a": [version(1)], "b": [version(1, "other")]}, planned=True, predict_timeout_ms=100) as server:
        assert administer(server, "unload", "other") == (True, None)
        assert [one["name"] for one in server.client.view["models"]] == ["m"]
        wait_until(lambda: len(server.children("worker")) == 1, SOON_S, "its process is gone")
        assert ask(server) == ("1", [1.0] * 8)


def test_one_of_several_that_share_a_worker_is_unloaded_without_the_others() -> None:
    with supervised([version(1), version(1, "other")], planned=True) as server:
        assert administer(server, "unload", "other") == (True, None)
        assert [(one["name"], one["state"]) for one in server.client.view["models"]] == [("m", "READY")]
        assert ask(server) == ("1", [1.0] * 8)


def test_all_may_be_unloaded_and_one_come_back() -> None:
    with supervised([version(1)], planned=True) as server:
        assert administer(server, "unload", "m") == (True, None)
        assert server.client.view["models"] == server.client.view["workers"] == []
        server.planner.want([version(2)])
        until_serving(server, 2)


@pytest.mark.parametrize("action", ["load", "unload", "reload"])
def test_a_model_that_nobody_knows_is_the_planners_affair(action: str) -> None:
    with supervised([version(1)], planned=True) as server:
        assert administer(server, action, "unheard_of") == (False, "there is no model unheard_of")


def test_without_a_planner_nothing_changes() -> None:
    with supervised([version(1)]) as server:
        for action in ("load", "unload", "reload"):
            assert administer(server, action, "m") == (False, "the models of this server do not change while it runs")
        assert administer(server, "rollback", "m") == (False, "nothing is kept to go back to")
        assert server.client.view["routing"] == {}


def test_nonsense_is_not_heard_and_whoever_has_gone_is_not_answered() -> None:
    with gate() as a_gate, supervised([version(1)], planned=True) as server:
        channel = server.client._client._control.channel
        for message in ({"id": "x", "action": "load", "model": None}, {"id": 1, "action": "explode", "model": None}):
            server.client._loop.call_soon(lambda m=message: channel.send({"type": "admin", **m}))  # type: ignore[misc]
        server.planner.want([version(2, kind="held", gate=a_gate.path)])
        held = a_gate.next_call()
        with closing(server.attach()) as another:
            assert not another.administer("reload", None, 0.05)["ok"]
        held.let_go()
        until_serving(server, 2)
        assert server.planner.told("ask") == [["reload", None]]
        assert administer(server, "reload") == (True, None)


def test_who_waits_while_the_server_ends_hears_so() -> None:
    with gate() as a_gate, supervised([version(1)], planned=True) as server, ThreadPoolExecutor() as pool:
        server.planner.want([version(2, kind="held", gate=a_gate.path)])
        a_gate.next_call()
        waiting = pool.submit(administer, server, "reload")
        wait_until(lambda: server.planner.told("ask"), SOON_S, "it is asked")
        server.signal()
        assert waiting.result(SOON_S) == (False, "the server ends")
        assert server.wait() == 0
        assert administer(server, "reload") == (False, "the supervisor has gone")


# -- a signal ---------------------------------------------------------------------------------------------------------


def test_a_hang_up_without_a_terminal_looks_at_everything_again() -> None:
    with supervised([version(1)], planned=True) as server:
        before: Any = server.client.view["workers"]
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.planner.told("ask") == [["reload", None]], SOON_S, "it is asked")
        wait_until(lambda: {"type": "read_keys"} in server.client.messages, SOON_S, "fronts are told")
        assert server.client.view["workers"] == before
        assert ask(server) == ("1", [1.0] * 8)


def test_a_hang_up_ends_no_child() -> None:
    with supervised([version(1)], planned=True) as server:
        children = server.children()
        for pid in children:
            os.kill(pid, signal.SIGHUP)
        assert ask(server) == ("1", [1.0] * 8)
        assert server.children() == children


def test_when_its_terminal_hangs_up_it_drains() -> None:
    master, terminal = os.openpty()
    with supervised([version(1)], planned=True, terminal=os.ttyname(terminal)) as server:
        os.close(terminal)
        os.close(master)
        assert server.wait() == 0
        assert server.planner.told("ask") == []
        assert "draining: finishing what is in flight" in server.log
