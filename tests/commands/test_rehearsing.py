"""Logged requests for a new version to be tried on: what is taken from the log, and by whom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from commands.excerpt import Order, last_rows, lines_of, write
from tests.commands.log_program import log, writer
from tests.harness import ROOT


@pytest.fixture(params=["folder", "database"])
def order(request: pytest.FixtureRequest, folder: Path, database: str, tmp_path: Path) -> Order:
    """Three rows of the newest, from a log of five of one model and one of another."""
    with writer(folder) as told:
        for value in (1, 2, 3, 4, 5):
            told.predict(value)
        told.predict(9, model="other")
    if request.param == "database":
        assert log("ship", folder=folder, url=database).code == 0
    url = database if request.param == "database" else None
    return Order("dummy", 3, str(folder), url, str(tmp_path / "excerpt"))


def test_the_newest_requests_of_the_model_are_taken(order: Order) -> None:
    assert list(lines_of(last_rows(order))) == [
        {"instance": [value], "outputs": value * 2} for value in (3.0, 4.0, 5.0)
    ]


def test_a_log_with_fewer_gives_what_it_has(order: Order) -> None:
    assert len(list(lines_of(last_rows(order._replace(rows=100))))) == 5
    assert list(lines_of(last_rows(order._replace(model="unknown")))) == []


def test_the_file_has_a_line_for_each(order: Order) -> None:
    assert write(order) == 3
    lines = Path(order.to).read_bytes().splitlines()
    assert [orjson.loads(line)["instance"] for line in lines] == [[3], [4], [5]]


def test_a_process_writes_it_and_hands_on_an_empty_one_where_the_log_cannot_be_read(order: Order) -> None:
    command = [sys.executable, str(ROOT / "inference_server.py"), "--child", "excerpt", "0"]
    for url, code, lines in ((order.database_url, 0, 3), ("sqlite:////nowhere/at/all.db", 1, 0)):
        told = orjson.dumps(order._replace(database_url=url)._asdict())
        done = subprocess.run(command, input=told, capture_output=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert len(Path(order.to).read_bytes().splitlines()) == lines
        assert b"nowhere" not in done.stderr
        Path(order.to).unlink()
