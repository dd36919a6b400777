"""Frames on a socket: cut anywhere, in parts, mixed, and what is no frame at all."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching.errors import ConnectionLost
from batching.transport import FRAME_BYTES_MAX, HEADER, PART_BYTES, Connection, Frame, FrameReader, Kind, pack
from tests.harness import SOON_S, wait_until

U16, U32, U64 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
TIME = st.floats(allow_nan=False)
FRAMES = st.builds(
    Frame,
    kind=st.sampled_from([Kind.ITEM, Kind.ANSWER, Kind.FAILED, Kind.CANCEL]).map(int),
    code=st.integers(0, 255),
    model=U16,
    rows=U32,
    id=U64,
    arrived=TIME,
    deadline=TIME,
    queue_us=U32,
    compute_us=U32,
    batch_rows=U32,
    batch=U32,
    wait_us=U32,
    layout=st.binary(max_size=40),
    payload=st.binary(max_size=100),
)
Pair = tuple[Connection, Connection]


def packed(frame: Frame) -> bytes:
    return pack(**frame._asdict())


def small(id: int, payload: bytes = b"") -> bytes:
    return pack(Kind.ITEM, id, payload=payload)


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
    frame = pack(Kind.ITEM, 5, model=2, rows=3, arrived=1.0, deadline=2.0, layout=b"LL", payload=b"P")
    assert HEADER.size == 58
    assert frame[:12] == bytes([57, 0, 0, 0, 1, 0, 2, 0, 3, 0, 0, 0])
    assert frame[12:22] == bytes([2, 0, 5, 0, 0, 0, 0, 0, 0, 0])
    assert frame[58:] == b"LLP"


@settings(max_examples=50)
@given(st.lists(FRAMES, max_size=4))
def test_frames_fed_one_byte_at_a_time_come_out_equal(frames: list[Frame]) -> None:
    reader = FrameReader(parts_bytes_max=0)
    data = b"".join(map(packed, frames))
    assert [frame for byte in data for frame in reader.feed(bytes([byte]))] == frames


@given(st.lists(FRAMES, max_size=20), st.lists(st.integers(1, 300)))
def test_frames_cut_anywhere_come_out_equal(frames: list[Frame], cuts: list[int]) -> None:
    reader = FrameReader(parts_bytes_max=0)
    data = b"".join(map(packed, frames))
    found = []
    for size in cuts:
        found += reader.feed(data[:size])
        data = data[size:]
    assert found + reader.feed(data) == frames


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
        HEADER.pack(HEADER.size - 4, 7, *[0] * 4, 1, 0.0, 0.0, *[0] * 5),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: someone who took a wrong turn\r\n\r\n",
    ],
    ids=["too long", "too short", "layout beyond its end", "kind 0", "unknown kind", "HTTP"],
)
def test_what_is_no_frame_is_refused(header: bytes) -> None:
    with pytest.raises(ConnectionLost):
        FrameReader(parts_bytes_max=0).feed(header)


def test_unfinished_parts_are_bounded() -> None:
    reader = FrameReader(parts_bytes_max=1000)
    part = pack(Kind.PART, 7, payload=bytes(400))
    reader.feed(part * 2)
    with pytest.raises(ConnectionLost):
        reader.feed(part)


def test_parts_that_were_completed_do_not_count_any_more() -> None:
    reader = FrameReader(parts_bytes_max=1000)
    for _ in range(5):
        frames = reader.feed(pack(Kind.PART, 7, payload=bytes(900)) + small(7))
        assert [len(frame.payload) for frame in frames] == [900]


@settings(max_examples=25)
@given(
    st.lists(
        st.one_of(
            st.integers(0, 100),
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
            if size > PART_BYTES:
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
