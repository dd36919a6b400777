"""The whole server with fake models: what becomes of its fronts, its port and its requests when processes end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from commands import exits
from tests.harness import SOON_S, Gate, Server, fake_http_server, gate, listens, wait_until

DOUBLE = {"name": "double"}


class Reply(NamedTuple):
    """What came back: the status, the body's JSON, and whether the server closes the connection."""

    status: int
    body: dict[str, Any]
    closes: bool


def connect(server: Server) -> HTTPConnection:
    return HTTPConnection(server.url.removeprefix("http://"), timeout=SOON_S)


def ask(server: Server, method: str, path: str, body: Any = None) -> Reply:
    """One request on a connection of its own. Raises OSError or HTTPException when it gets no answer."""
    with closing(connect(server)) as connection:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        closes = response.getheader("Connection") == "close"
        return Reply(response.status, json.loads(response.read()), closes)


def predict(server: Server, model: str, value: float) -> Reply:
    return ask(server, "POST", f"/predict/{model}", {"features": [value]})


def doubled(reply: Reply) -> float:
    assert reply.status == 200, reply
    return float(reply.body["prediction"])


SECRET = "postgresql+pg8000://user:canary@localhost/db"  # noqa: S105 - a made-up one


@pytest.fixture(scope="module")
def a_gate() -> Iterator[Gate]:
    with gate() as made:
        yield made


@pytest.fixture(scope="module")
def server(a_gate: Gate) -> Iterator[Server]:
    """For tests that leave it as it was, or as good as that."""
    groups = {"default": [a_gate.model(), {"name": "neighbour"}], "other": [DOUBLE]}
    with fake_http_server(groups, environment={"DATABASE_URL": SECRET}, predict_timeout_ms=SOON_S * 1000) as running:
        yield running


# -- processes that die -----------------------------------------------------------------------------------------------


def test_a_killed_front_is_replaced_and_no_request_that_comes_meanwhile_is_lost(server: Server) -> None:
    (front,) = server.children("front")
    workers = server.children("worker")
    server.kill(front)
    assert doubled(predict(server, "double", 3.0)) == 6.0  # it waited at the port, which the supervisor holds
    assert server.children("front") != [front]
    assert server.children("worker") == workers
    assert f"front {front} died (SIGKILL)" in server.log


def test_what_a_killed_front_had_in_flight_holds_up_nobody(server: Server, a_gate: Gate) -> None:
    with ThreadPoolExecutor() as pool:
        lost = pool.submit(predict, server, "gated", 1.0)
        call = a_gate.next_call()
        server.kill(server.children("front")[0])
        assert isinstance(lost.exception(SOON_S), OSError | HTTPException)
        waiting = pool.submit(predict, server, "gated", 2.0)
        call.let_go()
        a_gate.next_call().let_go()
        assert doubled(waiting.result()) == 4.0


def test_a_killed_worker_costs_its_requests_and_no_more(server: Server, a_gate: Gate) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(predict, server, "gated", 1.0)
        server.kill(a_gate.next_call().pid)
        assert doubled(predict(server, "double", 1.0)) == 2.0
        failed = waiting.result(2.0)
        assert (failed.status, failed.body["error"]) == (503, "NOT_READY")
        wait_until(lambda: predict(server, "neighbour", 1.0).status == 200, SOON_S, "another worker of its group")
        again = pool.submit(predict, server, "gated", 2.0)
        a_gate.next_call().let_go()
        assert doubled(again.result()) == 4.0


def test_with_two_fronts_the_port_answers_on_when_one_is_killed() -> None:
    with fake_http_server([DOUBLE], fronts=2) as server:
        wait_until(lambda: len(server.children("front")) == 2, SOON_S, "two fronts")
        server.kill(server.children("front")[0])
        assert [doubled(predict(server, "double", i)) for i in range(20)] == [2.0 * i for i in range(20)]
        wait_until(lambda: len(server.children("front")) == 2, SOON_S, "two fronts again")


def test_when_the_supervisor_is_killed_neither_process_nor_port_is_left_after_a_second() -> None:
    with gate() as own_gate, fake_http_server([own_gate.model()], fronts=2) as server, ThreadPoolExecutor() as pool:
        lost = pool.submit(predict, server, "gated", 1.0)
        own_gate.next_call()
        assert len(server.children()) == 3
        server.kill_supervisor()
        wait_until(lambda: not server.survivors() and not listens(server.url), 1.0, "nothing is left")
        assert isinstance(lost.exception(SOON_S), OSError | HTTPException)


# -- what a front is --------------------------------------------------------------------------------------------------


