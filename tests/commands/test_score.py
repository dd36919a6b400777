"""`score` in a process that may be killed at any moment: every row once, in order, whatever happens."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.commands.desk import keras_file
from tests.commands.score_program import COLUMNS, NAN, POISON
from tests.harness import ROOT, SOON_S, wait_until


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return keras_file(tmp_path / "doubling" / "1" / "x.keras")


def begin(*arguments: str | Path, seconds: float = 0.0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.commands.score_program", str(seconds), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def score(*arguments: str | Path, seconds: float = 0.0) -> subprocess.CompletedProcess[str]:
    with begin(*arguments, seconds=seconds) as process:
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def made(process: subprocess.CompletedProcess[str]) -> None:
    assert process.returncode == 0, process.stderr


def csv_of(path: Path, rows: int, changed: dict[int, str] | None = None) -> Path:
    """x[0], x[1], x[2] under names of their own; `changed`: other lines for some rows, counted from 1."""
    lines = [(changed or {}).get(row, f"{row},{row}.5,{row % 7}") for row in range(1, rows + 1)]
    path.write_text("a,b,c\n" + "\n".join(lines) + "\n")
    return path


def doubled(row: int) -> str:
    return ",".join(str(float(np.float32(value) * 2)) for value in (row, row + 0.5, row % 7))


def answers(rows: Sequence[int]) -> list[str]:
    return [f"{row},{row}.5,{row % 7},{doubled(row)}" for row in rows]


def is_beyond(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size > size


def files_in(folder: Path, name: str) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(name))


def test_a_csv_keeps_its_columns_and_gets_the_models(tmp_path: Path, model: Path) -> None:
    source = csv_of(tmp_path / "in.csv", 2000)
    done = score(model, source, "-o", tmp_path / "out.csv")
    made(done)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines == ["a,b,c,y[0],y[1],y[2]", *answers(range(1, 2001))]
    assert "2,000 rows written" in done.stdout
    assert files_in(tmp_path, "out") == ["out.csv"]


def test_killed_at_random_moments_and_resumed_it_writes_each_row_once(tmp_path: Path, model: Path) -> None:
    rows = 60_000
    bad = {17: "17,no number,3", 30_000: f"30000,{POISON},2", 59_999: "1,2"}
    source = csv_of(tmp_path / "in.csv", rows, bad)
    output, part = tmp_path / "out.csv", tmp_path / "out.csv.part"
    moments = random.Random(7)
    kills = 0
    size = 0
    while kills < 5:
        with begin(model, source, "-o", output, seconds=0.03) as process:
            wait_until(partial(is_beyond, part, size + moments.randrange(20_000, 250_000)), 60, "it goes on")
            assert process.poll() is None, process.communicate()
            process.send_signal(signal.SIGINT if kills == 2 else signal.SIGKILL)
            process.communicate(timeout=SOON_S)
        assert process.returncode == (130 if kills == 2 else -signal.SIGKILL)
        kills += 1
        size = json.loads((tmp_path / "out.csv.journal").read_text())["mark"]["output_bytes"]
        with part.open("ab") as torn:  # what was under way may have come to the disk, or only some of it
            torn.write(b"half a li")
    done = score(model, source, "-o", output)
    assert done.returncode == 1
    good = [row for row in range(1, rows + 1) if row not in bad]
    assert output.read_text().splitlines()[1:] == answers(good)
    aside = [json.loads(line) for line in (tmp_path / "out.errors.jsonl").read_text().splitlines()]
    assert [(one["row"], one["input"]) for one in aside] == list(bad.items())
    assert "no number" in aside[0]["message"]
    assert aside[1]["message"] == "the model could not answer this input"
    assert "2 cells, the header has 3" in aside[2]["message"]
    assert files_in(tmp_path, "out") == ["out.csv", "out.errors.jsonl"]


def test_a_run_that_ended_before_its_last_step_is_only_put_right(tmp_path: Path, model: Path) -> None:
    source = csv_of(tmp_path / "in.csv", 10)
    output, journal = tmp_path / "out.csv", tmp_path / "out.csv.journal"
    with begin(model, source, "-o", output, seconds=60) as process:
        wait_until(journal.exists, SOON_S, "it has begun")
        process.kill()
    told = json.loads(journal.read_text())
    made(score(model, source, "-o", output))
    content = output.read_bytes()
    told["mark"] |= {"rows": 10, "written": 10, "whole": True, "output_bytes": len(content)}
    journal.write_text(json.dumps(told))  # as it was just before it went, the output having its name already
    made(score(model, source, "-o", output))
    assert output.read_bytes() == content
    output.rename(tmp_path / "out.csv.part")  # and just before that
    journal.write_text(json.dumps(told))
    made(score(model, source, "-o", output))
    assert (output.read_bytes(), files_in(tmp_path, "out")) == (content, ["out.csv"])


@pytest.fixture
def begun(tmp_path: Path, model: Path) -> tuple[Path, Path]:
    """An input and an output of which some is done."""
    source, output = csv_of(tmp_path / "in.csv", 20_000), tmp_path / "out.csv"
    part = tmp_path / "out.csv.part"
    with begin(model, source, "-o", output, seconds=0.05) as process:
        wait_until(partial(is_beyond, part, 10_000), SOON_S, "it goes on")
        process.kill()
    return source, output


@pytest.mark.parametrize("what", ["the input", "the model", "the option --only-outputs", "out.csv.part"])
def test_what_changed_is_not_gone_on_with_but_begun_anew_when_told(
    begun: tuple[Path, Path], tmp_path: Path, model: Path, what: str
) -> None:
    source, output = begun
    more: list[str] = []
    if what == "the input":
        csv_of(source, 20_001)
    elif what == "the model":
        keras_file(model, '{"other": 1}')
    elif what == "out.csv.part":
        (tmp_path / "out.csv.part").write_text("a,b,c")
    else:
        more = ["--only-outputs"]
    done = score(model, source, "-o", output, *more)
    assert done.returncode == 1
    complaint = done.stderr.splitlines()[0]
    assert what in complaint
    assert "--restart" in complaint
    assert not output.exists()
    made(score(model, source, "-o", output, "--restart", *more))
    assert len(output.read_text().splitlines()) == (20_002 if what == "the input" else 20_001)


def test_what_is_done_is_not_done_again_unless_told(tmp_path: Path, model: Path) -> None:
    source, output = csv_of(tmp_path / "in.csv", 5), tmp_path / "out.csv"
    made(score(model, source, "-o", output))
    again = score(model, source, "-o", output)
    assert (again.returncode, "out.csv is there already" in again.stderr) == (2, True)
    csv_of(source, 6)
    made(score(model, source, "-o", output, "--restart"))
    assert len(output.read_text().splitlines()) == 7


def test_two_runs_do_not_write_the_same_file(tmp_path: Path, model: Path) -> None:
    source = csv_of(tmp_path / "in.csv", 10)
    with begin(model, source, "-o", tmp_path / "out.csv", seconds=60) as first:
        wait_until((tmp_path / "out.csv.journal").exists, SOON_S, "it has begun")
        second = score(model, source, "-o", tmp_path / "out.csv")
        first.kill()
    assert (second.returncode, "another run writes out.csv" in second.stderr) == (1, True)


def test_memory_stays_the_same_whatever_the_files_size(tmp_path: Path, model: Path) -> None:
    small, large = tmp_path / "small.csv", tmp_path / "large.csv"
    line = b"0.123456789012345678,0.223456789012345678,0.323456789012345678\n"
    peaks = []
    for path, rows in ((small, 100_000), (large, 1_000_000)):
        path.write_bytes(b"a,b,c\n" + line * rows)
        done = score(model, path, "-o", path.with_suffix(".jsonl"))
        made(done)
        peaks.append(int(done.stderr.split()[-1]) * 1024)
        os.unlink(path.with_suffix(".jsonl"))
    grown = large.stat().st_size - small.stat().st_size
    assert grown > 50 << 20
    assert peaks[1] - peaks[0] < 16 << 20


def test_an_array_goes_in_and_an_array_comes_out_without_what_was_set_aside(tmp_path: Path, model: Path) -> None:
    rows = np.arange(3000 * COLUMNS, dtype="float32").reshape(3000, COLUMNS) / 8
    rows[5, 1], rows[700, 0], rows[2999, 2] = np.inf, POISON, NAN
    np.save(tmp_path / "in.npy", rows)
    done = score(model, tmp_path / "in.npy", "-o", tmp_path / "out.npy", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["rows"], told["written"], told["set_aside"]) == (3000, 2997, 3)
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == np.float32
    assert np.array_equal(found, np.delete(rows, [5, 700, 2999], axis=0) * 2)
    aside = [json.loads(line) for line in (tmp_path / "out.errors.jsonl").read_text().splitlines()]
    assert [one["row"] for one in aside] == [6, 701, 3000]
    assert "NaN" in aside[2]["message"]
