"""The front's end: which workers there are, what is in flight on each, and how every item gets exactly one outcome.

`Client` belongs to one event loop and never blocks; whose loop it is (waitress's in our fronts, a thread's elsewhere)
is somebody else's affair, see Loop. `batching.blocking` puts a blocking call around it.
"""

from __future__ import annotations

import itertools
import logging
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from batching import arrays
from batching.control import ControlChannel
from batching.counters import Counters, Slot
from batching.errors import BatchingError, ConnectionLost, DeadlineExceeded, Failure, ItemFailed, NoWorker, QueueFull
from batching.transport import PART_BYTES, Connection, Frame, Kind, pack

log = logging.getLogger("inference.client")


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


class WorkerLink:
    """The connection to one worker."""

    __slots__ = ("_client", "connection", "generation", "group", "id", "rows")

    def __init__(self, client: Client, id: int, group: str, generation: int, sock: socket.socket) -> None:
        self._client = client
        self.id = id
        self.group = group
        self.generation = generation
        self.connection = Connection(sock)
        self.rows = 0  # in flight on it

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
        for frame in frames:
            self._client.settle(frame)

    def on_writable(self) -> None:
        try:
            self.connection.flush()
        except ConnectionLost:
            self.on_readable()  # what it had answered before it died still counts; the end comes after that


class ControlHandle:
    """The connection to the supervisor."""

    def __init__(self, client: Client, channel: ControlChannel) -> None:
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


class InFlight:
    """One item on its way. `outcome` is handed over once and then the item is forgotten."""

    __slots__ = ("arrived", "deadline", "done", "id", "layout", "link", "payload", "rows", "target", "tries")

    def __init__(
        self, id: int, target: Target, rows: int, arrays_: Sequence[np.ndarray], arrived: float, deadline: float
    ) -> None:
        self.id = id
        self.target = target
        self.rows = rows
        self.layout, self.payload = arrays.encode(arrays_)
        self.arrived = arrived
        self.deadline = deadline
        self.tries = 0
        self.link: WorkerLink | None = None
        self.done: Callable[[Outcome], None]


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


