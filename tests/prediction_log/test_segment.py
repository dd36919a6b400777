"""Every record comes back as it went in, and whatever is torn or flipped costs itself alone."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from contextlib import closing
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prediction_log.segment import (
    HEADER_BYTES,
    LENGTH_AND_CHECKSUM,
    SegmentReader,
    WritableSegment,
    is_abandoned,
    make_name,
    marker_of,
    parse_name,
)
from tests.prediction_log.segments import EVERYTHING, NAME, Hand, read, write

PAYLOADS = [b"first", b"the one in the middle", b"last one"]


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, list[int]]:
    """A closed segment of PAYLOADS, and where each begins and the last ends."""
    with closing(Hand(tmp_path)) as hand:
        begins = [hand.record(payload) for payload in PAYLOADS]
        return hand.path, [*begins, hand.at]


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=20))
def test_payloads_come_back(payloads: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert read(write(Path(folder), payloads)) == (payloads, [])


def test_a_segment_cut_at_any_byte_of_its_last_record_loses_that_one_alone(places: tuple[Path, list[int]]) -> None:
    path, (_, _, last, end) = places
    for size in range(end - 1, last - 1, -1):
        os.truncate(path, size)
        payloads, damaged = read(path)
        whole = size >= last + 16 + len(PAYLOADS[2])
        assert payloads == (PAYLOADS if whole else PAYLOADS[:2])
        assert [offset for offset, _ in damaged] == ([] if whole or size == last else [last])


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_flip_in_any_byte_of_a_record_costs_that_one_alone(places: tuple[Path, list[int]], flip: int) -> None:
    path, (_, begin, end, _) = places
    good = path.read_bytes()
    for at in range(begin, begin + 16 + len(PAYLOADS[1])):
        path.write_bytes(good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
        payloads, [(offset, data)] = read(path)
        assert payloads == [PAYLOADS[0], PAYLOADS[2]], at
        assert (offset, data) == (begin, path.read_bytes()[begin:end].rstrip(b"\0"))
    assert not any(good[begin + 16 + len(PAYLOADS[1]) : end]), "only zeros are left out"


def test_a_lost_page_costs_what_was_in_it(tmp_path: Path) -> None:
    payloads = [b"%d" % number * 50 for number in range(400)]
    path = write(tmp_path, payloads)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(4096))
    found, damaged = read(path)
    assert set(found) < set(payloads)
    assert len(found) > 300
    # One before the page, whose end is lost; what begins in the page goes with it.
    assert sum(len(data) for _, data in damaged) < 3 * 4096


@given(st.data())
def test_no_damage_takes_a_record_elsewhere_or_adds_one(data: st.DataObject) -> None:
    payloads = data.draw(st.lists(st.binary(min_size=1, max_size=300), min_size=3, max_size=12, unique=True))
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), payloads)
        good = path.read_bytes()
        begin = data.draw(st.integers(HEADER_BYTES, len(good) - 1))
        rubbish = data.draw(st.binary(min_size=1, max_size=min(200, len(good) - begin)))
        path.write_bytes(good[:begin] + rubbish + good[begin + len(rubbish) :])
        ends = [HEADER_BYTES]
        for payload in payloads:
            ends.append(ends[-1] + 16 + len(payload) + 7 & -8)
        untouched = [
            payload
            for payload, first, end in zip(payloads, ends, ends[1:], strict=False)
            if end <= begin or first >= begin + len(rubbish)
        ]
        found, _ = read(path)
        assert set(untouched) <= set(found) <= set(payloads)


def test_a_clients_bytes_never_pass_for_a_record(tmp_path: Path) -> None:
    forged = marker_of(NAME).to_bytes(8, "little") + LENGTH_AND_CHECKSUM.pack(5, crc32(b"forge", 5)) + b"forge"
    path = write(tmp_path, [b"before", forged * 10, b"after"])
    with path.open("r+b") as file:
        file.seek(HEADER_BYTES + 24 + 8)
        file.write(b"\xff")  # the length of the one that carries them
    assert read(path)[0] == [b"before", b"after"]


def test_a_broken_header_costs_nothing(places: tuple[Path, list[int]]) -> None:
    path, _ = places
    with path.open("r+b") as file:
        file.write(b"\xff" * HEADER_BYTES)
    with closing(SegmentReader(path)) as reader:
        assert read(path, reader.cursor()) == (PAYLOADS, [])


def test_a_reader_stops_at_its_limits(places: tuple[Path, list[int]]) -> None:
    path, (_, second, third, _) = places
    with closing(SegmentReader(path)) as reader:
        into: list[bytes] = []
        piece = reader.read(HEADER_BYTES, into, 1, EVERYTHING, lambda offset, data: True)
        assert (into, piece.at, piece.full) == (PAYLOADS[:1], second, True)
        piece = reader.read(second, into, EVERYTHING, 20, lambda offset, data: True)
        assert (into, piece.at, piece.full) == (PAYLOADS[:1], second, True)
        into.clear()
        piece = reader.read(second, into, EVERYTHING, 20, lambda offset, data: True)
        assert (into, piece.at) == (PAYLOADS[1:2], third), "one that is larger than the limit comes alone"


def test_a_record_is_not_seen_before_its_marker(tmp_path: Path) -> None:
    with closing(Hand(tmp_path)) as hand:
        hand.record(b"whole")
        at = hand.body(b"being written")
        assert read(hand.path) == ([b"whole"], [])
        hand.segment.words[at // 8] = hand.segment.marker
        assert read(hand.path) == ([b"whole", b"being written"], [])


def test_what_a_killed_writer_left_half_written_is_set_aside(tmp_path: Path) -> None:
    with closing(Hand(tmp_path)) as hand:
        hand.record(b"whole")
        at = hand.body(b"half")
        copy = tmp_path / "copy" / NAME
        copy.parent.mkdir()
        copy.write_bytes(hand.path.read_bytes())  # nobody holds its lock
    assert read(copy) == ([b"whole"], [(at, bytes(8) + LENGTH_AND_CHECKSUM.pack(4, crc32(b"half", 4)) + b"half")])


def test_damage_in_a_living_segment_ends_where_the_next_record_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prediction_log.segment._SEARCH_AGAIN_S", 0.0)
    with closing(Hand(tmp_path)) as hand, closing(SegmentReader(hand.path)) as reader:
        into: list[bytes] = []
        damaged: list[int] = []
        bad = hand.record(b"spoilt")
        hand.segment.view[bad + 20] ^= 1

        def set_aside(offset: int, data: bytes) -> bool:
            damaged.append(offset)
            return True

        piece = reader.read(HEADER_BYTES, into, 9, EVERYTHING, set_aside)
        assert (piece.at, piece.finished, into, damaged) == (bad, False, [], [])
        hand.record(b"next")
        piece = reader.read(bad, into, 9, EVERYTHING, set_aside)
        assert (piece.at, into, damaged) == (hand.at, [b"next"], [bad])


def test_reading_stops_at_damage_that_cannot_be_set_aside(places: tuple[Path, list[int]]) -> None:
    path, (_, second, _, _) = places
    with path.open("r+b") as file:
        file.seek(second)
        file.write(b"\xff")
    into: list[bytes] = []
    with closing(SegmentReader(path)) as reader:
        piece = reader.read(HEADER_BYTES, into, 9, EVERYTHING, lambda offset, data: False)
    assert (piece.at, piece.finished, into) == (second, False, PAYLOADS[:1])


def test_the_cursor_stays_where_it_was_put(places: tuple[Path, list[int]]) -> None:
    path, (first, second, _, _) = places
    with closing(SegmentReader(path, writable=True)) as reader:
        assert reader.cursor() == first
        reader.move_cursor(second)
    with closing(SegmentReader(path)) as reader:
        assert reader.cursor() == second


def test_a_cursor_behind_the_end_is_none(places: tuple[Path, list[int]]) -> None:
    path, (first, _, _, end) = places
    with closing(SegmentReader(path, writable=True)) as reader:
        reader.move_cursor(end + 8)
        assert reader.cursor() == first


def test_how_much_is_used_is_known_of_the_living_and_the_dead(tmp_path: Path) -> None:
    with closing(Hand(tmp_path)) as hand, closing(SegmentReader(hand.path)) as reader:
        assert reader.used(HEADER_BYTES) == HEADER_BYTES
        hand.record(b"x" * 1000)
        assert reader.used(HEADER_BYTES) == hand.at
        hand.record(b"y" * 16)
        fcntl.flock(hand.segment.fd, fcntl.LOCK_UN)  # as if killed: not cut
        assert reader.used(HEADER_BYTES) == hand.at


def test_a_segment_has_an_owner_until_it_is_closed(tmp_path: Path) -> None:
    hand = Hand(tmp_path)
    hand.record(b"x")
    with pytest.raises(FileExistsError):
        os.open(hand.path, os.O_CREAT | os.O_EXCL)
    with closing(SegmentReader(hand.path)) as reader:
        assert not is_abandoned(hand.path)
        assert not reader.ended()
        hand.close()
        assert reader.ended()
        assert is_abandoned(hand.path)


def test_an_empty_file_may_be_one_that_its_maker_is_about_to_lock(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.touch()
    assert not is_abandoned(path)
    os.utime(path, (time.time() - 60,) * 2)
    assert is_abandoned(path)


def test_a_segment_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()  # no file can have that name
    (tmp_path / NAME / "x").touch()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="directory"):
        WritableSegment(tmp_path, NAME, 64 * 1024, durable=False)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert len(os.listdir("/proc/self/fd")) == before


def test_names_sort_by_time_and_no_other_is_one() -> None:
    assert parse_name(NAME) == (1_700_000_000_123, "0123456789abcdef")
    assert make_name(999, "f" * 16, 1) < make_name(1000, "0" * 16, 2)
    for name in ("shipper.lock", "dead", f"{NAME}.new", f"x{NAME}", NAME.upper(), NAME.replace("-", "_")):
        assert parse_name(name) is None
