"""The shipper: takes records from a folder of spools to the database's tables, each row once, whatever happens between.

Owns the order (read, expand, insert, set aside, commit), when to try again, and what becomes of what the database
refuses. Knows neither SQL nor the spool's files, and starts no process.

1. A batch is held until each of its rows is in the table or set aside on disk; only then does the inbox let go of it.
   Whoever kills us between makes the next shipper repeat rows, which the table's key refuses to take twice.
2. Errors are told apart by what may help. "retry": time does; the batch is tried again after 0.1 to 5 seconds. "row":
   nothing does; the batch is halved until the guilty rows stand alone, and those are set aside. "configuration":
   somebody must act; one try each 30 seconds.
3. A defect of ours, or of the driver, counts as "retry": the loop goes on and nothing is lost.
4. Statements run in a thread: while the database works on one, the rows of the next are made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from prediction_log.aside import Aside
from prediction_log.database import Store
from prediction_log.inbox import Inbox
from prediction_log.record import Kind, decode
from prediction_log.rows import expand, feedback
from prediction_log.sqlstate import StoreError
from prediction_log.status import Status
from prediction_log.table import Table
from prediction_log.walk import Batch

log = logging.getLogger("inference.log")

# In one statement. More gain little, and a database that is slow or short of memory feels them.
BATCH_ROWS = 5000
BATCH_BYTES = 8 << 20
# Read at a time: so many statements that the first and the last, which nothing overlaps, do not count.
READ_BATCHES = 10
READ_BYTES = 16 << 20
STEP_S = 0.5  # whoever wants us to stop must be heard
PAUSE_S = 0.2  # a row costs less the more come together; it waits that long for others
RETRY_MIN_S = 0.1
RETRY_MAX_S = 5.0
CONFIGURATION_S = 30.0
QUERY_CANCELED = "57014"
DELETE_ROWS = 5000
DELETE_PAUSE_S = 1.0
DELETE_PERIOD_S = 60.0
LOG_PERIOD_S = 60.0


class Report(Protocol):
    """Who is told what happens.

    shipped, quarantined: rows, once each, when they are in the table or set aside for good. damaged: records that could
    not be read, likewise. retried: one try that will be repeated. waiting: bytes of the spool, and the age of the
    oldest record in seconds. condition: why nothing is shipped, in words, on every change; None: all is well again.
    """

    def shipped(self, rows: int) -> None: ...

    def quarantined(self, rows: int) -> None: ...

    def damaged(self, records: int) -> None: ...

    def retried(self, sqlstate: str) -> None: ...

    def waiting(self, size: int, oldest_s: float) -> None: ...

    def condition(self, text: str | None) -> None: ...


@dataclass(slots=True)
class _Held:
    """A batch on its way. unpacked: so many records are rows by now. todo: of these, what is neither in the table nor
    set aside: one entry for each statement, the next last.
    """

    batch: Batch
    unpacked: int = 0
    todo: list[tuple[Table, list[bytes]]] = field(default_factory=list)
    shipped: int = 0
    quarantined: int = 0
    damaged: int = 0


class Shipper:
    """One folder's shipper, for one thread; the inbox is locked by whoever made it.

    keep_days: older rows are deleted from the table, some at a time; None keeps all. batch_rows: in one statement at
    the most. clock: monotonic, in seconds.
    """

    def __init__(
        self,
        inbox: Inbox,
        store: Store,
        report: Report,
        *,
        keep_days: float | None = None,
        batch_rows: int = BATCH_ROWS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inbox = inbox
        self._store = store
        self._report = report
        self._keep_days = keep_days
        self._batch_rows = batch_rows
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "insert")
        self._aside = Aside(inbox.folder)
        self._status = Status(inbox.folder, clock)
        self._held: _Held | None = None
        self._is_prepared = False
        self._is_idle = False
        self._is_failing = False
        self._read_records = READ_BATCHES * batch_rows
        self._limit = batch_rows
        self._retry_s = RETRY_MIN_S
        self._condition: str | None = None
        self._spoilt_told = 0
        self._delete_at = clock()
        self._logged: dict[str, float] = {}

    def step(self) -> float:
        """Ship for half a second, or until nothing waits, or until a try fails.

        Seconds until the next step is due, 0 when more waits. Raises nothing but what the report raises.
        """
        self._is_idle = False
        try:
            wait_s = self._try()
        except StoreError as error:
            wait_s = self._failed(error.kind, error.sqlstate, str(error))
        except OSError as error:
            wait_s = self._failed("retry", "", f"the spool's folder cannot be used: {error.strerror}")
        except Exception as error:  # noqa: BLE001 - the loop goes on; what it says may hold a client's data
            wait_s = self._failed("retry", "", f"the shipper failed: {type(error).__name__}")
        else:
            self._succeeded()
        self._tell()
        return wait_s

    def drain(self, until: float) -> None:
        """Ship until nothing waits, or until `until` on the clock; a try that has begun by then is ended."""
        while self._clock() < until:
            wait_s = self.step()
            if self._is_idle or (self._is_failing and self._clock() + wait_s >= until):
                return
            if self._is_failing:
                time.sleep(wait_s)

    def close(self) -> None:
        """The end. What was held is shipped by the next shipper."""
        self._thread.shutdown()
        self._status.write()
        self._store.close()
        self._inbox.close()

    # ------------------------------------------------------------------------------------------ a try

    def _try(self) -> float:
        if not self._is_prepared:
            self._store.prepare()
            self._is_prepared = True
        if self._held is None:
            batch = self._inbox.read(self._read_records, READ_BYTES)
            if not batch.records:
                self._is_idle = True
                self._delete_old()
                return PAUSE_S
            self._held = _Held(batch)
        held = self._held
        until = self._clock() + STEP_S
        while held.todo or held.unpacked < len(held.batch.records):
            if self._clock() > until:
                return 0.0
            self._insert(held)
        self._inbox.commit(held.batch)
        self._held = None
        self._report.shipped(held.shipped)
        self._report.quarantined(held.quarantined)
        self._report.damaged(held.damaged)
        self._status.succeeded(held.shipped, held.quarantined, held.damaged)
        is_full = held.unpacked == self._read_records or held.batch.bytes > READ_BYTES // 2
        return 0.0 if is_full else PAUSE_S

    def _insert(self, held: _Held) -> None:
        """Do the next statement of a batch, or find out that it must be done in halves. Raises as `Store.insert`."""
        if not held.todo:
            self._unpack(held)
            if not held.todo:
                return
        table, rows = held.todo[-1]
        inserting = self._thread.submit(self._store.insert, table, rows)
        try:
            if len(held.todo) == 1:
                self._unpack(held)
        finally:
            wait([inserting])
        try:
            inserting.result()
        except StoreError as error:
            if len(rows) > 1 and (error.kind == "row" or error.sqlstate == QUERY_CANCELED):
                half = len(rows) // 2
                held.todo[-1:] = [(table, rows[half:]), (table, rows[:half])]
            if error.sqlstate == QUERY_CANCELED:  # it took too long: fewer rows take less
                self._limit = max(self._limit // 2, 1)
            if error.kind != "row":
                raise
            if len(rows) == 1:
                self._aside.row(table, rows[0], error.sqlstate, str(error))
                self._log("row", f"a row was refused and set aside: {error}")
                held.todo.pop()
                held.quarantined += 1
        else:
            held.todo.pop()
            held.shipped += len(rows)
            self._limit = min(self._limit * 2, self._batch_rows)
            self._retry_s = RETRY_MIN_S

    def _unpack(self, held: _Held) -> None:
        """Make the rows of the next statements, to be done after all that is to do. Raises OSError, with no effect."""
        rows: dict[Table, list[bytes]] = {"predictions": [], "feedback": []}
        damaged = 0
        at = held.unpacked
        while at < len(held.batch.records) and sum(map(len, rows.values())) < self._limit:
            payload = held.batch.records[at]
            try:
                record = decode(payload)
                if record.kind == Kind.FEEDBACK:
                    rows["feedback"].append(feedback(record))
                else:
                    rows["predictions"] += expand(record)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the others must go on
                self._aside.record(payload)
                damaged += 1
                self._log("damaged", f"a record could not be read and was set aside: {type(error).__name__}")
            at += 1
        parts = [(table, part) for table, found in rows.items() for part in _parts(found, self._limit)]
        held.todo[:0] = reversed(parts)
        held.unpacked = at
        held.damaged += damaged

    def _delete_old(self) -> None:
        """One bounded step of what `keep_days` asks; the next soon where more may be left, else in a minute."""
        if self._keep_days is None or self._clock() < self._delete_at:
            return
        before = datetime.now(UTC) - timedelta(days=self._keep_days)
        deleted = self._store.delete_older(before, DELETE_ROWS)
        self._delete_at = self._clock() + (DELETE_PAUSE_S if deleted >= DELETE_ROWS else DELETE_PERIOD_S)

    # ------------------------------------------------------------------------------------------ what is said

    def _succeeded(self) -> None:
        if self._is_failing:
            log.info("the prediction log is shipped again")
        self._is_failing = False
        self._tell_condition(None)

    def _failed(self, kind: str, sqlstate: str, text: str) -> float:
        """Note a failed try; seconds until the next."""
        self._is_failing = True
        self._log(text, f"the prediction log is not shipped, its rows are kept: {text}")
        self._status.failed(sqlstate, text)
        self._report.retried(sqlstate)
        if kind != "retry":
            self._is_prepared = False  # a table that was dropped is made again
            self._tell_condition(text)
            return CONFIGURATION_S
        wait_s = self._retry_s
        self._retry_s = min(wait_s * 2, RETRY_MAX_S)
        if wait_s == RETRY_MAX_S:
            self._tell_condition(text)
        return wait_s

    def _tell_condition(self, text: str | None) -> None:
        if text != self._condition:
            self._condition = text
            self._report.condition(text)

    def _tell(self) -> None:
        """What the inbox knows."""
        if spoilt := self._inbox.spoilt - self._spoilt_told:
            self._spoilt_told += spoilt
            self._report.damaged(spoilt)
            self._status.succeeded(0, 0, spoilt)
        with suppress(OSError):  # the next try meets it, too, and says so
            self._report.waiting(self._inbox.waiting_bytes, self._inbox.oldest_s)
        self._status.write_if_due()

    def _log(self, kind: str, text: str) -> None:
        """A line, at most one a minute of each kind: they come as fast as rows do."""
        now = self._clock()
        if now >= self._logged.get(kind, now):
            self._logged[kind] = now + LOG_PERIOD_S
            log.warning("%s", text)


def _parts(rows: list[bytes], limit: int) -> Iterator[list[bytes]]:
    """Runs of at most `limit` rows and about BATCH_BYTES."""
    start = size = 0
    for index, row in enumerate(rows):
        if index - start == limit or (size and size + len(row) > BATCH_BYTES):
            yield rows[start:index]
            start, size = index, 0
        size += len(row)
    if rows:
        yield rows[start:]
