"""Writers and shippers are killed at any instant: nothing is lost, and only what was on its way is read twice."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from prediction_log.tail import read_all
from tests.harness import ROOT, SOON_S, wait_until
from tests.prediction_log.segments import EVERYTHING, SMALL, locked, ship, write

# Says how far it has come after each append.
WRITER = """
import sys, itertools
from pathlib import Path
from prediction_log.spool import Spool
spool = Spool(Path(sys.argv[1]), max_bytes=None, segment_bytes=int(sys.argv[2]), sync=sys.argv[4])
for number in range(int(sys.argv[3])):
    while not spool.append(f"{number} {sys.argv[4]} ".encode() + bytes(number % 700)):
        pass  # a busy disk may be late with so small segments
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
spool.close()
"""
# Commits each batch after it has written it down, as a database would.
SHIPPER = """
import sys
from pathlib import Path
from prediction_log.inbox import Inbox
inbox = Inbox(Path(sys.argv[1]))
inbox.lock()
with open(sys.argv[2], "ab") as table:
    while True:
        batch = inbox.read(50, 1 << 20)
        table.write(b"".join(record.split()[0] + b"\\n" for record in batch.records))
        table.flush()
        inbox.commit(batch)
"""
FOREVER = 1 << 40


@contextmanager
def running(code: str, *arguments: object, output: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=output) as process:
        try:
            yield process
        finally:
            process.kill()


def number(record: bytes) -> int:
    return int(record.split(maxsplit=1)[0])


def test_a_killed_writer_loses_nothing_that_it_was_told_is_there(tmp_path: Path) -> None:
    for trial in range(3):
        folder = tmp_path / str(trial)
        with running(WRITER, folder, SMALL, FOREVER, "interval", output=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            acknowledged = -1
            for line in itertools.islice(writer.stdout, random.randint(500, 1500)):
                acknowledged = int(line)
            writer.kill()
            for line in writer.stdout:  # what it said before it died; the last may be torn
                acknowledged = int(line) if line.endswith(b"\n") else acknowledged
        found = [number(record) for record in read_all(folder)]
        assert found == list(range(len(found)))
        assert len(found) in (acknowledged + 1, acknowledged + 2)
        with locked(folder) as inbox:
            assert [number(record) for record in ship(inbox)] == found
            for path in folder.glob("*.new"):
                os.utime(path, (0, 0))  # killed before it could lock it: empty, and old enough after some seconds
            assert inbox.read(1, 1).records == []
            # Killed in the middle of a record, it leaves a half of one, which is no record and is set aside.
            assert inbox.spoilt <= 1
            left = {"shipper.lock", "dead"} if inbox.spoilt else {"shipper.lock"}
            assert {path.name for path in folder.iterdir()} == left, "its spares have gone, too"


def test_a_killed_shipper_repeats_no_more_than_what_was_on_its_way(tmp_path: Path) -> None:
    folder, table = tmp_path / "spool", tmp_path / "table"
    write(folder, [b"%d " % n + bytes(n % 300) for n in range(40_000)])
    table.touch()
    kills = 0
    while list(folder.glob("*.log")):
        with running(SHIPPER, folder, table) as shipper:
            before = table.stat().st_size
            wait_until(partial(_has_grown, table, before, folder), SOON_S, "it ships")
            time.sleep(random.random() / 30)  # so that it is killed anywhere
            shipper.kill()
        kills += 1
    shipped = [int(line) for line in table.read_bytes().split()]
    assert sorted(set(shipped)) == list(range(40_000))
    assert len(shipped) <= 40_000 + 50 * kills


def test_records_are_shipped_once_and_in_order_while_they_are_written(tmp_path: Path) -> None:
    count = 8000
    shipped: list[bytes] = []
    with (
        running(WRITER, tmp_path, SMALL, count, "interval"),
        running(WRITER, tmp_path, SMALL, count, "none"),
        locked(tmp_path) as inbox,
    ):

        def take() -> bool:
            batch = inbox.read(300, EVERYTHING)
            inbox.commit(batch)
            shipped.extend(batch.records)
            return len(shipped) >= 2 * count

        wait_until(take, 3 * SOON_S, "all records")
    for sync in (b"interval", b"none"):
        assert [number(record) for record in shipped if record.split()[1] == sync] == list(range(count))


def _has_grown(table: Path, size: int, spool: Path) -> bool:
    return table.stat().st_size > size or not list(spool.glob("*.log"))
