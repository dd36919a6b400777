"""`inference_server.py log` run as a program, and what it is run on: spools, databases. Not the tests."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from prediction_log.database import Store
from prediction_log.record import Captured, Encoder, Kind, Timing
from prediction_log.spool import Spool
from tests.harness import ROOT, SOON_S, wait_until

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
    """Ours, with just these settings of the prediction log."""
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
        payload = self._encoder.encode(*arguments, **fields)
        wait_until(lambda: self._spool.append(payload), SOON_S, "a segment is made: nobody else writes as fast")


@contextmanager
def writer(folder: Path) -> Iterator[Writer]:
    """A writer for the length of the block."""
    made = Writer(folder)
    try:
        yield made
    finally:
        made.close()


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


def table(database: str) -> list[float]:
    """The predictions in an sqlite database, in order."""
    with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
        return [row[0] for row in connection.execute("select prediction from inference_logs order by prediction")]


def rows_so_far(database: str) -> list[float]:
    """As `table`; none where there is no table yet."""
    try:
        return table(database)
    except sqlite3.OperationalError:  # no table yet
        return []
