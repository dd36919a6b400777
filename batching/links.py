"""The two connections a client has: one to each worker, one to the supervisor. Owns what is known of a worker's load.

What a frame or a message means is the client's affair; so is whose loop watches the descriptors.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from batching.connection import Connection
from batching.control import ControlChannel
from batching.errors import ConnectionLost
from batching.transport import Frame, Kind


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

    def settle(self, link: WorkerLink, frame: Frame) -> None: ...

    def lost(self, link: WorkerLink) -> None: ...

    def hear(self) -> None: ...


class WorkerLink:
    """The connection to one worker.

    items, rows, bytes: what is in flight on it. free_at: when a new item would get its turn, as the worker last said
    (monotonic seconds). retired: its worker serves no longer, and it is closed once nothing is in flight, but not
    before `until`: so long a request may still come that was begun when this generation of models served.
    overdue: digest -> whether it ran alone, of items given up while they computed; a worker that dies of one of them
    does so after its deadline.
    """

    __slots__ = (
        *("_client", "bytes", "connection", "free_at", "generation", "group", "id", "items", "overdue"),
        *("retired", "rows", "until"),
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
        self.until = 0.0
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
            self._client.settle(self, frame)
            if frame.kind != Kind.STARTED:
                last = frame
        if last is not None:
            self.free_at = time.monotonic() + last.wait_us / 1e6

    def on_writable(self) -> None:
        try:
            self.connection.flush()
        except ConnectionLost:
            self.on_readable()  # what it had answered before it died still counts; the end comes after that


def who_serves(links: Iterable[WorkerLink], generation: tuple[str, int]) -> list[WorkerLink]:
    """Those of this (group, generation); retired ones only for want of others."""
    found = [link for link in links if (link.group, link.generation) == generation]
    return [link for link in found if not link.retired] or found


def least_busy(links: list[WorkerLink]) -> WorkerLink:
    """The one with the least to do; there is one at least."""
    return min(links, key=lambda link: link.rows)


def retire_and_revive(
    links: Iterable[WorkerLink], workers: Mapping[int, Mapping[str, Any]], until: float
) -> list[WorkerLink]:
    """Heed which workers serve now, by id: those whose worker does no longer, just now retired.

    One that another of its generation has replaced gets nothing more; else it lingers. And a change of models may have
    been taken back: then its worker serves again.
    """
    serving = {(worker["group"], worker["generation"]) for worker in workers.values()}
    retired = [link for link in links if not link.retired and link.id not in workers]
    for link in links:
        if link.id in workers:
            link.retired, link.until = False, 0.0
    for link in retired:
        link.retired = True
        link.until = 0.0 if (link.group, link.generation) in serving else until
    return retired


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
