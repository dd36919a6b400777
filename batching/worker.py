"""The worker's life: load, warm up, run batches, answer each item once. Owns the models and the batches.

One loop owns every socket and every queue, so there is no lock. A batch expected to be quick runs in the loop itself
(handing it to a thread costs more than the call); a slow one runs in the computing thread while the loop goes on
reading, so that the next batch is already here when it ends. One batch at a time either way.

What the models are is the loader's affair: `module:function`, called as `load(reference, options)`; see LoadedModel.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from batching import policy
from batching.batch import Batch, Served
from batching.control import ControlChannel
from batching.counters import Counters, Slot
from batching.errors import ConnectionLost, Failure, QueueFull
from batching.life import exit_with_parent
from batching.queue import Item
from batching.transport import PART_BYTES, Connection, Kind, pack

log = logging.getLogger("inference.worker")

# A batch that is expected to take less runs in the loop; handing over to a thread and back costs about 0.1 ms.
QUICK_S = 0.002
HEARTBEAT_S = 1.0
# A front that has not taken so many bytes of answers is read no further: it may only be slow, or stopped for a while.
UNSENT_BYTES_MAX = 256 * 1024 * 1024
# What it had queued by then is still computed, but an answer that finds so much unsent is given up, as in a full queue.
UNSENT_BYTES_LIMIT = 4 * UNSENT_BYTES_MAX


class Worker:
    """The loop. `turn` is one pass, so that a test can call it."""

    def __init__(self, served: Sequence[Served], control: ControlChannel, slot: Slot) -> None:
        self.served = list(served)
        self._by_index = {one.index: one for one in served}
        self.control = control
        self.stopping = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._on_control)
        self._links: set[Link] = set()
        self._to_flush: set[Link] = set()
        self._computing = False
        self._batch_number = int.from_bytes(os.urandom(4))  # in a log, no two servers' batches look like one
        self._thread = ComputingThread()
        self._selector.register(self._thread.woken, selectors.EVENT_READ, self._on_computed)
        for one in self.served:
            one.count_with(slot)

    def run(self) -> None:
        """Turn until the supervisor says stop and nothing is left to answer."""
        while not (self.stopping and self._idle()):
            self.turn()

    def turn(self) -> None:
        """Wait for something, read all of it, run what the policy says, write all of it."""
        for key, events in self._selector.select(self._wait_s()):
            key.data(events)
        if not self._computing:
            self._start_next()
        for link in self._to_flush:
            self._flush(link)
        self._to_flush.clear()

    def _idle(self) -> bool:
        unsent = any(link.connection.pending_bytes for link in self._links)
        waiting = any(one.queue.oldest_arrival() is not None for one in self.served)
        return not (self._computing or unsent or waiting)

    def _wait_s(self) -> float:
        if self._computing:
            return HEARTBEAT_S
        now, wait_s = time.monotonic(), HEARTBEAT_S
        for one in self.served:
            decision = self._decide(one, now)
            if isinstance(decision, policy.Run):
                return 0
            if decision is not None:
                wait_s = min(wait_s, decision.until - now)
        return wait_s

    @staticmethod
    def _decide(one: Served, now: float) -> policy.Run | policy.Wait | None:
        oldest = one.queue.oldest_arrival()
        if oldest is None:
            return None
        state = policy.State(one.queue.widest_rows() if one.max_wait_s else one.queue.rows, oldest)
        return policy.decide(state, now, max_rows=one.max_rows, max_wait_s=one.max_wait_s)

    def _start_next(self) -> None:
        """Run the ready model whose oldest item has waited longest."""
        now = time.monotonic()
        ready = [one for one in self.served if isinstance(self._decide(one, now), policy.Run)]
        if not ready:
            return
        one = min(ready, key=lambda one: one.queue.oldest_arrival() or now) if len(ready) > 1 else ready[0]
        items, late = one.queue.take(one.max_rows, now)
        for item in late:
            self._fail(one, item, Failure.DEADLINE)
        if not items:
            return
        self._batch_number = (self._batch_number + 1) & 0xFFFFFFFF
        batch = Batch(one, items, self._batch_number)
        if one.expected_s(sum(item.rows for item in items)) < QUICK_S:
            batch.run()
            self._answer(batch)
        else:
            self._computing = True
            self._thread.start(batch)

    def _on_computed(self, _events: int) -> None:
        for batch in self._thread.finished():
            self._computing = False
            self._answer(batch)

    def _answer(self, batch: Batch) -> None:
        one = batch.served
        rows = sum(item.rows for item in batch.items)
        one.learn(rows, batch.compute_s)
        one.batches.add(1)
        one.rows.add(rows)
        one.batch_rows.observe(rows)
        one.compute.observe(batch.compute_s)
        one.waiting.set(one.queue.rows)
        compute_us = _microseconds(batch.compute_s)
        for item, outcome in zip(batch.items, batch.outcomes, strict=True):
            queued_s = batch.started - item.arrived
            one.queued.observe(queued_s)
            if isinstance(outcome, Failure):
                self._fail(one, item, outcome)
                continue
            layout, payload = outcome
            link: Link = item.sender
            if link.connection.pending_bytes > UNSENT_BYTES_LIMIT:
                self._fail(one, item, Failure.QUEUE_FULL)
                continue
            whole = len(payload) <= PART_BYTES
            frame = pack(
                Kind.ANSWER,
                item.id,
                model=one.index,
                rows=item.rows,
                queue_us=_microseconds(queued_s),
                compute_us=compute_us,
                batch_rows=rows,
                batch=batch.number,
                queued_rows=one.queue.rows,
                layout=layout,
                payload=payload if whole else b"",
            )
            if whole:
                link.connection.send(frame)
            else:
                link.connection.send_large(item.id, frame, payload)
            self._to_flush.add(link)

    def _fail(self, one: Served, item: Item, code: Failure) -> None:
        one.failed[code].add(1)
        item.sender.connection.send(pack(Kind.FAILED, item.id, code=code, model=one.index, queued_rows=one.queue.rows))
        self._to_flush.add(item.sender)

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

    def _handler(self, link: Link) -> Callable[[int], None]:
        def handle(events: int) -> None:
            if events & selectors.EVENT_WRITE:
                self._to_flush.add(link)
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
        for frame in frames:
            if frame.kind == Kind.ITEM:
                one = self._by_index.get(frame.model)
                if one is None:
                    link.connection.send(pack(Kind.FAILED, frame.id, code=Failure.UNKNOWN_MODEL))
                    self._to_flush.add(link)
                    continue
                item = Item(link, frame.id, frame.rows, frame.layout, frame.payload, frame.arrived, frame.deadline)
                try:
                    one.queue.push(item)
                except QueueFull:
                    self._fail(one, item, Failure.QUEUE_FULL)
            elif frame.kind == Kind.CANCEL:
                cancelled.add(frame.id)
        if cancelled:  # together: when a long queue expires, thousands come at once
            for one in self.served:
                for item in one.queue.withdraw(link, cancelled):
                    self._fail(one, item, Failure.CANCELLED)

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
            self._selector.unregister(link.connection)
            link.connection.close()
        for one in self.served:
            one.failed[Failure.CANCELLED].add(len(one.queue.withdraw(link)))


class Link:
    """A front's connection, and what we wait for on it."""

    __slots__ = ("connection", "events")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.events = selectors.EVENT_READ


