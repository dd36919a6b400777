"""The whole server with fake models: what becomes of its fronts, its port and its requests when processes end."""

from __future__ import annotations

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from tests.harness import SOON_S, Server, fake_http_server, gate, listens, wait_until

DOUBLE = {"name": "double"}


class Reply(NamedTuple):
    """What came back: the status, the body's JSON, and whether the server closes the connection."""

    status: int
    body: dict[str, Any]
    closes: bool


def ask(server: Server, method: str, path: str, body: Any = None) -> Reply:
    """One request on a connection of its own. Raises OSError or HTTPException when it gets no answer."""
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=SOON_S)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        closes = response.getheader("Connection") == "close"
        return Reply(response.status, json.loads(response.read()), closes)
    finally:
        connection.close()


def predict(server: Server, value: float) -> Reply:
    return ask(server, "POST", "/predict", {"features": [value]})


def doubled(reply: Reply) -> float:
    assert reply.status == 200, reply
    return float(reply.body["prediction"])


# -- fronts -----------------------------------------------------------------------------------------------------------


def test_a_killed_front_is_replaced_and_no_request_that_comes_meanwhile_is_lost() -> None:
    with fake_http_server([DOUBLE]) as server:
        assert doubled(predict(server, 1.0)) == 2.0
        (front,) = server.children("front")
        worker = server.worker()
        server.kill(front)
        assert doubled(predict(server, 3.0)) == 6.0  # it waited at the port, which the supervisor holds
        assert server.children("front") != [front]
        assert server.worker() == worker
        assert f"front {front} died (SIGKILL)" in server.log


def test_with_two_fronts_the_port_answers_on_when_one_is_killed() -> None:
    with fake_http_server([DOUBLE], fronts=2) as server:
        wait_until(lambda: len(server.children("front")) == 2, SOON_S, "two fronts")
        victim = server.children("front")[0]
        server.kill(victim)
        assert [doubled(predict(server, i)) for i in range(20)] == [2.0 * i for i in range(20)]
        wait_until(lambda: len(server.children("front")) == 2, SOON_S, "two fronts again")


def test_what_a_killed_front_had_in_flight_holds_up_nobody() -> None:
    with gate() as a_gate, fake_http_server([a_gate.model()]) as server, ThreadPoolExecutor() as pool:
        lost = pool.submit(predict, server, 1.0)
        call = a_gate.next_call()
        server.kill(server.children("front")[0])
        assert isinstance(lost.exception(SOON_S), OSError | HTTPException)
        waiting = pool.submit(predict, server, 2.0)
        call.let_go()
        a_gate.next_call().let_go()
        assert doubled(waiting.result()) == 4.0


def test_a_front_loads_no_tensorflow_and_is_small() -> None:
    with fake_http_server([DOUBLE], fronts=2) as server:
        assert doubled(predict(server, 1.0)) == 2.0
        fronts = server.children("front")
        assert len(fronts) == 2
        for pid in fronts:
            assert "tensorflow" not in Path(f"/proc/{pid}/maps").read_text()
            assert psutil.Process(pid).memory_full_info().pss < 80 * 2**20


def test_the_log_databases_url_is_in_no_fronts_environment() -> None:
    with fake_http_server([DOUBLE], environment={"DATABASE_URL": "postgresql+pg8000://u:canary@h/d"}) as server:
        assert len(server.children()) == 2
        for pid in server.children():
            assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_it_listens_before_any_worker_is_ready() -> None:
    with fake_http_server([{"name": "m", "kind": "slow_refusal", "seconds": 30}], wait=False) as server:
        assert ask(server, "GET", "/health") == Reply(200, {"ok": True, "status": "up"}, closes=False)
        assert ask(server, "GET", "/ready").status == 503
        refused = predict(server, 1.0)
        assert (refused.status, refused.body["error"]) == (503, "NOT_READY")


# -- workers ----------------------------------------------------------------------------------------------------------


