"""The supervisor killed, alone and with all its children; and signals to the whole group. Nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest

from tests.faults.asking import address
from tests.faults.base import faulty_server, files, scratch, until_ready
from tests.faults.conftest import Say
from tests.faults.load import Load, assert_logged_once, assert_promises, statuses
from tests.harness import SOON_S, wait_until

CLIENTS = 16
# What the clients of a killed server may meet.
KILLED = ("idle", "broken", "unaccepted")


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with its children"])
def test_a_killed_supervisor_leaves_nothing_and_loses_no_answer(figure: Say, tmp_path: Path, alone: bool) -> None:
    with faulty_server([{"name": "double"}], workers=2, fronts=2, prediction_log_dir=str(tmp_path)) as server:
        until_ready(server, 2)
        folder = scratch(server)
        before = files(folder)
        with Load(server.url, CLIENTS) as load:
            load.until(500)
            children = [psutil.Process(pid) for pid in server.children()]
            killed = time.monotonic()
            server.kill_supervisor()
            if not alone:
                for child in children:
                    child.kill()
            wait_until(lambda: not server.survivors(), SOON_S, "its children are gone")
            gone_s = time.monotonic() - killed
            wait_until(lambda: can_listen(server.url), SOON_S, "its port can be bound")
            bound_s = time.monotonic() - killed
            asked = load.finish()
        left = files(folder) - before
    with faulty_server([{"name": "double"}], prediction_log_dir=str(tmp_path)) as again:
        until_ready(again, 1)  # the next server over the same log takes nothing from it and adds nothing
    unheard = assert_logged_once(tmp_path, asked)
    unanswered = [one for one in asked if one.status is None]
    figure(
        10 if alone else 11,
        "workers gone in 100 ms, port free in 1 s, 0 files, every answer in the log once",
        f"{len(children)} children gone in {gone_s * 1e3:.0f} ms, port free in {bound_s * 1e3:.0f} ms, "
        f"{len(left)} files, {statuses(asked)['200']} answers each in the log once, {unheard} rows unheard",
    )
    assert_promises(asked, faults=KILLED)
    # A front that lives a moment longer than the other takes whoever comes from there.
    assert len(unanswered) <= 4 * CLIENTS
    assert unheard <= CLIENTS
    assert not left
    assert gone_s < 5.0
    assert bound_s < 5.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_to_the_whole_group_drains(figure: Say, number: signal.Signals) -> None:
    with faulty_server([{"name": "double", "seconds": 0.02}], workers=2, fronts=2) as server:
        until_ready(server, 2)
        with Load(server.url, CLIENTS) as load:
            load.until(200)
            signalled = time.monotonic()
            os.killpg(server.pid, number)
            assert server.wait() == 0
            seconds = time.monotonic() - signalled
            asked = load.finish()
        log = server.log
    traces = log.count("KeyboardInterrupt") + log.count("Traceback")
    figure(
        12,
        "drains as 41, no trace of KeyboardInterrupt",
        f"{number.name}: {dict(statuses(asked))}, exit after {seconds:.2f} s, {traces} traces",
    )
    assert_promises(asked)
    assert {one.status for one in asked if one.reached} == {200}
    assert traces == 0
    assert seconds < 10.0


def can_listen(url: str) -> bool:
    """Whether another server could take the port now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address(url))  # refused while anybody listens there
        except OSError:
            return False
    return True
