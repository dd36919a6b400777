"""What stillness costs: idle connections beside the load, a server without load, its memory, and its start.

Memory and start are those of the whole server with two fronts, beside one process that imports TensorFlow, loads the
same model and calls it once; in turn, never at once, as processes that share a library's pages share its cost.
"""

from __future__ import annotations

import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import processes, wrk
from benchmarks.beside import begin
from benchmarks.processes import Program, ProgramError
from benchmarks.report import Comparison, Report
from benchmarks.rounds import Options, interleave, ratios
from benchmarks.small_model import bodies_for
from benchmarks.targets import CALM_S, SCRIPTS, START_S, Measurement, ModelLoop, Server

CONCURRENCY = 64
CONNECTIONS = 1000
FRONTS = "2"
# From the project's acceptance.
RATE_MIN, TAIL_MAX, IDLE_MAX_PERCENT, EXTRA_PSS_MAX_MB, EXTRA_START_MAX_S = 0.8, 3.0, 1.0, 150.0, 1.0
ALONE, BESIDE = "server", f"server, {CONNECTIONS:,} idle connections beside"


class Bare(Program):
    """TensorFlow with the model; see benchmarks.bare. seconds_to_loaded: from its start."""

    def __init__(self, model: Path) -> None:
        super().__init__([sys.executable, "-m", "benchmarks.bare", str(model)], cwd=SCRIPTS)

    def wait_until_up(self) -> None:
        """The model was called."""
        self.line("loaded", START_S)
        self.seconds_to_loaded = time.monotonic() - self.started
        self.line("called", START_S)


def run(model: Path, options: Options) -> Report:
    """Measure; raises what starting or loading raises."""
    report = begin("Stillness", "request", model.name, {}, options)
    with ModelLoop(model) as loop:
        bodies = wrk.Bodies.write(options.scratch / "bodies", bodies_for(loop.contract), "application/json")
    with Server(model) as server:
        server.load("/predict", CONCURRENCY, 1, bodies)

        def alone() -> Measurement:
            return server.load("/predict", CONCURRENCY, options.seconds, bodies)

        def beside() -> Measurement:
            with idle_connections(server.url):
                return alone()

        found = interleave({(ALONE, CONCURRENCY): alone, (BESIDE, CONCURRENCY): beside}, options)
        report.legs = list(found.values())
        options.say(f"an idle server, {options.idle_seconds:g} s")
        report.usage = server.usage(options.idle_seconds)
    lone, crowded = report.legs
    tails = [one.p99_ms / max(one.p50_ms, 1e-9) for one in lone.rounds]
    report.comparisons = [
        Comparison(
            f"with / without {CONNECTIONS:,} idle connections, requests/s at c={CONCURRENCY}",
            ratios(crowded, lone),
            "x",
            RATE_MIN,
            at_least=True,
            confidence=True,
        ),
        Comparison(f"p99 / p50 at c={CONCURRENCY}", tails, "x", TAIL_MAX, confidence=True),
        Comparison("idle server, CPU of one core", [report.usage["all"].idle_cpu_percent], " %", IDLE_MAX_PERCENT),
        *starts(model, bodies, options),
    ]
    return report


@contextmanager
def idle_connections(url: str, count: int = CONNECTIONS) -> Iterator[list[socket.socket]]:
    """Keep-alive connections that have asked once and say no more. Raises ProgramError where one gets no answer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < min(count + 200, hard):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + 200, hard), hard))
    where = urlsplit(url)
    request = f"GET /health HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode()
    with ExitStack() as closed:
        held = []
        for _ in range(count):
            sock = closed.enter_context(socket.create_connection((where.hostname or "", where.port or 80), timeout=10))
            sock.sendall(request)
            if not sock.recv(4096).startswith(b"HTTP/1.1 200"):
                raise ProgramError("an idle connection was not welcome")
            held.append(sock)
        yield held


def starts(model: Path, bodies: wrk.Bodies, options: Options) -> list[Comparison]:
    """Start both in turn: what the server takes more, of time and of memory."""
    extra_s, extra_mb, bare_mb, server_mb, bare_s = [], [], [], [], []
    for number in range(options.rounds):
        with Bare(model) as bare:
            bare_s.append(bare.seconds_to_loaded)
            bare_mb.append(_pss_mb(bare))
        with Server(model, FRONTS=FRONTS) as server:
            extra_s.append(server.seconds_to_ready - bare_s[-1])
            server.load("/predict", CONCURRENCY, 1, bodies)
            time.sleep(CALM_S)
            server_mb.append(_pss_mb(server))
        extra_mb.append(server_mb[-1] - bare_mb[-1])
        options.say(f"start {number + 1} of {options.rounds}: {extra_s[-1]:+.2f} s, {extra_mb[-1]:+.0f} MB")
    return [
        Comparison("ready - import tensorflow and load alone", extra_s, " s", EXTRA_START_MAX_S, confidence=True),
        Comparison("import tensorflow and load alone", bare_s, " s", confidence=True),
        Comparison(
            f"server with FRONTS={FRONTS} - bare TensorFlow with the model, PSS",
            extra_mb,
            " MB",
            EXTRA_PSS_MAX_MB,
            confidence=True,
        ),
        Comparison("bare TensorFlow with the model, PSS", bare_mb, " MB", confidence=True),
    ]


def _pss_mb(program: Program) -> float:
    return sum(processes.memory(pid).pss_mb for pid in program.pids())
