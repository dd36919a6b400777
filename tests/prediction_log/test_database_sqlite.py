"""What a store over a file says when the file is in use, missing, foreign or spoilt."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from prediction_log.database import Store
from tests.prediction_log.samples import failure, predictions


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "log.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """A prepared store."""
    with closing(Store(f"sqlite:///{path}")) as opened:
        opened.prepare()
        yield opened


def test_a_file_in_use_is_given_up_soon(store: Store, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        told = failure(store.insert, "predictions", predictions(1))
        assert told.said == ("retry", "SQLITE_BUSY")
        assert told.seconds < 1.5
        other.execute("ROLLBACK")
    assert store.insert("predictions", predictions(1)) == 1


def test_a_reader_does_not_hold_us_up(store: Store, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM inference_logs").fetchall()
        assert store.insert("predictions", predictions(1)) == 1


def test_a_full_disk_is_waited_for(store: Store) -> None:
    """A limit on the file's pages is what sqlite itself calls a full disk."""
    store.insert("predictions", predictions(1))
    pages = store._run(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar())
    store._run(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}"))
    assert failure(store.insert, "predictions", predictions(*range(2, 500))).said == ("retry", "SQLITE_FULL")
    store._run(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1000000"))
    assert store.insert("predictions", predictions(*range(2, 500))) == 498


def test_a_table_that_is_gone_waits_for_somebody(store: Store) -> None:
    store._run(lambda c: c.exec_driver_sql("DROP TABLE inference_logs"))
    assert failure(store.insert, "predictions", predictions(1)).said == ("configuration", "SQLITE_ERROR")


def test_a_folder_that_is_not_there_waits_for_somebody(path: Path) -> None:
    with closing(Store(f"sqlite:///{path.parent}/hunter2/log.db")) as store:
        told = failure(store.prepare)
    assert told.said == ("configuration", "SQLITE_CANTOPEN")
    assert "hunter2" not in str(told.error)


def test_a_file_that_is_no_database_is_not_touched(path: Path) -> None:
    path.write_bytes(b"something else" * 1000)
    with closing(Store(f"sqlite:///{path}")) as store:
        assert failure(store.prepare).said == ("configuration", "SQLITE_NOTADB")
    assert path.read_bytes() == b"something else" * 1000


def test_nothing_is_left_beside_the_file(path: Path) -> None:
    with closing(Store(f"sqlite:///{path}")) as store:
        store.prepare()
        store.insert("predictions", predictions(1))
    assert os.listdir(path.parent) == ["log.db"]
