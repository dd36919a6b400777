"""The parts of scripts/bench: the load generator, processes, pictures and reports."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.system_tools import system_tool

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from benchmarks import correctness, open_loop, pictures, processes, wrk
from benchmarks.processes import Program, ProgramError
from benchmarks.report import Comparison, Leg, Report, interval
from benchmarks.targets import ConstantServer, Measurement, Usage

STUBBORN = """\
import subprocess, sys, time
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", code])
time.sleep(60)
"""


class Up(Program):
    """A Python program that is up when it, or a child of its, says so."""

    def __init__(self, code: str) -> None:
        super().__init__([sys.executable, "-c", code])

    def wait_until_up(self) -> None:
        self.line("up", 30)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (1.0, correctness.EQUAL),
        (1.00001, correctness.EQUAL),
        (1.0001, correctness.DIFFERENT),
        (float("nan"), correctness.DIFFERENT),
        (correctness.FAILED, correctness.FAILED),
    ],
)
def test_an_answer_is_equal_up_to_the_last_bits(answer: float | str, verdict: str) -> None:
    assert correctness.judge(answer, 1.0) == verdict


def test_an_answer_without_its_request_id_is_not_its_own() -> None:
    with ConstantServer(1) as constant:
        answers = correctness.ask(constant.url, [[0.5], [0.6]], range(2))
    assert answers == {0: correctness.WRONG_ID, 1: correctness.WRONG_ID}


def test_no_answer_is_a_failure() -> None:
    with ConstantServer(1) as constant:
        url = constant.url
    assert correctness.ask(url, [[0.5]], range(1)) == {0: correctness.FAILED}


# -- the load generator ------------------------------------------------------------------------------------------------


class Recorder(BaseHTTPRequestHandler):
    """Remembers what was posted to it."""

    protocol_version = "HTTP/1.1"
    posted: set[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.posted.add((self.headers["Content-Type"], body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server with that handler: its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def recorder() -> Iterator[tuple[str, set[tuple[str, bytes]]]]:
    """A server: (url, what was posted there)."""
    Recorder.posted = set()
    with serving(Recorder) as url:
        yield url, Recorder.posted


def test_bodies_are_posted_in_turn_and_byte_for_byte(
    recorder: tuple[str, set[tuple[str, bytes]]], tmp_path: Path
) -> None:
    system_tool("wrk")
    url, posted = recorder
    bodies = [b'{"features":[1]}', b"\x00\xff\r\n\x00", b"x" * 100_000]
    load = wrk.run(url, connections=1, seconds=1, bodies=wrk.Bodies.write(tmp_path / "bodies", bodies, "image/jpeg"))
    assert posted == {("image/jpeg", body) for body in bodies}
    assert load.errors == 0
    assert load.requests >= 3


def test_refusals_count_as_errors() -> None:
    system_tool("wrk")
    with ConstantServer(2) as constant:
        load = wrk.run(f"{constant.url}/nothing/here", connections=2, seconds=1)
    assert load.errors == load.requests > 0


def test_a_target_that_is_gone_is_an_error() -> None:
    system_tool("wrk")
    with ConstantServer(1) as constant:
        url = constant.url
    with pytest.raises(wrk.WrkError, match=r"wrk failed: .*refused"):
        wrk.run(url, connections=1, seconds=1)


def test_a_fixed_schedule_sends_each_request_in_its_turn(
    recorder: tuple[str, set[tuple[str, bytes]]], tmp_path: Path
) -> None:
    url, posted = recorder
    bodies = [b'{"features":[%d]}' % number for number in range(100)]
    folder = wrk.Bodies.write(tmp_path / "bodies", bodies, "application/json")
    load = open_loop.run(url, rate=100, seconds=1, connections=4, bodies=folder)
    assert posted == {("application/json", body) for body in bodies}
    assert (load.requests, load.errors) == (100, 0)
    assert 0 < load.p50_ms <= load.p99_ms


class Stalling(Recorder):
    """Answers one at a time, and each after a while."""

    lock = threading.Lock()

    def do_POST(self) -> None:
        with self.lock:
            time.sleep(0.05)
            super().do_POST()


def test_a_stall_is_seen_by_every_request_that_was_due_in_it(tmp_path: Path) -> None:
    """At 40 a second and 20 answers a second, the last waits for half of the others."""
    Stalling.posted = set()
    folder = wrk.Bodies.write(tmp_path / "bodies", [b"{}"], "application/json")
    with serving(Stalling) as url:
        load = open_loop.run(url, rate=40, seconds=1, connections=2, bodies=folder)
    assert (load.requests, load.errors) == (40, 0)
    assert load.p99_ms > 900


def test_what_a_fixed_schedule_gets_no_answer_to_is_an_error(tmp_path: Path) -> None:
    folder = wrk.Bodies.write(tmp_path / "bodies", [b"{}"], "application/json")
    with ConstantServer(1) as constant:
        load = open_loop.run(f"{constant.url}/nothing/here", rate=50, seconds=1, connections=2, bodies=folder)
    assert (load.requests, load.errors) == (0, 50)


# -- processes ---------------------------------------------------------------------------------------------------------


def test_what_outlives_its_program_is_killed_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_S", 0.5)
    program = Up(STUBBORN)
    program.__enter__()
    assert len(program.pids()) == 2
    with pytest.raises(ProgramError, match="left 1 processes behind"):
        program.stop()
    assert program.pids() == []


def test_a_program_that_fails_to_start_is_quoted() -> None:
    with pytest.raises(ProgramError, match=r"(?s)ended:.*no such luck"), Up("raise SystemExit('no such luck')"):
        pass


def test_a_failure_in_the_block_is_the_one_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_S", 0.5)
    with pytest.raises(KeyError), Up(STUBBORN):
        raise KeyError


def test_processor_time_and_memory_are_seen() -> None:
    code = (
        "import time\nwhile time.process_time() < 0.5: pass\nheld = b'x' * 50_000_000\nprint('up', flush=True)\ninput()"
    )
    with Up(code) as program:
        (pid,) = program.pids()
        assert 0.4 < processes.cpu_seconds([pid]) < 2
        assert 50 < processes.memory(pid).pss_mb <= processes.memory(pid).rss_mb
        assert processes.command(pid)[-1] == code


def test_the_time_of_children_that_have_ended_counts() -> None:
    code = (
        "import subprocess, sys\nburn = 'import time\\nwhile time.process_time() < 0.5: pass'\n"
        "subprocess.run([sys.executable, '-c', burn])\nprint('up', flush=True)\ninput()"
    )
    with Up(code) as program:
        (pid,) = program.pids()
        assert processes.cpu_seconds([pid]) < 0.4
        assert 0.4 < processes.tree_cpu_seconds(pid) < 2


# -- pictures and reports ----------------------------------------------------------------------------------------------


def test_pictures_are_different_jpegs_of_the_models_size() -> None:
    photos = pictures.photos()
    assert len(set(photos)) == len(photos) == 32
    for photo in photos:
        with Image.open(BytesIO(photo)) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (224, 224), "RGB")
        assert 8_000 < len(photo) < 30_000


def leg(*requests_per_s: float, errors: int = 0) -> Leg:
    return Leg(
        "server", 16, [Measurement(rate, 1.0, 2.0, 0.1, errors, others_cpu_percent=5) for rate in requests_per_s]
    )


def test_a_leg_is_told_by_its_median_and_range() -> None:
    told = leg(3000, 1000, 2000).to_json()
    assert told["median"]["requests_per_s"] == 2000
    assert told["range"]["requests_per_s"] == [1000, 3000]
    assert "mean_batch" not in told["median"]
    assert len(told["rounds"]) == 3


@pytest.mark.parametrize(
    ("comparison", "text"),
    [
        (Comparison("a / b", [2.6], "x", 1.5, at_least=True), "a / b: 2.60x, target at least 1.5x: met"),
        (
            Comparison("a / b", [1.0, 1.4, 2], "x", 1.5, at_least=True),
            "a / b: 1.40x (1.00 to 2.00), target at least 1.5x: MISSED",
        ),
        (Comparison("p50", [0.25], " ms", 0.5), "p50: 0.25 ms, target at most 0.5 ms: met"),
        (Comparison("p50", [0.75], " ms", 0.5), "p50: 0.75 ms, target at most 0.5 ms: MISSED"),
        (Comparison("a / b", [2.6], "x"), "a / b: 2.60x"),
        (
            Comparison("a / b", range(1, 11), "x", 9, confidence=True),
            "a / b: 5.50x (95 % interval 2.00 to 9.00), target at most 9x: met",
        ),
        (Comparison("a / b", [1, 2, 3], "x", confidence=True), "a / b: 2.00x (1.00 to 3.00)"),
        (
            Comparison("rows/s", [31_000.4], "", 30_000, at_least=True),
            "rows/s: 31,000, target at least 30,000: met",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_comparison_says_whether_its_target_is_met(comparison: Comparison, text: str) -> None:
    assert str(comparison) == text


@pytest.mark.parametrize(
    ("count", "ends"),
    [(5, None), (6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (10, (2, 9)), (12, (3, 10)), (20, (6, 15)), (100, (40, 61))],
)
def test_the_medians_interval_is_that_of_the_tables(count: int, ends: tuple[int, int] | None) -> None:
    """Conover, Practical Nonparametric Statistics: the ranks that bound a median with 95 % confidence."""
    assert interval(range(count, 0, -1)) == ends


@pytest.fixture
def report() -> Report:
    machine = {
        "cpu": "abacus",
        "cores": 2,
        "kernel": "6",
        "python": "3.11",
        "tensorflow": "2",
        "date": "2030-01-01T00:00",
    }
    made = Report("Title", "request", {**machine, "load_average": 0.1}, {"rounds": 3, "seconds": 1})
    made.legs = [leg(1000, 3000, 2000), leg(10, 20, 30, errors=2)]
    made.usage = {"front": Usage(1, 40, 60, 0.1)}
    made.comparisons = [Comparison("a / b", [2.6], "x", 1.5, at_least=True)]
    return made


def test_errors_of_all_rounds_count(report: Report) -> None:
    assert report.errors == 6
    assert report.to_json()["errors"] == 6


def test_the_table_is_aligned(report: Report) -> None:
    lines = report.to_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("what "))
    heading, first, second = lines[at : at + 3]
    end = heading.index("request/s") + len("request/s")
    assert first[:end].endswith(" 2,000 (1,000 to 3,000)")
    assert second[:end].endswith(" 20.0 (10.0 to 30.0)")
    assert first.split()[-1] == "0"
    assert second.split()[-1] == "6"


def test_markdown_has_a_table_that_renders(report: Report) -> None:
    rows = [line for line in report.to_markdown().splitlines() if line.startswith(("| what", "| server |"))]
    assert {row.count("|") for row in rows} == {9}
    assert "- a / b: 2.60x, target at least 1.5x: met" in report.to_markdown()
