"""The database that the prediction log is shipped to: its pool, its time limits, and what is made of its failures.

Owns connections while they are used. Knows nothing of SQL (`prediction_log.table`), of what a URL means
(`prediction_log.address`), and of who tries again and when.

1. Whatever fails comes out as a StoreError, whose kind says what to do, and whose text shows no data and no secret.
2. After any failure but a plain refusal by the server the connection is thrown away: see `leaves_connection_usable`.
3. Each try ends: nothing waits for the server longer than 2 s at a time.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from traceback import clear_frames
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event

from prediction_log import address, migrations, table
from prediction_log.sqlstate import StoreError, leaves_connection_usable, store_error

log = logging.getLogger("inference.log")

# A batch takes 0.1 s; the server gives up before the socket does, and then says why.
DAILY = address.Limits(socket_s=2.0, statement_ms=1500, lock_ms=500)
# Adopting a table writes it anew, which may take minutes. Whoever comes second is told to try again meanwhile.
MIGRATION = address.Limits(socket_s=305.0, statement_ms=300_000, lock_ms=5000)

# The pool writes 40 lines of traceback for each connection that it loses. What a loss means is said by StoreError.
_POOL_NAME = "prediction_log"
logging.getLogger(f"sqlalchemy.pool.impl.QueuePool.{_POOL_NAME}").setLevel(logging.CRITICAL + 1)

T = TypeVar("T")


class Store:
    """One database. Threads may share it; every method but `close` raises StoreError."""

    def __init__(self, url: str) -> None:
        """Connects to nothing yet. Raises ValueError for a URL that is not understood, without repeating any of it."""
        self._address = address.parse(url)
        self._engine = _engine(self._address, DAILY)

    def prepare(self) -> None:
        """Create or migrate the tables where needed; two processes may do so at once.

        Returns at once when there is nothing to do. A step may take up to 5 minutes where a large table is adopted.
        """
        try:
            if self._run(migrations.version) < migrations.VERSION:
                engine = _engine(self._address, MIGRATION)
                try:
                    self._run(migrations.migrate, engine)
                finally:
                    engine.dispose()
        except StoreError as denied:
            if denied.sqlstate != "42501":
                raise
            # The user may not make tables. Somebody else may have, and all we need is to insert.
            with suppress(StoreError):
                self._run(migrations.check)
                return
            raise
        self._run(migrations.check)

    def insert(self, into: table.Table, rows: Sequence[bytes]) -> int:
        """Insert JSON objects in one transaction; how many were new: the others were there already.

        All or none: with kind "row" some of them are at fault, and each half may be tried by itself.
        """
        given = b"[" + b",".join(rows) + b"]"
        return self._run(lambda connection: table.insert(connection, into, given.decode()))

    def delete_older(self, before: datetime, limit: int) -> int:
        """Delete rows from before that time, at most `limit` of each table; how many. 0: none is left."""
        return sum(
            self._run(partial(table.delete_older, table=name, before=before, limit=limit)) for name in table.NAMES
        )

    def select(self, model: str, since: datetime, limit: int) -> Iterator[table.Logged]:
        """The model's answered rows since that time, oldest first, at most `limit`; read page by page."""
        after = None
        while limit > 0:
            size = min(limit, table.PAGE_ROWS)
            page = self._run(partial(table.select, model=model, since=since, after=after, limit=size))
            yield from page
            if len(page) < size:
                return
            limit -= size
            after = (page[-1].created_at, page[-1].id)

    def time_of(self, model: str, rank: int) -> datetime | None:
        """When the model's last answered row was written (rank 0), or the one before it (1) …; None without so many."""
        return self._run(partial(table.time_of, model=model, rank=rank))

    def counts(self) -> table.Counts:
        """How many rows there are, and from when."""
        return self._run(table.counts)

    def is_prepared(self) -> bool:
        """Whether the tables are there as this release needs them; changes nothing."""
        return self._run(migrations.version) == migrations.VERSION

    def now(self) -> datetime:
        """The database's clock, in UTC."""
        return self._run(table.now)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _run(self, work: Callable[[Connection], T], engine: Engine | None = None) -> T:
        """What `work` returns, committed."""
        try:
            with (engine or self._engine).connect() as connection:
                try:
                    result = work(connection)
                    connection.commit()
                except BaseException as error:
                    if not leaves_connection_usable(error):
                        connection.invalidate()
                    raise
                return result
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - drivers let anything out
            failure = store_error(error)
            # SQLAlchemy's frames and errors hold each other, and with them the batch and the socket.
            for ended in (error, error.__context__):
                clear_frames(ended.__traceback__ if ended else None)
        # Out here: raised above, it would carry the server's own words along as its context.
        log.debug("%s", failure)
        raise failure


def _engine(to: address.Server | address.File, limits: address.Limits) -> Engine:
    """A pool of one connection, and one more that is closed after use: who ships, and a moment's visitor.

    No ping before use: it costs more than the statement's own round trip, notices neither a hang nor a connection out
    of step, and whoever ships tries again anyway. No secret gets into the engine: it is given a connection's maker.
    """
    dialect = "sqlite://" if isinstance(to, address.File) else "postgresql+pg8000://"
    engine = create_engine(
        dialect,
        creator=lambda record: _connect(to, limits, record),
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=1,
        pool_timeout=1,
        pool_recycle=300,  # what a firewall or a failover has left behind ends some time
        pool_logging_name=_POOL_NAME,
        hide_parameters=True,
    )
    event.listen(engine, "invalidate", _hang_up)
    event.listen(engine, "close", _let_go)
    return engine


def _connect(to: address.Server | address.File, limits: address.Limits, record: Any) -> Any:
    if isinstance(to, address.File):
        return to.connect(limits)
    connection, record.info["socket"] = to.connect(limits)
    return connection


def _hang_up(connection: Any, record: Any, error: BaseException | None) -> None:
    """A driver says goodbye while it closes. To a server that does not read any more, that would be a second wait."""
    handle: socket.socket | None = record.info.get("socket")
    if handle is not None:
        with suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)


def _let_go(connection: Any, record: Any) -> None:
    handle: socket.socket | None = record.info.pop("socket", None)
    if handle is not None:
        handle.close()
