"""`log ship`: everything a dead server has left, once; what is refused or out of reach stays or is set aside."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

from commands.log_records import segments
from prediction_log.inbox import Inbox
from tests.commands.log_program import WRONG, log, refuse, rows_so_far, started, table, writer
from tests.harness import SOON_S, wait_until
from tests.postgres import Postgres


def test_ship_takes_all_of_a_dead_servers_spool(folder: Path, database: str) -> None:
    with writer(folder) as made:
        for value in range(3000):
            made.predict(value)
    done = log("ship", "--json", folder=folder, url=database)
    assert done.code == 0, done
    assert done.json == {
        "shipped_rows": 3000, "set_aside_rows": 0, "damaged_records": 0, "left_bytes": 0, "error": None,
    }  # fmt: skip
    assert table(database) == [value * 2.0 for value in range(3000)]
    assert not segments(folder)
    again = log("ship", folder=folder, url=database)
    assert again.code == 0
    assert "0 rows" in again.out


def test_ship_says_what_it_had_to_set_aside(folder: Path, database: str) -> None:
    refuse(database, "new.prediction = 4")
    with writer(folder) as made:
        for value in range(5):
            made.predict(value)
    done = log("ship", "--json", folder=folder, url=database)
    assert done.code == 1
    assert (done.json["shipped_rows"], done.json["set_aside_rows"], done.json["left_bytes"]) == (4, 1, 0)


def test_ship_leaves_everything_where_the_database_refuses_us(folder: Path, postgres: Postgres) -> None:
    with writer(folder) as made:
        made.predict(1)
    done = log("ship", "--json", folder=folder, url=postgres.url(password=WRONG))
    assert done.code == 1
    assert done.json["left_bytes"] > 0
    assert "password" in done.json["error"]
    assert log("ship", folder=folder, url=postgres.url()).code == 0
    assert postgres.execute("SELECT prediction FROM inference_logs") == [[2.0]]


def test_ship_leaves_a_folder_to_whoever_ships_it_already(folder: Path, database: str) -> None:
    with writer(folder) as made:
        made.predict(1)
    with closing(Inbox(folder)) as inbox:
        inbox.lock()
        done = log("ship", folder=folder, url=database)
    assert done.code == 1
    assert f"process {os.getpid()} ships" in done.err
    assert done.err.count("\n") == 1


def test_ship_goes_on_beside_living_writers_until_it_is_told_to_stop(folder: Path, database: str) -> None:
    with started("ship", "--follow", "--json", folder=folder, url=database) as process, writer(folder) as made:
        made.predict(1)
        wait_until(lambda: rows_so_far(database) == [2.0], SOON_S, "the first row is in the table")
        made.predict(2)
        process.terminate()
        out, _ = process.communicate(timeout=SOON_S)
        assert process.returncode == 0
        assert json.loads(out)["left_bytes"] == 0
        assert table(database) == [2.0, 4.0]
