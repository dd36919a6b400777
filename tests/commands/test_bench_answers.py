"""Where an answer ends and what it says, for every way to cut it."""

from __future__ import annotations

import pytest

from commands.load_answers import MalformedError, body_of, end_of, head_of, reason_of, timings_of

PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length:  5 \r\nX: y\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
TRAILERS = CHUNKED[:-2] + b"X: y\r\n\r\n"


@pytest.mark.parametrize("data", [PLAIN, CHUNKED, TRAILERS], ids=["length", "chunks", "chunks with trailers"])
def test_an_answer_in_pieces_ends_where_it_ends_and_nowhere_else(data: bytes) -> None:
    for size in range(len(data)):
        head = head_of(data[:size])
        assert head is None or end_of(data[:size], head) is None
    whole = head_of(data)
    assert whole is not None
    assert not whole.closes
    assert end_of(data + b"more", whole) == len(data)
    assert body_of(data, whole, len(data)) == b"hello"


@pytest.mark.parametrize(
    ("head", "closes", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n", True, 0),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", True, 3),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n", False, 3),
        (b"HTTP/1.1 204 None\r\n\r\n", False, 0),
        (b"HTTP/1.1 200 OK\r\n\r\n", True, None),
    ],
    ids=["it says so", "1.0", "1.0 that stays", "no body", "to the end"],
)
def test_whether_a_connection_stays(head: bytes, closes: bool, length: int | None) -> None:
    found = head_of(head)
    assert found is not None
    assert (found.closes, found.length) == (closes, length)


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    data = b"HTTP/1.1 200 OK\r\n\r\nhel"
    head = head_of(data)
    assert head is not None
    assert end_of(data, head) is None
    assert end_of(data, head, is_over=True) == len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n",
    ],
    ids=[
        "no HTTP", "another version", "an interim answer", "a negative length", "two lengths", "both ways to say it",
        "an unknown coding", "a header that is none", "a head without end", "a chunk without a size",
        "a chunk without its end",
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        end_of(data, head) if (head := head_of(data)) else None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"ok": false, "error": "OVERLOADED"}', "503 OVERLOADED"),
        (b'{"error": {"code": 5, "message": "no such\\nmodel"}}', "503 no such model"),
        (b'{"error": "' + b"x" * 100 + b'"}', "503 " + "x" * 60),
        (b"<html>", "503"),
        (b"[]", "503"),
        (b"\xff", "503"),
    ],
)
def test_failures_are_named_by_status_and_reason(body: bytes, reason: str) -> None:
    assert reason_of(503, body) == reason


def test_server_timing_says_what_each_stage_took_and_how_many_were_together() -> None:
    head = b"HTTP/1.1 200 OK\r\nSERVER-Timing: parse;dur=0.05, queue;dur=1, x, odd;dur=?, batch;desc=8"
    for end in (b"", b"\r\nA: b", b"\r\n\r\n{}"):
        assert timings_of(head + end) == {"parse": 0.05, "queue": 1.0, "batch": 8.0}
    assert timings_of(b"HTTP/1.1 200 OK\r\nA: b") == {}
