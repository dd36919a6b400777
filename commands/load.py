"""Load on a server, from processes of its own: starts the generators, gives them a job each and adds up their windows.

Owns the processes. Knows nothing of models, and not when a load has lasted long enough: whoever asks goes on, or not.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Self

from commands.load_job import Job

ROOT = Path(__file__).resolve().parents[1]
PROCESSES_MAX = 4
# Beyond its window, for a generator that shares its core: then it is lost.
PATIENCE_S = 30.0
HEAD_START_S = 0.02  # for all to hear when to begin


class LoadError(Exception):
    """A load that cannot be made; why, in one line. is_nobody: no connection was taken."""

    def __init__(self, reason: str, *, is_nobody: bool = False) -> None:
        super().__init__(reason)
        self.is_nobody = is_nobody


@dataclass
class Window:
    """What came of all generators in one window.

    seconds: how long it was. latencies: seconds, of good answers. failures: how often each kind. timings: see
    commands.load_tally. sent, delayed, late_max_s, unsent: of an open loop. busiest: the share of a core that the
    busiest generator used; cpu_s: of all of them.
    """

    seconds: float = 0.0
    latencies: array[float] = field(default_factory=lambda: array("d"))
    failures: Counter[str] = field(default_factory=Counter)
    timings: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    sent: int = 0
    delayed: int = 0
    late_max_s: float = 0.0
    unsent: int = 0
    opened: int = 0
    busiest: float = 0.0
    cpu_s: float = 0.0
    _rate: float = 0.0

    @property
    def requests_per_s(self) -> float:
        """Good answers; each generator's by its own clock, as one may have been late to look at it."""
        return self._rate

    def add(self, told: dict[str, Any], latencies: array[float]) -> None:
        """One generator's part."""
        self.seconds = max(self.seconds, told["seconds"])
        self.latencies += latencies
        self._rate += len(latencies) / told["seconds"]
        self.failures.update(told["failures"])
        for name, value in told["timings"].items():
            self.timings[name] += value
        for name in ("sent", "delayed", "unsent", "opened", "cpu_s"):
            setattr(self, name, getattr(self, name) + told[name])
        self.late_max_s = max(self.late_max_s, told["late_max_s"])
        self.busiest = max(self.busiest, told["cpu_s"] / told["seconds"])


def default_processes() -> int:
    """Half of the cores: the server needs the others."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(PROCESSES_MAX, cores // 2))


class Crew:
    """So many generators, for one load after another."""

    def __init__(self, processes: int) -> None:
        self._count = processes
        self._members: list[tuple[subprocess.Popen[bytes], Connection]] = []

    def __enter__(self) -> Self:
        try:
            for _ in range(self._count):
                self._members.append(_start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        for process, connection in self._members:
            connection.close()
            process.kill()  # it holds nothing that would need an orderly end
        for process, _connection in self._members:
            process.wait()

    def windows(self, job: Job) -> Generator[Window, None, None]:
        """Load without end, one window after the other; closing the iterator ends it. Raises LoadError."""
        parts = shares(job, self._count)
        connections = [connection for _, connection in self._members[: len(parts)]]
        for connection, part in zip(connections, parts, strict=True):
            _say(connection, part.to_json())
        for connection in connections:
            told, _ = _hear(connection, PATIENCE_S)
            if "failed" in told:
                raise LoadError(told["failed"].lower(), is_nobody=told["is_nobody"])
        start = time.monotonic() + HEAD_START_S
        for connection in connections:
            _say(connection, repr(start).encode())
        try:
            yield from _added_up(connections, start, job.window_s)
        finally:
            for connection in connections:
                with suppress(LoadError):
                    _say(connection, b"end")
            for connection in connections:
                with suppress(LoadError):
                    while "end" not in _hear(connection, PATIENCE_S)[0]:
                        pass


def shares(job: Job, processes: int) -> list[Job]:
    """One job for each of the processes that have something to do."""
    if job.rate is None:
        processes = min(processes, job.connections)
    counts = [job.connections // processes + (n < job.connections % processes) for n in range(processes)]
    rate = None if job.rate is None else job.rate / processes
    return [
        replace(job, connections=max(count, 1), rate=rate, seed=job.seed * processes + number)
        for number, count in enumerate(counts)
    ]


def _start() -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            # A fresh interpreter that finds our package, whatever folder the user is in and whatever his __main__ is.
            [sys.executable, "-c", _PROGRAM, str(ROOT), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for whoever started us
        )
        return process, Connection(ours.detach())


_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); from commands.load_generator import main; main(int(sys.argv[2]))"
)


def _say(connection: Connection, word: bytes) -> None:
    try:
        connection.send_bytes(word)
    except OSError:
        raise LoadError("a load generator has ended") from None


def _hear(connection: Connection, patience_s: float) -> tuple[dict[str, Any], array[float]]:
    try:
        if not connection.poll(patience_s):
            raise LoadError("a load generator does not answer any more")
        line, _, data = connection.recv_bytes().partition(b"\n")
    except (EOFError, OSError):
        raise LoadError("a load generator has ended") from None
    latencies = array("d")
    latencies.frombytes(data)
    return json.loads(line), latencies


def _added_up(connections: Sequence[Connection], start: float, window_s: float) -> Iterator[Window]:
    """Each window when all have told of it; who was late for one has more in the next."""
    coming: defaultdict[int, Window] = defaultdict(Window)
    reached = dict.fromkeys(connections, 0)
    following = 1
    while True:
        for ready in wait(connections, window_s + PATIENCE_S) or [connections[0]]:
            assert isinstance(ready, Connection)  # noqa: S101 - nothing else is waited for
            told, latencies = _hear(ready, 0.0)
            reached[ready] = round((told["until"] - start) / window_s)
            coming[reached[ready]].add(told, latencies)
        while following <= min(reached.values()):
            yield coming.pop(following, Window())
            following += 1
