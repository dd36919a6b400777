"""What is measured of the prediction log: a server that writes one, and the log's two ends alone.

Owns how each is started and what is read from it. Knows nothing of rounds, nor of what its figures are compared with.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import processes, wrk
from benchmarks.postgres import Database
from benchmarks.processes import Program, ProgramError
from benchmarks.targets import RETRY_S, SCRIPTS, START_S, Measurement, Server

WRITTEN, SHIPPED = "inference_log_rows_written_total", "inference_log_rows_shipped_total"
# What is left when a load is over: part of a second's records, or after a freeze those of minutes.
DRAINED_S = 120.0


class LoggedServer(Server):
    """A server whose log goes to `database`, through a spool in `folder`.

    What it measures has the shipper's and PostgreSQL's time too, until all rows of a load are in the table, and returns
    only then; where PostgreSQL `is_frozen`, at once.
    """

    def __init__(self, model: Path, database: Database, folder: Path) -> None:
        super().__init__(model, DATABASE_URL=database.url, PREDICTION_LOG_DIR=str(folder))
        self._database = database
        self.is_frozen = False

    def under(self, loaded: Callable[[], wrk.Load]) -> Measurement:
        before = self._so_far()
        one = super().under(loaded)
        if not self.is_frozen:
            self.drained()
        shipper_s, postgres_s, rows = (now - then for now, then in zip(self._so_far(), before, strict=True))
        by_role = {"shipper": shipper_s * 1000 / max(rows, 1), "PostgreSQL": postgres_s * 1000 / max(rows, 1)}
        return replace(one, cpu_ms_by_role={**one.cpu_ms_by_role, **by_role})

    def drained(self) -> None:
        """Wait until the table has all that was written. Raises ProgramError when that takes too long."""
        give_up = time.monotonic() + DRAINED_S
        while (counts := self.counted(WRITTEN, SHIPPED))[0] > counts[1]:
            if time.monotonic() > give_up:
                raise ProgramError(f"{counts[0] - counts[1]:,.0f} rows have not come to the table")
            time.sleep(RETRY_S)

    def _so_far(self) -> tuple[float, float, float]:
        """(the shipper's processor time, PostgreSQL's, rows written) since the start."""
        shipper = [pid for pid in self.pids() if "shipper" in processes.command(pid)]
        (rows,) = self.counted(WRITTEN)
        return processes.cpu_seconds(shipper), self._database.cpu_seconds(), rows


class LogLoop(Program):
    """The log's two ends alone; benchmarks.log_loop says what it answers."""

    def __init__(self, folder: Path) -> None:
        super().__init__([sys.executable, "-m", "benchmarks.log_loop", str(folder)], cwd=SCRIPTS)

    def wait_until_up(self) -> None:
        """It takes orders."""
        self.line("{}", START_S)

    def append(self, records: int, per_s: int) -> dict[str, float]:
        """Time appends, so many a second; 0: as fast as it goes."""
        return self._ask(do="append", records=records, per_s=per_s)

    def ship(self, url: str) -> dict[str, float]:
        """Time the way of all that was appended to the table."""
        return self._ask(do="ship", url=url)

    def _ask(self, **order: Any) -> dict[str, float]:
        self.say(json.dumps(order))
        answer: dict[str, float] = json.loads(self.line("", START_S))
        return answer
