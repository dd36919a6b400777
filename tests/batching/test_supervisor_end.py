"""How a supervisor ends, by signals of all kinds: what is in flight is answered, and no process stays behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from batching.client import Answer
from tests.harness import SOON_S, gate, supervised, values, wait_until


@pytest.mark.parametrize("cost", [1e-5, 0.01], ids=["in the loop", "in the thread"])
def test_when_it_is_killed_no_process_is_left_after_a_second_even_while_a_model_computes(cost: float) -> None:
    with gate() as a_gate, supervised([a_gate.model(cost=cost)], workers=2) as server, ThreadPoolExecutor() as pool:
        pool.submit(server.call, "gated", [1.0])
        a_gate.next_call()
        assert len(server.children()) == 2
        server.kill_supervisor()
        wait_until(lambda: not server.survivors(), 1.0, "nothing is left")


def test_when_it_is_killed_while_it_starts_no_process_is_left() -> None:
    with supervised([{"name": "m", "kind": "slow_refusal", "seconds": 30}], wait=False) as server:
        wait_until(lambda: server.children("worker"), SOON_S, "a worker")
        server.kill_supervisor()
        wait_until(lambda: not server.survivors(), SOON_S, "nothing is left")


def test_what_is_in_flight_is_answered_when_it_is_told_to_end() -> None:
    with gate() as a_gate, supervised([a_gate.model()]) as server, ThreadPoolExecutor() as pool:
        waiting = pool.submit(server.call, "gated", [1.0])
        call = a_gate.next_call()
        queued = pool.submit(server.call, "gated", [2.0, 3.0])
        wait_until(lambda: server.counted("inference_in_flight") == 3, SOON_S, "all three are sent")
        server.signal()
        wait_until(lambda: server.client.view["draining"], SOON_S, "the drain")
        call.let_go()
        a_gate.open()
        assert values(waiting.result()) == [2.0]
        assert values(queued.result()) == [4.0, 6.0]
        assert server.wait() == 0


def test_signals_to_the_whole_group_drain_too() -> None:
    """Ctrl-C in a terminal reaches every process of the group at once."""
    with gate() as a_gate, supervised([a_gate.model()]) as server, ThreadPoolExecutor() as pool:
        waiting = pool.submit(server.call, "gated", [1.0])
        call = a_gate.next_call()
        os.killpg(server.pid, signal.SIGINT)
        wait_until(lambda: server.client.view["draining"], SOON_S, "the drain")
        call.let_go()
        assert values(waiting.result()) == [2.0]
        assert server.wait() == 0
        assert "Traceback" not in server.log


def test_a_second_signal_ends_it_at_once() -> None:
    with gate() as a_gate, supervised([a_gate.model()]) as server, ThreadPoolExecutor() as pool:
        waiting = pool.submit(server.call, "gated", [1.0])
        a_gate.next_call()
        server.signal(signal.SIGINT)
        wait_until(lambda: server.client.view["draining"], SOON_S, "the drain")
        signalled_at = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - signalled_at < 1.0
        assert not isinstance(waiting.result()[0], Answer)
        assert "Traceback" not in server.log


def test_what_does_not_finish_in_time_is_ended() -> None:
    with gate() as a_gate, supervised([a_gate.model()], drain_timeout_s=0.3) as server, ThreadPoolExecutor() as pool:
        waiting = pool.submit(server.call, "gated", [1.0])
        a_gate.next_call()
        signalled_at = time.monotonic()
        server.signal()
        assert server.wait() == 0
        assert 0.3 < time.monotonic() - signalled_at < 3.0
        assert not isinstance(waiting.result()[0], Answer)


@pytest.mark.parametrize("kind", ["slow_refusal", "dies"])
def test_told_to_end_while_it_starts_it_ends_at_once(kind: str) -> None:
    with supervised([{"name": "m", "kind": kind, "seconds": 30}], wait=False) as server:
        wait_until(lambda: server.children("worker"), SOON_S, "a worker")
        signalled_at = time.monotonic()
        server.signal()
        assert server.wait() == 0
        assert time.monotonic() - signalled_at < 2.0


def test_told_to_end_a_worker_that_still_loads_is_not_waited_for_and_the_others_finish() -> None:
    with (
        gate() as a_gate,
        supervised({"default": [a_gate.model()], "late": [{"name": "late", "load_seconds": 30}]}, wait=False) as server,
        ThreadPoolExecutor() as pool,
    ):
        server.until_state("gated", "READY")
        waiting = pool.submit(server.call, "gated", [1.0])
        call = a_gate.next_call()
        server.signal()
        wait_until(lambda: server.children("worker") == [call.pid], SOON_S, "the other has ended")
        call.let_go()
        assert values(waiting.result()) == [2.0]
        ended = time.monotonic()
        assert server.wait() == 0
        assert time.monotonic() - ended < 2.0
        assert " died (" not in server.log


def test_signals_to_the_whole_group_while_children_start_leave_no_traceback() -> None:
    """Before a child can ignore them; a Python that is interrupted among its imports says so at length."""
    groups = {str(number): [{"name": f"m{number}"}] for number in range(3)}
    with supervised(groups, wait=False) as server:
        wait_until(lambda: server.children("worker"), SOON_S, "a worker has just been started")
        os.killpg(server.pid, signal.SIGINT)
        assert server.wait() == 0
        assert "Traceback" not in server.log
        assert "KeyboardInterrupt" not in server.log


@pytest.mark.parametrize("how", ["a call without end", "stopped"])
def test_a_stuck_worker_does_not_hold_up_the_end(how: str) -> None:
    with (
        gate() as a_gate,
        supervised([a_gate.model()], batch_limit_ms=500, drain_timeout_s=60.0) as server,
        ThreadPoolExecutor() as pool,
    ):
        waiting = pool.submit(server.call, "gated", [1.0], 2.0)
        call = a_gate.next_call()
        if how == "stopped":
            os.kill(call.pid, signal.SIGSTOP)
        signalled_at = time.monotonic()
        server.signal()
        assert server.wait() == 0
        took_s = time.monotonic() - signalled_at
        sys.stdout.write(f"ended {took_s:.2f} s after SIGTERM\n")
        assert took_s < 10.0
        assert not isinstance(waiting.result()[0], Answer)
