"""What the shipper does next, against a store that does as it is told. The spool is real, and elsewhere PostgreSQL."""

from __future__ import annotations

import logging
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from prediction_log.database import Store
from prediction_log.inbox import Inbox
from prediction_log.shipper import CONFIGURATION_S, DELETE_ROWS, PAUSE_S, Shipper
from prediction_log.spool import Spool
from prediction_log.sqlstate import StoreError
from prediction_log.status import read_status
from tests.prediction_log.shipping import Told, fill, journal, predict

REFUSED = StoreError("retry", "53100", "the database's disk is full")
MISSING = StoreError("configuration", "42P01", "a table is missing")
SLOW = StoreError("retry", "57014", "a statement took too long")


class Scripted:
    """A store in memory. fail: called before each insert with its rows; what it returns is raised."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[tuple[str, int], dict[str, Any]]] = {"predictions": {}, "feedback": {}}
        self.fail: Callable[[Sequence[bytes]], Exception | None] = lambda rows: None
        self.sizes: list[int] = []
        self.prepared = 0
        self.deletes: list[tuple[datetime, int]] = []
        self.deletable = 0

    def prepare(self) -> None:
        self.prepared += 1

    def insert(self, table: str, rows: Sequence[bytes]) -> int:
        self.sizes.append(len(rows))
        if error := self.fail(rows):
            raise error
        found = [orjson.loads(row) for row in rows]
        before = len(self.tables[table])
        self.tables[table].update(((row["record_id"], row["row_number"]), row) for row in found)
        return len(self.tables[table]) - before

    def delete_older(self, before: datetime, limit: int) -> int:
        self.deletes.append((before, limit))
        deleted = min(self.deletable, limit)
        self.deletable -= deleted
        return deleted

    def close(self) -> None:
        pass

    def ids(self) -> list[str]:
        return [row["request_id"] for row in self.tables["predictions"].values()]


class Bench:
    """A shipper of a folder, with its store, its clock and what it said."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.now = 1000.0
        self.store = Scripted()
        self.told = Told()
        inbox = Inbox(folder)
        inbox.lock()
        self.shipper = Shipper(inbox, cast("Store", self.store), self.told, clock=lambda: self.now, **options)

    def close(self) -> None:
        self.shipper.close()

    def steps(self, count: int) -> list[float]:
        """So many steps, each when it is due; what each said of the next."""
        waits = []
        for _ in range(count):
            waits.append(self.shipper.step())
            self.now += waits[-1]
        return waits

    def until_idle(self) -> None:
        """Ship all, at once where it may and when it is due elsewhere."""
        self.steps(1)
        while not self.shipper._is_idle:
            self.steps(1)
            assert self.now < 1e6

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @property
    def dead(self) -> list[Path]:
        return sorted((self.folder / "dead").glob("*"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A hundred rows at a time, of a folder in which nothing is yet."""
    with closing(Bench(tmp_path, batch_rows=100)) as made:
        yield made


def _fails(times: int, error: Exception) -> Callable[[Sequence[bytes]], Exception | None]:
    errors = [error] * times
    return lambda rows: errors.pop() if errors else None


def _refuses(*numbers: int) -> Callable[[Sequence[bytes]], Exception | None]:
    """A row-at-fault wherever one of these requests is among the rows."""
    marks = [b'"request_id":"r%d"' % number for number in numbers]

    def fail(rows: Sequence[bytes]) -> Exception | None:
        found = any(mark in row for row in rows for mark in marks)
        return StoreError("row", "22003", "a value does not fit its column") if found else None

    return fail


# ---------------------------------------------------------------------------------------------- shipping


def test_each_row_lands_once_and_is_counted_then(bench: Bench) -> None:
    fill(bench.folder, 2500)
    assert bench.steps(4) == [0.0, 0.0, PAUSE_S, PAUSE_S]
    assert bench.store.sizes == [100] * 25
    assert sorted(bench.store.ids()) == sorted(f"r{number}" for number in range(2500))
    assert bench.told.rows == 2500
    assert read_status(bench.folder)["shipped_rows"] >= 1000
    assert not list(bench.folder.glob("*.log"))


def test_a_slow_database_does_not_make_a_step_long(bench: Bench) -> None:
    fill(bench.folder, 1000)

    def slow(rows: Sequence[bytes]) -> None:
        bench.now += 0.3

    bench.store.fail = slow
    assert bench.shipper.step() == 0.0
    assert bench.now < 1001
    bench.until_idle()
    assert bench.told.rows == len(bench.store.ids()) == 1000


def test_predictions_and_feedback_go_to_their_own_tables(bench: Bench) -> None:
    with journal(bench.folder) as into:
        predict(into, "r1", rows=3)
        assert into.feedback("r1", 2, b'"cat"')
    bench.until_idle()
    (label,) = bench.store.tables["feedback"].values()
    assert (label["request_id"], label["row_number"], label["label"]) == ("r1", 2, "cat")
    assert bench.store.ids() == ["r1"] * 3
    assert bench.told.rows == 4


def test_a_record_of_many_rows_is_inserted_in_parts(bench: Bench) -> None:
    with journal(bench.folder) as into:
        predict(into, "r1", rows=230)
    bench.until_idle()
    assert bench.store.sizes == [100, 100, 30]
    assert len(bench.store.ids()) == 230


def test_a_record_that_cannot_be_read_is_set_aside_alone(bench: Bench) -> None:
    with closing(Spool(bench.folder, max_bytes=None)) as spool:
        spool.append(b"no record")
    with journal(bench.folder) as into:
        predict(into, "r1")
        assert into.prediction("r2", subject=b"no subject")
        predict(into, "r3")
    bench.until_idle()
    assert sorted(bench.store.ids()) == ["r1", "r3"]
    assert (bench.told.rows, bench.told.spoilt) == (2, 2)
    assert b"no record" in [path.read_bytes() for path in bench.dead]
    assert len(bench.dead) == 2


# ---------------------------------------------------------------------------------------------- trying again


def test_what_time_may_heal_is_tried_again_ever_more_seldom(bench: Bench) -> None:
    fill(bench.folder, 10)
    bench.store.fail = _fails(9, REFUSED)
    assert bench.steps(10) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, PAUSE_S]
    assert bench.told.sqlstates == ["53100"] * 9
    assert bench.told.conditions == [str(REFUSED), None]
    assert (bench.told.rows, len(bench.store.ids())) == (10, 10)


def test_after_a_success_it_begins_with_short_waits_again(bench: Bench) -> None:
    for first in (0, 10):
        fill(bench.folder, 10, first)
        bench.store.fail = _fails(3, REFUSED)
        assert bench.steps(3) == [0.1, 0.2, 0.4]
        bench.until_idle()
    assert len(bench.store.ids()) == 20


def test_what_somebody_must_heal_is_tried_each_30_seconds_and_said(bench: Bench) -> None:
    fill(bench.folder, 10)
    bench.store.fail = _fails(3, MISSING)
    assert bench.steps(4) == [CONFIGURATION_S] * 3 + [PAUSE_S]
    assert bench.store.prepared == 4, "a table that is gone is made again"
    assert bench.told.conditions == [str(MISSING), None]
    assert len(bench.store.ids()) == 10


def test_a_defect_is_tried_again_and_says_nothing_of_the_rows(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    fill(bench.folder, 10)
    bench.store.fail = _fails(2, RuntimeError("r7 is secret"))
    assert bench.steps(3) == [0.1, 0.2, PAUSE_S]
    assert len(bench.store.ids()) == 10
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text
    assert "RuntimeError" in read_status(bench.folder)["last_error"]["text"]


def test_a_failure_is_logged_once_a_minute(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    fill(bench.folder, 10)
    bench.store.fail = lambda rows: REFUSED
    with caplog.at_level(logging.INFO):
        bench.steps(40)  # 176 s
    assert len(caplog.records) == 3


def test_a_batch_that_takes_too_long_is_tried_in_halves(bench: Bench) -> None:
    fill(bench.folder, 300)
    bench.store.fail = lambda rows: SLOW if len(rows) > 30 else None
    bench.until_idle()
    assert len(bench.store.ids()) == 300
    assert bench.told.rows == 300
    assert bench.told.sqlstates.count("57014") <= 12


def test_a_shipper_that_ends_leaves_what_it_held_to_the_next(tmp_path: Path) -> None:
    fill(tmp_path, 10)
    with closing(Bench(tmp_path)) as first:
        first.store.fail = lambda rows: REFUSED
        first.steps(2)
        assert first.told.rows == 0
    with closing(Bench(tmp_path)) as second:
        second.until_idle()
        assert len(second.store.ids()) == second.told.rows == 10
    assert read_status(tmp_path)["shipped_rows"] == 10


# ---------------------------------------------------------------------------------------------- rows at fault


def test_a_guilty_row_is_found_in_few_statements_and_set_aside(bench: Bench) -> None:
    fill(bench.folder, 100)
    bench.store.fail = _refuses(37)
    bench.until_idle()
    assert sorted(bench.store.ids()) == sorted(f"r{number}" for number in range(100) if number != 37)
    assert len(bench.store.sizes) <= 1 + 2 * 7
    assert (bench.told.rows, bench.told.refused) == (99, 1)
    (path,) = bench.dead
    told = orjson.loads(path.read_bytes())
    assert (told["table"], told["sqlstate"], told["row"]["request_id"]) == ("predictions", "22003", "r37")
    assert path.name == f"{told['row']['record_id']}-0.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert bench.told.conditions == []


def test_rows_that_are_all_guilty_are_all_set_aside(bench: Bench) -> None:
    fill(bench.folder, 8)
    bench.store.fail = _refuses(*range(8))
    bench.until_idle()
    assert (bench.store.ids(), bench.told.refused, len(bench.dead)) == ([], 8, 8)
    assert len(bench.store.sizes) == 15


def test_a_failure_amid_the_halves_loses_and_repeats_nothing(bench: Bench) -> None:
    fill(bench.folder, 100)
    refuses = _refuses(3, 80)
    tries = iter(range(10_000))
    bench.store.fail = lambda rows: REFUSED if next(tries) % 3 == 2 else refuses(rows)
    bench.until_idle()
    assert len(bench.store.ids()) == bench.told.rows == 98
    assert bench.told.refused == len(bench.dead) == 2


def test_a_guilty_row_that_cannot_be_set_aside_is_kept(bench: Bench) -> None:
    fill(bench.folder, 4)
    bench.store.fail = _refuses(2)
    (bench.folder / "dead").write_text("in the way")
    bench.steps(3)
    assert bench.told.refused == 0
    (bench.folder / "dead").unlink()
    bench.until_idle()
    assert (bench.told.rows, bench.told.refused, len(bench.dead)) == (3, 1, 1)


def test_setting_aside_twice_makes_one_file(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    for _ in range(2):
        with closing(Bench(tmp_path)) as bench:
            bench.store.fail = lambda rows: _refuses(0)(rows) or (REFUSED if b'"r1"' in rows[0] else None)
            bench.steps(3)
            assert len(bench.dead) == 1


# ---------------------------------------------------------------------------------------------- the end, and the old


def test_draining_ends_when_nothing_waits(bench: Bench) -> None:
    fill(bench.folder, 250)
    bench.shipper.drain(bench.now + 1)
    assert len(bench.store.ids()) == 250


def test_draining_does_not_wait_for_a_try_beyond_its_end(bench: Bench) -> None:
    fill(bench.folder, 10)
    bench.store.fail = lambda rows: MISSING
    before = time.monotonic()
    bench.shipper.drain(bench.now + CONFIGURATION_S)
    assert time.monotonic() - before < CONFIGURATION_S / 3
    assert bench.store.sizes == [10]


def test_draining_tries_again_until_its_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(bench.folder, 10)
    bench.store.fail = _fails(3, REFUSED)
    monkeypatch.setattr(time, "sleep", bench.sleep)
    bench.shipper.drain(bench.now + 1)
    assert len(bench.store.ids()) == 10


@pytest.mark.parametrize("days", [7, 0.5])
def test_old_rows_are_deleted_some_at_a_time_when_there_is_time(tmp_path: Path, days: float) -> None:
    fill(tmp_path, 150)
    with closing(Bench(tmp_path, batch_rows=100, keep_days=days)) as bench:
        bench.store.deletable = 2 * DELETE_ROWS + 1
        bench.steps(1)
        assert not bench.store.deletes, "rows that wait go first"
        started = bench.now
        bench.steps(12)
        assert [limit for _, limit in bench.store.deletes] == [DELETE_ROWS] * 3
        assert bench.now - started < 4
        age = datetime.now(UTC) - bench.store.deletes[0][0]
        assert timedelta(days=days) <= age < timedelta(days=days, minutes=1)
        bench.now += 60
        bench.steps(2)
        assert len(bench.store.deletes) == 4


def test_without_an_age_nothing_is_deleted(bench: Bench) -> None:
    bench.now += 1000
    bench.steps(5)
    assert not bench.store.deletes
