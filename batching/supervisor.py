"""Starts, watches, replaces and drains fronts and workers. Owns processes, links and the snapshot.

No HTTP, no models: what a front or a worker does is its entry's affair (`Plan.entry`), what a model is the loader's.
One loop and no threads. Every child hangs on two sockets: the control channel, whose end of file is its death, and a
life line, whose end of file is ours.

Services are children beside fronts and workers (`Plan.services`): started first, stopped last, restarted when they die.
"""

from __future__ import annotations

import itertools
import logging
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from batching.child import Child, FrontEnd, manner, spawn
from batching.control import ControlChannel
from batching.counters import Counters, Slot
from batching.errors import ConnectionLost, StartupFailed
from batching.fronts import Fronts
from batching.groups import Group, Plan, backoff_s, describe, refused_entries
from batching.loop import Loop
from batching.slots import SLOTS, Slots

log = logging.getLogger("inference.supervisor")

# A worker that crashes (rather than reports) before it was ever ready gets so many tries before we give up at start.
START_TRIES = 3
STOP_GRACE_S = 1.0
SERVICE_STOP_S = 4.0
# How long a child that has let go of its channel may take to be gone before it is killed.
EXIT_CODE_S = 0.5
RELINK_S = 0.1


class Supervisor:
    """`run` is the whole story; `turn` is one pass of its loop.

    chores: (seconds, what to do each time so many have passed, counting in our slot); quick, and nothing raises.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        listener: socket.socket | None = None,
        attach_listener: socket.socket | None = None,
        owner: ControlChannel | None = None,
        on_ready: Callable[[list[dict[str, Any]]], None] = lambda models: None,
        chores: Sequence[tuple[float, Callable[[Slot], None]]] = (),
    ) -> None:
        self.plan = plan
        self.counters = Counters.create(SLOTS)
        self.exit_reason: str | None = None
        self._listener = listener
        self._attach_listener = attach_listener
        self._on_ready = on_ready
        self._chores = chores
        self._groups = {name: Group(name, references) for name, references in plan.groups.items()}
        self._children: dict[int, Child] = {}
        self._fronts = Fronts()
        self._ids = itertools.count(1)
        self._slots = Slots(self.counters)
        self._slot = self.counters.slot(1)
        self._loop = Loop()
        self._draining = False
        self._told_to_stop = False
        self._announced = False
        self._ready_serial = 0  # the first snapshot with a ready worker
        self._fronts_failed = 0  # fronts that died before any was heard of
        if attach_listener is not None:
            attach_listener.setblocking(False)
            self._loop.watch(attach_listener, self._on_attach)
        self._owner = self._add_front(owner, self._slots.take()) if owner is not None else None

    # -- life ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until a signal or the owner's end; raises StartupFailed when nothing can be served."""
        self._loop.catch_signals(self.drain, signal.SIGTERM, signal.SIGINT)
        try:
            self._start()
            while not self._finished():
                self.turn()
            if self.exit_reason is not None:
                raise StartupFailed(self.exit_reason)
        finally:
            self._kill_all()

    def turn(self) -> None:
        """One pass of the loop."""
        self._loop.turn()

    def drain(self) -> None:
        """Stop taking requests, finish those there are, end. A second call ends at once."""
        if self._draining:
            log.warning("ending at once")
            self._kill_all()
            return
        self._draining = True
        log.info("draining: finishing what is in flight")
        if self._listener is not None:
            self._listener.close()  # the fronts hold theirs for the grace; a connection nobody will serve is refused
        self._publish()
        for front in self._fronts:
            if front.child is not None:
                front.channel.send({"type": "drain", "timeout_s": self.plan.drain_timeout_s})
        self._loop.after(self.plan.drain_timeout_s + STOP_GRACE_S, self._kill_all)
        self._stop_the_rest_when_fronts_are_gone()

    def _start(self) -> None:
        if not self._groups:
            raise StartupFailed("; ".join(describe(r) for r in self.plan.refused) or "there is no model to serve")
        for period_s, chore in self._chores:
            self._loop.every(period_s, partial(chore, self._slot))
        for role in self.plan.services:
            self._start_service(role)
        for group in self._groups.values():
            for _ in range(self.plan.workers):
                self._start_worker(group)
        for _ in range(self.plan.fronts if self._listener is not None else 0):
            self._start_front()

    def _finished(self) -> bool:
        return self.exit_reason is not None or (self._draining and not self._children)

    def _kill_all(self) -> None:
        for child in list(self._children.values()):
            self._reap(child)

    # -- starting ------------------------------------------------------------------------------------------------

    def _start_child(self, role: str) -> Child:
        process, channel = spawn(self.plan.entry, role)
        child = Child(next(self._ids), role, process, channel, self._slots.take())
        self._children[child.id] = child
        self._loop.watch(child.channel, lambda: self._hear(child))
        return child

    def _send_hello(self, child: Child, message: dict[str, Any], *fds: int) -> None:
        child.life, theirs = socket.socketpair()
        message = {"type": "hello", "slot": child.slot, **message}
        child.channel.send(message, [theirs.fileno(), self.counters.fd, *fds], owned=[theirs])

    def _start_worker(self, group: Group) -> None:
        if self._draining:
            return
        child = self._start_child("worker")
        child.group = group.name
        hello = {"loader": self.plan.loader, "models": group.references, "options": self.plan.options}
        self._send_hello(child, hello)
        self._slot.counter("inference_worker_starts_total", group=group.name).add(1)

    def _start_front(self) -> None:
        if self._draining or self._listener is None:
            return
        child = self._start_child("front")
        hello = {"settings": self.plan.front_settings, "spool": self.plan.spool}
        self._send_hello(child, hello, self._listener.fileno())
        self._slot.counter("inference_front_starts_total").add(1)
        self._fronts.add(FrontEnd(child.channel, child.slot, child))
        self._publish()

    def _start_service(self, role: str) -> None:
        if self._draining:
            return
        self._send_hello(self._start_child(role), {"settings": self.plan.services[role]})
        self._slot.counter("inference_service_starts_total", service=role).add(1)

    def _on_attach(self) -> None:
        try:
            sock, _ = self._attach_listener.accept()  # type: ignore[union-attr]
        except OSError:
            return
        slot = self._slots.take_for_foreigner()
        if slot is None:
            log.warning("a front cannot attach: all places are taken")
            sock.close()
            return
        self._add_front(ControlChannel(sock), slot)

    def _add_front(self, channel: ControlChannel, slot: int) -> FrontEnd:
        """A front from a foreign process: it gets what our own get, but its life is not ours."""
        front = FrontEnd(channel, slot, None)
        self._fronts.add(front)
        self._loop.watch(channel, lambda: self._hear_attached(front))
        hello = {
            "type": "hello",
            "slot": front.slot,
            "settings": self.plan.front_settings,
            "spool": self.plan.spool,
            "queue_rows": self.plan.options["queue_rows"],
            "queue_bytes": self.plan.options["queue_bytes"],
        }
        channel.send(hello, [self.counters.fd])
        self._publish()
        return front

    # -- hearing -------------------------------------------------------------------------------------------------

    def _hear(self, child: Child) -> None:
        if child.id not in self._children:
            return  # ended earlier in this very turn
        try:
            messages = child.channel.receive()
        except ConnectionLost:
            self._on_death(child)
            return
        for message, _ in messages:
            if message["type"] == "acknowledged":
                self._acknowledge(child.channel, message["serial"])
            elif message["type"] == "unlinked":
                self._relink_later(child.channel, message["worker"])
            elif message["type"] == "condition":
                self._on_condition(child.channel, message["text"])
            elif message["type"] == "ready":
                self._on_worker_ready(child, message)
            elif message["type"] == "failed":
                self._on_worker_failed(child, message["failures"])

    def _hear_attached(self, front: FrontEnd) -> None:
        try:
            for message, _ in front.channel.receive():
                if message.get("type") == "acknowledged":
                    self._acknowledge(front.channel, message.get("serial", 0))
                elif message.get("type") == "unlinked":
                    self._relink_later(front.channel, message.get("worker", 0))
                elif message.get("type") == "condition":
                    text = message.get("text")
                    self._on_condition(front.channel, None if text is None else str(text)[:200])
                elif message.get("type") == "stop" and front is self._owner:
                    self.drain()
        except ConnectionLost:
            self._loop.forget(front.channel)
            self._slots.free_later(front.slot, front.channel)
            front.channel.close()
            if self._fronts.forget(front.channel):
                self._publish()
            if front is self._owner:
                self.drain()

    def _on_condition(self, channel: ControlChannel, text: str | None) -> None:
        self._fronts.set_condition(channel, text)
        self._publish()

    def _acknowledge(self, channel: ControlChannel, serial: int) -> None:
        front = self._fronts.of(channel)
        if front is not None:
            front.acknowledged = serial
            self._announce()

    def _relink_later(self, channel: ControlChannel, worker: int) -> None:
        """A front's link has ended. If its worker has not, as will be known soon, they get a new one."""

        def relink() -> None:
            front = self._fronts.of(channel)
            if front is not None and worker in self._children:
                front.links.discard(worker)
                self._publish()

        self._loop.after(RELINK_S, relink)

    def _on_worker_ready(self, child: Child, message: dict[str, Any]) -> None:
        group = self._groups[child.group]
        child.ready = True
        group.loaded, group.failures = message["models"], message["failures"]
        group.was_ready = True
        group.failed_starts = 0
        for failure in group.failures:
            log.error("%s", describe(failure))
        log.info("worker %d is ready after %.1f s", child.process.pid, time.monotonic() - child.started)
        self._publish()
        self._ready_serial = self._ready_serial or self._fronts.serial
        self._announce()

    def _on_worker_failed(self, child: Child, failures: list[dict[str, str]]) -> None:
        """It could load nothing: its process ends, and another tries again, as the files may be mended."""
        self._groups[child.group].failures = failures
        for failure in failures:
            log.error("%s", describe(failure))
        self._announce()

    def _announce(self) -> None:
        """Once it is known of every group whether it can serve, say so; when none can, end."""
        groups = self._groups.values()
        if self._announced or not all(group.was_ready or group.failures for group in groups):
            return
        if not any(group.was_ready for group in groups):
            failures = [failure for group in groups for failure in group.failures]
            self.exit_reason = "; ".join(describe(failure) for failure in [*failures, *self.plan.refused])
            return
        if not self._is_heard():
            return
        self._announced = True
        self._on_ready([model for group in groups for model in group.loaded])
        if self._owner is not None:
            self._owner.channel.send({"type": "ready"})

    def _is_heard(self) -> bool:
        """Whether a front of ours, if there are to be any, knows of a ready worker."""
        heard = (front.child is not None and front.acknowledged >= self._ready_serial for front in self._fronts)
        return self._listener is None or any(heard)

    def _on_front_death(self, child: Child, how: str) -> None:
        log.error("front %d died (%s); starting another", child.process.pid, how)
        self._slot.counter("inference_front_deaths_total").add(1)
        if not self._announced:
            self._fronts_failed += 1
            if self._fronts_failed >= START_TRIES * self.plan.fronts:
                self.exit_reason = f"the HTTP fronts died {self._fronts_failed} times before one could serve ({how})"
        self._restart(child, self._start_front, time.monotonic() - child.started > 1.0)

    def _on_service_death(self, child: Child, how: str) -> None:
        log.error("%s %d died (%s); starting another", child.role, child.process.pid, how)
        self._publish()  # its condition went with it
        self._restart(child, lambda: self._start_service(child.role), time.monotonic() - child.started > 1.0)

    def _on_death(self, child: Child) -> None:
        with suppress(subprocess.TimeoutExpired):  # a process closes its sockets a little before it has its exit code
            child.process.wait(EXIT_CODE_S)
        self._reap(child)
        if self._draining:
            self._stop_the_rest_when_fronts_are_gone()
            return
        if child.role == "front":
            self._on_front_death(child, manner(child.process.returncode))
            return
        if child.role in self.plan.services:
            self._on_service_death(child, manner(child.process.returncode))
            return
        group = self._groups[child.group]
        reason = "crashed" if child.ready else "failed_start"
        self._slot.counter("inference_worker_deaths_total", group=group.name, reason=reason).add(1)
        how = manner(child.process.returncode)
        log.error("worker %d died (%s)", child.process.pid, how)
        if not child.ready:
            group.failed_starts += 1
            if not group.was_ready and not group.failures and group.failed_starts >= START_TRIES:
                reason = f"its worker died {START_TRIES} times before it was ready ({how})"
                group.failures = [
                    {"name": one["name"], "version": one["version"], "reason": reason} for one in group.references
                ]
                self._announce()
        self._publish()
        self._restart(child, lambda: self._start_worker(group), child.ready)

    def _restart(self, child: Child, start: Callable[[], None], at_once: bool) -> None:
        if at_once:
            start()
            return
        failed_starts = self._groups[child.group].failed_starts if child.group else 1
        delay_s = backoff_s(failed_starts)
        log.warning("the next %s starts in %.1f s", child.role, delay_s)
        self._loop.after(delay_s, start)

    def _reap(self, child: Child) -> None:
        """The child is of no more use: end it, fold its counters, forget it."""
        del self._children[child.id]
        self._loop.forget(child.channel)
        child.channel.close()
        child.process.kill()
        child.process.wait()
        child.life.close()
        self._fronts.forget(child.channel)
        self._fronts.forget_worker(child.id)
        self._slots.free(child.slot)

    def _stop_the_rest_when_fronts_are_gone(self) -> None:
        """Workers first have nothing left to answer, and services nothing left to take over, when the fronts have."""
        if self._told_to_stop or any(child.role == "front" for child in self._children.values()):
            return
        self._told_to_stop = True
        for child in list(self._children.values()):
            if child.ready or child.role in self.plan.services:
                child.channel.send({"type": "stop"})
            else:
                self._reap(child)
        self._loop.after(SERVICE_STOP_S, self._end_services)

    def _end_services(self) -> None:
        """What has not ended by now hangs on something outside; a service must bear to be killed."""
        for child in [child for child in self._children.values() if child.role in self.plan.services]:
            self._reap(child)

    # -- the snapshot --------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        """Tell every front how things stand."""
        ready = [child for child in self._children.values() if child.role == "worker" and child.ready]
        workers = [(child, self._groups[child.group].generation) for child in ready]
        models = self._models({child.group for child in ready})
        self._fronts.publish(models, workers, draining=self._draining)

    def _models(self, ready_groups: set[str]) -> list[dict[str, Any]]:
        entries = [one for group in self._groups.values() for one in group.entries(ready=group.name in ready_groups)]
        return entries + refused_entries(self.plan.refused)
