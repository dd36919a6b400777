"""`inference_server.py log`, `log status` and `log check`: with databases that work, are silent or refuse us."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands.log_records import segments
from commands.spool import OWNER
from tests.batching.test_supervisor_fronts import predict
from tests.commands.log_program import WRONG, Done, log, refuse, rows_so_far, silent_database, writer
from tests.harness import ROOT, SOON_S, fake_http_server, wait_until
from tests.postgres import Postgres

# ---------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize("verb", ["status", "tail", "ship", "check", "replay"])
def test_each_verb_explains_itself_with_an_example(verb: str) -> None:
    done = log(verb, "--help")
    assert done.code == 0
    assert f"inference_server.py log {verb}" in done.out[done.out.index("examples:") :]
    assert "--json" in done.out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["shred"],
        ["tail", "-n", "0"],
        ["tail", "-n", "many"],
        ["replay", "--model", "dummy", "--since", "yesterday", "--against", "2"],
        ["replay", "--model", "dummy", "--since", "1h", "--against", "2", "--tolerance", "-1"],
        ["replay", "--model", "dummy", "--since", "1h"],
        ["status", "--database-url", "sqlite:///x"],
        ["status"],
        ["ship"],
        ["ship", "--dir", "."],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_ends_with_2_and_a_reason(words: list[str]) -> None:
    done = log(*words)
    assert done.code == 2
    assert done.err
    assert not done.out


def test_the_servers_own_help_loads_nothing_of_the_log(tmp_path: Path) -> None:
    code = (
        "import sys, inference_server\n"
        "try: inference_server.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('rich', 'sqlalchemy', 'commands.log') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("[]\n"), done
    assert "\n  log      the prediction log" in done.stdout


@pytest.mark.parametrize("url", ["mysql://user:can%40ry@host/db", "postgresql://user:can@ry@host/db", "can@ry"])
@pytest.mark.parametrize("verb", ["status", "check", "ship"])
def test_an_url_that_is_not_understood_is_refused_without_its_password(verb: str, url: str, folder: Path) -> None:
    folder.mkdir()
    done = log(verb, folder=folder, url=url)
    assert done.code in (1, 2)
    assert "DATABASE_URL" in done.out + done.err


# ---------------------------------------------------------------------------------------------- status


def test_status_says_what_waits_and_whose_writers_live(folder: Path) -> None:
    with writer(folder) as gone:
        gone.predict(1)
    with writer(folder) as living:
        living.predict(2, rows=3)
        done = log("status", "--json", folder=folder)
    assert done.code == 0
    waiting = done.json["waiting"]
    age = waiting.pop("oldest_s")
    size = waiting.pop("bytes")
    assert 0 <= age < SOON_S
    assert 400 < size < 4000
    assert waiting == {
        "segments": 2, "records": 2, "rows": 4, "damaged_records": 0, "writers_alive": 1, "writers_gone": 1,
    }  # fmt: skip
    assert done.json["delivered"]["pid"] is None
    assert done.json["database"] is None


def test_status_of_a_folder_that_is_not_there_is_that_nothing_waits(folder: Path) -> None:
    done = log("status", folder=folder)
    assert done.code == 0
    assert "0 rows" in done.out
    assert not folder.exists()


def test_status_changes_nothing(folder: Path) -> None:
    with writer(folder) as living:
        living.predict(1)
        wait_until(lambda: len(segments(folder)) == 3, SOON_S, "its spares are there")
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        log("status", folder=folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_status_tells_what_was_delivered_and_what_was_set_aside_and_why(folder: Path, database: str) -> None:
    refuse(database, "new.prediction > 10")
    with writer(folder) as made:
        for value in range(10):
            made.predict(value)
        made.spoil()
    log("ship", folder=folder, url=database)
    done = log("status", "--json", folder=folder, url=database)
    assert done.code == 1
    assert done.json["waiting"]["rows"] == 0
    assert done.json["delivered"]["shipped_rows"] == 6
    assert done.json["database"]["predictions"] == 6
    record, row = done.json["set_aside"]
    assert (record["kind"], record["count"]) == ("record", 1)
    assert (row["kind"], row["count"], row["reason"]) == (
        "row", 4, f"a row breaks a constraint of its table ({row['sqlstate']})",
    )  # fmt: skip
    assert len(row["newest"]) == 3
    assert (folder / "dead" / row["newest"][0]["file"]).exists()
    assert row["reason"] in log("status", folder=folder, url=database).out


def test_status_does_not_wait_long_for_a_database_that_is_silent(folder: Path) -> None:
    folder.mkdir()
    with silent_database() as url:
        started_at = time.monotonic()
        done = log("status", "--json", folder=folder, url=url)
        assert time.monotonic() - started_at < 10
    assert done.code == 1
    assert "not" in done.json["database"]["error"]


# ---------------------------------------------------------------------------------------------- check


def checks(done: Done) -> dict[str, bool]:
    return {line["name"]: line["ok"] for line in done.json["checks"]}


def test_check_says_what_is_missing_and_makes_it_when_told_to(folder: Path, database: str) -> None:
    before = log("check", "--json", folder=folder, url=database)
    assert before.code == 1
    assert [name for name, ok in checks(before).items() if not ok] == ["tables"]
    assert "--create" in log("check", folder=folder, url=database).out
    assert log("check", "--create", folder=folder, url=database).code == 0
    after = log("check", "--json", folder=folder, url=database)
    assert after.code == 0
    assert all(checks(after).values())
    assert not folder.exists()


def test_check_of_a_local_log_needs_no_database(folder: Path) -> None:
    folder.mkdir()
    done = log("check", folder=folder)
    assert done.code == 0
    assert all(line.split()[0] == "ok" for line in done.out.splitlines())


def test_check_says_what_to_do_about_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = log("check", "--json", folder=tmp_path / "file" / "spool")
    assert done.code == 1
    assert [name for name, ok in checks(done).items() if not ok] == ["folder"]


def test_check_sees_a_server_that_owns_the_folder(folder: Path) -> None:
    folder.mkdir()
    with (folder / OWNER).open("w") as lock:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = log("check", folder=folder)
    assert done.code == 0
    assert "process 4711" in done.out


def test_check_looks_at_postgresql(folder: Path, postgres: Postgres) -> None:
    assert log("check", "--create", folder=folder, url=postgres.url()).code == 0
    assert log("check", folder=folder, url=postgres.url()).code == 0
    wrong = log("check", folder=folder, url=postgres.url(password=WRONG))
    assert wrong.code == 1
    assert "user and password" in wrong.out
    postgres.execute("UPDATE inference_log_schema SET version = 99")
    newer = log("check", folder=folder, url=postgres.url())
    assert newer.code == 1
    assert "newer release" in newer.out
    postgres.execute("UPDATE inference_log_schema SET version = 1")


# ---------------------------------------------------------------------------------------------- beside a server


def test_the_log_is_looked_at_beside_a_running_server(folder: Path, database: str) -> None:
    model = {"name": "double"}
    with fake_http_server([model], prediction_log_dir=str(folder), database_url=database) as server:
        predict(server, "double", 1.5)
        wait_until(lambda: rows_so_far(database) == [3.0], SOON_S, "the row is in the table")
        status = log("status", "--json", folder=folder, url=database)
        assert (status.json["waiting"]["writers_alive"], status.json["waiting"]["rows"]) == (1, 0)
        assert (status.json["database"]["predictions"], status.json["delivered"]["failing"]) == (1, False)
        busy = log("ship", folder=folder, url=database)
        assert busy.code == 1
        assert "ships" in busy.err
        owned = log("check", "--json", folder=folder, url=database)
        assert (owned.code, all(checks(owned).values())) == (0, True)
