"""How a front ends, seen by clients at each step: nobody whose request had reached it goes without an answer."""

from __future__ import annotations

import json
import socket
import sys

from front.drain import admit_no_more
from tests.faults.asking import connect, get, raw_predict
from tests.faults.connection import prediction
from tests.faults.load import Load, assert_promises, statuses
from tests.faults.raw import drain
from tests.harness import SOON_S, fake_http_server, gate, wait_until


def test_what_is_in_flight_is_answered_and_every_connection_ends() -> None:
    with gate() as held, fake_http_server([held.model()]) as server:
        idle, working = connect(server.url), connect(server.url)
        working.sendall(raw_predict(1))
        call = held.next_call()
        server.signal()
        wait_until(lambda: get(server.url, "/ready").status == 503, SOON_S, "it says that it stops")
        assert idle.recv(1) == b""  # closed, as nothing was asked on it
        call.let_go()
        answer = drain(working)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nConnection: close\r\n" in answer
        assert server.wait() == 0
        idle.close()
        working.close()


def test_a_request_on_its_way_when_the_listening_socket_closes_is_answered() -> None:
    """Its client has sent half of it: that is no idle connection."""
    with fake_http_server([{"name": "double"}]) as server:
        idle, begun = connect(server.url), connect(server.url)
        request = raw_predict(1)
        begun.sendall(request[:40])
        server.signal()
        assert idle.recv(1) == b""
        begun.sendall(request[40:])
        assert drain(begun).startswith(b"HTTP/1.1 200 ")
        assert server.wait() == 0
        idle.close()
        begun.close()


def test_what_is_still_in_flight_at_the_last_moment_hears_so() -> None:
    with gate() as held, fake_http_server([held.model()], drain_timeout_s=1.0, predict_timeout_ms=60_000) as server:
        working = connect(server.url)
        working.sendall(raw_predict(1))
        held.next_call()
        server.signal()
        answer = drain(working)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"] == "NOT_READY"
        assert server.wait() == 0
        working.close()


def test_under_load_no_request_that_reached_it_is_lost() -> None:
    with fake_http_server([{"name": "double", "seconds": 0.02}], fronts=2) as server:
        with Load(server.url, 16, make=lambda order: prediction(order, close=order % 2 == 0)) as load:
            load.until(200)
            server.signal()
            assert server.wait() == 0
            asked = load.finish()
        assert_promises(asked)
        assert statuses(asked).keys() <= {"200", "idle"}


def test_handshakes_under_way_end_and_no_other_begins() -> None:
    with socket.socket() as listener, socket.socket() as late:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname(), SOON_S) as early:
            admit_no_more(listener)
            early.sendall(b"here")
            accepted, _ = listener.accept()
            assert accepted.recv(4) == b"here"
            accepted.close()
        late.setblocking(False)
        late.connect_ex(listener.getsockname())
        listener.setblocking(False)
        if sys.platform == "linux":
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                return
            raise AssertionError("another handshake has ended")
