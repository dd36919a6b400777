"""The supervisor and its workers: starting, dying, and being replaced; real processes, no HTTP.

Standing by, being stuck, growing: test_supervisor_standby.py, _stuck.py, _recycling.py. How it ends: _end.py. Who
attaches: _attached.py. With fronts: _fronts.py.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batching.client import Answer
from batching.groups import backoff_s
from commands import exits
from tests.fakes import POISON
from tests.harness import SOON_S, Gate, Supervised, gate, supervised, values, wait_until

GOOD = {"name": "good"}


def worker_of_default(server: Supervised) -> int:
    (pid,) = values(server.call("pid", [0.0]))
    return int(pid)


@pytest.fixture(scope="module")
def a_gate() -> Iterator[Gate]:
    with gate() as made:
        yield made


@pytest.fixture(scope="module")
def server(a_gate: Gate) -> Iterator[Supervised]:
    """For tests that leave it as it was, or as good as that: one group of everything, one gated, one that crashes."""
    mixed = [{"name": "a", "kind": "refuses"}, GOOD, {"name": "c", "kind": "broken"}, {"name": "pid", "kind": "pid"}]
    groups = {"default": mixed, "gated": [a_gate.model()], "crash": [{"name": "crash", "kind": "crash"}]}
    refused = [{"name": "d", "version": "1", "reason": "it is no model"}]
    environment = {"DATABASE_URL": "postgresql+pg8000://user:canary@localhost/db", "KEPT": "kept"}
    with supervised(groups, refused=refused, environment=environment) as running:
        yield running


# -- starting ---------------------------------------------------------------------------------------------------------


def test_what_can_be_served_is_served_beside_what_cannot(server: Supervised) -> None:
    states = {model["name"]: (model["state"], model["reason"]) for model in server.client.view["models"]}
    assert states == {
        "a": ("FAILED", "it is refused by design"),
        "good": ("READY", None),
        "c": ("FAILED", "loading failed; the server's log has the details"),
        "d": ("FAILED", "it is no model"),
        "pid": ("READY", None),
        "gated": ("READY", None),
        "crash": ("READY", None),
    }
    assert values(server.call("good", [1.0])) == [2.0]


def test_what_a_broken_loader_says_is_in_the_log_and_nowhere_else(server: Supervised) -> None:
    assert "secret detail" in server.log
    assert "secret" not in json.dumps(server.client.view)


@pytest.mark.parametrize("kind", ["refuses", "slow_refusal", "dies"])
def test_a_group_that_cannot_start_leaves_the_others_alone(kind: str) -> None:
    bad = {"name": "bad", "kind": kind, "seconds": 1.0}
    with supervised({"default": [GOOD], "bad": [bad]}) as server:  # and it is announced that the rest is ready
        entry = server.model("bad")
        assert entry["state"] == "FAILED"
        assert entry["reason"]
        assert values(server.call("good", [1.0])) == [2.0]


@pytest.mark.parametrize(
    ("groups", "reasons"),
    [
        ([{"name": "a", "kind": "refuses"}], ["model a version 1 cannot be served: it is refused by design"]),
        (
            {"one": [{"name": "a", "kind": "refuses"}], "two": [{"name": "b", "kind": "broken"}]},
            ["model a version 1 cannot be served: it is refused by design", "model b version 1 cannot be served"],
        ),
        ([{"name": "a", "kind": "dies"}], ["model a version 1", "died 3 times before it was ready (SIGABRT)"]),
        ({}, ["there is no model to serve"]),
    ],
    ids=["refused", "two groups", "dies while loading", "none"],
)
def test_when_nothing_can_be_served_it_ends_and_says_why(groups: Any, reasons: list[str]) -> None:
    started = time.monotonic()
    with supervised(groups, wait=False, attach=False) as server:
        server.expected_exit = exits.NO_MODEL
        assert server.wait() == exits.NO_MODEL
        (line,) = [line for line in server.log.splitlines() if line.startswith("reason: ")]
        assert all(reason in line for reason in reasons)
        assert "secret" not in line
        if "died" in line:  # half a second, then a whole one between the tries
            assert time.monotonic() - started > 1.5
            assert "the next worker starts in 1.0 s" in server.log


def test_a_report_and_snapshots_larger_than_a_sockets_buffer_arrive() -> None:
    models = [{"name": name, "description_bytes": 1_000_000} for name in ("a", "b", "c")]
    with supervised(models) as server, closing(server.attach()) as another:
        assert another.wait_until(lambda view: view["serial"] > 0, SOON_S)
        for client in (server.client, another):
            assert [len(model["description"]["description"]) for model in client.view["models"]] == [1_000_000] * 3
        assert values(server.call("c", [1.0])) == [2.0]


# -- dying and being replaced -----------------------------------------------------------------------------------------


def test_a_worker_killed_while_idle_is_replaced_and_answers_again(server: Supervised) -> None:
    starts, rows = ("inference_worker_starts_total", "default"), ("inference_rows_total", "good", "1")
    assert values(server.call("good", [1.0])) == [2.0]
    before, pid = server.client.view["workers"], worker_of_default(server)
    counts = [server.counted(*series) for series in (starts, rows)]
    server.kill(pid)
    server.until_replaced(before)
    assert values(server.call("good", [3.0])) == [6.0]
    assert worker_of_default(server) != pid
    assert server.counted("inference_worker_deaths_total", "default", "crashed") == 1
    # What the dead one had counted counts on.
    assert [server.counted(*series) for series in (starts, rows)] == [count + 1 for count in counts]
    assert f"worker {pid} died (SIGKILL)" in server.log


def test_a_model_that_takes_its_process_down_is_back_soon(server: Supervised) -> None:
    before = server.client.view["workers"]
    (outcome,) = server.call("crash", [POISON])
    assert not isinstance(outcome, Answer)
    server.until_replaced(before)
    assert values(server.call("crash", [1.0])) == [2.0]
    assert "died (SIGABRT)" in server.log


def test_all_workers_killed_at_once_come_back() -> None:
    with supervised([GOOD], workers=3) as server:
        wait_until(lambda: len(server.client.view["workers"]) == 3, SOON_S, "three workers")
        pids = server.children("worker")
        for pid in pids:
            server.kill(pid)
        wait_until(lambda: len(set(server.children("worker")) - set(pids)) == 3, SOON_S, "three others")
        server.until_state("good", "READY")
        wait_until(lambda: len(server.client.view["workers"]) == 3, SOON_S, "three links")
        assert values(server.call("good", range(9))) == [2.0 * i for i in range(9)]


def test_a_death_in_one_group_does_not_touch_another(server: Supervised, a_gate: Gate) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(server.call, "gated", [1.0])
        call = a_gate.next_call()
        before = server.client.view["workers"]
        server.kill(worker_of_default(server))
        server.until_replaced(before)
        assert values(server.call("good", [1.0])) == [2.0]
        call.let_go()
        assert values(waiting.result()) == [2.0]


def test_a_link_that_is_lost_without_a_death_is_made_anew(server: Supervised) -> None:
    before = server.client.view["workers"]
    for link in list(server.client._client._links.values()):
        link.connection.socket.send(b"nonsense" * 20)  # each worker hangs up on us
    wait_until(lambda: not server.client._client._links, SOON_S, "all links are lost")
    wait_until(lambda: len(server.client._client._links) == len(before), SOON_S, "new links")
    assert server.client.view["workers"] == before
    assert values(server.call("good", [1.0])) == [2.0]


def test_a_model_whose_file_has_gone_is_left_out_after_a_restart_and_the_rest_serves(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.touch()
    models = [{"name": "fragile", "kind": "needs_file", "path": str(file)}, {"name": "nan", "kind": "nan"}, GOOD]
    with supervised(models) as server:
        before, target = server.client.view["workers"], server.target("good")
        file.unlink()
        server.kill(server.worker())
        server.until_replaced(before)
        assert (server.model("fragile")["state"], server.model("fragile")["reason"]) == (
            "FAILED",
            "its file is missing",
        )
        assert server.target("good") == target  # a request of the old snapshot still means the same model
        assert values(server.call("good", [1.0])) == [2.0]


def test_a_worker_that_cannot_load_any_more_is_tried_again_until_it_can(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.touch()
    with supervised([{"name": "fragile", "kind": "needs_file", "path": str(file)}]) as server:
        file.unlink()
        server.kill(server.worker())
        entry = wait_until(
            lambda: (m := server.model("fragile"))["reason"] == "its file is missing" and m, SOON_S, "why"
        )
        assert entry["state"] == "LOADING"
        file.touch()
        server.until_state("fragile", "READY")
        assert values(server.call("fragile", [1.0])) == [2.0]
        assert "the next worker starts in 0.5 s" in server.log


def test_when_the_file_is_back_it_is_tried_again_without_waiting_out_the_back_off(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.touch()
    with supervised([{"name": "fragile", "kind": "needs_file", "path": str(file)}]) as server:
        file.unlink()
        server.kill(server.worker())
        wait_until(lambda: "the next worker starts in 4.0 s" in server.log, SOON_S, "three more have failed")
        assert server.client.view["workers"] == []
        file.touch()
        back = time.monotonic()
        server.until_state("fragile", "READY")
        sys.stdout.write(f"ready {time.monotonic() - back:.2f} s after its file was back, a fake's start included\n")
        assert "the files of group default have changed: trying again" in server.log
        assert "the next worker starts in 8.0 s" not in server.log
        assert values(server.call("fragile", [1.0])) == [2.0]


def test_the_wait_between_tries_doubles_up_to_half_a_minute_for_ever() -> None:
    """After 1,024 tries, some eight hours, the doubling itself once ended the supervisor."""
    assert [backoff_s(tries) for tries in (1, 2, 3, 7, 8, 2000, 10**6)] == [0.5, 1.0, 2.0, 30.0, 30.0, 30.0, 30.0]


# -- what its children can see ----------------------------------------------------------------------------------------


def test_the_log_databases_url_is_in_no_childs_environment(server: Supervised) -> None:
    children = server.children()
    assert len(children) == 3
    for pid in children:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"canary" not in environment
        assert b"KEPT=kept" in environment


def test_when_memory_ends_the_kernel_takes_a_worker_and_not_the_supervisor(server: Supervised) -> None:
    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    own = score(server.pid)
    assert {score(pid) for pid in server.children("worker")} == {min(own + 500, 1000)}


def test_a_child_inherits_no_descriptor_of_another(server: Supervised) -> None:
    """Else the end of a process would not be the end of its sockets."""
    sockets = [
        {link for fd in Path(f"/proc/{pid}/fd").iterdir() if (link := os.readlink(fd)).startswith("socket:")}
        for pid in server.children()
    ]
    assert len(sockets) == 3
    assert len(set.union(*sockets)) == sum(map(len, sockets))
