"""Workers that grow beyond their memory and are replaced while they serve, with real processes."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from batching.child import resident_bytes
from tests.harness import SOON_S, Supervised, gate, supervised, values, wait_until

PID = {"name": "pid", "kind": "pid"}
LEAKS = {"name": "leaks", "kind": "leaks"}
LIMIT_MB = 300
MEMORY = ("inference_worker_deaths_total", "default", "memory")


def leak_until(server: Supervised, megabytes: int) -> None:
    """Ten megabytes a call, in the worker that serves now."""
    pid = int(values(server.call("pid", [0.0]))[0])
    while resident_bytes(pid) < megabytes << 20:
        assert values(server.call("leaks", [1.0])) == [2.0]


@pytest.mark.parametrize("settings", [{}, {"standby": 1}, {"workers": 2}], ids=["alone", "a standby", "two"])
def test_a_worker_that_leaks_is_replaced_and_no_call_fails(settings: dict[str, Any]) -> None:
    with supervised([LEAKS, PID], worker_memory_mb=LIMIT_MB, **settings) as server:
        workers = settings.get("workers", 1)
        wait_until(lambda: len(server.client.view["workers"]) == workers, SOON_S, "all workers")
        calls, crowd, begun = 0, 0, time.monotonic()
        while server.counted(*MEMORY) < 2 and time.monotonic() < begun + 3 * SOON_S:
            assert values(server.call("leaks", [1.0, 2.0])) == [2.0, 4.0]
            calls += 1
            crowd = max(crowd, len(server.children("worker")))
        sys.stdout.write(f"{server.counted(*MEMORY):.0f} workers replaced in {calls} calls\n")
        assert server.counted(*MEMORY) == 2
        # Never more than one is on its way in while another is on its way out.
        assert crowd <= workers + settings.get("standby", 0) + 1
        assert server.counted("inference_worker_deaths_total", "default", "crashed") == 0
        assert f"MiB, more than {LIMIT_MB}: replacing it" in server.log
        assert " died (" not in server.log


def test_what_a_replaced_worker_had_begun_it_answers_before_it_ends() -> None:
    with (
        gate() as a_gate,
        supervised([LEAKS, PID, a_gate.model()], worker_memory_mb=LIMIT_MB, batch_limit_ms=60_000) as server,
        ThreadPoolExecutor() as pool,
    ):
        before = server.client.view["workers"]
        leak_until(server, LIMIT_MB + 20)
        waiting = pool.submit(server.call, "gated", [1.0])
        call = a_gate.next_call()
        server.until_replaced(before)
        (pid,) = values(server.call("pid", [0.0]))
        assert pid != call.pid  # new items go to the new one
        assert call.pid in server.children("worker")
        call.let_go()
        assert values(waiting.result(SOON_S)) == [2.0]
        wait_until(lambda: server.children("worker") == [pid], SOON_S, "the old one has ended")
        wait_until(lambda: server.counted(*MEMORY) == 1, SOON_S, "it is counted")
        assert server.counted("inference_retries_total") == 0


def test_a_new_worker_beyond_the_limit_is_not_replaced_but_said_to_be_so_once() -> None:
    with supervised([PID], worker_memory_mb=1) as server:
        begun = time.monotonic()
        (condition,) = wait_until(lambda: server.client.view["conditions"], SOON_S, "it is said")
        assert "a new worker of group default holds" in condition
        assert "more than its limit of 1 MiB" in condition
        before = server.client.view["workers"]
        wait_until(lambda: time.monotonic() > begun + 1.5, SOON_S, "it was weighed more than once")
        assert server.client.view["workers"] == before
        assert server.log.count("replacing it would not help") == 1
        server.kill(server.worker())
        server.until_replaced(before)
        assert server.client.view["conditions"] == [condition] or "holds" in server.client.view["conditions"][0]
        assert server.log.count("replacing it would not help") == 1
