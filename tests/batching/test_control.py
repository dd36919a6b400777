"""Control messages: in pieces, with descriptors, larger than a socket's buffer; and who may listen where."""

from __future__ import annotations

import errno
import json
import os
import selectors
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batching.control import ControlChannel, listen_at
from batching.errors import ConnectionLost
from tests.harness import SOON_S, wait_until

Pair = tuple[ControlChannel, ControlChannel]
Received = list[tuple[dict[str, Any], list[int]]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = (ControlChannel(sock) for sock in socket.socketpair())
    yield left, right
    left.close()
    right.close()


def wire(message: Any) -> bytes:
    body = json.dumps(message).encode()
    return struct.pack("<I", len(body)) + body


def pump(left: ControlChannel, right: ControlChannel) -> Received:
    """All that `left` still has to write, as `right` reads it."""
    received: Received = []

    def written() -> bool:
        left.flush()
        received.extend(right.receive())
        return not left.wants_write

    wait_until(written, SOON_S, "all is written")
    return received + right.receive()


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def text_behind(fd: int) -> str:
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        return file.read().decode()


MESSAGES = st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=3), max_size=6)


@given(MESSAGES, st.integers(1, 7))
def test_messages_in_pieces_come_out_whole_and_in_order(messages: list[dict[str, Any]], size: int) -> None:
    messages = [{key: value for key, value in message.items() if key != "fds"} for message in messages]
    raw, sock = socket.socketpair()
    channel = ControlChannel(sock)
    data = b"".join(wire({**message, "fds": 0}) for message in messages)
    received: Received = []
    with raw:
        for at in range(0, len(data), size):
            raw.sendall(data[at : at + size])
            received += channel.receive()
        assert received == [(message, []) for message in messages]
    channel.close()


def test_descriptors_arrive_with_their_own_message(pair: Pair, tmp_path: Path) -> None:
    left, right = pair
    for number in range(3):
        (tmp_path / str(number)).write_text(f"file {number}")
    files = [(tmp_path / str(number)).open("rb") for number in range(3)]
    left.send({"number": 0}, [files[0].fileno()])
    left.send({"number": "none"})
    left.send({"number": 1}, [files[1].fileno(), files[2].fileno()])
    for file in files:
        file.close()  # they are on their way
    received = pump(left, right)
    assert [message for message, _ in received] == [{"number": 0}, {"number": "none"}, {"number": 1}]
    assert [[text_behind(fd) for fd in fds] for _, fds in received] == [["file 0"], [], ["file 1", "file 2"]]


def test_messages_larger_than_the_socket_takes_arrive_with_their_descriptors(pair: Pair, tmp_path: Path) -> None:
    left, right = pair
    before = open_fds()
    sent = []
    with ExitStack() as files:
        for number in range(4):
            (tmp_path / str(number)).write_text(f"file {number}")
            file = files.enter_context((tmp_path / str(number)).open("rb"))
            ours, theirs = socket.socketpair()
            ours.close()
            sent.append({"number": number, "text": "x" * (3_000_000 + number)})
            left.send(sent[-1], [file.fileno(), theirs.fileno()], owned=[theirs])
        assert left.wants_write
        received = pump(left, right)
    assert [message for message, _ in received] == sent
    assert [text_behind(fds[0]) for _, fds in received] == [f"file {number}" for number in range(4)]
    for _, fds in received:
        os.close(fds[1])
    assert open_fds() == before


def test_a_first_message_can_be_waited_for(pair: Pair) -> None:
    left, right = pair
    left.send({"type": "hello"})
    left.send({"type": "next"})
    assert right.wait(SOON_S) == ({"type": "hello"}, [])
    assert right.receive() == [({"type": "next"}, [])]


def test_waiting_ends_in_time(pair: Pair) -> None:
    _, right = pair
    with pytest.raises(TimeoutError):
        right.wait(0.01)
    assert right.receive() == []  # and it is as it was


def test_waiting_ends_with_the_other_end(pair: Pair) -> None:
    left, right = pair
    left.close()
    with pytest.raises(ConnectionLost):
        right.wait(SOON_S)


def test_what_came_before_the_end_still_counts(pair: Pair) -> None:
    left, right = pair
    left.send({"type": "last words"})
    left.close()
    assert right.receive() == [({"type": "last words"}, [])]
    with pytest.raises(ConnectionLost):
        right.receive()


def test_sending_to_an_end_that_is_gone_is_no_error(pair: Pair) -> None:
    left, right = pair
    right.close()
    ours, theirs = socket.socketpair()
    with ours:
        left.send({"type": "anybody?"}, [theirs.fileno()], owned=[theirs])
        assert not left.wants_write
        assert theirs.fileno() == -1
    with pytest.raises(ConnectionLost):
        left.receive()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        struct.pack("<I", 4) + b"\xff\xff\xff\xff",
        struct.pack("<I", 100_000) + b"[" * 100_000,
        wire("text"),
        wire([]),
        wire({"type": "without fds"}),
        wire({"fds": "many"}),
        wire({"fds": 1}),
    ],
    ids=["HTTP", "bytes", "deep", "text", "a list", "no fds", "fds that are no number", "fds that never came"],
)
def test_what_is_no_message_ends_the_connection(data: bytes) -> None:
    raw, sock = socket.socketpair()
    channel = ControlChannel(sock)
    with raw:
        raw.sendall(data)
        with pytest.raises(ConnectionLost):
            wait_until(channel.receive, SOON_S, "the refusal")
    channel.close()


def test_descriptors_that_nobody_asked_for_are_closed_with_the_channel() -> None:
    before = open_fds()
    raw, sock = socket.socketpair()
    channel = ControlChannel(sock)
    with raw, Path("/dev/null").open("rb") as file:
        socket.send_fds(raw, [wire({"fds": 0})], [file.fileno()] * 3)
        assert channel.receive() == [({}, [])]
    channel.close()
    assert open_fds() == before


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s") / "s"


def test_a_listening_socket_is_for_its_user_alone(path: Path) -> None:
    with listen_at(str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_where_another_server_listens_nobody_else_does(path: Path) -> None:
    with listen_at(str(path)) as first:
        with pytest.raises(OSError, match="another server") as caught:
            listen_at(str(path))
        assert caught.value.errno == errno.EADDRINUSE
        first.setblocking(False)
        with selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX) as client:
            selector.register(first, selectors.EVENT_READ)
            client.connect(str(path))
            assert selector.select(SOON_S)


def test_a_path_that_a_killed_server_left_is_taken_over(path: Path) -> None:
    listen_at(str(path)).close()
    assert path.exists()
    with listen_at(str(path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_file_at_the_path_is_left_alone(path: Path) -> None:
    path.write_text("somebody's work")
    with pytest.raises(OSError, match="in use"):
        listen_at(str(path))
    assert path.read_text() == "somebody's work"
