"""The worker's life: load, warm up, run batches, answer each item once. Owns the models and the batches.

One loop owns every socket and every queue, so there is no lock. A batch expected to be quick runs in the loop itself
(handing it to a thread costs more than the call); a slow one runs in the computing thread while the loop goes on
reading, so that the next batch is already here when it ends. One batch at a time either way.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence

from batching.batch import Batch, Canary, Served
from batching.computing import ComputingThread
from batching.connection import Connection
from batching.control import ControlChannel
from batching.counters import Counters, Slot
from batching.errors import ConnectionLost, Failure, QueueFull
from batching.life import exit_with_parent
from batching.loader import batch_limit_s, load_all
from batching.queue import Item
from batching.replies import UNSENT_BYTES_MAX, Link, Replies, microseconds
from batching.schedule import Schedule
from batching.slices import Slice, Whole
from batching.transport import ALONE, Frame, Kind, Payload
from batching.vitals import Vitals

log = logging.getLogger("inference.worker")

# A batch that is expected to take less runs in the loop; handing over to a thread and back costs about 0.1 ms.
QUICK_S = 0.002
# The loop turns at least so often while it lives, whatever computes: the supervisor watches it.
HEARTBEAT_S = 0.25
# A worker that nobody has asked anything for so long asks itself: a row of its own, to know that the models answer.
CANARY_S = 10.0


class Worker:
    """The loop. `turn` is one pass, so that a test can call it."""

    def __init__(self, served: Sequence[Served], control: ControlChannel, slot: Slot) -> None:
        self.served = list(served)
        self.vitals = Vitals(slot.words)
        self._by_index = {one.index: one for one in served}
        self.control = control
        self.stopping = False
        self.retired = False  # no front sends anything new; the last answers go out as long as there are links
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._on_control)
        self._links: set[Link] = set()
        self._replies = Replies()
        self._schedule = Schedule()
        self._busy_until: float | None = None  # when the job in the thread is expected to end
        self._next_at = 0.0  # when the schedule wants to be asked again, unless more arrives
        self._sick: set[str] = set()  # models whose own row fails
        self._next_canary = time.monotonic() + CANARY_S
        self._batch_number = int.from_bytes(os.urandom(4))  # in a log, no two servers' batches look like one
        self._thread = ComputingThread()
        self._selector.register(self._thread.woken, selectors.EVENT_READ, self._on_computed)
        for one in self.served:
            one.count_with(slot, self.vitals)
            one.namesakes = [other for other in self.served if other.name == one.name]

    def run(self) -> None:
        """Turn until the supervisor says stop and nothing is left to answer."""
        while not ((self.stopping or (self.retired and not self._links)) and self._idle()):
            self.turn()

    def close(self) -> None:
        """Let go of the thread and of what it opened itself; a worker's own process just ends."""
        self._thread.close()
        self._selector.close()

    def turn(self) -> None:
        """Wait for something, read all of it, run what the policy says, write all of it."""
        for key, events in self._selector.select(self._wait_s()):
            key.data(events)
        self.vitals.beat()
        if self._busy_until is None:
            self._start_next()
        else:
            for dropped in self._schedule.expire(time.monotonic()):
                self._replies.fail(dropped.line.owner, dropped.item, dropped.failure)
        self.vitals.oldest(self._schedule.oldest_arrival())
        links = self._replies.links
        while links:
            self._flush(links.pop())

    def _idle(self) -> bool:
        unsent = any(link.connection.pending_bytes for link in self._links)
        return not (self._busy_until is not None or unsent or self._schedule.oldest_arrival() is not None)

    def _wait_s(self) -> float:
        if self._busy_until is not None:
            return HEARTBEAT_S
        return min(max(self._next_at - time.monotonic(), 0.0), HEARTBEAT_S)

    def _start_next(self) -> None:
        """Run what the schedule says; a batch expected to be slow in the thread, so that the loop goes on."""
        now = time.monotonic()
        work = self._schedule.next(now)
        self._next_at = work.until
        for dropped in work.dropped:
            self._replies.fail(dropped.line.owner, dropped.item, dropped.failure)
        if work.line is None:
            if now >= self._next_canary:
                self._start_canary(now)
            return
        if not work.items:
            return
        self._batch_number = (self._batch_number + 1) & 0xFFFFFFFF
        one: Served = work.line.owner
        batch = Batch(one, work.items, self._batch_number)
        expected_s = work.line.cost.expected_s(batch.run_rows)
        alone = work.items[0].alone
        if alone or expected_s >= QUICK_S:
            for link in self._replies.started(work.items):
                self._flush(link)
        if expected_s < QUICK_S:
            batch.run()
            self._answer(batch)
        else:
            self._busy_until = now + expected_s
            self._thread.start(batch)

    def _start_canary(self, now: float) -> None:
        self._next_canary = now + CANARY_S
        for one in self.served:
            if one.proved <= now - CANARY_S:
                self._busy_until = now
                self._thread.start(Canary(one))
                return

    def _on_computed(self, _events: int) -> None:
        for job in self._thread.finished():
            self._busy_until = None
            self._next_at = 0.0
            if isinstance(job, Batch):
                self._answer(job)
            elif isinstance(job, Canary):
                self._hear_canary(job)

    def _hear_canary(self, canary: Canary) -> None:
        one = canary.served
        one.proved = time.monotonic()
        self._next_canary = 0.0  # there may be other models that nobody has asked for long
        if not canary.failed:
            self.vitals.prove()
        if canary.failed == (one.name in self._sick):
            return
        if canary.failed:
            self._sick.add(one.name)
        else:
            self._sick.discard(one.name)
        names = ", ".join(sorted(self._sick))
        self.control.send(
            {"type": "condition", "text": f"does not answer a row of its own: {names}" if names else None}
        )

    def _answer(self, batch: Batch) -> None:
        one = batch.served
        rows = batch.rows
        self._schedule.ran(one.line, batch.run_rows, batch.compute_s, clean=batch.clean)
        now = one.proved = time.monotonic()
        self.vitals.prove()
        one.batches.add(1)
        one.rows.add(rows)
        one.batch_rows.observe(rows)
        one.compute.observe(batch.compute_s)
        one.waiting.set(sum(other.line.queue.rows for other in one.namesakes))
        wait_us = microseconds(self._schedule.wait_s(one.line, now, None))
        items, started = batch.items, batch.started
        one.queued.observe_all([started - item.arrived for item in items])
        if batch.outputs is not None and Slice not in map(type, items):
            self._replies.answer_all(batch, batch.outputs, wait_us)
            return
        for item, outcome in zip(items, batch.divide(), strict=True):
            if isinstance(outcome, Failure):
                self._replies.fail(one, item, outcome)
            elif isinstance(item, Slice):
                self._gather(batch, item, outcome, wait_us)
            else:
                self._replies.answer(batch, item, outcome, item.rows, started - item.arrived, batch.compute_s, wait_us)

    def _gather(self, batch: Batch, item: Slice, outcome: tuple[bytes, Payload], wait_us: int) -> None:
        """One slice of a large item is done: the next goes in, or the whole is answered."""
        whole = item.whole
        if item.sender.large.get(item.id) is not whole:
            self._replies.fail(batch.served, item, Failure.CANCELLED)
            return
        whole.add(item.rows, outcome, batch.started - item.arrived, batch.compute_s)
        following = whole.next()
        if following is not None:
            self._schedule.put_back(batch.served.line, following)
            return
        del item.sender.large[item.id]
        joined = whole.outcome()
        if isinstance(joined, Failure):
            self._replies.fail(batch.served, item, joined)
        else:
            self._replies.answer(batch, item, joined, whole.rows, whole.queued_s, whole.compute_s, wait_us)

    def _on_control(self, _events: int) -> None:
        try:
            messages = self.control.receive()
        except ConnectionLost:
            os._exit(0)  # no supervisor, nobody to answer
        for message, fds in messages:
            if message["type"] == "link":
                link = Link(Connection(socket.socket(fileno=fds[0])))
                self._links.add(link)
                self._selector.register(link.connection, selectors.EVENT_READ, self._handler(link))
            elif message["type"] == "stop":
                self.stopping = True
            elif message["type"] == "retire":
                self.retired = True

    def _handler(self, link: Link) -> Callable[[int], None]:
        def handle(events: int) -> None:
            if events & selectors.EVENT_WRITE:
                self._replies.links.add(link)
            if events & selectors.EVENT_READ:
                self._read(link)

        return handle

    def _read(self, link: Link) -> None:
        try:
            frames = link.connection.receive()
        except ConnectionLost:
            self._drop(link)
            return
        cancelled: set[int] = set()
        now = time.monotonic()
        self._next_at = 0.0
        for frame in frames:
            kind = frame.kind
            if kind == Kind.ITEM:
                self._take_in(link, frame, now)
            elif kind == Kind.CANCEL:
                cancelled.add(frame.id)
        if cancelled:  # together: when a long queue expires, thousands come at once
            # A large item is overtaken by its own withdrawal: it will be known when its last part comes.
            link.withdrawn |= {id for id in cancelled if link.connection.has_part_of(id)}
            # Of one in slices, there may be none in the queue just now.
            for id in cancelled:
                link.large.pop(id, None)
            for one in self.served:
                for item in one.line.queue.withdraw(link, cancelled):
                    self._replies.fail(one, item, Failure.CANCELLED)

    def _take_in(self, link: Link, frame: Frame, now: float) -> None:
        one = self._by_index.get(frame.model)
        if one is None:
            self._replies.reject(link, frame.id)
            return
        item = Item(
            link, frame.id, frame.rows, frame.layout, frame.payload, frame.arrived, frame.deadline,
            bool(frame.code & ALONE), frame.code >> 1,
        )  # fmt: skip
        if link.withdrawn and frame.id in link.withdrawn:
            link.withdrawn.discard(frame.id)
            self._replies.fail(one, item, Failure.CANCELLED)
            return
        if item.rows > one.line.best:
            try:
                whole = Whole(item, one.line.best)
            except (ValueError, IndexError):  # not the bytes that its layout speaks of
                self._replies.fail(one, item, Failure.MODEL_ERROR)
                return
            link.large[item.id] = whole
            item = whole.first()
        try:
            self._schedule.offer(one.line, item, now, self._busy_until, frame.rows)
        except QueueFull as error:
            self._replies.fail(one, item, Failure.QUEUE_FULL, error.wait_s)

    def _flush(self, link: Link) -> None:
        if link not in self._links:
            return
        try:
            link.connection.flush()
        except ConnectionLost:
            self._drop(link)
            return
        pending = link.connection.pending_bytes
        reading = selectors.EVENT_READ if pending <= UNSENT_BYTES_MAX else 0
        events = reading | (selectors.EVENT_WRITE if pending else 0)
        if events != link.events:
            link.events = events
            self._selector.modify(link.connection, events, self._selector.get_key(link.connection).data)

    def _drop(self, link: Link) -> None:
        """The front is gone: so is whoever asked, and what it had queued need not be computed."""
        if link in self._links:
            self._links.discard(link)
            link.large.clear()
            self._selector.unregister(link.connection)
            link.connection.close()
        for one in self.served:
            one.failed[Failure.CANCELLED].add(len(one.line.queue.withdraw(link)))


def main(control_fd: int) -> None:
    """Load what the supervisor's first message names, report, and serve. Runs in a process of its own."""
    # The terminal and the service manager signal the whole group; only the supervisor decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control = ControlChannel(socket.socket(fileno=control_fd))
    hello, (life_fd, counters_fd) = control.wait()
    exit_with_parent(socket.socket(fileno=life_fd))
    slot = Counters.attach(counters_fd).slot(hello["slot"])
    loaded, failures = load_all(hello)
    served = [one for each in loaded for one in each.all]
    worker = Worker(served, control, slot) if served else None  # its first beat comes before anybody hears of it
    control.socket.setblocking(True)  # many contracts are more than the socket takes at once
    control.send(
        {
            "type": "ready" if served else "failed",
            "models": [each.report() for each in loaded],
            "failures": failures,
            "batch_limit_s": batch_limit_s(hello["options"], served),
        }
    )
    control.socket.setblocking(False)
    if worker is not None:
        worker.run()
    os._exit(0)  # no destructors of a framework that may be computing
