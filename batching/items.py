"""What a client sends and what comes of it: an item on its way, and the request that it is part of.

Knows neither sockets nor loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from batching.errors import BatchingError
from batching.links import WorkerLink
from batching.suspects import digest_of
from batching.transport import Payload


class Target(NamedTuple):
    """A model version as the workers know it: which workers hold it, and under which number."""

    group: str
    generation: int
    place: int


class Answer(NamedTuple):
    """What the model said about one item: arrays of shape (rows, ...) in the contract's order, and its timings.

    batch: the number of the batch it was in, below 2**63; no other worker counts from the same one.
    """

    outputs: list[np.ndarray]
    queue_us: int
    compute_us: int
    batch_rows: int
    batch: int


Outcome = Answer | BatchingError


def outputs_of(outcomes: Sequence[Outcome]) -> list[list[np.ndarray]]:
    """The outputs of every item. Raises the first outcome that is no answer."""
    outputs = []
    for outcome in outcomes:
        if not isinstance(outcome, Answer):
            raise outcome
        outputs.append(outcome.outputs)
    return outputs


class InFlight:
    """One item on its way. `ticket` hears its outcome once, and then the item is forgotten."""

    __slots__ = (
        "alone", "arrived", "deadline", "id", "layout", "link", "payload", "priority", "rows", "started", "suspected",
        "target", "ticket", "was_killed",
    )  # fmt: skip

    def __init__(
        self,
        id: int,
        ticket: Ticket,
        target: Target,
        rows: int,
        layout: bytes,
        payload: Payload,
        arrived: float,
        deadline: float,
        priority: int,
    ) -> None:
        self.id = id
        self.ticket = ticket
        self.target = target
        self.rows = rows
        self.layout = layout
        self.payload = payload
        self.arrived = arrived
        self.deadline = deadline
        self.priority = priority
        self.alone = False  # it must not share a batch
        self.started = False  # it is in a batch that runs, as far as we were told
        self.suspected = False  # it was in a call that killed a worker before it was sent this time
        self.was_killed = False  # a worker was killed while it computed this alone
        self.link: WorkerLink | None = None

    def digest(self) -> str:
        """What it is known by where a worker died of it. Another generation of models may well bear it."""
        return digest_of(f"{self.target.group} {self.target.generation}", self.target.place, self.layout, self.payload)


class Ticket:
    """One request's items, gathered: `done` is called once with their outcomes, in order.

    first: the id of the first item; the others follow it. An item knows its ticket, but not the other way round, and
    `done` is let go of when it was called: what makes no circle needs no garbage collector.
    """

    __slots__ = ("_done", "_left", "_outcomes", "first")

    def __init__(self, first: int, count: int, done: Callable[[list[Outcome]], None]) -> None:
        self.first = first
        self._done = done
        self._left = count
        self._outcomes: list[Any] = [None] * count

    @property
    def ids(self) -> range:
        """Those of its items."""
        return range(self.first, self.first + len(self._outcomes))

    def settle(self, id: int, outcome: Outcome) -> None:
        """What came of one item."""
        self._outcomes[id - self.first] = outcome
        self._left -= 1
        if not self._left:
            done, self._done = self._done, _told
            done(self._outcomes)


def _told(outcomes: list[Outcome]) -> None:
    raise RuntimeError("a request is answered once")