class Client:
    """Owned by one loop. `view` is the last snapshot as `compile` made it; a request reads it once.

    compile: called with each snapshot (a dictionary, see batching.fronts) before it becomes the view.
    max_rows, max_bytes: what may be in flight from here to one worker; beyond it `submit` raises QueueFull.
    """

    def __init__(
        self,
        loop: Loop,
        channel: ControlChannel,
        slot: Slot,
        counters: Counters,
        *,
        compile: Callable[[dict[str, Any]], Any],
        max_rows: int,
        max_bytes: int,
        on_message: Callable[[dict[str, Any]], None] = lambda message: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.slot = slot
        self.counters = counters
        self._loop = loop
        self._compile = compile
        self._on_message = on_message
        self._on_lost = on_lost
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._links: dict[int, WorkerLink] = {}
        self._in_flight: dict[int, InFlight] = {}
        self._ids = itertools.count(1)
        self._next_expiry = float("inf")
        self._to_flush: set[WorkerLink] = set()
        self._retries = slot.counter("inference_retries_total")
        self._cancelled = slot.counter("inference_cancelled_total")
        self._gauge = slot.gauge("inference_in_flight")
        self.view: Any = compile({"serial": 0, "models": [], "workers": []})
        self._control = ControlHandle(self, channel)
        loop.watch(self._control)

    # -- items ---------------------------------------------------------------------------------------------------

    def submit(
        self,
        target: Target,
        items: Sequence[tuple[int, Sequence[np.ndarray]]],
        deadline: float,
        done: Callable[[list[Outcome]], None],
    ) -> Ticket:
        """Send items of (rows, arrays); `done` hears all outcomes once, later, or within this call.

        deadline: monotonic seconds. Raises NoWorker or QueueFull when nothing was sent at all, and what arrays.encode
        raises.
        """
        link = self._choose(target)
        rows = sum(item[0] for item in items)
        if link.rows and (link.rows + rows > self._max_rows or link.connection.pending_bytes > self._max_bytes):
            raise QueueFull("too much is in flight already")
        arrived = time.monotonic()
        # All are encoded before any is sent: what cannot be encoded must not leave half a request behind.
        made = [InFlight(next(self._ids), target, *item, arrived, deadline) for item in items]
        ticket = Ticket(made, done)
        for position, item in enumerate(made):
            item.done = _settler(ticket, position)
            self._in_flight[item.id] = item
            self._send(item, link)
        if not made:
            done([])
        self._next_expiry = min(self._next_expiry, deadline)
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Whoever asked has hung up: drop what is still queued; what computes already is answered as usual."""
        for item in ticket.items:
            if item.id in self._in_flight and item.link is not None:
                self._cancelled.add(1)
                item.link.connection.send(pack(Kind.CANCEL, item.id))
                self._to_flush.add(item.link)

    def expire(self, now: float) -> float:
        """Give up what is past its deadline; when to call again (monotonic seconds, infinity if never)."""
        if now < self._next_expiry:
            return self._next_expiry
        late = [item for item in self._in_flight.values() if item.deadline <= now]
        for item in late:
            if item.link is not None:
                item.link.connection.send(pack(Kind.CANCEL, item.id))
                self._to_flush.add(item.link)
            self._finish(item, DeadlineExceeded("no answer within the deadline"))
        self._next_expiry = min((item.deadline for item in self._in_flight.values()), default=float("inf"))
        return self._next_expiry

    def flush(self) -> None:
        """Write what this turn of the loop has gathered: one system call for many items."""
        while self._to_flush:  # a link that turns out to be lost hands its items to others
            self._to_flush.pop().on_writable()
        self._gauge.set(len(self._in_flight))

    @property
    def in_flight(self) -> int:
        """Items without an outcome."""
        return len(self._in_flight)

    def _choose(self, target: Target) -> WorkerLink:
        links = [
            link for link in self._links.values() if link.group == target.group and link.generation == target.generation
        ]
        if not links:
            raise NoWorker("no worker holds this model just now")
        return links[0] if len(links) == 1 else min(links, key=lambda link: link.rows)

    def _send(self, item: InFlight, link: WorkerLink) -> None:
        item.link = link
        item.tries += 1
        link.rows += item.rows
        whole = len(item.payload) <= PART_BYTES
        frame = pack(
            Kind.ITEM,
            item.id,
            model=item.target.place,
            rows=item.rows,
            arrived=item.arrived,
            deadline=item.deadline,
            layout=item.layout,
            payload=item.payload if whole else b"",
        )
        if whole:
            link.connection.send(frame)
        else:
            link.connection.send_large(item.id, frame, item.payload)
        self._to_flush.add(link)

    def _finish(self, item: InFlight, outcome: Outcome) -> None:
        del self._in_flight[item.id]
        if item.link is not None:
            item.link.rows -= item.rows
        # The item and its ticket know each other: without this the payload would wait for the garbage collector.
        done, item.done, item.payload = item.done, _settled, b""
        done(outcome)

    # -- what the workers say ------------------------------------------------------------------------------------

    def settle(self, frame: Frame) -> None:
        """A worker's answer; one for an item that is no longer in flight (it was too late) is dropped."""
        item = self._in_flight.get(frame.id)
        if item is None:
            return
        if frame.kind == Kind.ANSWER:
            try:
                outputs = arrays.decode(arrays.layout_of(frame.layout), frame.payload, frame.rows)
            except (ValueError, IndexError, struct.error):
                self._finish(item, ItemFailed("bad_output"))
                return
            batch = frame.batch if item.link is None else item.link.id << 32 | frame.batch
            self._finish(item, Answer(outputs, frame.queue_us, frame.compute_us, frame.batch_rows, batch))
        elif frame.kind == Kind.FAILED:
            self._finish(item, Failure(frame.code).to_error())

    def lost(self, link: WorkerLink) -> None:
        """A worker died: its items go to another one, once, or fail as retryable.

        Or it lives and has dropped us alone: the supervisor hears of it, and gives a new link to whoever lives.
        """
        if self._links.get(link.id) is not link:
            return
        del self._links[link.id]
        self._control.channel.send({"type": "unlinked", "worker": link.id})
        self._loop.forget(link)
        link.connection.close()
        self._to_flush.discard(link)
        for item in [item for item in self._in_flight.values() if item.link is link]:
            item.link = None
            try:
                if item.tries > 1:
                    raise NoWorker("two workers died with this item")
                other = self._choose(item.target)
            except NoWorker as error:
                self._finish(item, error)
            else:
                self._retries.add(1)
                self._send(item, other)

    # -- what the supervisor says --------------------------------------------------------------------------------

    def hear(self) -> None:
        """Read the supervisor's messages. A snapshot is compiled, becomes the view, and is acknowledged."""
        try:
            messages = self._control.channel.receive()
        except ConnectionLost:
            self._on_lost()
            return
        for message, fds in messages:
            if message["type"] == "snapshot":
                self._adopt(message, fds)
            else:
                self._on_message(message)

    def tell_condition(self, text: str | None) -> None:
        """Say what is wrong with this process, for GET /ready; None when nothing is any more."""
        self._control.channel.send({"type": "condition", "text": text})

    def _adopt(self, snapshot: dict[str, Any], fds: list[int]) -> None:
        self.view = self._compile(snapshot)
        workers = {worker["id"]: worker for worker in snapshot["workers"]}
        for id, fd in zip(snapshot["links"], fds, strict=True):
            worker = workers[id]
            link = WorkerLink(self, id, worker["group"], worker["generation"], socket.socket(fileno=fd))
            self._links[id] = link
            self._loop.watch(link)
        self._control.channel.send({"type": "acknowledged", "serial": snapshot["serial"]})

    def close(self) -> None:
        """Let go of everything; items in flight end as NoWorker."""
        for link in list(self._links.values()):
            self.lost(link)
        self._loop.forget(self._control)
        self._control.channel.close()


def _settled(outcome: Outcome) -> None:
    raise RuntimeError("an item has one outcome")


def _settler(ticket: Ticket, position: int) -> Callable[[Outcome], None]:
    return lambda outcome: ticket.settle(position, outcome)
