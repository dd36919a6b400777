"""Whoever attaches to the supervisor: fronts of foreign processes, and those that say anything or nothing at all."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batching.control import ControlChannel
from batching.quarantine import KEPT_MAX
from batching.slots import OURS, SLOTS
from tests.harness import ROOT, SOON_S, Supervised, supervised, values, wait_until

GOOD = {"name": "good"}


def say_to(server: Supervised, *data: bytes) -> socket.socket:
    """A connection to the attach socket by somebody who is no front."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(Path(server.folder) / "socket"))
    for piece in data:
        sock.sendall(piece)
    return sock


def framed(**message: Any) -> bytes:
    """A message as batching.control writes it, whatever it says."""
    body = json.dumps({**message, "fds": 0}).encode()
    return len(body).to_bytes(4, "little") + body


@pytest.fixture(scope="module")
def server() -> Iterator[Supervised]:
    """For tests that leave it as it was."""
    with supervised([GOOD]) as running:
        yield running


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\4\0\0\0nope",
        b"\2\0\0\0{}",
        b'\x0c\0\0\0{"fds":  0}[]',
        framed(),
        framed(type=["unlinked"]),
        framed(type="acknowledged", serial="1"),
        framed(type="unlinked", worker=[1]),
        framed(type="unlinked", worker=10**30),
        framed(type="condition", text={}),
        framed(type="blame", digest=None),
        framed(type="blame", digest="x" * 1_000_000),
        framed(type="stop"),
        b"",
    ],
    ids=[
        "HTTP",
        "no JSON",
        "no descriptors",
        "a message and more",
        "no type",
        "a type that is a list",
        "no serial",
        "a list of workers",
        "a worker that never was",
        "a condition that is no text",
        "no digest",
        "a long digest",
        "an order to stop",
        "nothing",
    ],
)
def test_whoever_speaks_nonsense_to_it_harms_nobody(data: bytes, server: Supervised) -> None:
    deaths = server.counted("inference_worker_deaths_total", "default", "crashed")
    with say_to(server, data):
        assert values(server.call("good", [1.0])) == [2.0]
        assert attaches(server)
    assert server.counted("inference_worker_deaths_total", "default", "crashed") == deaths


def test_what_one_front_blames_all_are_told_until_it_is_over() -> None:
    digest, other = "ab" * 32, "cd" * 32
    with supervised([GOOD], quarantine_s=1.0) as server, say_to(server, framed(type="blame", digest=digest)) as sock:
        wait_until(lambda: digest in server.client.view["quarantine"], SOON_S, "it is spread")
        until = server.client.view["quarantine"][digest]
        assert until < time.monotonic() + 1.0
        wait_until(lambda: time.monotonic() > until, SOON_S, "it is over")
        sock.sendall(framed(type="blame", digest=other))
        wait_until(lambda: list(server.client.view["quarantine"]) == [other], SOON_S, "the next, without the first")


def test_a_front_that_blames_without_end_holds_up_nobody_and_is_not_all_remembered() -> None:
    blames = b"".join(framed(type="blame", digest=f"{number:064x}") for number in range(5000))
    with supervised([GOOD]) as server, say_to(server, blames):
        wait_until(lambda: f"{4999:064x}" in server.client.view["quarantine"], SOON_S, "the last is spread")
        assert len(server.client.view["quarantine"]) == KEPT_MAX
        assert values(server.call("good", [1.0])) == [2.0]


def test_a_front_that_does_not_read_holds_up_nobody() -> None:
    with supervised([{"name": "m", "description_bytes": 500_000}]) as server, say_to(server):
        for _ in range(2):
            before = server.client.view["workers"]
            server.kill(server.worker())
            server.until_replaced(before)
        assert values(server.call("m", [1.0])) == [2.0]


ATTACH_ALL = """
import socket, sys
from batching.control import ControlChannel
channels = []
for _ in range(int(sys.argv[2])):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(sys.argv[1])
    channels.append(ControlChannel(sock))
    channels[-1].wait(10)
print("attached", flush=True)
sys.stdin.read()
"""


def test_places_of_fronts_that_have_gone_are_free_again_and_none_is_taken_from_our_own() -> None:
    with supervised([GOOD]) as server:
        crowd = subprocess.Popen(
            # The harness's own front and the worker have a place each.
            [sys.executable, "-c", ATTACH_ALL, str(Path(server.folder) / "socket"), str(SLOTS - 2 - OURS - 2)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with crowd:
            assert crowd.stdout
            assert crowd.stdout.readline() == "attached\n"
            assert not attaches(server)
            before = server.client.view["workers"]
            os.kill(server.children("worker")[0], signal.SIGKILL)
            server.until_replaced(before)  # there are places left for our own
            crowd.kill()
        wait_until(lambda: attaches(server), SOON_S, "a place")
        assert values(server.call("good", [1.0])) == [2.0]


def attaches(server: Supervised) -> bool:
    channel = ControlChannel(say_to(server))
    try:
        channel.wait(SOON_S)
    except Exception:  # noqa: BLE001 - refused, however
        return False
    finally:
        channel.close()
    return True
