"""Every process of ours: started, heard, found dead, collected. Owns the children and their places; knows no roles.

A death is known by whichever comes first: the end of file of its channel (at once, also when it is only about to be
gone) or the signal for its end (also when something it has started still holds its channel). Whoever cares hears of it
right then (`on_death`), and again when the exit code is there (`on_end`): nobody waits for that, for a process with
much memory takes its time to be gone.
"""

from __future__ import annotations

import itertools
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from batching.child import Child, manner, spawn
from batching.counters import Counters
from batching.errors import ConnectionLost
from batching.loop import Loop
from batching.slots import Slots

# How long a child that has let go of its channel may take to be gone before it is killed.
EXIT_CODE_S = 0.5
# How long we wait at our own end for what was killed; what is not gone then hangs in the kernel, and is init's.
COLLECT_S = 1.0


class Processes:
    """Iterating gives those that are alive, oldest first.

    on_message: a child said something. on_death: it is of no more use, and no longer among the children. on_end: it is
    gone, and this is how in words.
    """

    def __init__(
        self,
        entry: Sequence[str],
        loop: Loop,
        counters: Counters,
        slots: Slots,
        *,
        on_message: Callable[[Child, dict[str, Any]], None],
        on_death: Callable[[Child], None],
        on_end: Callable[[Child, str], None],
    ) -> None:
        self._entry = entry
        self._loop = loop
        self._counters = counters
        self._slots = slots
        self._on_message = on_message
        self._on_death = on_death
        self._on_end = on_end
        self._ids = itertools.count(1)
        self._alive: dict[int, Child] = {}
        self._ending: dict[int, Child] = {}

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._alive.values()))

    def __bool__(self) -> bool:
        """Whether any is left, alive or not collected yet."""
        return bool(self._alive or self._ending)

    def of_role(self, role: str) -> list[Child]:
        """Those of one kind."""
        return [child for child in self._alive.values() if child.role == role]

    def is_alive(self, child: Child) -> bool:
        """Whether nothing has ended it yet, as far as we know."""
        return child.id in self._alive

    def start(self, role: str, hello: dict[str, Any], *fds: int) -> Child:
        """A new one; it is told its place, the counters, its life line and `hello`. Raises StartupFailed, OSError."""
        slot = self._slots.take()
        try:
            process, channel = spawn(self._entry, role)
        except OSError:
            self._slots.free(slot)
            raise
        child = Child(next(self._ids), role, process, channel, slot)
        self._alive[child.id] = child
        child.life, theirs = socket.socketpair()
        message = {"type": "hello", "slot": slot, **hello}
        channel.send(message, [theirs.fileno(), self._counters.fd, *fds], owned=[theirs])
        self._loop.watch(channel, lambda: self._hear(child))
        return child

    def kill(self, child: Child) -> None:
        """`kill -9`; from now on it is dead to us, however long the kernel takes."""
        if child.id in self._alive:
            child.process.kill()
            self._lose(child)

    def kill_all(self) -> None:
        """The same with all of them, and nobody hears of it."""
        left = [*self._alive.values(), *self._ending.values()]
        for child in left:
            child.process.kill()
        for child in list(self._alive.values()):
            self._let_go(child)
        self._ending.clear()
        give_up = time.monotonic() + COLLECT_S
        for child in left:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(max(give_up - time.monotonic(), 0.0))

    def collect(self) -> None:
        """Some child has ended, the kernel says: find out which."""
        for child in list(self._ending.values()):
            self._bury(child)
        for child in [child for child in self._alive.values() if child.process.poll() is not None]:
            while child.id in self._alive and self._hear(child):
                pass  # its last words
            if child.id in self._alive:
                self._lose(child)

    def _hear(self, child: Child) -> bool:
        """Whether it said anything."""
        if child.id not in self._alive:
            return False  # ended earlier in this very turn
        try:
            messages = child.channel.receive()
        except ConnectionLost:
            self._lose(child)
            return False
        for message, _ in messages:
            if child.id in self._alive:
                self._on_message(child, message)
        return bool(messages)

    def _lose(self, child: Child) -> None:
        self._let_go(child)
        self._ending[child.id] = child
        self._on_death(child)
        if not self._bury(child):
            self._loop.after(EXIT_CODE_S, lambda: self._make_sure(child))

    def _let_go(self, child: Child) -> None:
        del self._alive[child.id]
        self._loop.forget(child.channel)
        child.channel.close()
        child.life.close()

    def _make_sure(self, child: Child) -> None:
        if child.id in self._ending:
            child.process.kill()
            self._bury(child)

    def _bury(self, child: Child) -> bool:
        """Whether it is gone, and all are told."""
        if child.process.poll() is None:
            return False
        if self._ending.pop(child.id, None) is not None:
            self._slots.free(child.slot)
            self._on_end(child, manner(child.process.returncode))
        return True
