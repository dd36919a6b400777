"""What a store takes in: each row once, hostile ones whole or refused by themselves, and no word about the password."""

from __future__ import annotations

import json
import logging
import threading
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, text

from prediction_log.database import Store
from prediction_log.sqlstate import StoreError
from tests.postgres import Postgres
from tests.prediction_log.samples import failure, feedback, prediction, predictions

SECRET = "s3cr3t"  # noqa: S105 - a part of the test server's password


def column(store: Store, name: str) -> list[Any]:
    """A column of inference_logs, oldest row first."""
    return store._run(lambda c: list(c.execute(text(f"SELECT {name} FROM inference_logs ORDER BY id")).scalars()))  # noqa: S608


def test_each_row_is_inserted_once(any_store: Store) -> None:
    assert any_store.insert("predictions", predictions(1, 2, 3)) == 3
    assert any_store.insert("predictions", predictions(2, 3, 4, 4)) == 1
    assert any_store.insert("predictions", [prediction(4, row_number=1)]) == 1
    assert any_store.insert("predictions", []) == 0
    assert column(any_store, "prediction") == [2.0, 4.0, 6.0, 8.0, 8.0]


def test_feedback_has_a_table_of_its_own(any_store: Store) -> None:
    assert any_store.insert("feedback", [feedback(1, "cat"), feedback(2, "dog")]) == 2
    assert any_store.insert("feedback", [feedback(1, "cat")]) == 0
    counts = any_store.counts()
    assert (counts.predictions, counts.feedback) == (0, 2)


def test_a_row_comes_back_as_it_was_given(any_store: Store) -> None:
    given = prediction(1, top_label="cat", top_score=0.75)
    any_store.insert("predictions", [given])
    (row,) = any_store._run(lambda c: c.execute(text("SELECT * FROM inference_logs")).mappings().all())
    found = {**row, "record_id": str(row["record_id"]), "outputs": column(any_store, "CAST(outputs AS text)")[0]}
    assert found.pop("id") == 1
    time = datetime.fromisoformat(str(found.pop("created_at"))).replace(tzinfo=UTC)
    expected = json.loads(given)
    assert time == datetime.fromisoformat(expected.pop("created_at"))
    assert found == expected


WHOLE = {
    "an emoji and a right-to-left mark": "\N{PILE OF POO}\N{RIGHT-TO-LEFT MARK}\N{COMBINING ACUTE ACCENT}",
    "an SQL injection": "'; DROP TABLE inference_logs; --",
    "a driver's and SQLAlchemy's placeholders": "%s %(x)s :rows ? $1 {0} \\",
    "control characters": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "an escaped NUL and a lone surrogate within JSON": json.dumps(["\x00", "\ud800"]),
    "25 digits": "[1234567890123456789012345, 1e400, 0.1234567890123456789012345]",
    "10 MB": "x" * 10_000_000,
}


@pytest.mark.parametrize("features", WHOLE.values(), ids=WHOLE)
def test_whatever_is_text_lands_whole(any_store: Store, features: str) -> None:
    assert any_store.insert("predictions", [prediction(1, features=features), prediction(2)]) == 2
    assert column(any_store, "features")[0] == features


def test_json_keeps_the_digits_and_escapes_that_it_came_with(any_store: Store) -> None:
    outputs = r'{"b": 1234567890123456789012345, "a": 1e400, "a": "\u0000\ud800"}'
    assert any_store.insert("predictions", [prediction(1, outputs=outputs)]) == 1
    assert column(any_store, "CAST(outputs AS text)") == [outputs]


BAD = {
    "a NUL": prediction(0, error="\x00"),
    "a lone surrogate": prediction(0, error="\ud800"),
    "a 25-digit number for a column of 64 bits": prediction(0, batch_id=1234567890123456789012345),
    "text for a number": prediction(0, prediction="many"),
    "outputs that are no JSON": prediction(0, outputs="[NaN]"),
    "outputs nested too deep": prediction(0, outputs="[" * 100_000 + "]" * 100_000),
    "no features": prediction(0, features=None),
    "no time": prediction(0, created_at="yesterday, perhaps"),
    "an id that no index can hold": prediction(0, request_id="".join(map(chr, range(300, 6000)))),
    "bytes that are no UTF-8": prediction(0)[:-1] + b',"error":"\xff"}',
    "a raw NUL": prediction(0)[:-1] + b',"error":"\x00"}',
    "half a row": prediction(0)[:100],
}


