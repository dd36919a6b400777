"""A process of ours and a front's place in the supervisor's books. Owns starting a child and how it ended, in words."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Sequence

from batching.control import ControlChannel

# Secrets that only the log shipper may see.
WITHHELD_ENVIRONMENT = ("DATABASE_URL",)


class Child:
    """A process of ours and what it has told us."""

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
        self.ready = False
        self.started = time.monotonic()


class FrontEnd:
    """Whoever receives snapshots: a front of ours, or one attached from a foreign process (then without a child)."""

    def __init__(self, channel: ControlChannel, slot: int, child: Child | None) -> None:
        self.channel = channel
        self.slot = slot
        self.child = child
        self.links: set[int] = set()  # ids of the workers whose sockets it has been given
        self.acknowledged = 0


def spawn(entry: Sequence[str], role: str) -> tuple[subprocess.Popen[bytes], ControlChannel]:
    """A fresh interpreter on our own entry, with an environment of its own, and the channel to it."""
    ours, theirs = socket.socketpair()
    environment = {key: value for key, value in os.environ.items() if key not in WITHHELD_ENVIRONMENT}
    process = subprocess.Popen(
        [*entry, role, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    theirs.close()
    return process, ControlChannel(ours)


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
