"""The guarantee of the prediction log, row by row, while everything around it fails in turn.

Every request whose answer a client received in full is in the table exactly once; a row without a received answer is
possible only for what was in flight when a front was killed, and there are at most that many.

GUARANTEE_PREDICTIONS=50000 makes the load as large as it gets, and the long faults as long.
"""

from __future__ import annotations

import os
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from prediction_log.database import Store
from prediction_log.shipper import BATCH_ROWS, READ_BATCHES
from tests.harness import SOON_S, Server, fake_http_server, wait_until
from tests.postgres import Postgres, Template, running_postgres
from tests.prediction_log.clients import Asked, Clients
from tests.prediction_log.faults import (
    DISK_FULL,
    LOCK_NOT_AVAILABLE,
    Disk,
    Fault,
    disk_of_its_own,
    frozen,
    killed,
    killed_child,
    killed_shipper_with_a_batch,
    locked,
    restarted,
)

PREDICTIONS = int(os.environ.get("GUARANTEE_PREDICTIONS", "10000"))
FULL = 50_000
FREEZE_S, LOCK_S = (10.0, 5.0) if PREDICTIONS >= FULL else (2.5, 1.0)
CONNECTIONS = 32
# Answers that must come while a fault lasts: serving does not wait for the log.
MEANWHILE = 200
POISON_EVERY, BAD_EVERY = 499, 211
NO_ANSWER = ""  # the SQLSTATE of a try that heard nothing from the server
# What is left of a backlog, and a shipper that waits up to 5 s between tries.
CATCH_UP_S = 30.0

Row = tuple[str, int, str | None, str, float | None]
"""request id, status, error, features, prediction"""


@pytest.fixture
def postgres(template: Template) -> Iterator[Postgres]:
    with running_postgres(template) as running:
        with closing(Store(running.url())) as store:
            store.prepare()
        yield running


def faults(postgres: Postgres, disk: Disk, server: Server) -> list[Fault]:
    """All of them, in the order in which they come."""
    child = partial(killed_child, server)
    return [
        Fault("PostgreSQL killed", partial(killed, postgres), sqlstate=NO_ANSWER),
        Fault("shipper killed", partial(child, "shipper")),
        Fault("PostgreSQL restarted, fast", partial(restarted, postgres, "fast")),
        Fault("worker killed", partial(child, "worker")),
        Fault("PostgreSQL frozen", partial(frozen, postgres), FREEZE_S, NO_ANSWER),
        Fault("front killed", partial(child, "front")),
        Fault("table locked", partial(locked, postgres), LOCK_S, LOCK_NOT_AVAILABLE),
        Fault(
            "shipper killed with a batch in hand",
            partial(killed_shipper_with_a_batch, server, postgres),
            sqlstate=LOCK_NOT_AVAILABLE,
        ),
        Fault("PostgreSQL restarted, immediate", partial(restarted, postgres, "immediate")),
        Fault(f"disk full ({disk.kind})", disk.full, sqlstate=DISK_FULL),
    ]


class Metrics:
    """What a server has counted so far, over all its processes."""

    def __init__(self, url: str) -> None:
        with urllib.request.urlopen(f"{url}/metrics", timeout=SOON_S) as response:
            lines = response.read().decode().splitlines()
        self._series = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))

    def log(self, name: str, **labels: str) -> int:
        """One series of the prediction log, 0 where it has not begun."""
        told = ",".join(f'{key}="{value}"' for key, value in labels.items())
        return int(float(self._series.get(f"inference_log_{name}" + (f"{{{told}}}" if told else ""), 0)))

    def retries(self) -> dict[str, int]:
        """Tries that failed, by SQLSTATE."""
        family = 'inference_log_retries_total{sqlstate="'
        return {name[len(family) : -2]: int(float(n)) for name, n in self._series.items() if name.startswith(family)}


