"""The front over raw sockets: what reaches waitress's loop as bytes, and what leaves it, with a real worker behind."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import SOON_S, Gate, Server, fake_http_server, gate, wait_until

BODY = b'{"features": [1.5]}'
HEAD = b"POST /predict/double HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n" % len(BODY)
REQUEST = HEAD + b"\r\n" + BODY
LAST = HEAD + b"Connection: close\r\n\r\n" + BODY


@pytest.fixture(scope="module")
def held() -> Iterator[Gate]:
    with gate() as made:
        yield made


@pytest.fixture(scope="module")
def server(held: Gate) -> Iterator[Server]:
    models: list[dict[str, Any]] = [
        {"name": "double"},
        held.model(),
        {"name": "wide", "kind": "large", "columns": 2**20, "classes": 2**20},
    ]
    with fake_http_server(models, max_body_bytes=100_000, max_json_bytes=50_000, allowed_hosts="*") as running:
        yield running


def connect(server: Server) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    sock = socket.create_connection((host, int(port)))
    sock.settimeout(SOON_S)
    return sock


def everything(sock: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    while data := sock.recv(65536):
        received += data
    sock.close()
    return received


def exchange(server: Server, *pieces: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """(status, headers, body) of each answer to the pieces, up to the server's close."""
    sock = connect(server)
    for piece in pieces:
        sock.sendall(piece)
    return answers_in(everything(sock))


def answers_in(data: bytes, *, heads_only: bool = False) -> list[tuple[int, dict[str, str], bytes]]:
    answers = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = 0 if heads_only or first.split()[1] == "100" else int(headers["Content-Length"])
        answers.append((int(first.split()[1]), headers, data[:length]))
        data = data[length:]
    return answers


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    requests = [b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n", REQUEST, b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n", LAST]
    answers = exchange(server, b"".join(requests))
    assert [status for status, _, _ in answers] == [200, 200, 404, 200]
    assert json.loads(answers[1][2])["prediction"] == 3.0


def test_a_connection_is_kept_until_the_client_closes_it(server: Server) -> None:
    sock = connect(server)
    for _ in range(3):
        sock.sendall(REQUEST)
        assert b'"prediction":3.0' in sock.recv(65536)
    sock.shutdown(socket.SHUT_WR)
    assert everything(sock) == b""


def test_a_request_byte_by_byte_is_a_request(server: Server) -> None:
    ((status, _, _),) = exchange(server, *(bytes([byte]) for byte in LAST))
    assert status == 200


@pytest.mark.parametrize(
    ("version", "connection", "closes"),
    [(b"1.0", b"", True), (b"1.1", b"Connection: close\r\n", True), (b"1.0", b"Connection: keep-alive\r\n", False)],
)
def test_http_1_0_closes_unless_asked_to_stay(server: Server, version: bytes, connection: bytes, closes: bool) -> None:
    sock = connect(server)
    sock.sendall(HEAD.replace(b"1.1", version) + connection + b"\r\n" + BODY)
    if closes:
        ((_, headers, _),) = answers_in(everything(sock))
        assert headers["Connection"] == "close"
    else:
        assert b"Connection: keep-alive" in sock.recv(65536)
        sock.close()


def test_a_chunked_body_is_a_body(server: Server) -> None:
    head = b"POST /predict/double HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (BODY[:5], BODY[5:], b""))
    ((status, _, body),) = exchange(server, head + chunks)
    assert (status, json.loads(body)["prediction"]) == (200, 3.0)


def test_who_expects_to_be_told_to_continue_is_told(server: Server) -> None:
    sock = connect(server)
    sock.sendall(HEAD + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
    assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.sendall(BODY)
    ((status, _, _),) = answers_in(everything(sock))
    assert status == 200


def test_head_has_the_length_of_get_and_no_body(server: Server) -> None:
    data = everything_after(server, b"HEAD /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    ((status, headers, _),) = answers_in(data, heads_only=True)
    assert (status, int(headers["Content-Length"])) == (200, len(b'{"ok":true,"status":"up"}'))


def everything_after(server: Server, request: bytes) -> bytes:
    sock = connect(server)
    sock.sendall(request)
    return everything(sock)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"GARBAGE\r\n\r\n", 400, "BAD_INPUT"),
        (b"get / HTTP/1.1\r\n\r\n", 400, "BAD_INPUT"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n", 400, "BAD_INPUT"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400, "BAD_INPUT"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "NOT_IMPLEMENTED"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100001\r\n\r\n", 413, "TOO_LARGE"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 33_000 + b"\r\n\r\n", 431, "HEADERS_TOO_LARGE"),
    ],
)
def test_bytes_that_are_no_request_get_a_json_refusal_and_the_front_lives(
    server: Server, request_: bytes, status: int, code: str
) -> None:
    front = server.children("front")
    ((answered, headers, body),) = exchange(server, request_)
    assert (answered, json.loads(body)["error"]) == (status, code)
    assert json.loads(body)["request_id"] == headers["X-Request-Id"]
    assert exchange(server, LAST)[0][0] == 200
    assert server.children("front") == front


