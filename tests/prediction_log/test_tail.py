"""A log is read without touching it: what is there, what comes, and what others delete meanwhile."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

from prediction_log.segment import make_name
from prediction_log.spool import Spool
from prediction_log.tail import Tail, read_all
from tests.prediction_log.segments import Hand, locked, put, ship, write

PAYLOADS = [b"%d" % number + bytes(3000) for number in range(100)]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_all_is_read_shipped_or_not_and_nothing_changed(tmp_path: Path) -> None:
    write(tmp_path, PAYLOADS)
    (tmp_path / "1700000000000-aaaaaaaaaaaaaaaa-000001.log").touch()
    with locked(tmp_path) as inbox:
        inbox.commit(inbox.read(5, 1 << 20))
    before = snapshot(tmp_path)
    with locked(tmp_path):
        assert list(read_all(tmp_path)) == PAYLOADS
    assert snapshot(tmp_path) == before


def test_damage_is_passed_over_and_left_to_the_shipper(tmp_path: Path) -> None:
    path = write(tmp_path, PAYLOADS)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff")
    assert list(read_all(tmp_path)) == PAYLOADS[1:]
    assert not (tmp_path / "dead").exists()


def test_a_log_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with closing(Tail(folder)) as tail:
        assert tail.read() == []
        with closing(Spool(folder, max_bytes=None)) as spool:
            for payload in PAYLOADS:
                put(spool, payload)
                assert tail.read() == [payload]
        assert tail.read() == []
        write(folder, [b"another writer"])
        assert tail.read() == [b"another writer"]


def test_segments_that_are_full_but_not_yet_put_away_hide_nothing_behind_them(tmp_path: Path) -> None:
    names = [make_name(number, "a" * 16, number) for number in range(1, 4)]
    with ExitStack() as ends, closing(Tail(tmp_path)) as tail:
        hands = [ends.enter_context(closing(Hand(tmp_path, name))) for name in names]
        for hand in hands[:2]:
            hand.record(hand.path.name.encode())
        assert tail.read() == [name.encode() for name in names[:2]]
        hands[2].record(names[2].encode())
        assert tail.read() == [names[2].encode()]


def test_what_is_deleted_meanwhile_is_read_if_it_was_begun(tmp_path: Path) -> None:
    write(tmp_path, [bytes([number]) * 2000 for number in range(250)] * 6)
    with closing(Tail(tmp_path)) as tail:
        begun = tail.read()
        assert 1000 <= len(begun) < 1500
        with locked(tmp_path) as inbox:
            ship(inbox)
        assert len(tail.read()) < 500
        assert tail.read() == []
