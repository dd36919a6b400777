"""Workers that stand by, with real processes: when they are started, and how one takes a dead one's place."""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import closing
from typing import Any

import psutil

from batching.blocking import BlockingClient
from batching.control import ControlChannel
from tests.harness import SOON_S, Supervised, supervised, values, wait_until

PID = {"name": "pid", "kind": "pid"}


def recording(server: Supervised, snapshots: list[dict[str, Any]]) -> BlockingClient:
    """A client that keeps every snapshot."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(os.path.join(server.folder, "socket"))

    def record(snapshot: dict[str, Any]) -> dict[str, Any]:
        snapshots.append(snapshot)
        return snapshot

    return BlockingClient(ControlChannel(sock), record)


def until_standing_by(server: Supervised, times: int = 1) -> None:
    wait_until(lambda: server.log.count(" and stands by; it holds ") == times, SOON_S, "one stands by")


def test_who_stands_by_takes_a_dead_ones_place_in_the_very_snapshot_that_leaves_it_out() -> None:
    snapshots: list[dict[str, Any]] = []
    with supervised([PID], standby=1) as server:
        until_standing_by(server)
        with closing(recording(server, snapshots)) as client:
            assert client.wait_until(lambda view: view["workers"], SOON_S)
            (before,) = client.view["workers"]
            (pid,) = values(server.call("pid", [0.0]))
            (standby,) = set(server.children("worker")) - {pid}
            killed = time.monotonic()
            server.kill(int(pid))
            assert client.wait_until(lambda view: view["workers"] != [before], SOON_S)
            sys.stdout.write(f"another worker is known after {(time.monotonic() - killed) * 1e3:.0f} ms\n")
            assert values(server.call("pid", [0.0])) == [standby]
            until_standing_by(server, 2)  # and the next one stands by
            first = snapshots.index(next(one for one in snapshots if one["workers"] == [before]))
            assert all(len(one["workers"]) == 1 for one in snapshots[first:])
            assert all(one["models"][0]["state"] == "READY" for one in snapshots[first:])


def test_it_has_no_part_in_the_snapshot_and_gets_no_items() -> None:
    with supervised([PID], standby=2) as server:
        until_standing_by(server, 2)
        assert len(server.children("worker")) == 3
        assert len(server.client.view["workers"]) == 1
        assert len({*values(server.call("pid", range(20)))}) == 1


def test_it_is_started_when_nobody_who_is_to_serve_is_still_loading() -> None:
    groups = {"default": [{**PID, "load_seconds": 0.3}], "other": [{"name": "good", "load_seconds": 0.9}]}
    with supervised(groups, standby=1, wait=False) as server:
        until_standing_by(server, 2)
        begun = [psutil.Process(pid).create_time() for pid in server.children("worker")]
        assert len(begun) == 4
        assert begun[2] > begun[1] + 0.85  # so long the slower of the two that serve had to load
        assert begun[3] > begun[2]


def test_when_all_are_killed_at_once_all_come_back() -> None:
    with supervised([PID], workers=2, standby=1) as server:
        until_standing_by(server)
        for pid in server.children("worker"):
            server.kill(pid)
        until_standing_by(server, 2)
        wait_until(lambda: len(server.client.view["workers"]) == 2, SOON_S, "two serve")
        assert len(server.children("worker")) == 3
        assert len(values(server.call("pid", range(4)))) == 4


def test_a_standby_that_dies_is_missed_by_nobody_and_replaced() -> None:
    with supervised([PID], standby=1) as server:
        until_standing_by(server)
        before = server.client.view["workers"]
        (active,) = values(server.call("pid", [0.0]))
        (standby,) = set(server.children("worker")) - {active}
        server.kill(standby)
        until_standing_by(server, 2)
        assert server.client.view["workers"] == before
        assert values(server.call("pid", [0.0])) == [active]
