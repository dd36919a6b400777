"""`log tail`: the last rows of all writers in the order of time, then what comes, until nobody reads any more."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

from commands.log_records import Damage, Reading, segments
from prediction_log.record import decode
from tests.commands.log_program import PROGRAM, environment, log, started, writer
from tests.harness import SOON_S


def tailed(folder: Path, *words: str) -> list[dict[str, Any]]:
    done = log("tail", *words, folder=folder)
    assert done.code == 0, done
    return [json.loads(line) for line in done.out.splitlines()]


def test_tail_gives_the_last_rows_of_all_writers_in_the_order_of_time(folder: Path) -> None:
    with writer(folder) as one, writer(folder) as other:
        for value in range(2000):  # more than a segment each
            (one if value % 3 else other).predict(value, rows=1 + value % 2)
        assert len(segments(folder)) > 6
        expected = [value for value in range(2000) for _ in range(1 + value % 2)]
        rows = tailed(folder, "-n", "500")
        assert [json.loads(row["features"])[0] for row in rows] == expected[-500:]
        assert [json.loads(row["features"])[0] for row in tailed(folder)] == expected[-10:]
        assert len(tailed(folder, "-n", "9999")) == len(expected)
    assert {"record_id", "row_number", "created_at", "queue_ms", "outputs", "truncated"} <= rows[0].keys()


def test_tail_of_one_model_leaves_out_the_others_and_feedback(folder: Path) -> None:
    with writer(folder) as made:
        made.predict(1, model="a")
        made.predict(2, model="b")
        made.feedback("r2")
    assert [row["request_id"] for row in tailed(folder, "--model", "a")] == ["r1"]
    assert tailed(folder)[-1]["label"] == "cat"


def test_tail_without_a_folder_says_so(folder: Path) -> None:
    done = log("tail", folder=folder)
    assert done.code == 1
    assert "there is no folder" in done.err


def test_tail_goes_on_with_what_comes_until_ctrl_c(folder: Path) -> None:
    with writer(folder) as made, started("tail", "--follow", folder=folder) as process:
        assert process.stdout
        made.predict(1)
        assert json.loads(process.stdout.readline())["request_id"] == "r1"
        with writer(folder) as later:  # a front that starts, fills some segments, and ends
            for value in range(2, 400):
                later.predict(value)
        for value in range(2, 400):
            assert json.loads(process.stdout.readline())["request_id"] == f"r{value}"
        made.predict(400)
        assert json.loads(process.stdout.readline())["request_id"] == "r400"
        process.send_signal(signal.SIGINT)
        assert process.wait(SOON_S) == 0
        assert process.stderr
        assert not process.stderr.read()


def test_tail_ends_when_nobody_reads_any_more(folder: Path) -> None:
    with writer(folder) as made, started("tail", "--follow", folder=folder) as process:
        assert process.stdout
        made.predict(1)
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(SOON_S) == 0
        assert process.stderr
        assert not process.stderr.read()
        process.stdout = None


def test_tail_into_head_ends_well(folder: Path) -> None:
    with writer(folder) as made:
        for value in range(5000):
            made.predict(value)
    command = f"{shlex.join(PROGRAM)} tail -n 5000 | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=environment(folder), capture_output=True, text=True, timeout=60)
    first, code = done.stdout.splitlines()
    assert json.loads(first)["request_id"] == "r0"
    assert (code, done.stderr) == ("0", "")


def test_what_a_record_begins_with_is_told_without_decoding(folder: Path) -> None:
    with writer(folder) as made:
        made.predict(1, rows=5)
    (path,) = segments(folder)
    with closing(Reading(path, Damage())) as heads, closing(Reading(path, Damage())) as payloads:
        (head,), (payload,) = heads.heads(), payloads.payloads()
    record = decode(payload)
    assert head == (record.rows, record.created_us)
