"""A process of ours and a front's place in the supervisor's books. Owns starting a child and how it ended, in words.

Also what the kernel tells of it: what it is doing, how much memory it holds, that it goes first when memory ends, and
that it lets others go first.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

from batching.control import ControlChannel

# Secrets that only the log shipper may see.
WITHHELD_ENVIRONMENT = ("DATABASE_URL",)
# Added to a worker's badness: when memory ends, the kernel shall take what can be replaced, never who replaces it.
OOM_SCORE_MORE, OOM_SCORE_MAX = 500, 1000
# How much later than others a worker with long calls comes to the processor. Measured on two noisy cores with
# MobileNetV2 under load from 64 connections: a small model beside it answered within 8 instead of 20 ms (p99), /health
# within 5 instead of 12; 48 instead of 53 pictures/s were done, within the noise. 5 made no difference.
NICENESS, NICENESS_MAX = 10, 19
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# The first that holds for any thread is said of the whole process.
STOPPED = "stopped"
_STATES = {"T": STOPPED, "t": STOPPED, "R": "running", "D": "waiting for a device", "S": "sleeping", "Z": "dead"}


class Stage(Enum):
    """A worker's life. Only an active one is in the snapshot.

    It may go back once: a kept one becomes active again when a change of models is taken back.
    """

    LOADING = 0
    WARM = 1  # could serve at once: it stands by, waits for others, or becomes active in the very pass
    ACTIVE = 2
    KEPT = 3  # of the generation before: answers who still asks for that, and could serve again at once
    RETIRING = 4  # finishes what it has, and ends


class Child:
    """A process of ours and what it has told us.

    group, generation, stage, limit_s, models, failures: a worker's; limit_s is what it allows one batch.
    outgoing: why it is to be replaced by another worker that must be ready first; None: it is to stay.
    doom: why we end it, where that is our doing. gives_way: to other processes, where the processor is scarce.
    """

    def __init__(
        self, id: int, role: str, process: subprocess.Popen[bytes], channel: ControlChannel, slot: int
    ) -> None:
        self.id = id
        self.role = role
        self.process = process
        self.channel = channel
        self.slot = slot
        self.life: socket.socket
        self.group = ""
        self.generation = 0
        self.stage = Stage.LOADING
        self.limit_s = 0.0
        self.models: list[dict[str, Any]] = []
        self.failures: list[dict[str, str]] = []
        self.outgoing: str | None = None
        self.doom: str | None = None
        self.gives_way = False
        self.started = time.monotonic()
        self.ready_at = 0.0


class FrontEnd:
    """Whoever receives snapshots: a front of ours, or one attached from a foreign process (then without a child)."""

    def __init__(self, channel: ControlChannel, slot: int, child: Child | None) -> None:
        self.channel = channel
        self.slot = slot
        self.child = child
        self.links: set[int] = set()  # ids of the workers whose sockets it has been given
        self.unlinked: set[int] = set()  # those of them that it has lost and may get anew
        self.acknowledged = 0


def environment() -> dict[str, str]:
    """Ours, without what a child must not see."""
    return {key: value for key, value in os.environ.items() if key not in WITHHELD_ENVIRONMENT}


def spawn(entry: Sequence[str], role: str) -> tuple[subprocess.Popen[bytes], ControlChannel]:
    """A fresh interpreter on our own entry, with an environment of its own, and the channel to it.

    Signals for the whole group wait until it ignores them: before that they would end it, with a traceback. A terminal
    that hangs up is none of its affairs: that signal waits for ever.
    """
    ours, theirs = socket.socketpair()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    try:
        process = subprocess.Popen(
            [*entry, role, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment(),
            stdin=subprocess.DEVNULL,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return process, ControlChannel(ours)


def offer_to_oom_killer(pid: int) -> None:
    """Let the kernel end this process sooner than us; where that is not to be had, nothing happens."""
    with suppress(OSError, ValueError):
        ours = int(Path("/proc/self/oom_score_adj").read_text())
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(min(ours + OOM_SCORE_MORE, OOM_SCORE_MAX)))


def let_others_go_first(pid: int) -> None:
    """Give all threads of a process, and those they start, a lower priority; for good, as only root could raise it."""
    niceness = min(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, NICENESS_MAX)
    try:
        threads = [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:  # no such process, or not Linux, where one call is for all threads
        threads = [pid]
    for thread in threads:
        with suppress(OSError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, thread, niceness)


def resident_bytes(pid: int) -> int:
    """The memory a process holds; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def doing(pid: int) -> str:
    """What the kernel says a process is doing just now, in a word: running when any of its threads is."""
    states: set[str] = set()
    with suppress(OSError, IndexError):  # threads come and go, and not every system tells
        for thread in Path(f"/proc/{pid}/task").iterdir():
            states.add((thread / "stat").read_text().rpartition(")")[2].split()[0])
    known = next((one for one in _STATES if one in states), None)
    return _STATES[known] if known is not None else "in an unknown state"


def peer(sock: socket.socket) -> int | None:
    """The process at the other end of a Unix socket, where the system tells."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]) or None


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def manner(returncode: int) -> str:
    """How a process ended."""
    return f"exit code {returncode}" if returncode >= 0 else signal.Signals(-returncode).name


class OomKills:
    """How often the kernel has killed a process for want of memory, in a container's limit or the machine's."""

    def __init__(self) -> None:
        self._count = self._read()

    def look(self) -> None:
        """A chore, each second: what was counted until now has nothing to do with what ends next."""
        self._count = self._read()

    def have_risen(self) -> bool:
        """Whether there was one just now: whatever else was killed in this moment was, as likely as not, its victim."""
        return self._read() > self._count

    @staticmethod
    def _read() -> int:
        try:
            lines = Path("/proc/vmstat").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