def test_a_large_answer_arrives_whole_and_small_ones_pass_it(server: Server) -> None:
    head = b"POST /predict/wide HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    sock = connect(server)
    sock.sendall(head + BODY)
    assert exchange(server, LAST)[0][0] == 200
    ((status, _, body),) = answers_in(everything(sock))
    assert status == 200
    assert len(json.loads(body)["prediction"]) == 2**20


def gated(connection: bytes = b"") -> bytes:
    return b"POST /predict/gated HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n%s\r\n" % (len(BODY), connection) + BODY


def test_health_answers_while_everything_waits_on_a_model(server: Server, held: Gate) -> None:
    waiting = [connect(server) for _ in range(40)]
    for sock in waiting:
        sock.sendall(gated(b"Connection: close\r\n"))
    call = held.next_call()
    ((status, _, _),) = exchange(server, b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert status == 200
    call.let_go()
    rows = len(call.values)
    while rows < len(waiting):
        call = held.next_call()
        rows += len(call.values)
        call.let_go()
    for sock in waiting:
        assert answers_in(everything(sock))[0][0] == 200


def test_a_client_that_stops_sending_gets_its_answer_when_it_computes_already(server: Server, held: Gate) -> None:
    sock = connect(server)
    sock.sendall(gated())
    call = held.next_call()
    sock.shutdown(socket.SHUT_WR)
    call.let_go()
    ((status, _, body),) = answers_in(everything(sock))
    assert (status, json.loads(body)["prediction"]) == (200, 3.0)


def test_what_a_client_that_has_gone_had_queued_never_reaches_the_model(server: Server, held: Gate) -> None:
    first, gone, last = connect(server), connect(server), connect(server)
    first.sendall(gated(b"Connection: close\r\n"))
    call = held.next_call()
    gone.sendall(gated().replace(b"1.5", b"7.5"))
    wait_until(lambda: in_flight(server) == 2, SOON_S, "the second is in flight")
    gone.close()
    wait_until(lambda: metric(server, "inference_cancelled_total") >= 1, SOON_S, "it was withdrawn")
    last.sendall(gated(b"Connection: close\r\n").replace(b"1.5", b"2.5"))
    call.let_go()
    assert answers_in(everything(first))[0][0] == 200
    second = held.next_call()
    assert second.values == [2.5]
    second.let_go()
    assert answers_in(everything(last))[0][0] == 200


def in_flight(server: Server) -> float:
    return metric(server, "inference_in_flight")


def metric(server: Server, name: str) -> float:
    data = everything_after(server, b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    lines = answers_in(data)[0][2].decode().splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(name)))


def test_who_may_finish_sending_loses_nothing_where_the_setting_says_so(held: Gate) -> None:
    with fake_http_server([held.model()], cancel_on_half_close=False, allowed_hosts="*") as server:
        first, queued = connect(server), connect(server)
        first.sendall(gated())
        call = held.next_call()
        queued.sendall(gated().replace(b"1.5", b"2.5"))
        queued.shutdown(socket.SHUT_WR)
        wait_until(lambda: in_flight(server) == 2, SOON_S, "the second is in flight")
        call.let_go()
        held.next_call().let_go()
        assert answers_in(everything(queued))[0][0] == 200
        assert metric(server, "inference_cancelled_total") == 0
        first.close()


def test_the_longest_idle_connection_makes_room_for_a_new_one(server: Server) -> None:
    with fake_http_server([{"name": "double"}], max_connections=3, allowed_hosts="*") as small:
        kept = [connect(small) for _ in range(3)]
        for sock in [*kept, kept[0]]:  # the second is now the one that has been idle longest
            sock.sendall(REQUEST)
            assert b" 200 OK" in sock.recv(65536)
        assert exchange(small, LAST)[0][0] == 200
        assert kept[1].recv(1) == b""
        for sock in (kept[0], kept[2]):
            sock.sendall(REQUEST)
            assert b" 200 OK" in sock.recv(65536)
        for sock in kept:
            sock.close()


def test_who_sends_thousands_of_requests_at_once_waits_with_the_second_for_the_others(server: Server) -> None:
    """Each of them is served, in order, and a client that asks meanwhile does not wait for all of them."""
    number = 2000
    greedy = connect(server)
    greedy.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n" * (number - 1))
    assert exchange(server, LAST)[0][0] == 200
    greedy.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert [status for status, _, _ in answers_in(everything(greedy))] == [200] * number


def test_a_header_that_does_not_end_in_time_is_refused(server: Server) -> None:
    with fake_http_server([{"name": "double"}], header_timeout_s=0.3, allowed_hosts="*") as hasty:
        idle, slow = connect(hasty), connect(hasty)
        slow.sendall(b"GET /health HT")
        ((status, _, body),) = answers_in(everything(slow))
        assert (status, json.loads(body)["error"]) == (408, "REQUEST_TIMEOUT")
        idle.sendall(LAST)  # without a first byte there is no deadline
        assert answers_in(everything(idle))[0][0] == 200


def test_a_request_past_its_deadline_is_answered_at_once(server: Server, held: Gate) -> None:
    sock = connect(server)
    sock.sendall(gated(b"X-Request-Timeout-Ms: 100\r\nConnection: close\r\n"))
    call = held.next_call()
    ((status, _, body),) = answers_in(everything(sock))
    assert (status, json.loads(body)["error"]) == (504, "TIMEOUT")
    call.let_go()
