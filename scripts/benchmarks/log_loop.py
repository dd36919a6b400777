"""The prediction log's two ends alone: appending to a spool, and shipping one. No HTTP, no models.

A program of its own, so that nothing else runs in the process: `python -m benchmarks.log_loop FOLDER`. It says {} when
it is up, takes one JSON object a line on stdin, answers with one on stdout, and ends with stdin. "do" says what:

    append  records, per_s   one record each, so many a second (0: as fast as it goes), while the spool's threads work:
                             {"p50_us", "p99_us", "p999_us", "max_us"} of one append
    ship    url              all that the folder holds, to the table: {"rows", "seconds", "cpu_seconds"}
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from front.settings import Settings  # noqa: E402 - the path comes first
from prediction_log.journal import Journal  # noqa: E402
from prediction_log.record import Captured, Timing  # noqa: E402
from prediction_log.spool import Spool  # noqa: E402

# What a front knows of a request for the dummy model.
SUBJECT = (
    b'{"model":"dummy_model","version":"1","dialect":"native","endpoint":"/predict","rows":null,"value":"features"}'
)
BODIES = 64
FEATURES = 10
# A front answers a batch at a time: so many records one after another.
BURST = 8
SHIP_S = 120.0


class Tally:
    """A report for the shipper: what it has brought to the table, and how often something went wrong."""

    def __init__(self) -> None:
        self.rows = self.failures = 0

    def shipped(self, rows: int) -> None:
        self.rows += rows

    def quarantined(self, rows: int) -> None:
        self.failures += rows

    def damaged(self, records: int) -> None:
        self.failures += records

    def retried(self, sqlstate: str) -> None:
        self.failures += 1

    def waiting(self, size: int, oldest_s: float) -> None:
        """What waits is known here."""

    def condition(self, text: str | None) -> None:
        """What is wrong is on stderr."""


def append(folder: Path, records: int, per_s: float) -> dict[str, Any]:
    """Time each call of Journal.prediction."""
    numbers = random.Random(0)  # noqa: S311 - features, no secrets
    rows = [[round(numbers.gauss(0, 1), 6) for _ in range(FEATURES)] for _ in range(BODIES)]
    bodies = [json.dumps({"features": row}).encode() for row in rows]
    answers = [b'{"ok":true,"prediction":%.7f,"model_version":"1"}' % sum(row) for row in rows]
    dropped: list[int] = []
    spool = Spool(folder, max_bytes=Settings().prediction_log_max_bytes)
    journal = Journal(spool, written=lambda rows: None, dropped=dropped.append)
    clock, took = time.perf_counter_ns, [0] * records
    started = clock()
    for number in range(records):
        if per_s and number % BURST == 0:
            time.sleep(max(started + number / per_s * 1e9 - clock(), 0) / 1e9)
        body, answer = bodies[number % BODIES], answers[number % BODIES]
        before = clock()
        journal.prediction(
            "0a1b2c3d4e5f-12ab",
            subject=SUBJECT,
            status=200,
            total_us=800,
            items=(Timing(200, 150, 12, number // 12),),
            features_are=Captured.BODY,
            features=body,
            outputs_are=Captured.BODY,
            outputs=answer,
        )
        took[number] = clock() - before
    journal.close()
    took.sort()
    share = {"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999, "max_us": 1.0}
    found = {name: took[min(int(records * part), records - 1)] / 1000 for name, part in share.items()}
    if dropped:
        raise RuntimeError(f"{len(dropped)} records were dropped")
    return found


def ship(folder: Path, url: str) -> dict[str, Any]:
    """Time the shipper from an empty connection to an empty spool."""
    from prediction_log.database import Store
    from prediction_log.inbox import Inbox
    from prediction_log.shipper import Shipper

    store = Store(url)
    store.prepare()  # a table is made once in its life
    tally = Tally()
    inbox = Inbox(folder)
    inbox.lock()
    shipper = Shipper(inbox, store, tally)
    started, cpu = time.perf_counter(), time.process_time()
    shipper.drain(time.monotonic() + SHIP_S)
    found = {"rows": tally.rows, "seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    shipper.close()
    if tally.failures:
        raise RuntimeError(f"{tally.failures} rows or tries failed")
    return found


def main(folder: Path) -> None:
    """Say {}, then answer orders until stdin ends."""
    print("{}", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        verb = append if order.pop("do") == "append" else ship
        answer = verb(folder, **order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
