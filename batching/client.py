"""The front's end: which workers there are, what is in flight on each, and how every item gets exactly one outcome.

`Client` belongs to one event loop and never blocks; whose loop it is (waitress's in our fronts, a thread's elsewhere)
is somebody else's affair, see Loop. `batching.blocking` puts a blocking call around it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from batching import arrays
from batching.answers import outcomes_of
from batching.asking import Asking
from batching.control import ControlChannel
from batching.counters import Counters, Slot
from batching.errors import Cancelled, ConnectionLost, DeadlineExceeded, ItemFailed, NoWorker, QueueFull
from batching.items import Answer, InFlight, Outcome, Target, Ticket
from batching.links import ControlHandle, Handle, Loop, WorkerLink, least_busy, retire_and_revive, who_serves
from batching.suspects import Suspects, Verdict
from batching.transport import ALONE, WHOLE_BYTES, Frame, Kind, ids_of, pack, pack_item

__all__ = ["Answer", "Client", "Handle", "Loop", "Outcome", "Target", "Ticket"]


class Client:
    """Owned by one loop. `view` is the last snapshot as `compile` made it; a request reads it once.

    compile: called with each snapshot (a dictionary, see batching.fronts) before it becomes the view.
    max_rows, max_bytes: what may be in flight from here to one worker; beyond it `submit` raises QueueFull.
    linger_s: how long a request may live: until then, one that has read the snapshot of an older generation of models
        is answered by that generation.
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
        linger_s: float = 2.0,
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
        self._linger_s = linger_s
        self._links: dict[int, WorkerLink] = {}
        self._in_flight: dict[int, InFlight] = {}
        # Who serves what, as far as somebody has asked since that last changed.
        self._serving: dict[Target, list[WorkerLink]] = {}
        self._next_id = 1
        self._next_expiry = float("inf")
        self._to_flush: set[WorkerLink] = set()
        # Workers that died, and their groups and generations, until a snapshot knows of it.
        self._bereaved: dict[int, tuple[str, int]] = {}
        self._parked: list[InFlight] = []  # what waits for that snapshot
        # Workers we lost, until we hear how they died: items alone in their last call, and those given up before.
        self._mourned: dict[int, tuple[list[InFlight], list[tuple[str, bool]]]] = {}
        self._suspects = Suspects()
        self._retries = slot.counter("inference_retries_total")
        self._cancelled = slot.counter("inference_cancelled_total")
        self._gauge = slot.gauge("inference_in_flight")
        self.view: Any = compile({"serial": 0, "models": [], "workers": []})
        self._control = ControlHandle(self, channel)
        self._asking = Asking(channel)
        loop.watch(self._control)

    # -- items ---------------------------------------------------------------------------------------------------

    def submit(
        self,
        target: Target,
        items: Sequence[tuple[int, Sequence[np.ndarray]]],
        deadline: float,
        done: Callable[[list[Outcome]], None],
        priority: int = 0,
    ) -> Ticket:
        """Send items of (rows, arrays); `done` hears all outcomes once, later, or within this call.

        The arrays must stay what they are until then: large ones are sent from where they lie. deadline: monotonic
        seconds. priority: see batching.queue.Item; at most transport.PRIORITY_MAX. Raises NoWorker or QueueFull when
        nothing was sent at all, and what arrays.encode raises.
        """
        link = self._choose(target)
        arrived = time.monotonic()
        first = id = self._next_id
        ticket = Ticket(first, len(items), done)
        # All are encoded before any is sent: what cannot be encoded must not leave half a request behind.
        made: list[InFlight] = []
        all_rows = all_bytes = 0
        for rows, tensors in items:
            layout, payload = arrays.encode(tensors)
            made.append(InFlight(id, ticket, target, rows, layout, payload, arrived, deadline, priority))
            id += 1
            all_rows += rows
            all_bytes += len(payload)
        if link is not None:
            self._check_room(link, all_rows, all_bytes, arrived, deadline)
        self._next_id = id
        if deadline < self._next_expiry:  # noqa: PLR1730 - min() takes twice as long, and this runs for every request
            self._next_expiry = deadline
        for item in made:
            self._in_flight[item.id] = item
            if self._suspects and self._is_refused(item, arrived):
                self._finish(item, ItemFailed("worker_crashed"))
            elif link is None:
                self._parked.append(item)
            else:
                self._send(item, link)
        if not made:
            done([])
        return ticket

    def _check_room(self, link: WorkerLink, rows: int, size: int, now: float, deadline: float) -> None:
        if link.free_at > deadline > now:
            raise QueueFull("no answer could be there by the deadline", link.free_at - now)
        if link.rows and (link.rows + rows > self._max_rows or link.bytes + size > self._max_bytes):
            raise QueueFull("too much is in flight already", max(link.free_at - now, 0.0))

    def _is_refused(self, item: InFlight, now: float) -> bool:
        verdict = self._suspects.judge(item.digest(), now)
        item.alone = item.suspected = verdict is Verdict.ALONE
        return verdict is Verdict.REFUSED

    def withdraw(self, ticket: Ticket) -> None:
        """Whoever asked has hung up: drop what is still queued; what computes already is answered as usual."""
        for id in ticket.ids:
            item = self._in_flight.get(id)
            if item is not None:
                self._cancelled.add(1)
                if item.link is None:
                    self._finish(item, Cancelled("the item was withdrawn"))
                else:
                    item.link.connection.send(pack(Kind.CANCEL, id))
                    self._to_flush.add(item.link)

    def expire(self, now: float) -> float:
        """Give up what is past its deadline; when to call again (monotonic seconds, infinity if never)."""
        if now < self._next_expiry:
            return self._next_expiry
        late = [item for item in self._in_flight.values() if item.deadline <= now]
        for item in late:
            link = item.link
            if link is not None:
                link.connection.send(pack(Kind.CANCEL, item.id))
                self._to_flush.add(link)
                if item.started:
                    link.overdue[item.id] = (item.digest(), item.alone)
            self._finish(item, DeadlineExceeded("no answer within the deadline"))
        lingering = [link for link in self._links.values() if link.retired]
        for link in lingering:
            self._close_retired(link, now)
        ends = [item.deadline for item in self._in_flight.values()]
        self._next_expiry = min([*ends, *(link.until for link in lingering if link.until > now)], default=float("inf"))
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

    def _choose(self, target: Target) -> WorkerLink | None:
        """The worker with the least to do, of those that still serve if there are any.

        None: it died just now, and the next snapshot tells of another.
        """
        links = self._serving.get(target)
        if links is None:
            links = who_serves(self._links.values(), target[:2])
            if links:  # else those who ask for models long gone would make this grow
                self._serving[target] = links
        if not links or links[0].retired:
            if target[:2] in self._bereaved.values():
                return None
            if not links:
                raise NoWorker("no worker holds this model just now")
        return links[0] if len(links) == 1 else least_busy(links)

    def _send(self, item: InFlight, link: WorkerLink) -> None:
        id, payload = item.id, item.payload
        size = len(payload)
        item.link = link
        item.started = False
        link.items += 1
        link.rows += item.rows
        link.bytes += size
        whole = size <= WHOLE_BYTES
        frame = pack_item(
            id,
            item.priority << 1 | (ALONE if item.alone else 0),
            item.target.place,
            item.rows,
            item.arrived,
            item.deadline,
            item.layout,
            payload if whole else b"",
        )
        if whole:
            link.connection.send(frame)
        else:
            link.connection.send_large(id, frame, payload)
        self._to_flush.add(link)

    def _finish(self, item: InFlight, outcome: Outcome) -> None:
        del self._in_flight[item.id]
        link = item.link
        if link is not None:
            link.items -= 1
            link.rows -= item.rows
            link.bytes -= len(item.payload)
            if link.retired:
                self._close_retired(link, time.monotonic())
        item.ticket.settle(item.id, outcome)

    # -- what the workers say ------------------------------------------------------------------------------------

    def settle(self, link: WorkerLink, frame: Frame) -> None:
        """A worker's word on items; that on one no longer in flight (it was too late) is dropped."""
        in_flight = self._in_flight
        if frame.kind == Kind.STARTED:
            for id in ids_of(frame):
                if id in in_flight:
                    in_flight[id].started = True
            return
        for id, outcome in outcomes_of(frame, link.id):
            item = in_flight.get(id)
            if item is not None:
                self._finish(item, outcome)
            else:
                link.overdue.pop(id, None)

    def lost(self, link: WorkerLink) -> None:
        """A worker died: what it held goes to another one, and what may have been the cause goes there alone.

        Or it lives and has dropped us alone: the supervisor hears of it, and gives a new link to whoever lives.
        """
        if self._links.get(link.id) is not link:
            return
        self._let_go(link)
        self._control.channel.send({"type": "unlinked", "worker": link.id})
        if not link.retired:
            self._bereaved[link.id] = (link.group, link.generation)
        orphans = [item for item in self._in_flight.values() if item.link is link]
        # A batch that runs in the worker's loop is not announced: then it may have been any of them.
        told = any(item.started for item in orphans)
        accused = [item for item in orphans if item.started and item.alone]
        self._mourned[link.id] = accused, list(link.overdue.values())
        for item in orphans:
            item.link = None
            if item not in accused:
                item.alone = item.alone or item.started or not told
                self._retries.add(1)
                self._send_again(item)

    def _hear_of_death(self, worker: int, *, from_outside: bool) -> None:
        """How a worker died that we lost: whether it can have been of what it computed, if that was a single item.

        from_outside: it was killed by somebody, and that is no proof. So its item has one more try; when that ends in
        the same way, it is a suspect, and to blame only if it comes again and does so again.
        """
        link = self._links.get(worker)
        if link is not None:  # the supervisor's word has overtaken the worker's last ones
            link.on_readable()
            self.lost(link)
        accused, overdue = self._mourned.pop(worker, ([], []))
        for digest, alone in overdue:
            if alone and not from_outside:
                self._blame(digest)
            else:
                self._suspects.suspect(digest)
        for item in accused:
            if item.id not in self._in_flight:
                continue
            if not from_outside or item.suspected:
                self._blame(item.digest())
                self._finish(item, ItemFailed("worker_crashed"))
            elif item.was_killed:
                self._suspects.suspect(item.digest())
                self._finish(item, NoWorker("three workers were killed with this item"))
            else:
                item.was_killed = True
                self._retries.add(1)
                self._send_again(item)

    def _blame(self, digest: str) -> None:
        self._suspects.refuse(digest, float("inf"))  # the next snapshot says until when
        self._control.channel.send({"type": "blame", "digest": digest})

    def _send_again(self, item: InFlight) -> None:
        try:
            link = self._choose(item.target)
        except NoWorker as error:
            self._finish(item, error)
            return
        if link is None:
            self._parked.append(item)
        else:
            self._send(item, link)

    def _let_go(self, link: WorkerLink) -> None:
        del self._links[link.id]
        self._serving.clear()
        self._loop.forget(link)
        link.connection.close()
        self._to_flush.discard(link)

    def _close_retired(self, link: WorkerLink, now: float) -> None:
        """The worker was taken out of service: our end of file tells it that we have all its answers."""
        is_idle = not link.items and not link.connection.wants_write
        if is_idle and link.until <= now and self._links.get(link.id) is link:
            self._let_go(link)

    # -- what the supervisor says --------------------------------------------------------------------------------

    def hear(self) -> None:
        """Read the supervisor's messages. A snapshot is compiled, becomes the view, and is acknowledged."""
        try:
            messages = self._control.channel.receive()
        except ConnectionLost:
            self._asking.end()
            self._on_lost()
            return
        for message, fds in messages:
            if message["type"] == "snapshot":
                self._adopt(message, fds)
            elif message["type"] == "admin_done":
                self._asking.hear(message)
            elif message["type"] == "death":
                self._hear_of_death(message["worker"], from_outside=message["from_outside"])
            else:
                self._on_message(message)

    def tell_condition(self, text: str | None) -> None:
        """Say what is wrong with this process, for GET /ready; None when nothing is any more."""
        self._control.channel.send({"type": "condition", "text": text})

    def administer(self, action: str, model: str | None, done: Callable[[dict[str, Any]], None]) -> None:
        """Have models changed; see batching.asking. `done` hears once what came of it."""
        self._asking.ask(action, model, done)

    def _adopt(self, snapshot: dict[str, Any], fds: list[int]) -> None:
        self.view = self._compile(snapshot)
        workers = {worker["id"]: worker for worker in snapshot["workers"]}
        for id, fd in zip(snapshot["links"], fds, strict=True):
            worker = workers[id]
            sock = socket.socket(fileno=fd)
            if id in self._links:  # it serves again, before we have let go of it
                sock.close()
                continue
            link = WorkerLink(self, id, worker["group"], worker["generation"], sock)
            self._links[id] = link
            self._loop.watch(link)
        self._suspects.adopt(snapshot.get("quarantine", {}))
        self._control.channel.send({"type": "acknowledged", "serial": snapshot["serial"]})
        self._serving.clear()
        now = time.monotonic()
        for link in retire_and_revive(self._links.values(), workers, now + self._linger_s):
            self._next_expiry = min(self._next_expiry, max(link.until, now))
            self._close_retired(link, now)
        # A snapshot may have been on its way already when the worker died.
        known = workers.keys() - set(snapshot["links"])
        self._bereaved = {id: generation for id, generation in self._bereaved.items() if id in known}
        parked, self._parked = self._parked, []
        for id in snapshot["links"]:  # it lives, and only the link had ended
            parked += self._mourned.pop(id, ([], []))[0]
        for item in parked:
            if item.id in self._in_flight:
                self._send_again(item)

    def close(self) -> None:
        """Let go of everything; items in flight end as NoWorker."""
        self._asking.end()
        for link in list(self._links.values()):
            self.lost(link)
        self._bereaved.clear()
        for item in list(self._in_flight.values()):
            self._finish(item, NoWorker("the client was closed"))
        self._loop.forget(self._control)
        self._control.channel.close()
