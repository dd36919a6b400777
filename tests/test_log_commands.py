"""`inference_server.py log status|tail|check|ship`: on real spools, and databases that work, hang or refuse."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from commands.log_records import Damage, Reading, segments
from commands.spool import OWNER
from prediction_log.database import Store
from prediction_log.inbox import Inbox
from prediction_log.record import Captured, Encoder, Kind, Timing, decode
from prediction_log.spool import Spool
from tests.batching.test_supervisor_fronts import predict
from tests.harness import ROOT, SOON_S, fake_http_server, wait_until
from tests.postgres import Postgres, postgres_template, running_postgres

PROGRAM = [sys.executable, str(ROOT / "inference_server.py"), "log"]
SECRET = "can@ry/50%"  # noqa: S105 - looked for where it must not be
WRONG = "can@ry"


class Done(NamedTuple):
    """What a command has said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(folder: Path | None = None, url: str | None = None) -> dict[str, str]:
    told = {"PREDICTION_LOG_DIR": str(folder or ""), "DATABASE_URL": url or ""}
    return {**os.environ, **told}


def log(*words: str, folder: Path | None = None, url: str | None = None) -> Done:
    """Run a verb to its end; nothing that it says holds a stack trace or the password."""
    done = subprocess.run(
        [*PROGRAM, *words],
        env=environment(folder, url),
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    for text in (done.stdout, done.stderr):
        assert "Traceback" not in text, text
        assert "can@ry" not in text
        assert "can%40ry" not in text
        assert "\x1b" not in text, "colour in a pipe"
    return Done(done.returncode, done.stdout, done.stderr)


class Writer:
    """Writes records into a folder as a front does."""

    def __init__(self, folder: Path) -> None:
        self._spool = Spool(folder, max_bytes=None, sync="none", segment_bytes=64 * 1024)
        self._encoder = Encoder()

    def predict(self, value: float, model: str = "dummy", rows: int = 1, request_id: str | None = None) -> None:
        subject = {"model": model, "version": "1", "dialect": "native", "endpoint": "/predict", "rows": "instances"}
        self._append(
            Kind.PREDICTION,
            request_id or f"r{value:g}",
            subject=json.dumps({**subject, "value": None}).encode(),
            status=200,
            rows=rows,
            total_us=900,
            items=(Timing(100, 200, rows, 1),),
            features_are=Captured.BODY,
            features=json.dumps({"instances": [[value]] * rows}).encode(),
            outputs_are=Captured.BODY,
            outputs=json.dumps({"ok": True, "predictions": [value * 2] * rows}).encode(),
        )

    def feedback(self, request_id: str) -> None:
        features = {"features_are": Captured.BODY, "features": b'{"row":0,"label":"cat"}'}
        self._append(Kind.FEEDBACK, request_id, **features)

    def spoil(self) -> None:
        """A record that is whole in the spool and yet none of ours."""
        assert self._spool.append(b"no record")

    def close(self) -> None:
        self._spool.close()

    def _append(self, *arguments: Any, **fields: Any) -> None:
        assert self._spool.append(self._encoder.encode(*arguments, **fields))


@contextmanager
def writer(folder: Path) -> Iterator[Writer]:
    made = Writer(folder)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'log.db'}"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_template() as template, running_postgres(template) as running:
        running.set_password(SECRET)
        yield running


def refuse(url: str, trigger: str) -> None:
    """Make the database refuse rows where this holds."""
    path = url.removeprefix("sqlite:///")
    with closing(Store(url)) as store:
        store.prepare()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            f"create trigger t before insert on inference_logs when {trigger} "
            "begin select raise(abort, 'constraint'); end"
        )


