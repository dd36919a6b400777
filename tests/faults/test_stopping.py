"""SIGTERM: under load, with a worker that is stuck, without a database, and twice."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.faults.asking import connect, counted, doubled, get, predict, trouble_of
from tests.faults.base import faulty_server, until_ready
from tests.faults.conftest import Say
from tests.faults.connection import prediction
from tests.faults.load import Load, assert_logged_once, assert_promises, logged, statuses
from tests.harness import SOON_S, gate, wait_until

RUNS = 20
BATCH_S = 0.05
CLIENTS = 16
# The goal: the grace in which a balancer learns of it, the longest batch, and half a second.
EXIT_GOAL_S = 0.3 + BATCH_S + 0.5
DRAIN_S = 2.0


def test_a_stop_under_load_fails_nobody(figure: Say, tmp_path: Path) -> None:
    """Half of the runs with connections that stay open, half with one for each request."""
    exits, unready, outcomes, refused, unheard = [], [], Counter[str](), 0, 0
    for run in range(RUNS):
        spool = tmp_path / str(run)
        make = partial(prediction, close=run % 2 == 1)
        model = {"name": "double", "seconds": BATCH_S}
        with faulty_server([model], fronts=2, prediction_log_dir=str(spool)) as server:
            probe = connect(server.url)  # idle until then
            with probe, Load(server.url, CLIENTS, make=make) as load:
                load.until(100)
                stopped = time.monotonic()
                server.signal()
                said = until_unready(probe)
                unready.append(time.monotonic() - stopped)
                assert server.wait() == 0
                exits.append(time.monotonic() - stopped)
                asked = load.finish()
        refused += load.refused
        assert said in (503, None), "GET /ready is 503 at once"
        outcomes += statuses(asked)
        assert_promises(asked, faults=("idle", "unaccepted"))
        unheard += assert_logged_once(spool, asked)
    figure(
        41,
        f"0 failed whose bytes reached an accepted connection, /ready 503 at once, exit in {EXIT_GOAL_S:.2f} s",
        f"{RUNS} runs: {dict(outcomes)}, apart from them {refused} refused connects; "
        f"/ready 503 in {max(unready) * 1e3:.0f} ms, exit after {max(exits):.2f} s at most; "
        f"log rows exactly once, {unheard} unheard",
    )
    assert set(outcomes) <= {"200", "idle", "unaccepted"}
    # The kernel takes connections for a listener up to the instant at which it is closed.
    assert outcomes["unaccepted"] <= RUNS
    assert max(exits) < EXIT_GOAL_S + 5.0


def test_a_stop_with_a_stuck_worker_ends_in_time(figure: Say) -> None:
    """What it holds is refused when the drain is over."""
    with gate() as held, ThreadPoolExecutor(4) as pool:
        model = held.model()
        settings = {"predict_timeout_ms": 20_000, "drain_timeout_s": DRAIN_S}
        with faulty_server([model], **settings) as server:  # type: ignore[arg-type]
            asked = [pool.submit(predict, server.url, float(number)) for number in range(4)]
            os.kill(held.next_call().pid, signal.SIGSTOP)
            wait_until(lambda: counted(server.url, "inference_in_flight") == 4, SOON_S, "all are under way")
            stopped = time.monotonic()
            server.signal()
            assert server.wait() == 0
            seconds = time.monotonic() - stopped
            replies = [one.result(SOON_S) for one in asked]
    answers = Counter(reply.status for reply in replies)
    figure(42, "exit <= 5 s, held requests 503", f"stopped worker: {dict(answers)}, exit after {seconds:.2f} s")
    assert not [trouble for reply in replies if (trouble := trouble_of(*reply))]
    assert set(answers) == {503}
    assert seconds < 10.0


def test_a_stop_without_a_database_keeps_the_log_for_the_next_start(figure: Say, tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but it does not listen
        url = f"postgresql+pg8000://u:canary-of-the-password@127.0.0.1:{nobody.getsockname()[1]}/d"
        settings = {"database_url": url, "prediction_log_dir": str(tmp_path)}
        with faulty_server([{"name": "double"}], **settings) as server:  # type: ignore[arg-type]
            assert all(doubled(server.url, float(number)) for number in range(20))
            stopped = time.monotonic()
            server.signal()
            assert server.wait() == 0
            seconds = time.monotonic() - stopped
            log = server.log
    rows = len(logged(tmp_path))
    figure(
        42, "exit <= 5 s, log kept for the next start", f"no database: exit after {seconds:.2f} s, {rows} of 20 rows"
    )
    assert rows == 20
    assert "canary" not in log
    assert seconds < 10.0


def test_a_second_signal_ends_at_once(figure: Say) -> None:
    with gate() as held, ThreadPoolExecutor(1) as pool:
        model = held.model()
        with faulty_server([model], predict_timeout_ms=20_000) as server:
            asked = pool.submit(predict, server.url, 1.0)
            held.next_call()
            server.signal()
            wait_until(lambda: "draining" in server.log, SOON_S, "it drains")
            stopped = time.monotonic()
            server.signal()
            assert server.wait() == 0
            seconds = time.monotonic() - stopped
            # Its connection is closed, or its front has had the time to say why.
            assert asked.exception(SOON_S) is not None or asked.result().status == 503
    figure(42, "twice: exit <= 1 s", f"twice: exit after {seconds:.2f} s")
    assert seconds < 5.0


def test_a_stop_while_a_worker_starts_ends_at_once(figure: Say) -> None:
    """There is nothing to finish in a worker that has not loaded its model."""
    model = {"name": "slow", "kind": "slow_refusal", "seconds": 60.0}
    with faulty_server([{"name": "double"}]) as ready, faulty_server([model], wait=False) as server:
        until_ready(ready, 1)
        wait_until(lambda: answers(server.url), SOON_S, "the front answers")
        stopped = time.monotonic()
        server.signal()
        assert server.wait() == 0
        seconds = time.monotonic() - stopped
    figure(42, "exit <= 5 s", f"while its worker loads: exit after {seconds:.2f} s")
    assert seconds < 10.0


def until_unready(probe: socket.socket) -> int | None:
    """Ask GET /ready on a connection that was there before until it is not 200; None when that has been closed."""
    give_up = time.monotonic() + SOON_S
    while time.monotonic() < give_up:
        try:
            probe.sendall(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            status = int(probe.recv(65536).split(None, 2)[1])
        except (OSError, IndexError):
            return None
        if status != 200:
            return status
    raise AssertionError("GET /ready goes on saying 200")


def answers(url: str) -> bool:
    """Whether GET /health does."""
    try:
        return get(url, "/health").status == 200
    except OSError:
        return False
