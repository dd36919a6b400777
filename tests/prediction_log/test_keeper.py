"""A log that nobody ships is kept by size and age, its oldest segments first, and never a living one's."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

from prediction_log.keeper import Deleted, keep
from prediction_log.segment import make_name
from prediction_log.spool import Spool
from prediction_log.tail import read_all
from tests.prediction_log.segments import locked, write

DAY_S = 86_400
PLENTY = 1 << 40


def aged(path: Path, age_s: float) -> Path:
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_the_oldest_go_until_the_rest_is_small_enough(tmp_path: Path) -> None:
    paths = [aged(write(tmp_path / str(number), [bytes(10_000)]), 1000 - number) for number in range(4)]
    paths = [path.rename(tmp_path / path.name) for path in paths]
    size = paths[0].stat().st_size
    assert keep(tmp_path, 4 * size, None) == []
    assert keep(tmp_path, 3 * size - 1, None) == [Deleted(path.name, size) for path in paths[:2]]
    assert [path for path in paths if path.exists()] == paths[2:]


def test_what_is_too_old_goes_however_small_it_is(tmp_path: Path) -> None:
    old = aged(write(tmp_path, [b"old"]), 8 * DAY_S)
    write(tmp_path, [b"young"])
    assert keep(tmp_path, PLENTY, None) == []
    assert [deleted.name for deleted in keep(tmp_path, PLENTY, 7 * DAY_S)] == [old.name]
    assert list(read_all(tmp_path)) == [b"young"]


def test_a_living_writers_segments_stay(tmp_path: Path) -> None:
    with closing(Spool(tmp_path, max_bytes=None)) as spool:
        assert spool.append(b"x")
        for path in tmp_path.glob("*.log"):
            aged(path, 8 * DAY_S)
        assert keep(tmp_path, 0, DAY_S) == []
        assert spool.append(b"y")
        assert list(read_all(tmp_path)) == [b"x", b"y"]


def test_a_dead_writers_spares_go_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    write(tmp_path, [b"x"])
    spare = tmp_path / make_name(1, "a" * 16, 1)
    spare.write_bytes(bytes(1 << 20))
    half_made = tmp_path / (make_name(2, "a" * 16, 2) + ".new")
    half_made.write_bytes(bytes(1000))
    for name in ("server.lock", "notes.txt"):
        aged(tmp_path / name, 0) if (tmp_path / name).exists() else (tmp_path / name).touch()
    assert {deleted.name for deleted in keep(tmp_path, PLENTY, None)} == {spare.name, half_made.name}
    assert list(read_all(tmp_path)) == [b"x"]
    assert {"server.lock", "notes.txt"} <= {path.name for path in tmp_path.iterdir()}


def test_what_was_set_aside_grows_old_as_well(tmp_path: Path) -> None:
    path = write(tmp_path, [b"spoilt", b"good"])
    with path.open("r+b") as file:
        file.seek(84)
        file.write(b"\xff")
    with locked(tmp_path) as inbox:
        inbox.read(9, PLENTY)
    [dead] = (tmp_path / "dead").iterdir()
    assert keep(tmp_path, PLENTY, DAY_S) == []
    (tmp_path / "dead" / "row.json").touch()
    aged(dead, 2 * DAY_S)
    aged(dead.with_name("row.json"), 2 * DAY_S)
    assert [deleted.name for deleted in keep(tmp_path, PLENTY, DAY_S)] == [f"dead/{dead.name}"]
    assert dead.with_name("row.json").exists()
