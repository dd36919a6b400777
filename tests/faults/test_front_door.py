"""Clients that hold on, drip or do not read: rows 20 to 24. Whatever they do, the next one is answered at once."""

from __future__ import annotations

import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from tests.faults.asking import address, connect, counted, get, predict, raw_predict, reset
from tests.faults.base import back_to_base, faulty_server
from tests.faults.conftest import Say
from tests.faults.load import quantile
from tests.faults.logs import assert_quiet
from tests.faults.raw import HEAD, NOISE, cpu_s, drain, front_of
from tests.harness import SOON_S, Server, wait_until

MODELS: list[dict[str, Any]] = [
    {"name": "double"},
    {"name": "wide", "kind": "large", "columns": 2**20, "classes": 2**20},
]
SETTINGS: dict[str, Any] = {"default_model": "double"}
CUT = "inference_connections_cut_total"
IDLE, SLOW = 10_000, 1_000


def timed(ask: Callable[[], Any]) -> float:
    begun = time.monotonic()
    ask()
    return time.monotonic() - begun


def ask_anew(server: Server) -> None:
    """One prediction over a new connection."""
    assert predict(server.url, 1.5).json["prediction"] == 3.0


@contextmanager
def many(server: Server, number: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, each with its first bytes sent, all accepted."""
    host = address(server.url)
    held: list[socket.socket] = []
    front = psutil.Process(front_of(server))
    before = front.num_fds()
    try:
        while len(held) < number:
            for _ in range(min(200, number - len(held))):
                held.append(socket.create_connection(host, timeout=SOON_S))
                if first:
                    held[-1].sendall(first)
            wait_until(lambda: front.num_fds() >= before + len(held), SOON_S, "they are accepted")
        yield held
    finally:
        for sock in held:
            reset(sock)


def enough_descriptors() -> bool:
    """Raise our own limit as far as it goes; whether it holds the crowd's ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard == resource.RLIM_INFINITY or hard > IDLE + SLOW + 500


def test_thousands_of_idle_and_slow_connections_hold_up_nobody(figure: Say) -> None:
    """Rows 20, 22 and 24 at once. Where fewer descriptors are allowed, the crowd is as large as they allow."""
    crowd = IDLE if enough_descriptors() else resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SLOW - 500
    assert crowd + SLOW > 1100, "fewer than waitress's own limit: ulimit -n"
    with faulty_server(MODELS, **SETTINGS, max_connections=crowd + SLOW + 100) as server:
        front = front_of(server)
        alone = sorted(timed(lambda: ask_anew(server)) for _ in range(100))
        memory = psutil.Process(front).memory_info().rss
        with back_to_base(server), many(server, crowd) as idle:
            memory = psutil.Process(front).memory_info().rss - memory
            assert memory / crowd < 16 * 1024
            begun = time.monotonic()
            with many(server, SLOW, b"GET / HT") as slow:
                asked = sorted(timed(lambda: ask_anew(server)) for _ in range(100))
                health = sorted(timed(lambda: get(server.url, "/health")) for _ in range(100))
                for sock in slow:  # a byte each does not renew the limit
                    sock.sendall(b"T")
                cpu, asleep = cpu_s(front), time.monotonic()
                received = [drain(sock) for sock in slow]
                seconds = time.monotonic() - begun
                idle_share = (cpu_s(front) - cpu) / (time.monotonic() - asleep)
                assert all(data.startswith(b"HTTP/1.1 408 ") for data in received)
            assert counted(server.url, CUT, reason="slow_header") == SLOW
            assert counted(server.url, CUT, reason="evicted") == 0
            assert len(select_readable(idle)) == 0, "idle connections were closed"
        assert front_of(server) == front
    worst, p99 = asked[-1], quantile(asked, 0.99)
    figure(20, "a new request in 200 ms; each slow one closed in 10 s", f"{worst * 1e3:.0f} ms; {seconds:.1f} s")
    figure(
        22,
        "/health in 100 ms, p99 of predictions twice as long at the most",
        f"{health[-1] * 1e3:.0f} ms; {quantile(alone, 0.99) * 1e3:.1f} -> {p99 * 1e3:.1f} ms with {crowd} idle, "
        f"{memory / crowd / 1024:.1f} KiB each, {idle_share:.1%} CPU while 1,000 are refused",
    )
    figure(24, "alive with 1,100 connections", f"alive with {crowd + SLOW}")
    assert worst < 0.2 * NOISE
    assert health[-1] < 0.1 * NOISE
    assert seconds < 10 + 10


def select_readable(socks: list[socket.socket]) -> list[tuple[int, int]]:
    poller = select.poll()
    for sock in socks:
        poller.register(sock, select.POLLIN)
    return poller.poll(0)


def test_a_body_that_drips_is_refused_and_one_that_comes_slowly_but_surely_is_not(figure: Say) -> None:
    with faulty_server(MODELS, **SETTINGS, body_timeout_s=1.0) as server, back_to_base(server):
        dripping, steady = connect(server.url), connect(server.url)
        body = b'{"features": [1.5]' + b" " * 6000 + b"}"
        begun = time.monotonic()
        dripping.sendall(HEAD + b"Content-Length: 100\r\n\r\n")
        steady.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        closed_s = 0.0
        for at in range(0, len(body), 500):  # 2.5 KiB/s: longer than the limit, and faster than 1 KiB/s
            steady.sendall(body[at : at + 500])
            if not closed_s and not select_readable([dripping]):
                dripping.sendall(b"x")
            elif not closed_s:
                closed_s = time.monotonic() - begun
            time.sleep(0.2)
        answer = drain(dripping)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"error":"REQUEST_TIMEOUT"' in answer
        assert b'"prediction":3.0' in drain(steady)
        dripping.close()
        steady.close()
        figure(21, "a body of less than 1 KiB/s is refused after its limit (here 1 s)", f"408 after {closed_s:.1f} s")


def test_who_does_not_read_a_large_answer_is_cut_and_holds_nobody_up(figure: Say) -> None:
    """Answers of 8 MB, of which the kernel takes a part, for clients that read nothing."""
    readers = 8
    with faulty_server(MODELS, **SETTINGS, body_timeout_s=1.0) as server:
        front = psutil.Process(front_of(server))
        drain_one(server)
        with back_to_base(server):
            memory = front.memory_info().rss
            slow = [connect(server.url) for _ in range(readers)]
            begun = time.monotonic()
            for sock in slow:
                sock.sendall(raw_wide())
            wait_until(lambda: len(select_readable(slow)) == readers, SOON_S, "the answers begin")
            held = max(front.memory_info().rss - memory, 0)
            assert timed(lambda: ask_anew(server)) < 0.1 * NOISE
            cut = f'{CUT}{{reason="slow_reader"}}'
            wait_until(lambda: counted(server.url, CUT, reason="slow_reader") == readers, SOON_S, cut)
            seconds = time.monotonic() - begun
            lengths = [len(drain(sock)) for sock in slow]
            assert max(lengths) < len(drain_one(server))
            for sock in slow:
                sock.close()
    figure(
        21,
        "an answer read by less than 1 KiB/s is cut after its limit (here 1 s)",
        f"cut after {seconds:.1f} s; {held / readers / 2**20:.1f} MiB held for each of {readers} meanwhile",
    )


def raw_wide() -> bytes:
    return raw_predict(1).replace(b"/predict", b"/predict/wide")


def drain_one(server: Server) -> bytes:
    """The whole of a large answer."""
    with connect(server.url) as sock:
        sock.sendall(raw_wide().replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        return drain(sock)


def test_without_descriptors_the_longest_idle_make_room_and_the_log_stays_quiet(figure: Say) -> None:
    with faulty_server(MODELS, **SETTINGS) as server:
        front = front_of(server)
        limits = resource.prlimit(front, resource.RLIMIT_NOFILE)
        before_log = len(server.log)
        with back_to_base(server):
            resource.prlimit(front, resource.RLIMIT_NOFILE, (64, limits[1]))
            held = [connect(server.url) for _ in range(300)]
            begun, cpu = time.monotonic(), cpu_s(front)
            ask_anew(server)  # others' idle connections are closed for it
            until = begun + 2.0
            while time.monotonic() < until:
                select.select([], [], [], 0.1)
            share = (cpu_s(front) - cpu) / (time.monotonic() - begun)
            said = assert_quiet(server.log[before_log:], time.monotonic() - begun)
            assert counted(server.url, CUT, reason="evicted") > 200
            for sock in held:
                sock.close()
            resource.prlimit(front, resource.RLIMIT_NOFILE, limits)
            recovered = timed(lambda: ask_anew(server))
        assert front_of(server) == front
    figure(
        23,
        "without descriptors: < 20 % CPU, <= 10 log lines/s, well within 1 s",
        f"{share:.1%} CPU, {said}, well after {recovered * 1e3:.0f} ms",
    )
    assert share < 0.2
    assert recovered < 1.0 * NOISE


def test_when_everybody_works_and_no_descriptor_is_left_new_clients_wait_without_a_spin(figure: Say) -> None:
    """Nobody can be closed for them: the front pauses, and lets them in once a descriptor is free."""
    models = [*MODELS, {"name": "slow", "seconds": 2.0}]
    with faulty_server(models, **SETTINGS, predict_timeout_ms=20_000) as server:
        front = front_of(server)
        limits = resource.prlimit(front, resource.RLIMIT_NOFILE)
        working = [connect(server.url) for _ in range(20)]
        for sock in working:
            sock.sendall(raw_predict(2).replace(b"/predict", b"/predict/slow"))
        wait_until(lambda: counted(server.url, "inference_in_flight") >= 20, SOON_S, "all are in flight")
        resource.prlimit(front, resource.RLIMIT_NOFILE, (8, limits[1]))
        begun, cpu = time.monotonic(), cpu_s(front)
        waiting = connect(server.url)
        waiting.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        while time.monotonic() < begun + 1.0:
            select.select([], [], [], 0.1)
        share = (cpu_s(front) - cpu) / (time.monotonic() - begun)
        resource.prlimit(front, resource.RLIMIT_NOFILE, limits)
        freed = time.monotonic()
        assert b'"status":"up"' in drain(waiting)
        seconds = time.monotonic() - freed
        for sock in [waiting, *working]:
            sock.close()
    assert seconds < 1.0 * NOISE
    figure(23, "with all at work and no descriptor: < 20 % CPU, well within 1 s", f"{share:.1%} CPU, {seconds:.2f} s")
    assert share < 0.2
