"""The tables come to be: from nothing, from the older service's table with its rows, and by two processes at once."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    DateTime,
    Float,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    func,
    insert,
    inspect,
    select,
    text,
)

from prediction_log import address, database
from prediction_log.database import Store
from tests.harness import ROOT
from tests.postgres import Postgres
from tests.prediction_log.samples import failure, feedback, prediction, predictions

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

# The older service's, word for word where SQL decides.
OLD = """
    SET ROLE app;
    CREATE TABLE inference_logs (
        id serial PRIMARY KEY, created_at timestamp DEFAULT now(), features text NOT NULL,
        prediction double precision NOT NULL
    );
    INSERT INTO inference_logs (features, prediction) SELECT '[' || n || ']', n FROM generate_series(1, 100) n;
    INSERT INTO inference_logs (created_at, features, prediction) VALUES
        ('2026-01-01 09:00:00', '[101]', 101), ('2026-07-01 09:00:00', '[102]', 102), (NULL, '[103]', 103)
"""
PREPARE = """
import sys
from prediction_log.database import Store
print("ready", flush=True)
sys.stdin.read()
store = Store(sys.argv[1])
store.prepare()
store.close()
"""


def old_table(postgres: Postgres) -> None:
    """The older service's table, with rows in it."""
    with postgres.session() as session:
        for statement in OLD.split(";"):
            session.run(statement)


def prepare(url: str) -> None:
    """Prepare and close."""
    with closing(Store(url)) as store:
        store.prepare()