def test_a_front_loads_no_tensorflow_and_is_small(server: Server) -> None:
    assert doubled(predict(server, "double", 1.0)) == 2.0
    (pid,) = server.children("front")
    assert "tensorflow" not in Path(f"/proc/{pid}/maps").read_text()
    assert psutil.Process(pid).memory_full_info().pss < 80 * 2**20


def test_the_log_databases_url_is_in_no_childs_environment(server: Server) -> None:
    children = server.children()
    assert len(children) == 3
    for pid in children:
        assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_it_listens_before_any_worker_is_ready() -> None:
    with fake_http_server([{"name": "m", "kind": "slow_refusal", "seconds": 30}], wait=False) as server:
        assert ask(server, "GET", "/health") == Reply(200, {"ok": True, "status": "up"}, closes=False)
        assert ask(server, "GET", "/ready").status == 503
        refused = predict(server, "m", 1.0)
        assert (refused.status, refused.body["error"]) == (503, "NOT_READY")


# -- the end ----------------------------------------------------------------------------------------------------------


def test_what_is_in_flight_is_answered_before_it_ends_and_idle_connections_do_not_hold_that_up() -> None:
    with gate() as own_gate, fake_http_server([own_gate.model()], fronts=2) as server, ThreadPoolExecutor() as pool:
        idle = connect(server)
        idle.request("GET", "/health")
        assert idle.getresponse().read()
        waiting = [pool.submit(predict, server, "gated", value) for value in (1.0, 2.0, 3.0)]
        call = own_gate.next_call()
        server.signal()
        wait_until(lambda: "draining" in server.log, SOON_S, "the drain")
        call.let_go()
        own_gate.open()
        replies = [future.result() for future in waiting]
        assert [doubled(reply) for reply in replies] == [2.0, 4.0, 6.0]
        answered_at = time.monotonic()
        assert server.wait() == 0
        assert time.monotonic() - answered_at < 3.0
        idle.close()


def test_while_it_drains_new_connections_are_refused_and_those_with_a_request_served() -> None:
    with gate() as own_gate:
        groups = {"default": [DOUBLE], "other": [own_gate.model()]}
        with fake_http_server(groups) as server, ThreadPoolExecutor() as pool, closing(connect(server)) as late:
            waiting = pool.submit(predict, server, "gated", 1.0)
            call = own_gate.next_call()
            body = b'{"features": [2.0]}'
            late.connect()
            late.sock.sendall(
                b"POST /predict/double HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body)
            )
            assert late.sock.recv(1000).startswith(b"HTTP/1.1 100 ")  # the front has begun to read it
            server.signal()
            wait_until(lambda: not listens(server.url), SOON_S, "the port is closed")
            late.sock.sendall(body)
            answer = late.sock.recv(65536).decode()
            assert answer.startswith("HTTP/1.1 200")
            assert "connection: close" in answer.lower()
            assert not waiting.done()
            call.let_go()
            reply = waiting.result()
            assert (doubled(reply), reply.closes) == (2.0, True)
            assert server.wait() == 0


def test_a_second_signal_ends_it_at_once() -> None:
    with gate() as own_gate, fake_http_server([own_gate.model()]) as server, ThreadPoolExecutor() as pool:
        waiting = pool.submit(predict, server, "gated", 1.0)
        own_gate.next_call()
        server.signal()
        wait_until(lambda: "draining" in server.log, SOON_S, "the drain")
        signalled_at = time.monotonic()
        server.signal()
        assert server.wait() == 0
        assert time.monotonic() - signalled_at < 1.0
        error = waiting.exception(SOON_S)  # its connection ended, or it was told so
        assert isinstance(error, OSError | HTTPException) or waiting.result().status == 503
        assert "Traceback" not in server.log


def test_a_stuck_worker_holds_up_the_end_no_longer_than_its_requests_have_time() -> None:
    """Also where the watchdog would wait much longer: who asked is told at the deadline, and then nobody waits."""
    with (
        gate() as own_gate,
        fake_http_server([own_gate.model()], predict_timeout_ms=1500, batch_limit_ms=60_000) as server,
        ThreadPoolExecutor() as pool,
    ):
        waiting = pool.submit(predict, server, "gated", 1.0)
        own_gate.next_call()
        signalled_at = time.monotonic()
        server.signal()
        assert server.wait() == 0
        took_s = time.monotonic() - signalled_at
        sys.stdout.write(f"ended {took_s:.2f} s after SIGTERM\n")
        assert took_s < 8.0
        assert waiting.result().status in (503, 504)


def test_fronts_that_never_start_end_the_server_with_a_line() -> None:
    with fake_http_server([DOUBLE], wait=False, front_settings={"nonsense": 1}) as server:
        server.expected_exit = exits.NO_MODEL
        assert server.wait() == exits.NO_MODEL
        assert "reason: the HTTP fronts died 3 times before one could serve (exit code 1)" in server.log
