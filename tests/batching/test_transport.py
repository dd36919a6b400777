"""Frames out of bytes: cut anywhere, in parts, and what is no frame at all; and on a socket, mixed."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching.connection import Connection
from batching.errors import ConnectionLost
from batching.transport import (
    FRAME_BYTES_MAX,
    HEADER,
    PART_BYTES,
    WHOLE_BYTES,
    Frame,
    FrameReader,
    Kind,
    answered_of,
    pack,
    pack_answered,
    pack_item,
    pack_part,
)
from tests.harness import SOON_S, wait_until

U16, U32, U64 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
TIME = st.floats(allow_nan=False)
CODE, LAYOUT, PAYLOAD = st.integers(0, 255), st.binary(max_size=40), st.binary(max_size=100)
# Frames as they are sent, and what of them must come out again.
SAID = st.fixed_dictionaries(
    {"code": CODE, "model": U16, "rows": U32, "queue_us": U32, "compute_us": U32, "batch_rows": U32},
    optional={"batch": U32, "wait_us": U32, "layout": LAYOUT, "payload": PAYLOAD},
)
ASKED = st.fixed_dictionaries(
    {"code": CODE, "model": U16, "rows": U32, "arrived": TIME, "deadline": TIME, "layout": LAYOUT, "payload": PAYLOAD}
)
FRAMES = st.one_of(
    st.tuples(st.sampled_from([Kind.ANSWER, Kind.FAILED, Kind.CANCEL, Kind.ANSWERS]), U64, SAID),
    st.tuples(st.just(Kind.ITEM), U64, ASKED),
)
Sent = tuple[int, int, dict[str, Any]]
Pair = tuple[Connection, Connection]


def packed(sent: Sent) -> bytes:
    kind, id, fields = sent
    return pack_item(id, **fields) if kind == Kind.ITEM else pack(kind, id, **fields)


def came_out(frames: Sequence[Frame], sent: Sequence[Sent]) -> bool:
    """Whether these are those, in order, field by field."""
    return [
        (frame.kind, frame.id, {name: getattr(frame, name) for name in fields})
        for frame, (*_, fields) in zip(frames, sent, strict=True)
    ] == list(sent)


def small(id: int, payload: bytes = b"") -> bytes:
    return pack(Kind.ITEM, id, payload=payload)


def part(id: int, payload: bytes, whole_bytes: int) -> bytes:
    return pack_part(id, whole_bytes, len(payload)) + payload


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = (Connection(sock) for sock in socket.socketpair())
    yield left, right
    left.close()
    right.close()


def exchange(left: Connection, right: Connection) -> list[Frame]:
    """All that `left` still has to write, as `right` reads it."""
    frames: list[Frame] = []

    def written() -> bool:
        left.flush()
        frames.extend(right.receive())
        return not left.wants_write

    wait_until(written, SOON_S, "all is written")
    frames.extend(right.receive())
    return frames


def test_the_layout_on_the_wire_stays_what_it_is() -> None:
    """Little-endian, without padding: both ends may be of different builds only as long as this holds."""
    frame = pack_item(5, 0, 2, 3, 1.0, 2.0, b"LL", b"P")
    assert HEADER.size == 58
    assert frame[:12] == bytes([57, 0, 0, 0, 1, 0, 2, 0, 3, 0, 0, 0])
    assert frame[12:22] == bytes([2, 0, 5, 0, 0, 0, 0, 0, 0, 0])
    assert frame[58:] == b"LLP"


@settings(max_examples=50)
@given(st.lists(FRAMES, max_size=4))
def test_frames_fed_one_byte_at_a_time_come_out_equal(sent: list[Sent]) -> None:
    reader = FrameReader(parts_bytes_max=0)
    data = b"".join(map(packed, sent))
    assert came_out([frame for byte in data for frame in reader.feed(bytes([byte]))], sent)


@given(st.lists(FRAMES, max_size=20), st.lists(st.integers(1, 300)))
def test_frames_cut_anywhere_come_out_equal(sent: list[Sent], cuts: list[int]) -> None:
    reader = FrameReader(parts_bytes_max=0)
    data = b"".join(map(packed, sent))
    found: list[Frame] = []
    for size in cuts:
        found += reader.feed(data[:size])
        data = data[size:]
    assert came_out(found + reader.feed(data), sent)


@given(st.binary(max_size=400), st.integers(0, 400))
def test_garbage_is_refused_or_waits_for_its_end_but_never_grows_or_fails_otherwise(data: bytes, cut: int) -> None:
    reader = FrameReader(parts_bytes_max=1000)
    fed = 0
    try:
        for piece in (data[:cut], data[cut:], data, data):
            fed += len(piece)
            reader.feed(piece)
    except ConnectionLost:
        return
    assert len(reader._rest) <= min(fed, FRAME_BYTES_MAX)


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(FRAME_BYTES_MAX, Kind.ITEM, *[0] * 4, 1, 0.0, 0.0, *[0] * 5),
        HEADER.pack(HEADER.size - 5, Kind.ITEM, *[0] * 4, 1, 0.0, 0.0, *[0] * 5),
        HEADER.pack(HEADER.size - 4, Kind.ITEM, 0, 0, 0, 1, 1, 0.0, 0.0, *[0] * 5),
        HEADER.pack(HEADER.size - 4, 0, *[0] * 4, 1, 0.0, 0.0, *[0] * 5),
        HEADER.pack(HEADER.size - 4, 8, *[0] * 4, 1, 0.0, 0.0, *[0] * 5),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: someone who took a wrong turn\r\n\r\n",
    ],
    ids=["too long", "too short", "layout beyond its end", "kind 0", "unknown kind", "HTTP"],
)
def test_what_is_no_frame_is_refused(header: bytes) -> None:
    with pytest.raises(ConnectionLost):
        FrameReader(parts_bytes_max=0).feed(header)


def test_unfinished_parts_are_bounded_by_what_they_announce() -> None:
    reader = FrameReader(parts_bytes_max=1000)
    reader.feed(part(7, bytes(100), 600) + part(8, bytes(100), 400))
    with pytest.raises(ConnectionLost):
        reader.feed(part(9, b"", 1))


def test_parts_that_were_completed_do_not_count_any_more() -> None:
    reader = FrameReader(parts_bytes_max=1000)
    for _ in range(5):
        frames = reader.feed(part(7, bytes(900), 900) + small(7))
        assert [len(frame.payload) for frame in frames] == [900]


@pytest.mark.parametrize(
    "frames",
    [
        part(7, bytes(9), 8),
        part(7, bytes(5), 8) + part(7, bytes(4), 8),
        part(7, bytes(7), 8) + small(7),
        part(7, bytes(8), 8) + small(7, b"more"),
    ],
    ids=["a part beyond the whole", "parts beyond the whole", "a part missing", "a payload besides"],
)
def test_parts_other_than_announced_are_refused(frames: bytes) -> None:
    with pytest.raises(ConnectionLost):
        FrameReader(parts_bytes_max=1000).feed(frames)


@given(st.binary(min_size=1, max_size=300), st.integers(1, 300), st.lists(st.integers(1, 200)), st.booleans())
def test_parts_cut_anywhere_come_out_whole(payload: bytes, size: int, cuts: list[int], in_place: bool) -> None:
    """In place: read into the room that the reader has for them, as far as it goes."""
    reader = FrameReader(parts_bytes_max=1000)
    pieces = [payload[start : start + size] for start in range(0, len(payload), size)]
    data = b"".join([part(7, piece, len(payload)) + small(1) for piece in pieces]) + small(7)
    found: list[Frame] = []
    for cut in [*cuts, len(data)]:
        if in_place and data and reader.room is not None:
            count = min(len(reader.room), len(data), cut)
            reader.room[:count] = data[:count]
            reader.filled(count)
            data = data[count:]
        else:
            found += reader.feed(data[:cut])
            data = data[cut:]
    found += reader.feed(data)
    assert [frame.id for frame in found] == [1] * len(pieces) + [7]
    assert found[-1].payload == payload


@given(st.lists(st.tuples(U64, U32, U32), max_size=20), PAYLOAD)
def test_answers_that_come_together_are_told_apart(answered: list[tuple[int, int, int]], outputs: bytes) -> None:
    frame = pack(Kind.ANSWERS, len(answered), payload=pack_answered(answered) + outputs)
    (read,) = FrameReader(parts_bytes_max=0).feed(frame)
    assert answered_of(read) == (answered, outputs)


def test_answers_that_end_early_are_refused() -> None:
    (frame,) = FrameReader(parts_bytes_max=0).feed(pack(Kind.ANSWERS, 2, payload=pack_answered([(1, 1, 1)])))
    with pytest.raises(ConnectionLost):
        answered_of(frame)


@settings(max_examples=25)
@given(
    st.lists(
        st.one_of(
            st.integers(0, 100),
            st.integers(WHOLE_BYTES - 2, WHOLE_BYTES + 2),
            st.integers(PART_BYTES - 2, PART_BYTES + 2),
            st.integers(2 * PART_BYTES - 1, 2 * PART_BYTES + 1),
            st.integers(0, 5 * PART_BYTES),
        ),
        max_size=6,
    )
)
def test_payloads_of_any_size_arrive_whole(sizes: Sequence[int]) -> None:
    left, right = (Connection(sock) for sock in socket.socketpair())
    try:
        for id, size in enumerate(sizes):
            payload = bytes([id + 1]) * size
            if size > WHOLE_BYTES:
                left.send_large(id, small(id), payload)
            else:
                left.send(small(id, payload))
        received = {frame.id: frame.payload for frame in exchange(left, right)}
        assert received == {id: bytes([id + 1]) * size for id, size in enumerate(sizes)}
        assert left.pending_bytes == 0
    finally:
        left.close()
        right.close()


def test_small_frames_pass_between_the_parts_of_a_large_one(pair: Pair) -> None:
    left, right = pair
    left.send_large(1, small(1), bytes(20 * PART_BYTES))
    left.flush()
    assert left.wants_write  # the socket is full of the large one
    left.send(small(2))
    assert [frame.id for frame in exchange(left, right)] == [2, 1]


def test_a_small_frame_waits_for_no_more_than_what_is_on_its_way_and_one_part(pair: Pair) -> None:
    left, right = pair
    left.send_large(1, small(1), bytes(20 * PART_BYTES))
    left.flush()
    before = left.pending_bytes
    left.send(small(2))
    received: list[Frame] = []

    def arrived() -> bool:
        left.flush()
        received.extend(right.receive())
        return bool(received)

    wait_until(arrived, SOON_S, "the small frame")
    assert left.pending_bytes > before - 5 * PART_BYTES


def test_large_frames_take_turns(pair: Pair) -> None:
    left, right = pair
    left.send_large(1, small(1), bytes(20 * PART_BYTES))
    left.send_large(2, small(2), bytes(3 * PART_BYTES))
    assert [frame.id for frame in exchange(left, right)] == [2, 1]


def test_what_came_before_the_end_still_counts(pair: Pair) -> None:
    left, right = pair
    left.send(small(1))
    left.flush()
    left.close()
    assert [frame.id for frame in right.receive()] == [1]
    with pytest.raises(ConnectionLost):
        right.receive()


def test_writing_to_an_end_that_is_gone_is_told_each_time(pair: Pair) -> None:
    left, right = pair
    left.send(small(1))
    left.send_large(2, small(2), bytes(2 * PART_BYTES))
    right.close()
    for _ in range(6):  # more often than there are pieces to write
        with pytest.raises(ConnectionLost):
            left.flush()


def test_nothing_blocks_when_the_other_end_does_not_read(pair: Pair) -> None:
    left, right = pair
    for id in range(50):
        left.send_large(id, small(id), bytes(PART_BYTES))
    left.flush()
    assert left.wants_write
    assert right.receive() is not None