@contextmanager
def silent_database() -> Iterator[str]:
    """A URL where connections are accepted and never answered."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"postgresql+pg8000://user:can%40ry@127.0.0.1:{listener.getsockname()[1]}/db?sslmode=disable"


@contextmanager
def started(*words: str, folder: Path, url: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A verb that goes on; it is gone at the end whatever happens."""
    process = subprocess.Popen(
        [*PROGRAM, *words], env=environment(folder, url), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# ---------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize("verb", ["status", "tail", "ship", "check", "replay"])
def test_each_verb_explains_itself_with_an_example(verb: str) -> None:
    done = log(verb, "--help")
    assert done.code == 0
    assert f"inference_server.py log {verb}" in done.out[done.out.index("Example:") :]
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
    assert "log --help" in " ".join(done.stdout.split())


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


# ---------------------------------------------------------------------------------------------- tail


def tailed(folder: Path, *words: str) -> list[dict[str, Any]]:
    done = log("tail", *words, folder=folder)
    assert done.code == 0, done
    return [json.loads(line) for line in done.out.splitlines()]


def test_tail_gives_the_last_rows_of_all_writers_in_the_order_of_time(folder: Path) -> None:
    with writer(folder) as one, writer(folder) as other:
        for value in range(600):  # more than a segment each
            (one if value % 3 else other).predict(value, rows=1 + value % 2)
        assert len(segments(folder)) > 4
        expected = [value for value in range(600) for _ in range(1 + value % 2)]
        rows = tailed(folder, "-n", "500")
        assert [json.loads(row["features"])[0] for row in rows] == expected[-500:]
        assert [json.loads(row["features"])[0] for row in tailed(folder)] == expected[-10:]
        assert len(tailed(folder, "-n", "9999")) == len(expected)
    assert {"record_id", "row_number", "created_at", "queue_ms", "outputs", "truncated"} <= rows[0].keys()


def test_tail_of_one_model_leaves_out_the_others_and_feedback(folder: Path) -> None:
    with writer(folder) as made:
        made.predict(1, model="a")
        made.predict(2, model="b")
        made.feedback("r2")
    assert [row["request_id"] for row in tailed(folder, "--model", "a")] == ["r1"]
    assert tailed(folder)[-1]["label"] == "cat"


def test_tail_without_a_folder_says_so(folder: Path) -> None:
    done = log("tail", folder=folder)
    assert done.code == 1
    assert "there is no folder" in done.err


def test_tail_goes_on_with_what_comes_until_ctrl_c(folder: Path) -> None:
    with writer(folder) as made, started("tail", "--follow", folder=folder) as process:
        assert process.stdout
        made.predict(1)
        assert json.loads(process.stdout.readline())["request_id"] == "r1"
        with writer(folder) as later:  # a front that starts, fills some segments, and ends
            for value in range(2, 400):
                later.predict(value)
        for value in range(2, 400):
            assert json.loads(process.stdout.readline())["request_id"] == f"r{value}"
        made.predict(400)
        assert json.loads(process.stdout.readline())["request_id"] == "r400"
        process.send_signal(signal.SIGINT)
        assert process.wait(SOON_S) == 0
        assert process.stderr
        assert not process.stderr.read()


def test_tail_ends_when_nobody_reads_any_more(folder: Path) -> None:
    with writer(folder) as made, started("tail", "--follow", folder=folder) as process:
        assert process.stdout
        made.predict(1)
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(SOON_S) == 0
        assert process.stderr
        assert not process.stderr.read()
        process.stdout = None


def test_tail_into_head_ends_well(folder: Path) -> None:
    with writer(folder) as made:
        for value in range(5000):
            made.predict(value)
    command = f"{shlex.join(PROGRAM)} tail -n 5000 | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=environment(folder), capture_output=True, text=True, timeout=60)
    first, code = done.stdout.splitlines()
    assert json.loads(first)["request_id"] == "r0"
    assert (code, done.stderr) == ("0", "")


def test_what_a_record_begins_with_is_told_without_decoding(folder: Path) -> None:
    with writer(folder) as made:
        made.predict(1, rows=5)
    (path,) = segments(folder)
    with closing(Reading(path, Damage())) as heads, closing(Reading(path, Damage())) as payloads:
        (head,), (payload,) = heads.heads(), payloads.payloads()
    record = decode(payload)
    assert head == (record.rows, record.created_us)


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
    assert done.code == 1
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


# ---------------------------------------------------------------------------------------------- ship


def table(database: str) -> list[float]:
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
        return [row[0] for row in connection.execute("select prediction from inference_logs order by prediction")]


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
        wait_until(lambda: _rows(database) == [2.0], SOON_S, "the first row is in the table")
        made.predict(2)
        process.terminate()
        out, _ = process.communicate(timeout=SOON_S)
        assert process.returncode == 0
        assert json.loads(out)["left_bytes"] == 0
        assert table(database) == [2.0, 4.0]


def _rows(database: str) -> list[float]:
    try:
        return table(database)
    except sqlite3.OperationalError:  # no table yet
        return []


# ---------------------------------------------------------------------------------------------- beside a server


def test_the_log_is_looked_at_beside_a_running_server(folder: Path, database: str) -> None:
    model = {"name": "double"}
    with fake_http_server([model], prediction_log_dir=str(folder), database_url=database) as server:
        predict(server, "double", 1.5)
        wait_until(lambda: _rows(database) == [3.0], SOON_S, "the row is in the table")
        status = log("status", "--json", folder=folder, url=database)
        assert (status.json["waiting"]["writers_alive"], status.json["waiting"]["rows"]) == (1, 0)
        assert (status.json["database"]["predictions"], status.json["delivered"]["failing"]) == (1, False)
        busy = log("ship", folder=folder, url=database)
        assert busy.code == 1
        assert "ships" in busy.err
        owned = log("check", "--json", folder=folder, url=database)
        assert [name for name, ok in checks(owned).items() if not ok] == ["owner"]