class ComputingThread:
    """Runs one batch at a time; `woken` becomes readable when one is done."""

    def __init__(self) -> None:
        self.woken, self._wake = socket.socketpair()
        self.woken.setblocking(False)
        self._todo: deque[Batch] = deque()
        self._done: deque[Batch] = deque()
        self._ready = threading.Semaphore(0)
        threading.Thread(target=self._run, name="compute", daemon=True).start()

    def start(self, batch: Batch) -> None:
        self._todo.append(batch)
        self._ready.release()

    def finished(self) -> list[Batch]:
        self.woken.recv(64)
        return [self._done.popleft() for _ in range(len(self._done))]

    def _run(self) -> None:
        while True:
            self._ready.acquire()
            batch = self._todo.popleft()
            batch.run()
            self._done.append(batch)
            self._wake.send(b"x")


def _microseconds(seconds: float) -> int:
    return min(max(int(seconds * 1e6), 0), 0xFFFFFFFF)


def main(control_fd: int) -> None:
    """Load what the supervisor's first message names, report, and serve. Runs in a process of its own."""
    # The terminal and the service manager signal the whole group; only the supervisor decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control = ControlChannel(socket.socket(fileno=control_fd))
    hello, (life_fd, counters_fd) = control.wait()
    exit_with_parent(socket.socket(fileno=life_fd))
    slot = Counters.attach(counters_fd).slot(hello["slot"])
    served, failures = load_all(hello)
    models = [
        {"name": one.name, "version": one.version, "description": one.model.description, "costs": one.costs}
        for one in served
    ]
    control.socket.setblocking(True)  # many contracts are more than the socket takes at once
    control.send({"type": "ready" if served else "failed", "models": models, "failures": failures})
    control.socket.setblocking(False)
    if served:
        Worker(served, control, slot).run()
    os._exit(0)  # no destructors of a framework that may be computing


def load_all(hello: dict[str, Any]) -> tuple[list[Served], list[dict[str, str]]]:
    """(what can be served, what cannot and why). One bad model never keeps the others from serving."""
    options = hello["options"]
    module, function = hello["loader"].split(":")
    load = getattr(importlib.import_module(module), function)
    served: list[Served] = []
    failures: list[dict[str, str]] = []
    # The index is the place in the references, so that it means the same in every worker, whatever that could load.
    for index, reference in enumerate(hello["models"]):
        try:
            one = Served(index, load(reference, options), reference, options)
            one.warm_up(options["warm_up_budget_s"])
        except Exception as error:
            reason = getattr(error, "reason", None)
            if not isinstance(reason, str):  # some foreign errors have a reason of another kind
                log.exception("%s version %s cannot be loaded", reference["name"], reference["version"])
                reason = "loading failed; the server's log has the details"
            failures.append({"name": reference["name"], "version": reference["version"], "reason": reason})
        else:
            served.append(one)
    # TensorFlow leaves some 276,000 objects: one full collection would stop everything for 0.2 s.
    gc.collect()
    gc.freeze()
    return served, failures
