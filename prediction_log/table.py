"""The tables of the prediction log: their columns and every statement that reads or writes them, in both dialects.

Owns the SQL of daily use; `prediction_log.migrations` makes the tables. Knows nothing of connections, pools and errors:
each function works inside the caller's transaction, and whatever it raises is SQLAlchemy's or the driver's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, NamedTuple

from sqlalchemy import Connection, text

Table = Literal["predictions", "feedback"]

# Columns and PostgreSQL's types. Model names and ids are compared byte by byte: a language's order costs more to keep.
PREDICTIONS = {
    "created_at": "timestamptz",
    "features": "text",
    "prediction": "double precision",
    "record_id": "uuid",
    "row_number": "integer",
    "request_id": 'text COLLATE "C"',
    "model": 'text COLLATE "C"',
    "version": "text",
    "dialect": "text",
    "endpoint": "text",
    "status": "smallint",
    "error": "text",
    "outputs": "json",
    "top_label": "text",
    "top_score": "double precision",
    "batch_id": "bigint",
    "batch_size": "integer",
    "queue_ms": "double precision",
    "compute_ms": "double precision",
    "total_ms": "double precision",
    "sampling": "double precision",
    "truncated": "boolean",
    "traceparent": "text",
}
FEEDBACK = {
    "created_at": "timestamptz",
    "record_id": "uuid",
    "request_id": 'text COLLATE "C"',
    "row_number": "integer",
    "label": "text",
}
NAMES: dict[Table, str] = {"predictions": "inference_logs", "feedback": "inference_feedback"}
COLUMNS: dict[Table, dict[str, str]] = {"predictions": PREDICTIONS, "feedback": FEEDBACK}
KEYS: dict[Table, str] = {"predictions": "record_id, row_number", "feedback": "record_id"}

PAGE_ROWS = 1000
# Above this many rows a table is not counted but estimated, as of its last ANALYZE.
COUNTED_ROWS = 1_000_000


def sqlite_time(value: str) -> str:
    """SQL for a time as sqlite keeps it: UTC to the millisecond, as text in its own order, as SQLAlchemy writes it."""
    return f"strftime('%Y-%m-%d %H:%M:%f', {value}) || '000'"


class Logged(NamedTuple):
    """One answered row as it was logged. features and outputs are JSON text."""

    id: int
    created_at: datetime
    request_id: str | None
    row_number: int
    version: str
    dialect: str
    endpoint: str
    features: str
    outputs: str | None
    prediction: float | None
    top_label: str | None
    batch_size: int | None
    queue_ms: float | None
    compute_ms: float | None
    truncated: bool


class Counts(NamedTuple):
    """How much there is. estimated: whether the database was asked for its guess rather than made to count."""

    predictions: int
    feedback: int
    estimated: bool
    oldest: datetime | None
    newest: datetime | None


def insert(connection: Connection, table: Table, rows: str) -> int:
    """Insert `rows`, a JSON list of objects; how many were new. One bad row and none is inserted."""
    return connection.execute(_INSERTS[connection.dialect.name, table], {"rows": rows}).rowcount


def delete_older(connection: Connection, table: Table, before: datetime, limit: int) -> int:
    """Of the `limit` oldest ids, delete the rows from before that time; how many. No index on the time is needed."""
    name = NAMES[table]
    statement = f"""
        DELETE FROM {name} WHERE created_at < {_time(connection)}
        AND id IN (SELECT id FROM {name} ORDER BY id LIMIT :limit)
    """  # noqa: S608 - names from the table above
    return connection.execute(text(statement), {"time": _sent(before), "limit": limit}).rowcount


def select(
    connection: Connection, model: str, since: datetime, after: tuple[datetime, int] | None, limit: int
) -> list[Logged]:
    """The model's first answered rows since that time and after that (time, id), in this order."""
    start, last_id = after or (since, -1)
    time = _time(connection)
    statement = f"""
        SELECT id, created_at, request_id, row_number, version, dialect, endpoint, features,
               CAST(outputs AS text), prediction, top_label, batch_size, queue_ms, compute_ms, truncated
        FROM inference_logs
        WHERE model = :model AND status = 200 AND created_at >= {time} AND (created_at > {time} OR id > :last_id)
        ORDER BY created_at, id LIMIT :limit
    """  # noqa: S608 - nothing but the dialect's way to say a time
    parameters = {"model": model, "time": _sent(start), "last_id": last_id, "limit": limit}
    found = connection.execute(text(statement), parameters)
    return [Logged._make([row[0], _received(row[1]), *row[2:-1], bool(row[-1])]) for row in found]


