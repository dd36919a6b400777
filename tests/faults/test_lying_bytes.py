"""Bodies that are too large, endless or lie about themselves: rows 25 to 27. Nothing behind them is run."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.faults.asking import connect, counted, predict, trouble_of
from tests.faults.base import faulty_server
from tests.faults.conftest import Say
from tests.faults.raw import HEAD, NOISE, cpu_s, drain, front_of
from tests.harness import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with faulty_server([{"name": "double"}], max_body_bytes=8 << 20) as running:
        yield running


def refused(server: Server, request: bytes, status: int) -> tuple[float, float]:
    """Seconds and CPU seconds until the answer is there; the refusal must be whole, and the connection end."""
    front = front_of(server)
    with connect(server.url) as sock:
        cpu, begun = cpu_s(front), time.monotonic()
        sock.sendall(request)
        received = sock.recv(65536)
        seconds, used = time.monotonic() - begun, cpu_s(front) - cpu
        received += drain(sock)
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert int(first.split()[1]) == status, first
    assert len(body) == int(headers["content-length"]), "more than one answer"
    assert headers["connection"] == "close"
    assert not trouble_of(status, headers, body)
    return seconds, used


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"], ids=["without Expect", "with Expect"])
def test_a_body_beyond_the_limit_is_refused_unread(server: Server, figure: Say, expect: bytes) -> None:
    request = HEAD + expect + b"Content-Length: %d\r\n\r\n" % ((8 << 20) + 1)
    seconds, _ = refused(server, request, 413)
    figure(25, "413 in 10 ms, nothing read, no 100 Continue", f"{seconds * 1e3:.1f} ms")
    assert seconds < 0.01 * NOISE


def test_a_client_that_sends_on_after_the_refusal_can_still_read_it(server: Server) -> None:
    """As http.client does: the whole body first, and only then a look at the answer."""
    with connect(server.url) as sock:
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % (9 << 20))
        for _ in range(7):
            sock.sendall(b"x" * (1 << 20))
        assert drain(sock).startswith(b"HTTP/1.1 413 ")


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("piece", "begin", "status"),
    [
        pytest.param(b"1" * 16384, b"", 400, id="an endless size"),
        pytest.param(b"a" * 16384, b"1;", 400, id="an endless extension"),
        pytest.param(b"1;a=b\r\nx\r\n" * 2048, b"", 400, id="an extension for each byte"),
        pytest.param(b"1\r\nx\r\n" * 4096, b"", 400, id="chunks of one byte"),
        pytest.param(b"a" * 16384, b"0\r\n", 400, id="an endless trailer line"),
        pytest.param(b"a: b\r\n" * 4096, b"0\r\n", 431, id="an endless trailer"),
        pytest.param(b"x" * 16384, b"ffffffff\r\n", 413, id="a chunk of 4 GiB"),
        pytest.param(b"\r\n" * 8192, b"", 400, id="endless empty lines"),
    ],
)
def test_a_chunked_body_without_end_is_refused_within_16_kib(
    server: Server, figure: Say, request: pytest.FixtureRequest, piece: bytes, begin: bytes, status: int
) -> None:
    """16 MB of it are sent as far as the server lets us; the refusal must have come after the first 16 KiB."""
    front = front_of(server)
    with connect(server.url) as sock:
        sock.sendall(CHUNKED + begin)
        cpu, begun = cpu_s(front), time.monotonic()
        sock.sendall(piece[:16384])
        assert sock.recv(4096).startswith(b"HTTP/1.1 %d " % status)
        seconds = time.monotonic() - begun
        try:
            for _ in range(1024):
                sock.sendall(piece)
        except OSError:
            pass  # cut: we had been told
        drain(sock)
        used = cpu_s(front) - cpu
    figure(26, "refused within 16 KiB, <= 50 ms of CPU", f"{used * 1e3:.1f} ms of CPU, {seconds * 1e3:.1f} ms")
    assert used < 0.05 * NOISE
    assert predict(server.url, 1.5).json["prediction"] == 3.0


SECOND = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 19\r\n\r\n" + b'{"features": [1.5]}'


@pytest.mark.parametrize(
    ("lies", "status"),
    [
        pytest.param(b"Content-Length: -1\r\n", 400, id="negative"),
        pytest.param(b"Content-Length: +5\r\n", 400, id="signed"),
        pytest.param(b"Content-Length: " + b"9" * 5000 + b"\r\n", 400, id="5,000 digits"),
        pytest.param(b"Content-Length: 5\r\nContent-Length: 6\r\n", 400, id="two that differ"),
        pytest.param(b"Content-Length: 5\r\nContent-Length: 5\r\n", 400, id="two alike"),
        pytest.param(b"Content-Length: 5, 5\r\n", 400, id="a list"),
        pytest.param(b"Content-Length: 0x5\r\n", 400, id="hexadecimal"),
        pytest.param(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400, id="with Transfer-Encoding"),
        pytest.param(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400, id="after Transfer-Encoding"),
        pytest.param(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400, id="chunked twice"),
        pytest.param(b"Transfer-Encoding: chunked, identity\r\n", 501, id="chunked inside"),
        pytest.param(b"Transfer-Encoding: xchunked\r\n", 501, id="nearly chunked"),
        pytest.param(b"Transfer-Encoding : chunked\r\n", 400, id="a space before the colon"),
        pytest.param(b"Transfer-Encoding:\x0bchunked\r\n", 400, id="a vertical tab"),
        pytest.param(b"Content-Length: 5\r\n Transfer-Encoding: chunked\r\n", 400, id="a folded line"),
    ],
)
def test_what_lies_about_its_length_is_refused_and_nothing_behind_it_is_run(
    server: Server, figure: Say, lies: bytes, status: int
) -> None:
    before = counted(server.url, "inference_rows_total")
    refused(server, HEAD + lies + b"\r\n0\r\n\r\n" + SECOND, status)
    assert counted(server.url, "inference_rows_total") == before
    figure(27, "refused, closed, and no second request run", f"{status}, closed, none")


def test_a_body_shorter_than_its_length_is_waited_for_and_one_longer_is_the_next_request(server: Server) -> None:
    before = counted(server.url, "inference_rows_total")
    with connect(server.url) as sock:
        sock.sendall(HEAD + b"Content-Length: 20\r\n\r\n" + b'{"features": [1.5]}')
        sock.shutdown(socket.SHUT_WR)
        assert drain(sock) == b""  # half a request, and its client gone
    assert counted(server.url, "inference_rows_total") == before
    with connect(server.url) as sock:
        sock.sendall(HEAD + b"Content-Length: 19\r\n\r\n" + b'{"features": [1.5]}' + b"GARBAGE\r\n\r\n")
        received = drain(sock)
    assert received.count(b"HTTP/1.1 200 OK") == 1
    assert received.count(b"HTTP/1.1 400 Bad Request") == 1
