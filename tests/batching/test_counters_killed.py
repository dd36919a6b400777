"""Counters across real processes: what SIGKILL leaves, and what a reader sees meanwhile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batching.counters import Counters
from batching.families import BY_NAME, GAUGE, OVERFLOW

ROOT = Path(__file__).resolve().parents[2]
ROWS, SECONDS = "inference_rows_total", "inference_compute_seconds"

# Each says one byte after each round of counting, so what it said is what it counted, or one less.
COUNTS = """
import os, sys
from batching.counters import Counters
slot = Counters.attach(int(sys.argv[1])).slot(int(sys.argv[2]))
cell = slot.counter("inference_rows_total", model="m", version="1")
while True:
    cell.add()
    os.write(1, b".")
"""
REGISTERS = """
import itertools, os, sys
from batching.counters import Counters
slot = Counters.attach(int(sys.argv[1])).slot(int(sys.argv[2]))
slot.gauge("inference_in_flight").set(1)
for n in itertools.count():
    labels = {"model": str(n % 400), "version": "1"}
    slot.counter("inference_rows_total", **labels).add()
    slot.histogram("inference_compute_seconds", **labels).observe(n % 7 / 3)
    os.write(1, b".")
"""
READS = """
import os, select, sys
from batching.counters import Counters
counters = Counters.attach(int(sys.argv[1]))
gauge = "inference_in_flight"
before, reads = counters.read(), 0
print("reading", flush=True)
while not select.select([0], [], [], 0)[0]:
    now = counters.read()
    reads += 1
    for series, numbers in before.items():
        if series[0] == gauge:
            assert 0 <= numbers[0] <= 3, numbers
        elif not all(new >= old for old, new in zip(numbers, now[series], strict=True)):
            sys.exit(f"{series} went from {numbers} to {now[series]}")
    before = now
print(reads)
"""


@pytest.fixture
def shared() -> Iterator[Counters]:
    made = Counters.create(8)
    yield made
    made.close()


Process = subprocess.Popen[bytes]
Start = Callable[..., Process]


@pytest.fixture
def start(shared: Counters) -> Iterator[Start]:
    """Runs code in a process that has the counters' descriptor; whatever still runs at the end is killed."""
    processes: list[Process] = []

    def run(code: str, *arguments: int, stdin: int | None = None) -> Process:
        command = [sys.executable, "-c", code, str(shared.fd), *map(str, arguments)]
        process = subprocess.Popen(command, pass_fds=[shared.fd], cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE)
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        with process:
            pass


def killed_after(process: Process, rounds: int) -> int:
    """Kill it once it has said that many rounds; how many it has said in the end."""
    with process:
        assert process.stdout is not None
        said = len(process.stdout.read(rounds))
        assert said == rounds, "it died by itself"
        process.kill()
        return said + len(process.stdout.read())


@pytest.mark.parametrize("rounds", [1, 50, 3000])
def test_what_a_process_counted_outlives_its_sigkill(shared: Counters, start: Start, rounds: int) -> None:
    said = killed_after(start(COUNTS, 1), rounds)
    counted = shared.read()[ROWS, ("m", "1")]
    assert counted in ([said], [said + 1.0])
    shared.fold(1)
    assert shared.read()[ROWS, ("m", "1")] == counted
    more = killed_after(start(COUNTS, 1), rounds)
    assert shared.read()[ROWS, ("m", "1")][0] - counted[0] in (more, more + 1)


@pytest.mark.parametrize("rounds", [1, 30, 250])
def test_a_process_killed_while_it_registers_leaves_every_series_it_spoke_of(
    shared: Counters, start: Start, rounds: int
) -> None:
    said = killed_after(start(REGISTERS, 1), rounds)
    read = shared.read()
    rows = {labels: numbers for (name, labels), numbers in read.items() if name == ROWS}
    # The last one may have been published, and counted or not, before it could be spoken of.
    full = {(str(n), "1"): said // 400 + (n < said % 400) for n in range(min(said, 400))}
    assert all(rows[labels][0] >= n for labels, n in full.items())
    assert sum(numbers[0] for numbers in rows.values()) in (said, said + 1)
    shared.fold(1)
    del read["inference_in_flight", ()]
    assert shared.read() == read


def test_no_reader_ever_sees_less_while_processes_register_die_and_are_folded(shared: Counters, start: Start) -> None:
    readers = [start(READS, stdin=subprocess.PIPE) for _ in range(2)]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"reading\n"
    kills = said = 0
    for generation in range(5):
        writers = {slot: start(REGISTERS, slot) for slot in (1, 2, 3)}
        for slot, writer in writers.items():
            said += killed_after(writer, 60 + 150 * generation)
            kills += 1
            shared.fold(slot)
            for _ in range(20):
                shared.fold(7)  # nobody's: nothing moves, but each reader under way has to begin again
    for reader in readers:
        output, _ = reader.communicate()
        assert reader.returncode == 0, output
        assert int(output) > 20
    read = shared.read()
    assert said <= sum(numbers[0] for (name, _), numbers in read.items() if name == ROWS) <= said + kills
    assert said <= sum(sum(numbers[1:]) for (name, _), numbers in read.items() if name == SECONDS) <= said + kills
    assert read[OVERFLOW, ()] == [0.0]
    assert not any(BY_NAME[name].kind == GAUGE for name, _ in read)


def test_the_supervisor_pays_for_no_heavy_import() -> None:
    code = "import sys, batching.counters; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"numpy", "tensorflow", "prometheus_client", "tempfile"} & set(done.stdout.split())
