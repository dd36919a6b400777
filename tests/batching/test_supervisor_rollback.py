"""A change of models is taken back: at once, and it stays taken back; real processes."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from tests.batching.load import ask, ready, under_load, until_serving, until_workers, version
from tests.harness import SOON_S, Supervised, gate, supervised, values, wait_until


def roll_back(server: Supervised, model: str | None = None) -> dict[str, Any]:
    return server.client.administer("rollback", model, SOON_S)


@pytest.mark.parametrize("settings", [{}, {"workers": 2}, {"standby": 1}], ids=["one", "two", "a standby"])
def test_the_generation_before_serves_again_at_once_and_no_request_fails(settings: dict[str, Any]) -> None:
    with supervised([version(1)], planned=True, **settings) as server:
        workers = settings.get("workers", 1)
        wait_until(lambda: len(server.client.view["workers"]) == workers, SOON_S, "all workers")
        before = server.client.view["workers"]
        server.planner.want([version(2)])
        with under_load(server) as load:
            until_serving(server, 2)
            wait_until(lambda: load.answered["2"] > 10, SOON_S, "the second answers")
            starts = server.counted("inference_worker_starts_total", "default")
            begun = time.monotonic()
            answer = roll_back(server, "m")
            sys.stdout.write(f"rolled back in {(time.monotonic() - begun) * 1e3:.0f} ms\n")
            assert answer["ok"]
            until_serving(server, 1)
            assert server.client.view["workers"] == before
            answered = load.answered["1"]
            wait_until(lambda: load.answered["1"] > answered + 10, SOON_S, "the first answers")
        assert server.counted("inference_worker_starts_total", "default") <= starts + settings.get("standby", 0)
        assert server.counted("inference_reloads_total", "default", "rolled_back") == 1
        assert server.counted("inference_generation", "default") == 1
        until_workers(server, workers + settings.get("standby", 0))
        assert [one["version"] for (one,) in server.planner.told("rolled_back")] == ["2"]
        assert server.counted("inference_retries_total") == 0


def test_it_stays_so_until_something_else_is_wanted() -> None:
    with supervised([version(1)], planned=True, predict_timeout_ms=100) as server:
        server.planner.want([version(2)])
        until_serving(server, 2)
        roll_back(server)
        until_workers(server, 1)
        assert ready(server) == ["1"]
        assert "generation 3" not in server.log
        server.planner.want([version(3)])
        until_serving(server, 3)
        assert ask(server) == ("3", [3.0] * 8)


def test_there_is_nothing_to_go_back_to_before_a_change_and_after_a_while() -> None:
    with supervised([version(1)], planned=True, rollback_s=0.2) as server:
        assert roll_back(server)["reason"] == "nothing is kept to go back to"
        assert roll_back(server, "unheard_of")["reason"] == "there is no model 'unheard_of'"
        server.planner.want([version(2)])
        until_serving(server, 2)
        wait_until(lambda: "is kept no longer" in server.log, SOON_S, "it is kept no longer")
        answer = roll_back(server, "m")
        assert (answer["ok"], answer["reason"]) == (False, "nothing is kept to go back to")
        assert answer["models"] == [{"name": "m", "version": "2", "state": "READY", "reason": None}]


def test_a_kept_worker_that_dies_is_forgotten() -> None:
    with supervised([version(1)], planned=True) as server:
        (old,) = server.children("worker")
        server.planner.want([version(2)])
        until_serving(server, 2)
        before = server.client.view["workers"]
        server.kill(old)
        wait_until(lambda: f"worker {old} died (SIGKILL)" in server.log, SOON_S, "it is known")
        assert roll_back(server)["reason"] == "nothing is kept to go back to"
        assert server.client.view["workers"] == before
        assert ask(server) == ("2", [2.0] * 8)


def test_where_one_of_two_kept_workers_has_died_the_other_serves_at_once_and_gets_company() -> None:
    with supervised([version(1)], planned=True, workers=2) as server:
        wait_until(lambda: len(server.client.view["workers"]) == 2, SOON_S, "two workers")
        old = server.children("worker")
        server.planner.want([version(2)])
        until_serving(server, 2)
        server.kill(old[0])
        wait_until(lambda: f"worker {old[0]} died (SIGKILL)" in server.log, SOON_S, "it is known")
        assert roll_back(server)["ok"]
        assert ask(server) == ("1", [1.0] * 8)
        wait_until(lambda: len(server.client.view["workers"]) == 2, SOON_S, "two workers")
        assert ready(server) == ["1"]


def test_while_another_generation_loads_there_is_nothing_kept_and_it_loads_on() -> None:
    with gate() as a_gate, supervised([version(1)], planned=True) as server:
        server.planner.want([version(2, kind="held", gate=a_gate.path)])
        held = a_gate.next_call()
        assert roll_back(server)["reason"] == "nothing is kept to go back to"
        held.let_go()
        until_serving(server, 2)
        assert roll_back(server)["ok"]
        until_serving(server, 1)


def test_what_the_newer_generation_has_begun_it_answers() -> None:
    with (
        gate() as a_gate,
        supervised([version(1)], planned=True) as server,
        ThreadPoolExecutor() as pool,
    ):
        server.planner.want([version(2, kind="gate", gate=a_gate.path, cost=0.01)])
        until_serving(server, 2)
        waiting = pool.submit(server.call, "m", [21.0])
        call = a_gate.next_call()
        assert roll_back(server)["ok"]
        assert ask(server) == ("1", [1.0] * 8)
        call.let_go()
        assert values(waiting.result(SOON_S)) == [42.0]


def test_a_front_that_attached_after_the_change_gets_links_to_what_serves_again() -> None:
    with supervised([version(1)], planned=True) as server:
        server.planner.want([version(2)])
        until_serving(server, 2)
        with closing(server.attach()) as another:
            assert another.wait_until(lambda view: view["serial"] > 0, SOON_S)
            assert roll_back(server)["ok"]
            first, server.client = server.client, another
            until_serving(server, 1)
            assert ask(server) == ("1", [1.0] * 8)
            server.client = first


def test_a_front_that_has_let_go_of_the_kept_worker_is_linked_to_it_again() -> None:
    with supervised([version(1)], planned=True, predict_timeout_ms=50) as server:
        server.planner.want([version(2)])
        until_serving(server, 2)
        wait_until(lambda: len(server.client._client._links) == 1, SOON_S, "it has let go")
        assert roll_back(server)["ok"]
        until_serving(server, 1)
        assert ask(server) == ("1", [1.0] * 8)


def test_there_and_back_and_there_again() -> None:
    """The worker comes back while the front still lingers over its old link to it, or has let go of it just now."""
    with supervised([version(1)], planned=True, predict_timeout_ms=100) as server, under_load(server) as load:
        for number in (2, 3, 4):
            server.planner.want([version(number)])
            until_serving(server, number)
            wait_until(lambda n=str(number): load.answered[n] > 10, SOON_S, "it answers")  # type: ignore[misc]
            assert roll_back(server)["ok"]
            until_serving(server, 1)
            answered = load.answered["1"]
            wait_until(lambda a=answered: load.answered["1"] > a + 10, SOON_S, "the first answers")  # type: ignore[misc]