def test_a_killed_worker_costs_its_requests_and_no_more() -> None:
    with gate() as a_gate, fake_http_server([a_gate.model()]) as server, ThreadPoolExecutor() as pool:
        waiting = pool.submit(predict, server, 1.0)
        server.kill(a_gate.next_call().pid)
        failed = waiting.result(2.0)
        assert (failed.status, failed.body["error"]) == (503, "NOT_READY")
        a_gate.open()
        wait_until(lambda: ask(server, "GET", "/ready").status == 200, SOON_S, "ready again")
        assert doubled(predict(server, 2.0)) == 4.0


def test_with_two_workers_a_death_in_the_middle_of_a_batch_costs_nothing() -> None:
    with gate() as a_gate, fake_http_server([a_gate.model()], workers=2) as server, ThreadPoolExecutor() as pool:
        wait_until(lambda: server.log.count("is ready after") == 2, SOON_S, "both workers")
        waiting = pool.submit(predict, server, 1.0)
        server.kill(a_gate.next_call().pid)
        a_gate.next_call().let_go()
        assert doubled(waiting.result()) == 2.0
        a_gate.open()


# -- the end ----------------------------------------------------------------------------------------------------------


def test_when_the_supervisor_is_killed_neither_process_nor_port_is_left_after_a_second() -> None:
    with gate() as a_gate, fake_http_server([a_gate.model()], fronts=2) as server, ThreadPoolExecutor() as pool:
        lost = pool.submit(predict, server, 1.0)
        a_gate.next_call()
        assert len(server.children()) == 3
        server.kill_supervisor()
        wait_until(lambda: not server.survivors() and not listens(server.url), 1.0, "nothing is left")
        assert isinstance(lost.exception(SOON_S), OSError | HTTPException)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_flight_is_answered_before_it_ends(number: int) -> None:
    with gate() as a_gate, fake_http_server([a_gate.model()], fronts=2) as server, ThreadPoolExecutor() as pool:
        waiting = [pool.submit(predict, server, value) for value in (1.0, 2.0, 3.0)]
        call = a_gate.next_call()
        server.signal(number)
        wait_until(lambda: "draining" in server.log, SOON_S, "the drain")
        call.let_go()
        a_gate.open()
        replies = [future.result() for future in waiting]
        assert [doubled(reply) for reply in replies] == [2.0, 4.0, 6.0]
        assert server.wait() == 0


def test_while_it_drains_new_connections_are_refused_and_old_ones_served_once_more() -> None:
    with gate() as a_gate, fake_http_server([a_gate.model()]) as server, ThreadPoolExecutor() as pool:
        waiting = pool.submit(predict, server, 1.0)
        call = a_gate.next_call()
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=SOON_S) as late:
            late.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n")
            server.signal()
            wait_until(lambda: not listens(server.url), SOON_S, "the port is closed")
            late.sendall(b"\r\n")
            answer = late.recv(65536).decode()
            assert answer.startswith("HTTP/1.1 503")
            assert "connection: close" in answer.lower()
        assert not waiting.done()
        call.let_go()
        reply = waiting.result()
        assert (doubled(reply), reply.closes) == (2.0, True)
        assert server.wait() == 0


def test_a_second_signal_ends_it_at_once() -> None:
    with gate() as a_gate, fake_http_server([a_gate.model()]) as server, ThreadPoolExecutor() as pool:
        waiting = pool.submit(predict, server, 1.0)
        a_gate.next_call()
        server.signal()
        wait_until(lambda: "draining" in server.log, SOON_S, "the drain")
        signalled_at = time.monotonic()
        server.signal()
        assert server.wait() == 0
        assert time.monotonic() - signalled_at < 1.0
        error = waiting.exception(SOON_S)  # its connection ended, or it was told so
        assert isinstance(error, OSError | HTTPException) or waiting.result().status == 503
        assert "Traceback" not in server.log


def test_idle_connections_do_not_hold_up_the_end() -> None:
    with fake_http_server([DOUBLE]) as server:
        connections = [HTTPConnection(server.url.removeprefix("http://"), timeout=SOON_S) for _ in range(3)]
        for connection in connections:
            connection.request("GET", "/health")
            assert connection.getresponse().read()
        signalled_at = time.monotonic()
        server.signal()
        assert server.wait() == 0
        assert time.monotonic() - signalled_at < 3.0
        for connection in connections:
            connection.close()
