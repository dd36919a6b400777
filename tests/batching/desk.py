"""A client in a loop that the test turns, with the test as its workers and its supervisor. Nothing here is timed."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np

from batching import arrays
from batching.blocking import SelectorLoop
from batching.client import Client, Outcome, Target, Ticket
from batching.connection import Connection
from batching.control import ControlChannel
from batching.counters import Counters
from batching.errors import ConnectionLost, Failure
from batching.transport import Frame, Kind, pack, pack_answered, pack_ids
from tests.batching.direct import column

TARGET = Target("default", 1, 0)
FAR = float("inf")
T = TypeVar("T")


class FakeWorker:
    """The other end of a link. `items` are the frames that have come, by id, in order."""

    def __init__(self, id: int, sock: socket.socket) -> None:
        self.id = id
        self.connection = Connection(sock)
        self.items: dict[int, Frame] = {}
        self.cancelled: list[int] = []

    def read(self) -> None:
        for frame in self.connection.receive():
            if frame.kind == Kind.CANCEL:
                self.cancelled.append(frame.id)
            else:
                self.items[frame.id] = frame

    def answer(self, id: int) -> None:
        """What the model would: the input doubled."""
        frame = self.items[id]
        tensors = arrays.decode(arrays.layout_of(frame.layout), frame.payload, frame.rows)
        layout, payload = arrays.encode([tensor * 2 for tensor in tensors])
        self.say(pack(Kind.ANSWER, id, rows=frame.rows, batch_rows=7, queue_us=5, layout=layout, payload=payload))

    def answer_together(self, *ids: int) -> None:
        """As `answer`, of all of them in one frame; their rows are of one tensor."""
        frames = [self.items[id] for id in ids]
        tensors = [arrays.decode(arrays.layout_of(one.layout), one.payload, one.rows)[0] for one in frames]
        layout, payload = arrays.encode([np.concatenate(tensors) * 2])
        table = pack_answered([(one.id, one.rows, 5) for one in frames])
        rows = sum(one.rows for one in frames)
        self.say(pack(Kind.ANSWERS, len(ids), rows=rows, batch_rows=7, layout=layout, payload=table + payload))

    def start(self, *ids: int) -> None:
        """Say that these go into a batch."""
        self.say(pack_ids(Kind.STARTED, ids))

    def fail(self, id: int, code: Failure = Failure.MODEL_ERROR) -> None:
        self.say(pack(Kind.FAILED, id, code=code))

    def say(self, frame: bytes) -> None:
        self.connection.send(frame)
        self.connection.flush()

    def die(self) -> None:
        self.connection.close()


class Desk:
    """A client in a loop that the test turns, and whoever it talks to."""

    def __init__(self, max_rows: int = 1000, max_bytes: int = 10**9) -> None:
        ours, theirs = socket.socketpair()
        self.supervisor = ControlChannel(theirs)
        self.loop = SelectorLoop()
        self.counters = Counters.create(2)
        self.messages: list[dict[str, Any]] = []
        self.lost: list[bool] = []
        self.workers: dict[int, FakeWorker] = {}
        self.known: dict[int, dict[str, Any]] = {}
        self.outcomes: list[list[Outcome]] = []
        self.client = Client(
            self.loop,
            ControlChannel(ours),
            self.counters.slot(1),
            self.counters,
            compile=lambda snapshot: snapshot,
            max_rows=max_rows,
            max_bytes=max_bytes,
            on_message=self.messages.append,
            on_lost=lambda: self.lost.append(True),
        )

    def publish(
        self,
        *new: int,
        gone: Sequence[int] = (),
        group: str = "default",
        generation: int = 1,
        quarantine: dict[str, float] | None = None,
    ) -> None:
        """A snapshot in which these workers have appeared, and those that are gone are gone."""
        theirs = []
        for id in new:
            worker_end, front_end = socket.socketpair()
            self.workers[id] = FakeWorker(id, worker_end)
            theirs.append(front_end)
        self.known.update({id: {"id": id, "group": group, "generation": generation} for id in new})
        for id in gone:
            del self.known[id]
        snapshot = {
            "type": "snapshot",
            "serial": len(self.workers),
            "models": [],
            "workers": list(self.known.values()),
            "links": [*new],
            "quarantine": quarantine or {},
        }
        self.supervisor.send(snapshot, [sock.fileno() for sock in theirs], owned=theirs)
        self.turn()

    def tell_death(self, worker: int, *, from_outside: bool = False) -> None:
        """How a worker died."""
        self.supervisor.send({"type": "death", "worker": worker, "from_outside": from_outside})
        self.turn()

    def submit(self, *values: float, deadline: float = FAR, target: Target = TARGET) -> Ticket:
        items = [(1, [column(value)]) for value in values]
        ticket = self.client.submit(target, items, deadline, self.outcomes.append)
        self.turn()
        return ticket

    def heard(self, type: str) -> list[dict[str, Any]]:
        """The client's messages of this type to its supervisor, since the last call."""
        return [message for message, _ in self.supervisor.receive() if message["type"] == type]

    def after_turn(self, value: T) -> T:
        """`value` as it is when the loop has turned once."""
        self.turn()
        return value

    def turn(self) -> None:
        """One pass of the loop, and all that the workers can read after it."""
        self.loop.turn(0)
        self.client.flush()
        for worker in self.workers.values():
            if worker.connection.fileno() >= 0:
                with suppress(ConnectionLost):
                    worker.read()

    def end(self) -> None:
        self.client.close()
        self.supervisor.close()
        self.loop.close()
        self.counters.close()
        for worker in self.workers.values():
            worker.die()
