"""Load generators as real processes, against servers that answer as servers do, and as they should not."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from commands.load import Crew, LoadError, Window, shares
from commands.load_generator import RETRY_S
from commands.load_job import CONSTANT, POISSON, Job
from tests.commands.odd_server import OK, job, odd_server

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
CLOSES = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
BUSY = b'HTTP/1.1 503 Busy\r\nContent-Length: 22\r\n\r\n{"error":"OVERLOADED"}'


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    """One process; each test gives it a load of its own."""
    with Crew(1) as one:
        yield one


def measured(crew: Crew, load: Job, count: int = 3) -> Window:
    """The sum of the first windows of a load."""
    total = Window()
    with closing(crew.windows(load)) as windows:
        for window in itertools.islice(windows, count):
            total.latencies += window.latencies
            total.failures.update(window.failures)
            total.timings.update({name: total.timings[name] + value for name, value in window.timings.items()})
            for name in ("sent", "delayed", "opened", "seconds"):
                setattr(total, name, getattr(total, name) + getattr(window, name))
            total.late_max_s = max(total.late_max_s, window.late_max_s)
    return total


def test_no_more_is_claimed_than_the_server_has_counted_and_bodies_are_sent_in_turn(crew: Crew) -> None:
    with odd_server() as server:
        found = measured(crew, job(server, b"[1]", b"[2]", b"[3]", connections=4))
        assert 0 < len(found.latencies) <= len(server.bodies)
        counts = [server.bodies.count(body) for body in (b"[1]", b"[2]", b"[3]")]
        assert sum(counts) == len(server.bodies)
        assert max(counts) - min(counts) <= 1
        assert server.connections == 4
    assert not found.failures
    assert found.opened == 0


def test_two_processes_share_the_connections() -> None:
    with odd_server() as server, Crew(2) as two:
        found = measured(two, job(server, connections=3), count=1)
        assert server.connections == 3
        assert 0 < len(found.latencies) <= len(server.bodies)


def test_a_job_is_divided_and_nobody_gets_nothing() -> None:
    closed = Job(socket.AF_INET, ("x", 1), [], 1.0, connections=3)
    assert [one.connections for one in shares(closed, 2)] == [2, 1]
    assert [one.connections for one in shares(closed, 4)] == [1, 1, 1]
    parts = shares(replace(closed, rate=100.0, seed=1), 4)
    assert [one.rate for one in parts] == [25.0] * 4
    assert len({one.seed for one in parts}) == 4


@pytest.mark.parametrize("answer", [CHUNKED, OK.replace(b"Content-Length", b"content-length")], ids=["chunks", "case"])
def test_other_ways_to_write_an_answer_are_read(crew: Crew, answer: bytes) -> None:
    with odd_server(lambda number, body: (answer, True)) as server:
        found = measured(crew, job(server), count=1)
        assert server.connections == 2
    assert found.latencies
    assert not found.failures


def test_an_answer_in_pieces_is_put_together(crew: Crew) -> None:
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
    with odd_server(lambda number, body: (long, True)) as server:
        found = measured(crew, job(server), count=1)
    assert found.latencies
    assert not found.failures


def test_a_long_request_leaves_in_pieces(crew: Crew) -> None:
    body = b"x" * 4_000_000
    with odd_server() as server:
        found = measured(crew, job(server, body, connections=1, window_s=0.5), count=1)
        assert set(server.bodies) == {body}
    assert found.latencies
    assert not found.failures


@pytest.mark.parametrize(
    ("answer", "stays"),
    [(CLOSES, False), (b"HTTP/1.0 200 OK\r\n\r\n{}", False)],
    ids=["said beforehand", "HTTP/1.0 without a length"],
)
def test_who_closes_after_each_answer_is_connected_to_again_and_that_is_counted(
    crew: Crew, answer: bytes, stays: bool
) -> None:
    with odd_server(lambda number, body: (answer, stays)) as server:
        found = measured(crew, job(server))
        assert found.opened + 2 <= server.connections
    assert found.opened >= len(found.latencies) - 2
    assert found.latencies
    assert not found.failures


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (BUSY, "503 OVERLOADED"),
        (OK[:-1], "closed within an answer"),
        (b"", "closed without an answer"),
        (OK + b"x", "malformed: more than one answer"),
        (b"220 mail.example ESMTP\r\n", "malformed: no head of an answer"),
    ],
    ids=["503", "too short", "nothing", "too long", "no HTTP"],
)
def test_what_fails_is_counted_by_its_kind_and_is_in_no_latency(crew: Crew, answer: bytes, kind: str) -> None:
    with odd_server(lambda number, body: (answer if number % 2 else OK, number % 2 == 0 or answer == BUSY)) as server:
        found = measured(crew, job(server))
        assert len(found.latencies) + found.failures.total() <= len(server.bodies)
    assert set(found.failures) == {kind}
    assert found.latencies


def test_a_server_that_goes_away_and_comes_back_is_found_again(crew: Crew) -> None:
    with odd_server() as first:
        load = job(first)
        with closing(crew.windows(load)) as windows:
            assert next(windows).latencies
            first.close()
            gone = next(windows)
            while not gone.failures["connection: connection refused"]:
                gone = next(windows)
            # Asked each 50 ms and connection, not as quickly as it refuses.
            gone = next(windows)
            assert gone.failures.total() <= 2 * (gone.seconds / RETRY_S + 2)
            with socket.create_server((first.address[0], first.address[1])):
                assert next(windows) is not None


def test_nobody_there_is_said_before_anything_is_measured(crew: Crew) -> None:
    with odd_server() as server:
        load = job(server)
    with pytest.raises(LoadError, match="refused") as nobody, closing(crew.windows(load)) as windows:
        next(windows)
    assert nobody.value.is_nobody


@pytest.mark.parametrize("resets", [False, True], ids=["closed", "reset"])
def test_a_connection_that_ends_while_nothing_is_asked_is_no_failure(crew: Crew, resets: bool) -> None:
    with odd_server(lambda number, body: (OK, False), resets=resets) as server:
        found = measured(crew, job(server, rate=60.0, distribution=CONSTANT, window_s=0.2))
        assert server.connections >= len(found.latencies) > 0  # each answer costs its connection
    # The few that were asked just then have failed.
    assert len(found.latencies) > found.failures.total()


@pytest.mark.parametrize("distribution", [POISSON, CONSTANT])
def test_an_open_loop_sends_as_many_as_are_due_whether_or_not_they_are_answered(crew: Crew, distribution: str) -> None:
    with odd_server() as server:
        found = measured(crew, job(server, rate=500.0, distribution=distribution, seed=3, window_s=0.2))
        expected = 500 * found.seconds
        assert abs(found.sent - expected) <= (25 if distribution == CONSTANT else 5 * expected**0.5)
        assert found.sent <= len(server.bodies)


def test_a_stall_is_in_the_latency_of_each_request_that_was_due_in_it(crew: Crew) -> None:
    """In a closed loop two connections would have seen it twice: the omission that the open one is there to avoid."""
    stall_s = 0.4
    stalled, lock = [0.0], threading.Lock()

    def answer(number: int, body: bytes) -> tuple[bytes, bool]:
        with lock:
            if number == 50:
                stalled[0] = time.monotonic()
                time.sleep(stall_s)
        return OK, True

    with odd_server(answer) as server:
        found = measured(crew, job(server, rate=200.0, distribution=CONSTANT, window_s=0.5), count=3)
    assert stalled[0]
    waited = [one for one in found.latencies if one > stall_s / 4]
    # Evenly spread over the stall: 200/s * 0.4 s, and three quarters of them waited for more than a quarter of it.
    assert len(waited) >= 200 * stall_s * 0.7
    assert max(found.latencies) >= stall_s * 0.95


def test_what_the_server_says_of_its_stages_is_sampled(crew: Crew) -> None:
    timed = OK.replace(b"\r\n\r\n", b"\r\nServer-Timing: queue;dur=2, batch;desc=4\r\n\r\n")
    with odd_server(lambda number, body: (timed, True)) as server:
        found = measured(crew, job(server, window_s=0.3), count=2)
    sampled = found.timings["sampled"]
    assert 0 < sampled <= len(found.latencies) / 8
    assert found.timings["queue"] == 2 * sampled
    assert found.timings["batches"] == sampled / 4


def test_the_generators_own_cost_is_measured(crew: Crew) -> None:
    with odd_server() as server, closing(crew.windows(job(server, window_s=0.3))) as windows:
        window = next(windows)
    assert window.cpu_s > 0
    assert 0 < window.busiest < 1.5


def test_generators_go_with_whoever_started_them() -> None:
    with odd_server() as server:
        with Crew(2) as two, closing(two.windows(job(server))) as windows:
            next(windows)
            processes = [process for process, _ in two._members]
            processes[0].kill()
            with pytest.raises(LoadError, match="has ended"):
                list(itertools.islice(windows, 50))
        assert all(process.poll() is not None for process in processes)