@pytest.mark.timeout(300)
def test_every_answer_is_in_the_table_exactly_once_whatever_fails(
    postgres: Postgres, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    spool = tmp_path / "spool"
    models = [{"name": "double", "kind": "poison"}]
    settings: dict[str, Any] = {
        "fronts": 2,
        "database_url": postgres.url(),
        "prediction_log_dir": str(spool),
        "prediction_log_refusal_sample": 0.5,
    }
    started = time.monotonic()
    with disk_of_its_own(postgres) as disk:
        with fake_http_server(models, **settings) as server:
            asked, times = load_while_failing(server, faults(postgres, disk, server))
            metrics = caught_up(server, postgres)
        table = rows_of(postgres)
    statuses = Counter(one.status for one in asked)
    unknown = {one.request_id for one in asked if one.status is None}
    found = {
        "answers by status": {str(status or "unknown"): number for status, number in statuses.items()},
        "rows": len(table),
        "rows of unknown answers": sum(row[0] in unknown for row in table),
        "written": metrics.log("rows_written_total"),
        "shipped": metrics.log("rows_shipped_total"),
        "retries": metrics.retries(),
        "damaged": metrics.log("records_damaged_total"),
        "seconds": round(time.monotonic() - started, 1),
        **times,
    }
    record_property("found", found)
    sys.stdout.write("".join(f"{name}: {value}\n" for name, value in found.items()))

    assert statuses[200] >= PREDICTIONS
    assert_each_once(asked, table)
    # Only a front's death leaves clients without an answer: one request on each of its connections.
    assert 0 < len(unknown) <= CONNECTIONS
    assert_sampled(asked, table, metrics)
    assert_counted(metrics, len(table), unknown=len(unknown))
    assert not [path for path in spool.rglob("*") if path.suffix == ".log"], "the spool is not empty"


def load_while_failing(server: Server, faults: Sequence[Fault]) -> tuple[list[Asked], dict[str, str]]:
    """Everything that was asked while one fault came after another, and how long each lasted.

    The number of answers so far triggers the next one.
    """
    with Clients(server.url, CONNECTIONS, POISON_EVERY, BAD_EVERY) as clients:
        times = {}
        for number, fault in enumerate(faults, 1):
            clients.until(number * PREDICTIONS // (len(faults) + 1), timeout_s=60)
            times[fault.name] = strike(fault, server, clients)
        clients.until(PREDICTIONS, timeout_s=60)
        return clients.finish(), times


def strike(fault: Fault, server: Server, clients: Clients) -> str:
    """Let one fault happen until it has been met, and answers have come all the while; how long it lasted."""

    def met() -> int:
        return Metrics(server.url).retries().get(fault.sqlstate or "", 0)

    begun, answered, met_before = time.monotonic(), clients.answered, met()
    with fault.inject():
        clients.until(clients.answered + MEANWHILE)
        wait_until(lambda: time.monotonic() >= begun + fault.seconds, SOON_S, "time has passed")
        if fault.sqlstate is not None:
            wait_until(lambda: met() > met_before, SOON_S, f"the shipper has met: {fault.name}")
    return f"{time.monotonic() - begun:.1f} s, {clients.answered - answered} answers meanwhile"


def caught_up(server: Server, postgres: Postgres) -> Metrics:
    """What is counted once the table has all that was written and nothing waits."""
    waiting = ""

    def done() -> Metrics | None:
        nonlocal waiting
        rows = postgres.execute("SELECT count(*) FROM inference_logs")[0][0]
        metrics = Metrics(server.url)
        written, size = metrics.log("rows_written_total"), metrics.log("spool_bytes")
        waiting = f"{rows} rows of {written}, {size} bytes wait"
        return metrics if rows >= written and not size else None

    try:
        found = wait_until(done, CATCH_UP_S, "the spool is empty")
    except AssertionError as error:
        error.add_note(waiting)
        raise
    assert found
    return found


def rows_of(postgres: Postgres) -> list[Row]:
    """The whole table."""
    columns = "request_id, status, error, features, prediction"
    return [tuple(row) for row in postgres.execute(f"SELECT {columns} FROM inference_logs")]  # noqa: S608


# ---------------------------------------------------------------------------------------------- what must hold


def assert_each_once(asked: Sequence[Asked], table: Sequence[Row]) -> None:
    """Rows of answers and failures are those of the requests, each once, with their inputs and outputs."""
    by_id = {row[0]: row for row in table}
    assert len(by_id) == len(table), "a request is in the table twice"
    for one in asked:
        if one.status in (200, 500, 504):
            assert one.request_id in by_id, f"{one} is missing"
        if one.status == 200:
            assert one.prediction == 2 * one.number
            assert by_id[one.request_id] == (one.request_id, 200, None, f"[{one.number:.0f}]", one.prediction)
        elif one.status == 500:
            row = (one.request_id, 500, "PREDICT_FAILED", f'{{"features":[{one.number:.0f}]}}', None)
            assert by_id[one.request_id] == row
    answers = {one.request_id: one.status for one in asked}
    assert by_id.keys() <= answers.keys(), "the table has what nobody asked"
    for request_id, status, *_ in table:
        assert answers[request_id] in (status, None), f"{request_id} is not as its client heard"


def assert_sampled(asked: Sequence[Asked], table: Sequence[Row], metrics: Metrics) -> None:
    """Refusals are in the table or counted as left out."""
    answered, logged = Counter(one.status for one in asked), Counter(row[1] for row in table)
    for status in (400, 503):
        seen = logged[status] + metrics.log("rows_left_out_total", status=str(status))
        assert answered[status] <= seen <= answered[status] + answered[None]
    assert answered[400] > logged[400] > 0
    assert answered.keys() <= {200, 400, 500, 503, None}


def assert_counted(metrics: Metrics, rows: int, *, unknown: int) -> None:
    """The counters agree with the table, but for the instant in which a process was killed.

    A front appends a record and then counts it: one killed between has written one more than it counted, and that
    request has no answer. A shipper lets go of a batch and then counts it: one batch, likewise.
    """
    assert rows - min(unknown, 1) <= metrics.log("rows_written_total") <= rows
    assert rows - READ_BATCHES * BATCH_ROWS <= metrics.log("rows_shipped_total") <= rows
    assert metrics.log("rows_dropped_total") == 0
    assert metrics.log("rows_quarantined_total") == 0
    assert metrics.log("records_damaged_total") <= 1  # the one that the killed front was writing
    assert all(metrics.retries().get(sqlstate) for sqlstate in (NO_ANSWER, LOCK_NOT_AVAILABLE, DISK_FULL))