def insert_in_halves(store: Store, rows: Sequence[bytes]) -> tuple[int, list[bytes]]:
    """How many of the rows are in, and those that are refused: what the shipper does."""
    try:
        return store.insert("predictions", rows), []
    except StoreError as error:
        if error.kind != "row":
            raise
        if len(rows) == 1:
            return 0, list(rows)
    middle = len(rows) // 2
    first, second = (insert_in_halves(store, half) for half in (rows[:middle], rows[middle:]))
    return first[0] + second[0], first[1] + second[1]


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_row_is_found_and_the_others_land(store: Store, bad: bytes) -> None:
    rows = [*predictions(*range(1, 8)), bad, *predictions(*range(8, 20))]
    assert failure(store.insert, "predictions", rows).error.kind == "row"
    assert store.counts().predictions == 0
    assert insert_in_halves(store, rows) == (19, [bad])
    assert column(store, "request_id") == [f"request-{n}" for n in range(1, 20)]


@pytest.mark.parametrize("bad", ["no features", "no time", "half a row", "bytes that are no UTF-8"])
def test_sqlite_refuses_what_would_not_be_a_row(any_store: Store, bad: str) -> None:
    rows = [*predictions(1, 2), BAD[bad]]
    assert insert_in_halves(any_store, rows) == (2, [BAD[bad]])


def backends(postgres: Postgres) -> list[int]:
    """The process ids that serve the role."""
    return [pid for (pid,) in postgres.execute("SELECT pid FROM pg_stat_activity WHERE usename = 'app' ORDER BY pid")]


def test_a_text_that_breaks_off_half_way_does_not_poison_the_pool(postgres: Postgres, store: Store) -> None:
    """pg8000 leaves such a connection one answer behind, and SQLAlchemy would put it back into the pool."""
    before = backends(postgres)
    for _ in range(4):
        told = failure(store._run, lambda c: c.execute(text("SELECT CAST(:x AS text)"), {"x": "\ud800"}).scalar())
        assert told.error.kind == "row"
    assert not set(before) & set(backends(postgres))
    both = threading.Barrier(2, timeout=10)
    answers: list[tuple[int, int]] = []

    def ask(number: int) -> None:
        def work(connection: Connection) -> None:
            both.wait()  # each thread has a connection of its own: all that the pool has
            question = text("SELECT CAST(:n AS integer)")
            answers.extend((n, connection.execute(question, {"n": n}).scalar_one()) for n in range(number, number + 3))

        store._run(work)

    threads = [threading.Thread(target=ask, args=(number,)) for number in (10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [(n, n) for n in (10, 11, 12, 20, 21, 22)]


def test_a_refused_row_costs_no_connection(postgres: Postgres, store: Store) -> None:
    before = backends(postgres)
    for bad in BAD.values():
        if bad != BAD["bytes that are no UTF-8"]:  # that one does not get as far as the server
            failure(store.insert, "predictions", [bad])
    assert backends(postgres) == before
    assert store.insert("predictions", predictions(1)) == 1


def test_a_whole_pool_in_use_is_worth_another_try(store: Store) -> None:
    with store._engine.connect(), store._engine.connect():
        told = failure(store.insert, "predictions", predictions(1))
    assert told.said == ("retry", "")
    assert told.seconds < 1.5
    assert store.insert("predictions", predictions(1)) == 1


def test_the_password_is_told_nobody(postgres: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("sqlalchemy", "sqlalchemy.engine", "sqlalchemy.pool"):
        caplog.set_level(logging.DEBUG, logger=name)  # before the engine is made: it asks then
    store = Store(postgres.url())
    shown = [repr(store), str(vars(store)), repr(store._engine), repr(store._engine.url)]
    store.prepare()
    store.insert("predictions", predictions(1))
    faults = [postgres.stop, postgres.start, lambda: postgres.set_password("changed-s3cr3t"), postgres.kill]
    for fault in faults:
        fault()
        for _ in range(2):
            try:
                store.insert("predictions", [prediction(1, error=None)])
            except StoreError as error:
                shown += [str(error), repr(error), repr(error.args), *traceback.format_exception(error)]
    store.close()
    logged = [record.getMessage() + str(record.exc_info or "") for record in caplog.records]
    assert any("SQLSTATE" in line or "28P01" in line for line in logged)
    assert not [line for line in (*shown, *logged, caplog.text) if SECRET in line or "pw-" in line]


def test_a_lost_connection_is_one_line_in_the_log(
    postgres: Postgres, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLAlchemy's pool would write its traceback of 40 lines."""
    caplog.set_level(logging.DEBUG, logger="inference.log")
    store.insert("predictions", predictions(1))
    postgres.restart("immediate")
    failure(store.insert, "predictions", predictions(2))
    assert [(record.name, record.exc_info) for record in caplog.records] == [("inference.log", None)]
    assert len(caplog.text.splitlines()) == 1
