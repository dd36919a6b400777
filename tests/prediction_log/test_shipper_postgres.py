"""The shipper against a real PostgreSQL to which everything happens: each record lands once, or is set aside."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from prediction_log import shipper as shipper_module
from prediction_log.database import Store
from prediction_log.record import Captured, Timing
from prediction_log.status import read_status
from tests.harness import SOON_S, wait_until
from tests.postgres import Postgres
from tests.prediction_log.faults import DISK_FULL, LOCK_NOT_AVAILABLE, disk_of_its_own, frozen, locked
from tests.prediction_log.shipping import (
    SUBJECT_JSON,
    Told,
    fill,
    follow,
    journal,
    predict,
    shipper_process,
    shipping,
)

# The longest pause between two tries, and a busy machine.
HEALED_S = 5.0 + SOON_S


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody must heal is tried each half second, not each half minute."""
    monkeypatch.setattr(shipper_module, "CONFIGURATION_S", 0.5)


def _count(postgres: Postgres) -> int:
    ((count,),) = postgres.execute("SELECT count(*) FROM inference_logs")
    return int(count)


def _all_landed_once(postgres: Postgres, count: int) -> None:
    """r0 to r<count - 1> are in the table, once each, with the numbers they were sent with."""
    found = postgres.execute("SELECT request_id, features, prediction FROM inference_logs")
    assert len(found) == count
    assert {(request_id, orjson.loads(features)[0], prediction) for request_id, features, prediction in found} == {
        (f"r{number}", number, 2.0 * number) for number in range(count)
    }


def _until_shipped(told: Told, rows: int) -> None:
    wait_until(lambda: told.rows >= rows, HEALED_S, f"{rows} rows are shipped")
    assert told.rows == rows


def _until_more(count: Callable[[], int]) -> None:
    before = count()
    wait_until(lambda: count() > before, HEALED_S, "some rows are shipped")


# ---------------------------------------------------------------------------------------------- PostgreSQL goes down


def test_a_database_that_is_down_at_the_start(postgres: Postgres, tmp_path: Path, told: Told) -> None:
    postgres.stop()
    fill(tmp_path, 5000)
    with follow(tmp_path, postgres.url(), told):
        wait_until(lambda: len(told.sqlstates) > 2, SOON_S, "some tries")
        postgres.start()
        _until_shipped(told, 5000)
    _all_landed_once(postgres, 5000)


def test_a_database_that_is_killed_again_and_again_under_load(postgres: Postgres, tmp_path: Path, told: Told) -> None:
    with follow(tmp_path, postgres.url(), told):
        for round_ in range(5):
            fill(tmp_path, 2000, first=2000 * round_)
            _until_more(lambda: told.rows)
            postgres.kill()
            postgres.start()
        _until_shipped(told, 10_000)
    _all_landed_once(postgres, 10_000)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_database_that_is_restarted(postgres: Postgres, tmp_path: Path, told: Told, mode: str) -> None:
    with follow(tmp_path, postgres.url(), told):
        for round_ in range(5):
            fill(tmp_path, 1000, first=1000 * round_)
            tries = len(told.sqlstates)
            postgres.restart(mode)
            _until_shipped(told, 1000 * (round_ + 1))
            assert len(told.sqlstates) - tries <= 6
    _all_landed_once(postgres, 5000)


def test_a_frozen_database_holds_up_a_try_for_seconds_and_ending_too(
    postgres: Postgres, tmp_path: Path, told: Told
) -> None:
    fill(tmp_path, 100)
    with shipping(tmp_path, postgres.url(), told) as shipper:
        shipper.drain(time.monotonic() + SOON_S)
        fill(tmp_path, 1000, first=100)
        with frozen(postgres):
            for _ in range(2):
                before = time.monotonic()
                shipper.step()
                assert time.monotonic() - before < 2.5
            before = time.monotonic()
            shipper.drain(time.monotonic() + 2.0)
            shipper.close()
            assert time.monotonic() - before < 4.5
    assert told.rows == 100
    with shipping(tmp_path, postgres.url(), told) as shipper:
        shipper.drain(time.monotonic() + SOON_S)
    assert told.rows == 1100
    _all_landed_once(postgres, 1100)


