"""`score` of a large file, round by round beside the bare model function on the same rows: rows/s, and memory.

Owns the files and what is said of the figures. Each kind of file goes through the command as an operator runs it; its
own clock stands still while the model loads, and counts everything from the first byte read to the last one kept.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from benchmarks import machine, processes
from benchmarks.rounds import Options
from benchmarks.targets import ModelLoop, server_settings

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("npy", "csv", "jsonl")
BARE_ROWS = (256, 1024, 4096, 16_384)
LOOK_S = 0.05
END_S = 600.0


class Scored(NamedTuple):
    """One run of the command. peak_mb: the most of resident memory that it had itself, without the model's worker."""

    rows_per_s: float
    peak_mb: float


def run(model: Path, options: Options) -> dict[str, Any]:
    """A JSON-safe account; `passed` is whether every row of every file was answered, and the answers were the same."""
    rows, small = (50_000, 5_000) if options.quick else (1_000_000, 100_000)
    bare: dict[int, list[float]] = {size: [] for size in BARE_ROWS}
    found: dict[str, list[Scored]] = {kind: [] for kind in KINDS}
    with ModelLoop(model) as loop:
        (columns,) = loop.contract["inputs"][0]["shape"]
        large = write(options.scratch, rows, columns)
        little = write(options.scratch, small, columns)
        for number in range(options.rounds):
            for size in BARE_ROWS:
                measured = loop.array(size, options.loop_seconds / len(BARE_ROWS), large["npy"])
                bare[size].append(measured.requests_per_s)
            for kind in KINDS[:: -1 if number % 2 else 1]:
                found[kind].append(score(model, large[kind], rows))
                rate = found[kind][-1].rows_per_s
                options.say(f"round {number + 1} of {options.rounds}: {kind}: {rate:,.0f} rows/s")
    best = max(bare, key=lambda size: statistics.median(bare[size]))
    little_peaks = {kind: score(model, little[kind], small).peak_mb for kind in KINDS}
    return {
        "title": "A file through score",
        "machine": machine.describe(),
        "settings": {"rows": rows, "columns": columns, "model": model.name, "server": server_settings()},
        "bare": {"batch_rows": best, "rows_per_s": bare[best]},
        "score": {
            kind: {
                "rows_per_s": [one.rows_per_s for one in runs],
                "of_bare": [one.rows_per_s / alone for one, alone in zip(runs, bare[best], strict=True)],
                "peak_mb": max(one.peak_mb for one in runs),
                f"peak_mb_of_{small}_rows": little_peaks[kind],
            }
            for kind, runs in found.items()
        },
        "passed": same_answers([answers_of(large[kind]) for kind in KINDS]),
    }


def write(folder: Path, rows: int, columns: int) -> dict[str, Path]:
    """The same random rows in a file of each kind."""
    files = {kind: folder / f"rows{rows}.{kind}" for kind in KINDS}
    values = np.random.default_rng(0).standard_normal((rows, columns)).astype("float32")
    np.save(files["npy"], values)
    lines = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
    header = b",".join(b"x%d" % column for column in range(columns))
    files["csv"].write_bytes(b"\n".join([header, *lines]) + b"\n")
    files["jsonl"].write_bytes(b"".join(b'{"features":[%b]}\n' % line for line in lines))
    return files


def score(model: Path, source: Path, rows: int) -> Scored:
    """Run the command on a file of so many rows. Raises processes.ProgramError where it does not answer them all."""
    program = [sys.executable, str(ROOT / "inference_server.py"), "score", str(model), str(source)]
    command = [*program, "-o", str(output_of(source)), "--restart", "--json"]
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, peak_mb(process.pid))
            try:
                process.wait(LOOK_S)
            except subprocess.TimeoutExpired:
                continue
        out, err = process.communicate(timeout=END_S)
    if process.returncode != 0 or json.loads(out)["written"] != rows:
        raise processes.ProgramError(f"score {source.name} failed:\n{err[-2000:]}")
    return Scored(json.loads(out)["rows_per_s"], peak)


def peak_mb(pid: int) -> float:
    """The most of resident memory that a process has had; 0 where it has none any more."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), 0.0)


def output_of(source: Path) -> Path:
    """Where the answers to a file go."""
    return source.with_name(f"answers-{source.name}")


def answers_of(source: Path) -> Sequence[float]:
    """The lone number that the model gave for each row."""
    output = output_of(source)
    if source.suffix == ".npy":
        return list(map(float, np.load(output).ravel()))
    lines = output.read_bytes().splitlines()
    if source.suffix == ".csv":
        return [float(line.rpartition(b",")[2]) for line in lines[1:]]
    return [orjson.loads(line)["prediction"] for line in lines]


def same_answers(answers: Sequence[Sequence[float]]) -> bool:
    """Whether all kinds of files gave the same, up to the last bits of a float32."""
    first = np.array(answers[0])
    return all(len(one) == len(first) and bool(np.allclose(one, first, 1e-5, 1e-5)) for one in answers[1:])


def to_text(account: dict[str, Any]) -> str:
    """For a terminal."""
    bare, settings = account["bare"], account["settings"]
    alone = statistics.median(bare["rows_per_s"])
    verdict = "all answered alike" if account["passed"] else "NOT ALL ANSWERED ALIKE"
    lines = [
        f"{account['title']}: {settings['rows']:,} rows of {settings['columns']} numbers, {verdict}",
        f"the bare function, {bare['batch_rows']:,} rows a call: {alone:,.0f} rows/s",
    ]
    for kind, one in account["score"].items():
        lines.append(
            f"{kind}: {statistics.median(one['rows_per_s']):,.0f} rows/s, {statistics.median(one['of_bare']):.1%} of "
            f"that; {one['peak_mb']:.0f} MB at the most"
        )
    return "\n".join(lines)
