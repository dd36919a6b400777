"""Which workers let others go first at the processor; real processes."""

from __future__ import annotations

import os
from typing import Any

import psutil

from batching.child import NICENESS
from batching.planning import LONG_CALL_S
from tests.harness import SOON_S, Supervised, supervised, wait_until

SMALL: dict[str, Any] = {"name": "small"}
LARGE: dict[str, Any] = {"name": "large", "cost": 2 * LONG_CALL_S}


def nicenesses(server: Supervised) -> list[int]:
    """Of all threads of its workers, once for each worker whose threads agree; beyond our own."""
    own, found = os.getpriority(os.PRIO_PROCESS, 0), []
    for pid in server.children("worker"):
        of_threads = {os.getpriority(os.PRIO_PROCESS, one.id) - own for one in psutil.Process(pid).threads()}
        found += list(of_threads) if len(of_threads) == 1 else []
    return found


def test_a_worker_with_long_calls_goes_behind_a_group_of_its_own() -> None:
    with supervised({"default": [SMALL], "large": [LARGE]}) as server:
        wait_until(lambda: sorted(nicenesses(server)) == [0, NICENESS], SOON_S, "no worker gives way")


def test_one_that_takes_its_place_gives_way_too() -> None:
    with supervised({"default": [SMALL], "large": [LARGE]}) as server:
        wait_until(lambda: NICENESS in nicenesses(server), SOON_S, "no worker gives way")
        large = max(server.children("worker"), key=lambda pid: psutil.Process(pid).nice())
        server.kill(large)
        wait_until(
            lambda: large not in server.children("worker") and sorted(nicenesses(server)) == [0, NICENESS],
            SOON_S,
            "the next one does not give way",
        )


def test_with_no_other_group_nobody_gives_way() -> None:
    with supervised([SMALL, LARGE]) as server:
        assert server.call("large", [1.0])
        assert nicenesses(server) == [0]
