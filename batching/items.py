"""What a client sends and what comes of it: an item on its way, and the request that it is part of.

Knows neither sockets nor loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from batching import arrays
from batching.errors import BatchingError
from batching.links import WorkerLink
from batching.suspects import digest_of


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
    """One item on its way. `done` hears its outcome once, and then the item is forgotten."""

    __slots__ = (
        "alone", "arrived", "deadline", "done", "id", "layout", "link", "payload", "priority", "rows", "started",
        "suspected", "target", "was_killed",
    )  # fmt: skip

    def __init__(
        self,
        id: int,
        target: Target,
        rows: int,
        arrays_: Sequence[np.ndarray],
        arrived: float,
        deadline: float,
        priority: int,
    ) -> None:
        self.id = id
        self.target = target
        self.rows = rows
        self.layout, self.payload = arrays.encode(arrays_)
        self.arrived = arrived
        self.deadline = deadline
        self.priority = priority
        self.alone = False  # it must not share a batch
        self.started = False  # it is in a batch that runs, as far as we were told
        self.suspected = False  # it was in a call that killed a worker before it was sent this time
        self.was_killed = False  # a worker was killed while it computed this alone
        self.link: WorkerLink | None = None
        self.done: Callable[[Outcome], None]

    def digest(self) -> str:
        """What it is known by where a worker died of it. Another generation of models may well bear it."""
        return digest_of(f"{self.target.group} {self.target.generation}", self.target.place, self.layout, self.payload)


class Ticket:
    """One request's items, gathered: `done` is called once with their outcomes, in order."""

    __slots__ = ("_done", "_left", "items", "outcomes")

    def __init__(self, items: list[InFlight], done: Callable[[list[Outcome]], None]) -> None:
        self._done = done
        self._left = len(items)
        self.items = items
        self.outcomes: list[Any] = [None] * len(items)

    def settle(self, position: int, outcome: Outcome) -> None:
        self.outcomes[position] = outcome
        self._left -= 1
        if not self._left:
            self._done(self.outcomes)


def settled(outcome: Outcome) -> None:
    """In place of `InFlight.done` once that was called."""
    raise RuntimeError("an item has one outcome")