# ---------------------------------------------------------------------------------------------- PostgreSQL refuses


def test_a_table_that_is_locked(postgres: Postgres, tmp_path: Path, told: Told) -> None:
    fill(tmp_path, 100)
    with shipping(tmp_path, postgres.url(), told) as shipper:
        shipper.drain(time.monotonic() + SOON_S)
        fill(tmp_path, 100, first=100)
        with locked(postgres):
            before = time.monotonic()
            shipper.step()
            assert time.monotonic() - before < 1.0
        assert told.sqlstates == [LOCK_NOT_AVAILABLE]
        shipper.drain(time.monotonic() + SOON_S)
    _all_landed_once(postgres, 200)


def test_a_disk_that_is_full(postgres: Postgres, tmp_path: Path, told: Told) -> None:
    with follow(tmp_path, postgres.url(), told) as stop:
        fill(tmp_path, 100)
        _until_shipped(told, 100)
        with disk_of_its_own(postgres) as disk:
            with disk.full():
                fill(tmp_path, 5000, first=100)
                wait_until(lambda: DISK_FULL in told.sqlstates, SOON_S, "the disk is full")
            _until_shipped(told, 5100)
            _all_landed_once(postgres, 5100)
            stop()


@pytest.mark.usefixtures("_soon")
def test_tables_that_are_dropped_are_made_again(postgres: Postgres, tmp_path: Path, told: Told) -> None:
    with follow(tmp_path, postgres.url(), told):
        fill(tmp_path, 100)
        _until_shipped(told, 100)
        postgres.execute("DROP TABLE inference_logs, inference_feedback, inference_log_schema")
        fill(tmp_path, 100)
        _until_shipped(told, 200)
    _all_landed_once(postgres, 100)
    assert told.conditions[-1] is None
    assert "42P01" in str(told.conditions[-2])


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize(
    ("fault", "cure", "sqlstate"),
    [
        ("REVOKE INSERT ON inference_logs FROM app", "GRANT INSERT ON inference_logs TO app", "42501"),
        (
            "ALTER TABLE inference_logs RENAME COLUMN model TO m",
            "ALTER TABLE inference_logs RENAME m TO model",
            "42703",
        ),
        ("ALTER TABLE inference_logs RENAME TO away", "ALTER TABLE away RENAME TO inference_logs", "42P01"),
    ],
    ids=["permission", "column", "table"],
)
def test_what_somebody_must_heal_is_said_until_it_is_healed(
    postgres: Postgres, tmp_path: Path, told: Told, fault: str, cure: str, sqlstate: str
) -> None:
    with follow(tmp_path, postgres.url(), told):
        fill(tmp_path, 100)
        _until_shipped(told, 100)
        postgres.execute(fault)
        fill(tmp_path, 100, first=100)
        wait_until(lambda: told.conditions, SOON_S, "it says why nothing is shipped")
        assert sqlstate in str(told.conditions[0])
        postgres.execute(cure)
        _until_shipped(told, 200)
    _all_landed_once(postgres, 200)
    assert told.conditions[-1] is None