def time_of(connection: Connection, model: str, rank: int) -> datetime | None:
    """When the model's last answered row was written (rank 0), or the one before it (1) …; None without so many."""
    statement = """
        SELECT created_at FROM inference_logs WHERE model = :model AND status = 200
        ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET :rank
    """
    found = connection.execute(text(statement), {"model": model, "rank": rank}).scalar()
    return None if found is None else _received(found)


def now(connection: Connection) -> datetime:
    """The database's clock."""
    question = "SELECT now()" if connection.dialect.name == "postgresql" else "SELECT " + sqlite_time("'now'")
    return _received(connection.execute(text(question)).scalar_one())


def counts(connection: Connection) -> Counts:
    """How many rows there are, and the times of the first and the last."""
    predictions, estimated = _count(connection, "inference_logs")
    feedback, also_estimated = _count(connection, "inference_feedback")
    ends = [
        connection.execute(text(f"SELECT created_at FROM inference_logs ORDER BY id {order} LIMIT 1")).scalar()  # noqa: S608
        for order in ("ASC", "DESC")
    ]
    oldest, newest = (None if end is None else _received(end) for end in ends)
    return Counts(predictions, feedback, estimated or also_estimated, oldest, newest)


def _count(connection: Connection, name: str) -> tuple[int, bool]:
    if connection.dialect.name == "postgresql":
        guess = "SELECT CAST(reltuples AS bigint) FROM pg_class WHERE oid = to_regclass(:name)"
        rows = connection.execute(text(guess), {"name": name}).scalar()
        if rows is not None and rows > COUNTED_ROWS:
            return rows, True
    return connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one(), False  # noqa: S608


def _time(connection: Connection) -> str:
    """The parameter :time, as it compares with created_at."""
    return "CAST(:time AS timestamp) AT TIME ZONE 'UTC'" if connection.dialect.name == "postgresql" else ":time"


def _sent(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"


def _received(time: datetime | str) -> datetime:
    return datetime.fromisoformat(time).replace(tzinfo=UTC) if isinstance(time, str) else time


def _postgresql_insert(table: Table) -> str:
    """One parameter holds all rows, so that a row costs this side hardly anything.

    json, not jsonb: building what is taken apart again costs the server half as much again. What is JSON itself comes
    as text: nobody looks into it on its way, so its numbers keep their digits and its escapes are nobody's business.
    """
    columns = COLUMNS[table]
    declared = ", ".join(f"{name} {'text' if kind == 'json' else kind}" for name, kind in columns.items())
    selected = ", ".join(f"CAST({name} AS json)" if kind == "json" else name for name, kind in columns.items())
    source = f"json_to_recordset(CAST(:rows AS json)) AS given ({declared})"
    return _insert(table, f"SELECT {selected} FROM {source}")  # noqa: S608


def _sqlite_insert(table: Table) -> str:
    values = {name: f"json_extract(value, '$.{name}')" for name in COLUMNS[table]}
    values["created_at"] = sqlite_time(values["created_at"])
    # "WHERE true": else sqlite takes ON for a join's.
    return _insert(table, f"SELECT {', '.join(values.values())} FROM json_each(:rows) WHERE true")  # noqa: S608


def _insert(table: Table, select: str) -> str:
    columns = ", ".join(COLUMNS[table])
    return f"INSERT INTO {NAMES[table]} ({columns}) {select} ON CONFLICT ({KEYS[table]}) DO NOTHING"


_INSERTS = {
    (dialect, table): text(make(table))
    for dialect, make in (("postgresql", _postgresql_insert), ("sqlite", _sqlite_insert))
    for table in COLUMNS
}
