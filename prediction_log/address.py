"""DATABASE_URL, and a connection to what it names: how long anything may take, how far TLS is checked, what is refused.

Owns sockets and drivers' arguments. Knows nothing of pools, tables and statements. No text made here repeats a part of
the URL: a slip in writing it can put the password anywhere.
"""

from __future__ import annotations

import socket
import sqlite3
import ssl
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pg8000.legacy  # the interface that SQLAlchemy knows
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

# The driver is ours to choose: URLs of the older service and of hosting services work as they are.
_POSTGRESQL = {"postgres", "postgresql", "postgresql+pg8000", "postgresql+psycopg2", "postgresql+psycopg"}
_SQLITE = {"sqlite", "sqlite+pysqlite"}
_SSL_MODES = {"disable", "prefer", "require", "verify-ca", "verify-full"}


class Limits(NamedTuple):
    """How long a connection may take over one wait for the socket, one statement, and one lock."""

    socket_s: float
    statement_ms: int
    lock_ms: int


@dataclass(frozen=True)
class Server:
    """A PostgreSQL database. ssl_context is pg8000's: False for no TLS, None for TLS where the server offers it."""

    host: str
    port: int
    database: str | None
    user: str
    password: str = field(repr=False)
    ssl_context: Any

    def connect(self, limits: Limits) -> tuple[Any, socket.socket]:
        """A pg8000 connection and a second handle of its socket. Raises OSError and pg8000's errors."""
        opened = socket.create_connection((self.host, self.port), limits.socket_s)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            handle = opened.dup()
            try:
                connection = pg8000.legacy.Connection(
                    self.user,
                    host=self.host,  # the name on its certificate
                    sock=opened,
                    database=self.database,
                    password=self.password,
                    ssl_context=self.ssl_context,
                    application_name="inference_server",
                    startup_params={
                        "statement_timeout": str(limits.statement_ms),
                        "lock_timeout": str(limits.lock_ms),
                        "idle_in_transaction_session_timeout": "5000",  # a shipper that is stopped holds no locks
                    },
                )
            except BaseException:
                handle.close()
                raise
        except BaseException:
            opened.close()
            raise
        # SQLAlchemy forgets a connection whose very first words fail without closing it.
        weakref.finalize(connection, _close, connection._usock, handle).atexit = False  # noqa: SLF001 - TLS may be on
        return connection, handle


@dataclass(frozen=True)
class File:
    """An sqlite database."""

    path: str

    def connect(self, limits: Limits) -> sqlite3.Connection:
        """A connection whose transactions lock for writing from their start. Raises sqlite3.Error."""
        connection = sqlite3.connect(
            self.path, timeout=limits.lock_ms / 1000, isolation_level="IMMEDIATE", check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")  # readers, such as a `select` by hand, do not block us
        except BaseException:
            connection.close()
            raise
        return connection


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        one.close()


def parse(url: str) -> Server | File:
    """What a DATABASE_URL names. Raises ValueError, which never repeats any of it."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # a port that is no number is a ValueError that shows it
        parsed = None
    if parsed is None or parsed.drivername not in _POSTGRESQL | _SQLITE:
        raise ValueError("DATABASE_URL must be postgresql://user:password@host:port/database or sqlite:///path")
    if parsed.drivername in _SQLITE:
        if not parsed.database or parsed.database == ":memory:" or parsed.host or parsed.query:
            raise ValueError("DATABASE_URL for sqlite must be sqlite:///path, with a path and nothing else")
        return File(parsed.database)
    if "@" in f"{parsed.host}{parsed.database}":
        raise ValueError("DATABASE_URL holds more than one @: write one that belongs to the password as %40")
    if not parsed.username:
        raise ValueError("DATABASE_URL names no user")
    return Server(
        parsed.host or "localhost",
        parsed.port or 5432,
        parsed.database or None,
        parsed.username,
        parsed.password or "",
        _ssl_context(parsed.query),
    )


def _ssl_context(query: Mapping[str, Any]) -> Any:
    """pg8000's idea of libpq's `sslmode` and `sslrootcert`; prefer is libpq's default, too."""
    mode, authorities = query.get("sslmode", "prefer"), query.get("sslrootcert")
    if query.keys() - {"sslmode", "sslrootcert"} or mode not in _SSL_MODES or isinstance(authorities, tuple):
        raise ValueError(
            f"DATABASE_URL may say sslmode={'|'.join(sorted(_SSL_MODES))} and sslrootcert=path after its ?, no more"
        )
    if mode == "disable":
        return False
    if mode == "prefer":
        return None
    if mode == "require" and authorities is None:
        return True  # encrypted, with whomever; with authorities it is verify-ca, as libpq has it
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError:
        context = None
    if context is None:
        raise ValueError("DATABASE_URL's sslrootcert is no readable file of certificates")
    context.check_hostname = mode == "verify-full"
    return context