@pytest.mark.usefixtures("_soon")
def test_a_password_that_is_changed(
    postgres: Postgres, tmp_path: Path, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    right = postgres.password
    with follow(tmp_path, postgres.url(), told):
        fill(tmp_path, 100)
        _until_shipped(told, 100)
        postgres.set_password("another")
        fill(tmp_path, 100, first=100)
        wait_until(lambda: any("28P01" in str(text) for text in told.conditions), SOON_S, "the password is refused")
        postgres.set_password(right)
        _until_shipped(told, 200)
    _all_landed_once(postgres, 200)
    said = caplog.text + str(told.conditions) + str(read_status(tmp_path))
    assert right not in said
    assert "127.0.0.1" not in said


# ---------------------------------------------------------------------------------------------- rows


HOSTILE: dict[str, str | bytes] = {
    "nul": '{"x": "a\\u0000b"}',
    "surrogate": '{"x": "\\ud800"}',
    "raw surrogate": b'{"x": "\xed\xa0\x80"}',
    "long": '{"x": "' + "é" * 1_500_000 + '"}',
    "emoji": '{"x": "🧨👩‍👩‍👧"}',
    "drop": '{"x": "\'; DROP TABLE inference_logs; --"}',
    "digits": '{"x": 1234567890123456789012345}',
    "control": '{"x": "\\u0001\\u001b[31m\\u007f\\u2028"}',
    "escapes": '{"x": "\\\\u0000 %s %(x)s :x $1 \\" {}"}',
    "nothing": b"\xff\xfe\x00",
    "deep": '{"x": ' + "[" * 900 + "]" * 900 + "}",
    "copy end": '{"x": "\\\\."}',
}


def test_hostile_texts_land_whole(postgres: Postgres, tmp_path: Path, told: Told) -> None:
    bodies = {name: body if isinstance(body, bytes) else body.encode() for name, body in HOSTILE.items()}
    with journal(tmp_path) as into:
        for name, body in bodies.items():
            assert into.prediction(
                name + "\0", subject=SUBJECT_JSON, status=400, code="\0x", features_are=Captured.BODY, features=body
            )
        predict(into, "last", x=1)
    with closing(Store(postgres.url())) as store, shipping(tmp_path, postgres.url(), told) as shipper:
        shipper.drain(time.monotonic() + SOON_S)
        assert (told.rows, told.refused, told.sqlstates) == (len(bodies) + 1, 0, [])
        assert store.counts().predictions == len(bodies) + 1
    found = dict(postgres.execute("SELECT request_id, features FROM inference_logs"))
    assert found.pop("last") == "[1]"
    assert found.keys() == {name + "\ufffd" for name in bodies}
    for name, body in bodies.items():
        try:
            sent = orjson.loads(body)["x"] if name != "digits" else int(body[6:-1])
        except orjson.JSONDecodeError:
            sent = "\ud800" if name == "surrogate" else body.decode(errors="replace")
        assert json.loads(found[name + "\ufffd"]) == sent, name


def test_rows_that_no_column_takes_are_set_aside_and_all_others_land(
    postgres: Postgres, tmp_path: Path, told: Told
) -> None:
    guilty = random.Random(5).sample(range(1000), 7)
    with journal(tmp_path) as into:
        for number in range(1000):
            if number in guilty:
                beyond = Timing(0, 0, 1, 2**64 - 1)  # no bigint
                assert into.prediction(f"r{number}", subject=SUBJECT_JSON, status=200, items=(beyond,))
            else:
                predict(into, f"r{number}", x=number)
        assert into.feedback("r1", 2**40, b'"no integer"')
        assert into.feedback("r1", 0, b'"cat"')
    with shipping(tmp_path, postgres.url(), told) as shipper:
        shipper.drain(time.monotonic() + SOON_S)
    assert (told.rows, told.refused, told.sqlstates) == (1000 - 7 + 1, 8, [])
    landed = {request_id for (request_id,) in postgres.execute("SELECT request_id FROM inference_logs")}
    assert landed == {f"r{number}" for number in range(1000) if number not in guilty}
    assert postgres.execute("SELECT request_id, label FROM inference_feedback") == [["r1", "cat"]]
    dead = [orjson.loads(path.read_bytes()) for path in (tmp_path / "dead").iterdir()]
    assert sorted(one["row"]["request_id"] for one in dead) == sorted([f"r{number}" for number in guilty] + ["r1"])
    assert {one["sqlstate"] for one in dead} == {"22003"}


# ---------------------------------------------------------------------------------------------- the shipper goes down


def test_a_shipper_that_is_killed_at_any_instant_loses_and_doubles_nothing(
    postgres: Postgres, tmp_path: Path, told: Told
) -> None:
    chance = random.Random(3)
    with closing(Store(postgres.url())) as store:
        store.prepare()
    kills, each = 20, 3000
    for kill in range(kills):
        fill(tmp_path, each, first=kill * each)
        with shipper_process(tmp_path, postgres.url()) as process:
            _until_more(lambda: _count(postgres))
            time.sleep(chance.uniform(0, 0.1))
            assert process.poll() is None
    with shipping(tmp_path, postgres.url(), told) as shipper:
        shipper.drain(time.monotonic() + SOON_S)
    _all_landed_once(postgres, kills * each)
    assert told.refused == 0
