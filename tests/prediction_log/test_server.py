"""The prediction log of a whole server: its processes, its folder, what it tells, what it hides. Fake models."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from prediction_log.record import decode
from prediction_log.rows import expand
from prediction_log.tail import read_all
from tests.batching.test_supervisor_fronts import ask, predict
from tests.harness import ROOT, SOON_S, Server, fake_http_server, listens, supervised, wait_until
from tests.postgres import Postgres, Template, running_postgres

DOUBLE = {"name": "double"}
SECRET = "can@ry/50%"  # noqa: S105 - looked for where it must not be


@pytest.fixture
def postgres(template: Template) -> Iterator[Postgres]:
    with running_postgres(template) as running:
        running.set_password(SECRET)
        yield running


def rows_of(database: Path, table: str = "inference_logs") -> list[dict[str, Any]]:
    """All rows of a SQLite table; none where there is no table yet."""
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(f"select * from {table} order by id")]  # noqa: S608
        except sqlite3.OperationalError:
            return []


def count(postgres: Postgres) -> int:
    """The rows of inference_logs; none while nobody has made the table."""
    if postgres.execute("select to_regclass('inference_logs')") == [[None]]:
        return 0
    return int(postgres.execute("select count(*) from inference_logs")[0][0])


def logged(folder: Path) -> list[dict[str, Any]]:
    """All rows of a spool."""
    return [json.loads(row) for payload in read_all(folder) for row in expand(decode(payload))]


def degraded(server: Server) -> list[str]:
    reply = ask(server, "GET", "/ready")
    assert reply.status == 200
    told: list[str] = reply.body["degraded"]
    return told


def test_answers_land_in_a_table_and_feedback_beside_them(tmp_path: Path) -> None:
    database = tmp_path / "log.db"
    with fake_http_server(
        [DOUBLE], fronts=2, database_url=f"sqlite:///{database}", prediction_log_dir=str(tmp_path / "spool")
    ) as server:
        assert len(server.children("shipper")) == 1
        for value in range(20):
            predict(server, "double", value)
        assert ask(server, "POST", "/feedback", {"request_id": "order-42", "label": 7}).status == 200
        wait_until(lambda: len(rows_of(database)) == 20, SOON_S, "20 rows")
        rows = rows_of(database)
        assert sorted(row["prediction"] for row in rows) == [value * 2.0 for value in range(20)]
        assert {(row["model"], row["status"], row["endpoint"]) for row in rows} == {("double", 200, "/predict/{model}")}
        (feedback,) = wait_until(lambda: rows_of(database, "inference_feedback"), SOON_S, "feedback")
        assert (feedback["request_id"], feedback["row_number"], feedback["label"]) == ("order-42", 0, "7")


def test_what_was_answered_before_the_end_is_in_the_table_after_it(tmp_path: Path) -> None:
    database = tmp_path / "log.db"
    with fake_http_server(
        [DOUBLE], database_url=f"sqlite:///{database}", prediction_log_dir=str(tmp_path / "spool")
    ) as server:
        for value in range(50):
            predict(server, "double", value)
    assert len(rows_of(database)) == 50
    assert not list((tmp_path / "spool").glob("*.log"))


def test_a_dead_shipper_is_replaced_and_a_dead_server_leaves_its_spool_to_the_next(tmp_path: Path) -> None:
    database = tmp_path / "log.db"
    settings: dict[str, Any] = {"database_url": f"sqlite:///{database}", "prediction_log_dir": str(tmp_path / "spool")}
    with fake_http_server([DOUBLE], **settings) as server:
        (shipper,) = server.children("shipper")
        os.kill(shipper, signal.SIGKILL)
        predict(server, "double", 1)
        wait_until(lambda: server.children("shipper") not in ([], [shipper]), SOON_S, "another shipper")
        wait_until(lambda: len(rows_of(database)) == 1, SOON_S, "its row")
        (shipper,) = server.children("shipper")
        os.kill(shipper, signal.SIGSTOP)
        predict(server, "double", 2)
        server.expected_exit = -signal.SIGKILL
        os.kill(server.pid, signal.SIGKILL)
        os.kill(shipper, signal.SIGCONT)
        wait_until(lambda: not listens(server.url), SOON_S, "the port is closed")
    with fake_http_server([DOUBLE], **settings):
        wait_until(lambda: len(rows_of(database)) == 2, SOON_S, "the row of the server before")


def test_without_a_database_the_spool_is_the_log(tmp_path: Path) -> None:
    with fake_http_server([DOUBLE], prediction_log_dir=str(tmp_path / "spool")) as server:
        assert server.children("shipper") == []
        for value in range(5):
            predict(server, "double", value)
        assert [row["prediction"] for row in logged(tmp_path / "spool")] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert len(logged(tmp_path / "spool")) == 5


def test_without_settings_there_is_no_log(tmp_path: Path) -> None:
    with fake_http_server([DOUBLE]) as server:
        predict(server, "double", 1)
        reply = ask(server, "POST", "/feedback", {"request_id": "a", "label": 1})
        assert (reply.status, reply.body["error"]) == (501, "NOT_IMPLEMENTED")


def test_a_folder_belongs_to_one_server_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with fake_http_server([DOUBLE], prediction_log_dir=str(folder)) as server:
        command = [sys.executable, str(ROOT / "inference_server.py"), str(tmp_path / "model.keras"), "--port", "0"]
        (tmp_path / "model.keras").write_bytes(b"never looked at")
        second = subprocess.run(
            [*command, "--prediction-log-dir", str(folder)], capture_output=True, text=True, timeout=SOON_S
        )
        assert second.returncode == 2
        assert second.stderr.count("\n") == 1
        assert f"process {server.pid}" in second.stderr


def test_a_foreign_front_logs_into_the_same_spool(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with supervised([DOUBLE], prediction_log_dir=str(folder)) as server:
        script = (
            "import sys, json; from webtest import TestApp; from inference_server import Settings, wsgi; "
            "app = TestApp(wsgi(Settings(worker_socket=sys.argv[1]))); "
            "print(app.post_json('/predict', {'features': [21]}).json['prediction'])"
        )
        path = os.path.join(server.folder, "socket")
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, path], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.stdout == "42.0\n", done.stderr
        (row,) = logged(folder)
        assert (row["endpoint"], row["prediction"]) == ("/predict", 42.0)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"mysql://user:{SECRET}@localhost/db", "sqlite"),
        ("postgresql+pg8000://user:can@ry@localhost/db", "%40"),
        ("postgresql+pg8000://user:canary@127.0.0.1:1/db", ""),
    ],
    ids=["another database", "an @ in the password", "nobody listens"],
)
def test_a_database_that_cannot_be_used_degrades_the_log_and_not_the_server(tmp_path: Path, url: str, why: str) -> None:
    with fake_http_server([DOUBLE], database_url=url, prediction_log_dir=str(tmp_path / "spool")) as server:
        told = wait_until(lambda: degraded(server), 20.0, "the reason on /ready")
        assert told[0].startswith("the prediction log waits in its spool: ")
        assert why in told[0]
        assert predict(server, "double", 1).status == 200
        assert len(logged(tmp_path / "spool")) == 1
        for text in (told[0], server.log):
            assert "canary" not in text
            assert "ry@" not in text


def test_the_password_is_in_no_process_but_those_that_need_it(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.url(password=SECRET)
    secrets = {SECRET, url, url.partition("@")[0].rpartition(":")[2]}
    with fake_http_server(
        [DOUBLE], environment={"DATABASE_URL": url}, database_url=url, prediction_log_dir=str(tmp_path / "spool")
    ) as server:
        predict(server, "double", 1)
        wait_until(lambda: count(postgres) == 1, SOON_S, "the row")
        postgres.restart("immediate")
        predict(server, "double", 2)
        wait_until(lambda: count(postgres) == 2, SOON_S, "the next row")
        for child in psutil.Process(server.pid).children(recursive=True):
            told = " ".join([*child.cmdline(), *child.environ().values(), child.name()])
            assert not any(secret in told for secret in secrets), child.cmdline()
        shown = json.dumps([ask(server, "GET", path).body for path in ("/ready", "/models")])
        assert not any(secret in text for text in (server.log, shown) for secret in secrets)


HOSTILE = {
    "NUL": b'{"features": ["\\u0000"]}',
    "raw NUL": b'{"features": ["\x00"]}',
    "lone surrogate": b'{"features": ["\\ud800"]}',
    "emoji": '{"features": ["\N{PILE OF POO}"]}'.encode(),
    "quote": b'{"features": ["\'; drop table inference_logs; --"]}',
    "25 digits": b'{"features": [1234567890123456789012345]}',
    "controls": b'{"features": ["\x01\x1b[31m\x7f"]}',
    "backslashes": b'{"features": ["\\\\\\\\copy"]}',
    "no UTF-8": b"\xff\xfe{",
    "deep": b"[" * 2000,
    "5 MB of text": b'{"features": ["' + b"x" * 5_000_000 + b'"]}',
}


def test_hostile_bodies_land_and_the_next_rows_are_right(postgres: Postgres, tmp_path: Path) -> None:
    with fake_http_server(
        [DOUBLE],
        database_url=postgres.url(password=SECRET),
        prediction_log_dir=str(tmp_path / "spool"),
        prediction_log_refusal_sample=1.0,
    ) as server:
        statuses = {}
        for index, body in enumerate(HOSTILE.values()):
            request = urllib.request.Request(f"{server.url}/predict/double", body, {"X-Request-Id": f"hostile-{index}"})
            try:
                with urllib.request.urlopen(request, timeout=SOON_S) as reply:
                    statuses[f"hostile-{index}"] = reply.status
            except urllib.error.HTTPError as refusal:
                with refusal:
                    statuses[f"hostile-{index}"] = refusal.code
            assert predict(server, "double", index).status == 200
        wait_until(lambda: count(postgres) == 2 * len(HOSTILE), SOON_S, "all rows")
        told = postgres.execute("select request_id, status from inference_logs where request_id like 'hostile-%'")
        assert dict(told) == statuses
        assert set(statuses.values()) == {200, 400}  # 25 digits are a float
        kept = dict(postgres.execute("select request_id, features from inference_logs where status = 400"))
        assert json.loads(kept["hostile-4"]) == {"features": ["'; drop table inference_logs; --"]}
        assert json.loads(kept["hostile-3"]) == {"features": ["\N{PILE OF POO}"]}
        whole = postgres.execute("select features from inference_logs where request_id = 'hostile-5'")
        assert whole == [["[1234567890123456789012345]"]]
        right = postgres.execute(
            "select prediction from inference_logs where status = 200 and request_id not like 'hostile-%' order by 1"
        )
        assert right == [[2.0 * index] for index in range(len(HOSTILE))]
        assert not (tmp_path / "spool" / "dead").exists()


def counted(server: Server, name: str) -> int:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=SOON_S) as reply:
        (line,) = [line for line in reply.read().decode().splitlines() if line.startswith(f"{name} ")]
    return int(float(line.split()[1]))


@pytest.mark.parametrize("required", [False, True])
def test_a_full_spool_costs_log_entries_that_are_counted_and_no_answers(
    postgres: Postgres, tmp_path: Path, required: bool
) -> None:
    rows = 500
    with fake_http_server(
        [DOUBLE],
        database_url=postgres.url(password=SECRET),
        prediction_log_dir=str(tmp_path / "spool"),
        prediction_log_max_bytes=1 << 20,
        prediction_log_required=required,
        fronts=1,
    ) as server:
        postgres.stop()
        statuses: list[int] = []

        def predict_many() -> str | None:
            """Ask once more; why answers are not logged, once they are not."""
            body = {"instances": [[float(len(statuses))]] * rows}
            statuses.append(ask(server, "POST", "/predict/double", body).status)
            return next((text for text in degraded(server) if text.startswith("answers are not logged")), None)

        why = wait_until(predict_many, 60.0, "the spool is full")
        assert why == "answers are not logged: the spool holds as much as it may"
        for _ in range(20):
            predict_many()
        answered = statuses.count(200)
        assert set(statuses) == ({200, 503} if required else {200})
        written = counted(server, "inference_log_rows_written_total")
        dropped = counted(server, "inference_log_rows_dropped_total")
        assert written + dropped == rows * len(statuses)
        assert written == rows * answered if required else dropped > 0
        postgres.start()
        wait_until(lambda: not degraded(server), SOON_S, "all is well again")
        assert predict(server, "double", 1).status == 200
        wait_until(lambda: count(postgres) == written + 1, SOON_S, "all that was written, and the next")


def test_a_front_does_without_sqlalchemy() -> None:
    code = "import front.process, front.attach, sys; sys.exit('sqlalchemy' in sys.modules or 'pg8000' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_server_ends_soon_though_its_database_hangs(postgres: Postgres, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with fake_http_server(
        [DOUBLE], database_url=postgres.url(password=SECRET), prediction_log_dir=str(folder)
    ) as server:
        postgres.freeze()
        try:
            predict(server, "double", 1)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(5.0) == 0
        finally:
            postgres.thaw()
    assert len(logged(folder)) == 1
