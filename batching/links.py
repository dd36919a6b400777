"""The two connections a client has: one to each worker, one to the supervisor. Owns what is known of a worker's load.

What a frame or a message means is the client's affair; so is whose loop watches the descriptors.
"""

from __future__ import annotations

import socket
import time
from typing import Protocol

from batching.control import ControlChannel
from batching.errors import ConnectionLost
from batching.transport import Connection, Frame, Kind


class Handle(Protocol):
    """A descriptor that a loop watches for the client."""

    def fileno(self) -> int: ...

    @property
    def wants_write(self) -> bool: ...

    def on_readable(self) -> None: ...

    def on_writable(self) -> None: ...


class Loop(Protocol):
    """What the client needs of an event loop. All calls come from the loop's own thread."""

    def watch(self, handle: Handle) -> None: ...

    def forget(self, handle: Handle) -> None: ...


class Hearer(Protocol):
    """Who deals with what is heard: the client."""

    def settle(self, frame: Frame) -> None: ...

    def lost(self, link: WorkerLink) -> None: ...

    def hear(self) -> None: ...


class WorkerLink:
    """The connection to one worker.

    items, rows, bytes: what is in flight on it. free_at: when a new item would get its turn, as the worker last said
    (monotonic seconds). retired: nothing more is sent, and it is closed once nothing is in flight.
    overdue: digest -> whether it ran alone, of items given up while they computed; a worker that dies of one of them
    does so after its deadline.
    """

    __slots__ = (
        *("_client", "bytes", "connection", "free_at", "generation", "group", "id", "items", "overdue"),
        *("retired", "rows"),
    )

    def __init__(self, client: Hearer, id: int, group: str, generation: int, sock: socket.socket) -> None:
        self._client = client
        self.id = id
        self.group = group
        self.generation = generation
        self.connection = Connection(sock)
        self.items = 0
        self.rows = 0
        self.bytes = 0
        self.free_at = 0.0
        self.retired = False
        self.overdue: dict[int, tuple[str, bool]] = {}

    def fileno(self) -> int:
        return self.connection.fileno()

    @property
    def wants_write(self) -> bool:
        return self.connection.wants_write

    def on_readable(self) -> None:
        try:
            frames = self.connection.receive()
        except ConnectionLost:
            self._client.lost(self)
            return
        last = None
        for frame in frames:
            self._client.settle(frame)
            if frame.kind in (Kind.ANSWER, Kind.FAILED):
                last = frame
        if last is not None:
            self.free_at = time.monotonic() + last.wait_us / 1e6

    def on_writable(self) -> None:
        try:
            self.connection.flush()
        except ConnectionLost:
            self.on_readable()  # what it had answered before it died still counts; the end comes after that


class ControlHandle:
    """The connection to the supervisor."""

    def __init__(self, client: Hearer, channel: ControlChannel) -> None:
        self._client = client
        self.channel = channel

    def fileno(self) -> int:
        return self.channel.fileno()

    @property
    def wants_write(self) -> bool:
        return self.channel.wants_write

    def on_readable(self) -> None:
        self._client.hear()

    def on_writable(self) -> None:
        self.channel.flush()
