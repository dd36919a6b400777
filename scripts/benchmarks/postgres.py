"""A real PostgreSQL to measure the prediction log with: the one of the tests, under PostgreSQL's own settings.

Knows nothing of what is measured. What it needs beside the server's own requirements is in requirements-dev.txt.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import processes
from benchmarks.processes import ProgramError

if TYPE_CHECKING:
    from tests.postgres import Postgres

ROOT = Path(__file__).resolve().parents[2]
# The tests' server spares itself what only a power cut would show, and keeps its files small. Here that would flatter.
SETTINGS = {"fsync": "on", "max_wal_size": "1GB", "min_wal_size": "80MB"}


class Database:
    """A running server. url: as in DATABASE_URL."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self.url = server.url()

    def cpu_seconds(self) -> float:
        """Processor time of all its processes since it started, those that have ended among them."""
        return processes.tree_cpu_seconds(self._server.pid)

    def rows(self) -> int:
        """Rows in the log's table."""
        return int(self._server.execute("SELECT count(*) FROM inference_logs")[0][0])

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP for all its processes."""
        self._server.freeze()
        try:
            yield
        finally:
            self._server.thaw()


@contextmanager
def running() -> Iterator[Database]:
    """A server of its own on a free port; nothing of it survives. Raises ProgramError where it cannot be had."""
    sys.path.insert(0, str(ROOT))
    try:
        from tests.postgres import postgres_template, running_postgres
    except ImportError as error:
        raise ProgramError(f"--log needs what requirements-dev.txt lists: there is no {error.name}") from None
    with postgres_template() as template, running_postgres(template, **SETTINGS) as server:
        yield Database(server)