def prepare_at_once(url: str, processes: int = 3) -> list[str]:
    """What each of several processes says that prepare at the same time: nothing, when all is well."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PREPARE, url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin
        process.stdin.close()
        process.stdin = None
    return [process.communicate(timeout=60)[1] for process in started]


def columns(store: Store) -> dict[str, str]:
    """Each column of inference_logs and its type."""
    return store._run(
        lambda c: {column["name"]: str(column["type"]) for column in inspect(c).get_columns("inference_logs")}
    )


def test_preparing_twice_changes_nothing(any_store: Store) -> None:
    any_store.insert("predictions", predictions(1))
    any_store.prepare()
    assert any_store.counts().predictions == 1
    assert any_store._run(lambda c: c.execute(text("SELECT version FROM inference_log_schema")).scalars().all()) == [2]


@pytest.mark.parametrize("dropped", ["inference_logs", "inference_feedback", "inference_log_schema"])
def test_one_table_that_was_dropped_is_made_again_and_the_others_keep_their_rows(
    any_store: Store, dropped: str
) -> None:
    any_store.insert("predictions", predictions(1))
    any_store.insert("feedback", [feedback(1, "seven")])
    any_store._run(lambda c: c.execute(text(f"DROP TABLE {dropped}")))
    any_store.prepare()
    counts = any_store.counts()
    assert counts.predictions == (dropped != "inference_logs")
    assert counts.feedback == (dropped != "inference_feedback")
    assert any_store.insert("predictions", predictions(2)) == 1
    assert any_store.insert("feedback", [feedback(2, "eight")]) == 1


def test_tables_of_version_1_keep_their_rows_and_get_the_new_column(any_store: Store) -> None:
    any_store.insert("predictions", predictions(1))
    any_store._run(lambda c: c.execute(text("ALTER TABLE inference_logs DROP COLUMN traceparent")))
    any_store._run(lambda c: c.execute(text("UPDATE inference_log_schema SET version = 1")))
    assert not any_store.is_prepared()
    assert failure(any_store.insert, "predictions", predictions(2)).error.kind == "configuration"
    any_store.prepare()
    assert any_store.is_prepared()
    assert any_store.insert("predictions", [prediction(2, traceparent=TRACEPARENT)]) == 1
    found = any_store._run(
        lambda c: c.execute(text("SELECT traceparent FROM inference_logs ORDER BY id")).scalars().all()
    )
    assert found == [None, TRACEPARENT]


def test_the_promised_columns_are_there(any_store: Store) -> None:
    assert list(columns(any_store))[:4] == ["id", "created_at", "features", "prediction"]


@pytest.mark.parametrize("with_old_table", [False, True])
def test_processes_that_prepare_at_once_all_succeed(postgres: Postgres, with_old_table: bool) -> None:
    if with_old_table:
        old_table(postgres)
    assert prepare_at_once(postgres.url()) == ["", "", ""]
    assert postgres.execute("SELECT version FROM inference_log_schema") == [[2]]


def test_processes_that_prepare_a_file_at_once_all_succeed(tmp_path: Path) -> None:
    assert prepare_at_once(f"sqlite:///{tmp_path / 'log.db'}") == ["", "", ""]


def test_the_older_services_rows_are_kept_and_their_times_read_in_its_zone(postgres: Postgres) -> None:
    postgres.execute("ALTER DATABASE inference SET timezone = 'Europe/Berlin'")
    old_table(postgres)
    with closing(Store(postgres.url())) as store:
        store.prepare()
        rows = postgres.execute("SELECT id, features, prediction, created_at, model FROM inference_logs ORDER BY id")
        assert [row[:3] for row in rows] == [[n, f"[{n}]", n] for n in range(1, 104)]
        times = [row[3] for row in rows]
        assert times[100:102] == [datetime(2026, 1, 1, 8, tzinfo=UTC), datetime(2026, 7, 1, 7, tzinfo=UTC)]
        now = datetime.now(UTC)
        assert all(abs((now - time).total_seconds()) < 60 for time in (*times[:100], times[102]))
        assert {row[4] for row in rows} == {None}
        assert store.insert("predictions", predictions(1)) == 1


def test_an_adopted_table_has_what_a_new_one_has(postgres: Postgres) -> None:
    """Only the way in which ids are made differs."""
    definition = """
        SELECT column_name, data_type, is_nullable, collation_name, column_default FROM information_schema.columns
        WHERE table_name = 'inference_logs' AND column_name <> 'id' ORDER BY ordinal_position
    """
    indexes = "SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'inference%' ORDER BY indexname"
    found = []
    for adopted in (False, True):
        if adopted:
            old_table(postgres)
        prepare(postgres.url())
        found.append((postgres.execute(definition), postgres.execute(indexes)))
        postgres.execute("DROP OWNED BY app")
        postgres.execute("GRANT ALL ON SCHEMA public TO app")
    assert found[0] == found[1]


def test_ids_of_an_adopted_table_go_beyond_32_bits(postgres: Postgres) -> None:
    old_table(postgres)
    with closing(Store(postgres.url())) as store:
        store.prepare()
        postgres.execute("SELECT setval('inference_logs_id_seq', 2147483647)")
        store.insert("predictions", predictions(1))
    assert postgres.execute("SELECT max(id) FROM inference_logs") == [[2147483648]]


def test_the_older_service_may_go_on_writing(postgres: Postgres) -> None:
    old_table(postgres)
    prepare(postgres.url())
    postgres.execute("INSERT INTO inference_logs (features, prediction) VALUES ('[1]', 0.5)")
    assert postgres.execute(
        "SELECT id, created_at > now() - interval '1 min' FROM inference_logs WHERE prediction = 0.5"
    ) == [[104, True]]


def old_file(path: Path) -> Any:
    """A table such as SQLAlchemy makes it in sqlite, with rows."""
    logs = Table(
        "inference_logs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("created_at", DateTime, server_default=func.now()),
        Column("features", Text, nullable=False),
        Column("prediction", Float, nullable=False),
    )
    engine = create_engine(f"sqlite:///{path}")
    logs.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(logs), [{"features": f"[{n}]", "prediction": n} for n in range(5)])
        connection.execute(insert(logs), {"created_at": datetime(2026, 1, 1, 9), "features": "[5]", "prediction": 5})  # noqa: DTZ001
        connection.execute(insert(logs), {"created_at": None, "features": "[6]", "prediction": 6})
    engine.dispose()
    return logs


def test_a_file_of_the_older_service_is_adopted(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    logs = old_file(path)
    with closing(Store(f"sqlite:///{path}")) as store:
        store.prepare()
        assert store.insert("predictions", predictions(1)) == 1
        assert store.counts().predictions == 8
        assert store.delete_older(datetime(2026, 2, 1, tzinfo=UTC), 10) == 1
        engine = create_engine(f"sqlite:///{path}")
        with engine.connect() as connection:  # as the older service reads it
            rows = connection.execute(select(logs).order_by(logs.c.id)).all()
        engine.dispose()
    assert [(row.id, row.features) for row in rows[:6]] == [(n + 1, f"[{n}]") for n in (0, 1, 2, 3, 4, 6)]
    now = datetime.now(UTC)
    assert all(abs((now - row.created_at.replace(tzinfo=UTC)).total_seconds()) < 60 for row in rows[:6])


def test_tables_of_a_newer_release_are_left_alone(any_store: Store) -> None:
    any_store._run(lambda c: c.execute(text("UPDATE inference_log_schema SET version = 7")))
    told = failure(any_store.prepare)
    assert told.said == ("configuration", "")
    assert "version 7" in str(told.error)


def test_a_user_who_may_make_no_tables_uses_those_that_are_there(postgres: Postgres) -> None:
    postgres.execute("CREATE ROLE owner LOGIN")
    prepare(postgres.url())
    postgres.execute("REASSIGN OWNED BY app TO owner")
    postgres.execute("REVOKE ALL ON SCHEMA public FROM app, public")
    postgres.execute("GRANT USAGE ON SCHEMA public TO app")
    assert failure(prepare, postgres.url()).said == ("configuration", "42501")
    postgres.execute("GRANT SELECT, INSERT ON inference_logs, inference_feedback TO app")
    for drop in ("SELECT 1", "DROP TABLE inference_log_schema"):  # seen but not to be read, and not there at all
        postgres.execute(drop)
        with closing(Store(postgres.url())) as store:
            store.prepare()
            store.insert("predictions", predictions(1))
    assert postgres.execute("SELECT count(*) FROM inference_logs") == [[1]]


def test_a_user_who_may_make_no_tables_is_told_so(postgres: Postgres) -> None:
    postgres.execute("ALTER DATABASE inference OWNER TO postgres")
    postgres.execute("REVOKE ALL ON SCHEMA public FROM app, public")
    postgres.execute("GRANT USAGE ON SCHEMA public TO app")
    told = failure(prepare, postgres.url())
    assert told.said == ("configuration", "42501")
    assert "permission" in str(told.error)


def test_a_table_in_use_is_adopted_later(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MIGRATION", address.Limits(socket_s=5.0, statement_ms=4000, lock_ms=200))
    old_table(postgres)
    with closing(Store(postgres.url())) as store:
        with postgres.session() as session:
            session.run("BEGIN")
            session.run("SELECT * FROM inference_logs")
            told = failure(store.prepare)
            assert told.said == ("retry", "55P03")
            assert told.seconds < 2
            session.run("ROLLBACK")
        store.prepare()
        assert store.counts().predictions == 103


@pytest.mark.parametrize(
    ("obstacle", "sqlstate"),
    [
        ("ALTER TABLE inference_logs DROP features", "42703"),
        ("CREATE VIEW recent AS SELECT created_at FROM inference_logs", "0A000"),
    ],
)
def test_a_table_that_cannot_be_adopted_is_left_as_it_is(postgres: Postgres, obstacle: str, sqlstate: str) -> None:
    old_table(postgres)
    postgres.execute(obstacle)
    assert failure(prepare, postgres.url()).said == ("configuration", sqlstate)
    types = (
        "SELECT data_type FROM information_schema.columns WHERE table_name = 'inference_logs' AND column_name = 'id'"
    )
    assert postgres.execute(types) == [["integer"]]
    assert postgres.execute("SELECT to_regclass('inference_feedback'), to_regclass('inference_log_schema')") == [
        [None] * 2
    ]
