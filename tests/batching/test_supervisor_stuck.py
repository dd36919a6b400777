"""Workers that live and do nothing, with real processes: stopped, looping in native code, or in an endless call."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor

from batching.client import Answer, Outcome
from tests.fakes import POISON
from tests.harness import SOON_S, Supervised, gate, supervised, values, wait_until

PID = {"name": "pid", "kind": "pid"}
LIMIT_S = 0.6
STUCK = ("inference_worker_deaths_total", "default", "stuck")


def until_seen(server: Supervised, since: float) -> float:
    """Seconds until the worker was seen to be stuck; printed."""
    wait_until(lambda: server.counted(*STUCK) == 1, SOON_S, "it is seen to be stuck")
    seen_s = time.monotonic() - since
    sys.stdout.write(f"stuck worker seen after {seen_s:.2f} s, limit {LIMIT_S} s\n")
    return seen_s


def test_a_worker_that_is_stopped_while_idle_is_killed_and_replaced() -> None:
    with supervised([PID], batch_limit_ms=LIMIT_S * 1000) as server:
        before, pid = server.client.view["workers"], server.worker()
        assert values(server.call("pid", [0.0])) == [pid]
        stopped = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        assert LIMIT_S / 2 < until_seen(server, stopped) < LIMIT_S + 5.0
        server.until_replaced(before)
        (other,) = values(server.call("pid", [0.0]))
        assert other != pid
        assert f"worker {pid} is stuck: its loop has not turned" in server.log
        assert "its process is stopped" in server.log
        assert f"worker {pid} died (SIGKILL)" in server.log


def test_one_that_loops_in_native_code_and_never_lets_go_of_the_interpreter_is_killed() -> None:
    with (
        supervised([{"name": "spins", "kind": "spins", "seconds": 0.01}], batch_limit_ms=LIMIT_S * 1000) as server,
        ThreadPoolExecutor() as pool,
    ):
        before, began = server.client.view["workers"], time.monotonic()
        lost: Future[list[Outcome]] = pool.submit(server.call, "spins", [POISON])
        assert LIMIT_S / 2 < until_seen(server, began) < LIMIT_S + 5.0
        server.until_replaced(before)
        assert "its process is running" in server.log
        assert not isinstance(lost.result(SOON_S)[0], Answer)
        wait_until(lambda: server.client.view["workers"], SOON_S, "a worker")
        assert values(server.call("spins", [1.0])) == [2.0]


def test_a_call_that_never_ends_is_seen_though_its_workers_loop_turns() -> None:
    with (
        gate() as a_gate,
        supervised([a_gate.model()], workers=2, batch_limit_ms=LIMIT_S * 1000) as server,
        ThreadPoolExecutor() as pool,
    ):
        waiting = pool.submit(server.call, "gated", [1.0])
        first = a_gate.next_call()
        began = time.monotonic()
        again = a_gate.next_call()  # the other worker got it, alone
        until_seen(server, began)
        assert again.pid != first.pid
        again.let_go()
        assert values(waiting.result(SOON_S)) == [2.0]
        assert f"worker {first.pid} is stuck: a model call has taken" in server.log


def test_after_everything_was_frozen_for_longer_than_the_limit_nobody_is_replaced() -> None:
    with supervised([PID], workers=2, batch_limit_ms=LIMIT_S * 1000) as server:
        wait_until(lambda: len(server.client.view["workers"]) == 2, SOON_S, "two workers")
        before = server.client.view["workers"]
        os.killpg(server.pid, signal.SIGSTOP)
        frozen = time.monotonic()
        wait_until(lambda: time.monotonic() > frozen + 3 * LIMIT_S, SOON_S, "the freeze is over")
        os.kill(server.pid, signal.SIGCONT)  # it wakes first, and finds everybody's signs old
        os.killpg(server.pid, signal.SIGCONT)
        assert len(values(server.call("pid", [0.0, 1.0]))) == 2
        woken = time.monotonic()
        wait_until(lambda: time.monotonic() > woken + 2 * LIMIT_S, SOON_S, "the watchdog has looked often enough")
        assert server.client.view["workers"] == before
        assert server.counted(*STUCK) == 0


def test_a_stuck_worker_of_one_group_holds_up_no_other() -> None:
    groups = {"default": [PID], "other": [{"name": "good"}]}
    with supervised(groups, batch_limit_ms=LIMIT_S * 1000) as server:
        (pid,) = values(server.call("pid", [0.0]))
        os.kill(int(pid), signal.SIGSTOP)
        slowest = 0.0
        while server.counted(*STUCK) == 0:
            began = time.monotonic()
            assert values(server.call("good", [1.0])) == [2.0]
            slowest = max(slowest, time.monotonic() - began)
        sys.stdout.write(f"slowest call of the other group {slowest * 1e3:.0f} ms\n")
        assert slowest < LIMIT_S
