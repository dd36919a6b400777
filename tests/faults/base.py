"""What a server holds: descriptors, threads, children, files, memory. A fault leaves all of it as it was before.

Owns the measuring and the comparison. A server that is to be held to its files must be started by `faulty_server`:
its temporary folder is its own.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from prediction_log.segment import parse_name
from tests.faults.asking import get
from tests.harness import Groups, Server, fake_http_server, wait_until

# An exchange that ends while we look may still hold one, so may a link that is being made.
DESCRIPTORS_SLACK = 2
RSS_SLACK, RSS_SLACK_BYTES = 1.1, 8 << 20
SETTLED_S = 15.0
START_S = 30.0
SHM = Path("/dev/shm")  # noqa: S108 - read only, to see that nothing of ours is in it


class Base(NamedTuple):
    """What a server holds at one moment; lists are by process, of the supervisor and then of each front.

    workers: how many. files: names in its temporary folder and in /dev/shm.
    """

    descriptors: list[int]
    threads: list[int]
    fronts: int
    workers: int
    services: int
    files: frozenset[str]
    rss: list[int]

    def lacks(self, now: Base) -> str:
        """In what `now` is not as this one; empty where it is."""
        found = []
        if any(abs(a - b) > DESCRIPTORS_SLACK for a, b in zip(self.descriptors, now.descriptors, strict=False)):
            found.append(f"descriptors {self.descriptors} -> {now.descriptors}")
        if self.threads != now.threads:
            found.append(f"threads {self.threads} -> {now.threads}")
        if self[2:5] != now[2:5]:
            found.append(f"fronts, workers and services {self[2:5]} -> {now[2:5]}")
        if now.files - self.files:
            found.append(f"files {sorted(now.files - self.files)}")
        return "; ".join(found)

    def grown(self, now: Base) -> str:
        """Whose memory has grown more than it may."""
        pairs = zip(self.rss, now.rss, strict=False)
        if all(b <= a * RSS_SLACK + RSS_SLACK_BYTES for a, b in pairs):
            return ""
        return f"memory {[a >> 20 for a in self.rss]} -> {[b >> 20 for b in now.rss]} MiB"


def base(server: Server) -> Base:
    """What it holds now. Raises psutil.NoSuchProcess or FileNotFoundError when a process ends while we look."""
    fronts = [psutil.Process(pid) for pid in server.children("front")]
    watched = [psutil.Process(server.pid), *fronts]
    workers = len(server.children("worker"))
    return Base(
        [descriptors(process.pid) for process in watched],
        [process.num_threads() for process in watched],
        len(fronts),
        workers,
        len(server.children()) - len(fronts) - workers,
        files(scratch(server)),
        [process.memory_info().rss for process in watched],
    )


@contextmanager
def back_to_base(server: Server, *, memory: bool = False) -> Iterator[Base]:
    """Hold that the server is back to what it held before the block, within SETTLED_S.

    memory: also the memory of supervisor and fronts; for what has been through several rounds before, as the first
    makes a process grow.
    """
    before = _steady(server)
    yield before
    assert_base(server, before, memory=memory)


def assert_base(server: Server, before: Base, *, memory: bool = False) -> None:
    """Wait until the server holds what it held before."""
    lacking = ""

    def same() -> bool:
        nonlocal lacking
        try:
            now = base(server)
        except (psutil.NoSuchProcess, FileNotFoundError):
            return False
        lacking = before.lacks(now) or (before.grown(now) if memory else "")
        return not lacking

    try:
        wait_until(same, SETTLED_S, "the server is back to base")
    except AssertionError as error:
        error.add_note(lacking)
        raise


def ready(server: Server) -> bool:
    """Whether GET /ready says 200."""
    try:
        return get(server.url, "/ready").status == 200
    except OSError:
        return False


def until_ready(server: Server, starts: int) -> None:
    """Wait until so many workers, since the server's start, have said that they are ready, and it says so, too."""
    wait_until(lambda: server.log.count(" is ready after ") >= starts, START_S, f"{starts} workers have been ready")
    wait_until(lambda: ready(server), START_S, "the server is ready")


@contextmanager
def faulty_server(groups: Groups, *, environment: dict[str, str] | None = None, **settings: Any) -> Iterator[Server]:
    """As tests.harness.fake_http_server, with a temporary folder of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        fake_http_server(groups, environment={"TMPDIR": folder, **(environment or {})}, **settings) as server,
    ):
        yield server


def _steady(server: Server) -> Base:
    """What it holds once that does not change from one look to the next."""
    last: list[Base] = [base(server)]

    def steady() -> Base | None:
        time.sleep(0.1)
        last.append(base(server))
        return last[-1] if last[-1][:-1] == last[-2][:-1] else None

    found = wait_until(steady, SETTLED_S, "the server holds the same from one look to the next")
    assert found
    return found


def descriptors(pid: int) -> int:
    """How many a process has open, but for the segments of the prediction log: spare ones come and go."""
    found = 0
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with suppress(OSError):  # closed while we look
            found += parse_name(os.path.basename(os.readlink(entry.path)).removesuffix(" (deleted)")) is None
    return found


def scratch(server: Server) -> str:
    """The temporary folder of a faulty_server that runs."""
    return psutil.Process(server.pid).environ()["TMPDIR"]


def files(folder: str) -> frozenset[str]:
    """Names in a server's temporary folder, and in /dev/shm but for PostgreSQL's."""
    found = {name for name in os.listdir(SHM) if not name.startswith("PostgreSQL.")} if SHM.is_dir() else set()
    return frozenset(found | set(os.listdir(folder)))
