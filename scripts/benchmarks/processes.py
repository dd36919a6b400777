"""Processes as Linux shows them in /proc: who belongs to whom, what they use; starting them and ending them for sure.

Knows nothing of servers and models.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# A server finishes what is in flight before it ends; nothing is, when a leg is over.
STOP_S = 10.0
STDERR_TAIL = 2000  # bytes
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ProgramError(Exception):
    """A program did not start, ended too early, or left something behind; the message has the end of what it said."""


class Memory(NamedTuple):
    """Megabytes (10^6 bytes). pss: pages shared by n processes count as 1/n; rss: they count in full."""

    pss_mb: float
    rss_mb: float


def family(pid: int) -> list[int]:
    """The processes of the session that `pid` leads, itself first; a child whose parent has died is among them too."""
    stats = {int(entry.name): _stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    alive = {one for one, fields in stats.items() if fields and fields[0] != "Z" and int(fields[3]) == pid}
    return sorted(alive, key=lambda one: (one != pid, one))


def others_cpu_seconds() -> float:
    """Processor time of all cores since the machine started that went neither to us nor to what we have started.

    What a hypervisor gave to other machines is in it.
    """
    user, nice, system, _, _, _, _, stolen = map(int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9])
    return (user + nice + system + stolen) / TICKS_PER_S - tree_cpu_seconds(os.getpid())


def tree_cpu_seconds(pid: int) -> float:
    """Processor time of a process, of those it has started, directly or not, and of those among them that have ended.

    A child whose parent has died is not among them.
    """
    tree = {one: _stat(one) for one in with_descendants({pid})}
    # Fields 11 to 14: its own time in user and system mode, and that of its children that have ended.
    return sum(sum(map(int, fields[11:15])) for fields in tree.values() if fields) / TICKS_PER_S


def with_descendants(pids: Iterable[int]) -> set[int]:
    """These, and what they have started, directly or not, as far as no parent has died."""
    stats = {int(entry.name): _stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    tree = set(pids)
    while more := {one for one, fields in stats.items() if fields and int(fields[1]) in tree} - tree:
        tree |= more
    return tree


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time that these have used in all their threads since they began; those that are gone count 0."""
    stats = (_stat(pid) for pid in pids)
    return sum((int(fields[11]) + int(fields[12])) / TICKS_PER_S for fields in stats if fields is not None)


def memory(pid: int) -> Memory:
    """What the process holds now. Raises OSError when it is gone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kib = {key: int(value.split()[0]) for key, _, value in (line.partition(":") for line in lines[1:])}
    return Memory(kib["Pss"] * 1.024e-3, kib["Rss"] * 1.024e-3)


def command(pid: int) -> list[str]:
    """The command line. Raises OSError when the process is gone."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on (the name before it may hold anything), None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


class Program:
    """A program, line by line. As a context manager it is started, and ended with all that it started itself.

    It leads a session of its own, so that Ctrl-C reaches us alone and we end it.
    """

    def __init__(
        self, arguments: Sequence[str], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._arguments = list(arguments)
        self._cwd = cwd
        self._environment = {**os.environ, **(environment or {})}
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[str]
        self._stderr: IO[bytes]

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile()
        self.started = time.monotonic()
        try:
            with _signals_held():
                self._process = subprocess.Popen(
                    self._arguments,
                    cwd=self._cwd,
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._stderr,
                    text=True,
                    start_new_session=True,
                )
            threading.Thread(target=self._read, args=[self._process.stdout], daemon=True).start()
            self.wait_until_up()
        except BaseException:
            self.stop()
            raise
        return self

    def wait_until_up(self) -> None:
        """Hear what it says when it is up. Raises ProgramError when it is not, in time."""
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except ProgramError:
            if error is None:  # else the first failure says more
                raise

    def _read(self, stdout: Iterable[str]) -> None:
        for line in stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self, prefix: str, timeout_s: float) -> str:
        """The rest of the next line on stdout that starts with `prefix`. Raises ProgramError without one in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                raise ProgramError(f"{self._name()} said nothing for {timeout_s:.0f} s{self._last_words()}") from None
            if line is None:
                raise ProgramError(f"{self._name()} ended{self._last_words()}")
            if line.startswith(prefix):
                return line.removeprefix(prefix)

    def say(self, line: str) -> None:
        """Write a line to its stdin. Raises ProgramError when it has ended."""
        try:
            print(line, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise ProgramError(f"{self._name()} ended{self._last_words()}") from None

    def pids(self) -> list[int]:
        """Itself and all that it has started, directly or not."""
        return family(self._process.pid)

    def stop(self) -> None:
        """SIGTERM to the program; what is left of its family in the end is killed, and then ProgramError raised."""
        if not hasattr(self, "_process"):  # it could not be started
            return
        self._process.terminate()
        left = _wait_for_end(self.pids(), STOP_S)
        left += [pid for pid in self.pids() if pid not in left]  # born while the others ended
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _wait_for_end(left, STOP_S)
        with contextlib.suppress(BrokenPipeError), self._process, self._stderr:  # waits, and closes the pipes
            pass
        if left:
            raise ProgramError(f"{self._name()} left {len(left)} processes behind; they were killed")

    def _name(self) -> str:
        return " ".join(Path(one).name for one in self._arguments[1:])

    def _last_words(self) -> str:
        self._stderr.seek(max(self._stderr.seek(0, os.SEEK_END) - STDERR_TAIL, 0))
        words = self._stderr.read().decode(errors="replace").strip()
        return f":\n{words}" if words else ""


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Signals that would end us wait until the block is over: between a fork and its bookkeeping none may come."""
    caught: list[int] = []
    held = {number: signal.signal(number, lambda one, _: caught.append(one)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])


def _wait_for_end(pids: Iterable[int], timeout_s: float) -> list[int]:
    """Those of the processes that have not ended in time."""
    poll, left = select.poll(), {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            left[descriptor] = pid
            poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while left and (remaining_s := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(remaining_s * 1000):
            poll.unregister(descriptor)
            os.close(descriptor)
            del left[descriptor]
    for descriptor in left:
        os.close(descriptor)
    return sorted(left.values())
