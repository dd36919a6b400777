"""Starts, watches, replaces and drains fronts and workers. Owns the story, the snapshot, and who is told what.

No HTTP, no models: what a front or a worker does is its entry's affair (`Plan.entry`), what a model is the loader's.
One loop and no threads. Every child hangs on two sockets: the control channel, whose end of file is its death, and a
life line, whose end of file is ours.

Rooms: `processes` (alive or dead), `planning` (what is wanted), `crew` (the workers of one group), `watchdog` (who is
stuck), `fronts` and `hearing` (who is told, and what they say), `quarantine` (inputs that kill).

Services are children beside fronts and workers (`Plan.services`): started first, stopped last, restarted when they die.
"""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from batching.child import Child, FrontEnd, OomKills, Stage
from batching.control import ControlChannel
from batching.counters import Counters, Slot
from batching.crew import START_TRIES
from batching.errors import ConnectionLost, StartupFailed
from batching.fronts import Fronts
from batching.groups import Plan, backoff_s, describe, key_of
from batching.hearing import Hearing
from batching.loop import Loop
from batching.planning import Planning
from batching.processes import Processes
from batching.quarantine import Quarantine
from batching.slots import SLOTS, Slots
from batching.terminal import hang_up_ends
from batching.watchdog import PERIOD_S, Watchdog
from batching.weights import PERIOD_S as WEIGH_S
from batching.weights import Weights

log = logging.getLogger("inference.supervisor")

STOP_GRACE_S = 1.0
# A worker that is told to stop when all fronts have gone computes for nobody.
WORKER_STOP_S = 0.5
SERVICE_STOP_S = 4.0


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
        self._slots = Slots(self.counters)
        self._slot = self.counters.slot(1)
        self._loop = Loop()
        self._processes = Processes(
            plan.entry,
            self._loop,
            self.counters,
            self._slots,
            on_message=self._on_message,
            on_death=self._on_death,
            on_end=self._on_end,
        )
        self._watchdog = Watchdog(self.counters.vitals)
        self._oom_kills = OomKills()
        self._weights = Weights(self._slot, ["front", "worker", *plan.services])
        self._quarantine = Quarantine(plan.quarantine_s)
        self._fronts = Fronts()
        self._planning = Planning(plan, self._processes, self._loop, self._slot, self._fronts, changed=self._on_change)
        self._hearing = Hearing(
            self._fronts,
            self._quarantine,
            self._loop,
            publish=self._publish,
            announce=self._announce,
            administer=self._planning.administer,
        )
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
        hang_up = self.drain if hang_up_ends() else self.reload
        drains = {signal.SIGTERM: self.drain, signal.SIGINT: self.drain, signal.SIGHUP: hang_up}
        self._loop.catch_signals({**drains, signal.SIGCHLD: self._processes.collect})
        try:
            self._start()
            while not self._finished():
                self.turn()
            if self.exit_reason is not None:
                raise StartupFailed(self.exit_reason)
        finally:
            self._processes.kill_all()

    def turn(self) -> None:
        """One pass of the loop."""
        self._loop.turn()

    def drain(self) -> None:
        """Stop taking requests, finish those there are, end. A second call ends at once."""
        if self._draining:
            log.warning("ending at once")
            self._processes.kill_all()
            return
        self._draining = True
        log.info("draining: finishing what is in flight")
        if self._listener is not None:
            self._listener.close()  # the fronts hold theirs for the grace; a connection nobody will serve is refused
        self._publish()
        self._planning.close()
        for front in self._fronts:
            if front.child is not None:
                front.channel.send({"type": "drain", "timeout_s": self.plan.drain_timeout_s})
        self._loop.after(self.plan.drain_timeout_s + STOP_GRACE_S, self._processes.kill_all)
        self._stop_the_rest_when_fronts_are_gone()

    def reload(self) -> None:
        """Look at everything again: the models, and in the fronts the keys."""
        log.info("reloading: looking at the models and the keys again")
        self._fronts.tell({"type": "read_keys"})
        self._planning.reload()

    def _start(self) -> None:
        if not self.plan.groups:
            raise StartupFailed("; ".join(describe(r) for r in self.plan.refused) or "there is no model to serve")
        for period_s, chore in self._chores:
            self._loop.every(period_s, partial(chore, self._slot))
        self._loop.every(PERIOD_S, self._kill_the_stuck)
        self._loop.every(1.0, self._oom_kills.look)
        self._loop.every(WEIGH_S, lambda: self._weights.look(self._processes))
        for role in self.plan.services:
            self._start_service(role)
        self._planning.start()
        self._planning.fill()
        for _ in range(self.plan.fronts if self._listener is not None else 0):
            self._start_front()

    def _finished(self) -> bool:
        return self.exit_reason is not None or (self._draining and not self._processes)

    # -- processes -----------------------------------------------------------------------------------------------

    def _start_front(self) -> None:
        if self._draining or self._listener is None:
            return
        hello = {"settings": self.plan.front_settings, "spool": self.plan.spool}
        child = self._processes.start("front", hello, self._listener.fileno())
        self._slot.counter("inference_front_starts_total").add(1)
        self._fronts.add(FrontEnd(child.channel, child.slot, child))
        self._publish()

    def _start_service(self, role: str) -> None:
        if self._draining:
            return
        self._processes.start(role, {"settings": self.plan.services[role]})
        self._slot.counter("inference_service_starts_total", service=role).add(1)

    def _on_message(self, child: Child, message: dict[str, Any]) -> None:
        if message["type"] == "ready":
            self._planning.crews[child.group].heard_ready(child, message)
        elif message["type"] == "failed":
            self._planning.crews[child.group].heard_failure(child, message["failures"])
        else:
            self._hearing.hear(child.channel, message)

    def _on_death(self, child: Child) -> None:
        """A child is of no more use: whoever waits for it hears so before anything else is done."""
        had_condition = self._fronts.forget(child.channel)
        self._fronts.forget_worker(child.id)
        if child.group:
            self._planning.crews[child.group].lost(child)
        if had_condition:
            self._publish()
        if self._draining:
            self._stop_the_rest_when_fronts_are_gone()

    def _on_end(self, child: Child, how: str) -> None:
        """It is gone, and we know how."""
        if child.group:
            self._planning.crews[child.group].ended(child, how)
            # Whoever had an item in it that may be to blame waits for this; it is counted by then.
            killed = child.process.returncode == -signal.SIGKILL and child.doom != "stuck"
            from_outside = killed and not self._oom_kills.have_risen()
            self._fronts.tell({"type": "death", "worker": child.id, "from_outside": from_outside})
        elif self._draining:
            pass
        elif child.role == "front":
            self._on_front_end(child, how)
        else:
            log.error("%s %d died (%s); starting another", child.role, child.process.pid, how)
            self._restart(child, lambda: self._start_service(child.role))

    def _on_front_end(self, child: Child, how: str) -> None:
        log.error("front %d died (%s); starting another", child.process.pid, how)
        self._slot.counter("inference_front_deaths_total").add(1)
        if not self._announced:
            self._fronts_failed += 1
            if self._fronts_failed >= START_TRIES * self.plan.fronts:
                self.exit_reason = f"the HTTP fronts died {self._fronts_failed} times before one could serve ({how})"
        self._restart(child, self._start_front)

    def _restart(self, child: Child, start: Callable[[], None]) -> None:
        """At once, or, where it lived so briefly that it will again, in a while."""

        def try_to_start() -> None:
            try:
                start()
            except OSError as error:  # no memory, no processes, no descriptors
                log.error("no %s can be started: %s", child.role, error.strerror)  # noqa: TRY400 - no trace needed
                self._loop.after(backoff_s(1), try_to_start)

        if time.monotonic() - child.started > 1.0:
            try_to_start()
            return
        log.warning("the next %s starts in %.1f s", child.role, backoff_s(1))
        self._loop.after(backoff_s(1), try_to_start)

    def _kill_the_stuck(self) -> None:
        for child, what in self._watchdog.look(self._processes.of_role("worker")):
            log.error("worker %d is stuck: %s; killing it", child.process.pid, what)
            child.doom = "stuck"
            self._processes.kill(child)

    # -- the end -------------------------------------------------------------------------------------------------

    def _stop_the_rest_when_fronts_are_gone(self) -> None:
        """Workers first have nothing left to answer, and services nothing left to take over, when the fronts have.

        Foreign fronts stay attached for as long as they like: their requests are finished too, and the time that has is
        the drain's.
        """
        if self._processes.of_role("front"):
            return
        if not self._fronts.has_foreigners():
            self._loop.after(WORKER_STOP_S, partial(self._end_all, ["worker"]))
        if self._told_to_stop:
            return
        self._told_to_stop = True
        for child in self._processes:
            child.doom = "ended"
            child.channel.send({"type": "stop"})
        self._loop.after(SERVICE_STOP_S, partial(self._end_all, self.plan.services))

    def _end_all(self, roles: Iterable[str]) -> None:
        """What has not ended by now is stuck, or hangs on something outside; it must bear to be killed."""
        for child in self._processes:
            if child.role in roles:
                child.doom = "ended"
                self._processes.kill(child)

    # -- fronts of others ----------------------------------------------------------------------------------------

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
            "linger_s": self.plan.linger_s,
        }
        channel.send(hello, [self.counters.fd])
        self._publish()
        return front

    def _hear_attached(self, front: FrontEnd) -> None:
        try:
            for message, _ in front.channel.receive():
                if message.get("type") == "stop" and front is self._owner:
                    self.drain()
                else:
                    self._hearing.hear(front.channel, message)
        except ConnectionLost:
            self._loop.forget(front.channel)
            self._slots.free_later(front.slot, front.channel)
            front.channel.close()
            if self._fronts.forget(front.channel):
                self._publish()
            if front is self._owner and not self._draining:
                self.drain()
            elif self._draining:
                self._stop_the_rest_when_fronts_are_gone()

    # -- what is told --------------------------------------------------------------------------------------------

    def _on_change(self) -> None:
        """Something has happened to a worker, or is wanted: tell, then mend."""
        self._publish()
        if not self._ready_serial and self._planning.workers(Stage.ACTIVE):
            self._ready_serial = self._fronts.serial
        self._announce()
        self._planning.give_way()
        self._planning.fill()

    def _publish(self) -> None:
        """Tell every front how things stand."""
        conditions = [crew.scales.condition for crew in self._planning.crews.values()]
        self._fronts.publish(
            self._planning.entries(),
            self._planning.workers(Stage.ACTIVE),
            draining=self._draining,
            quarantine=self._quarantine.current(),
            routing=self._planning.wanted.routing,
            conditions=[condition for condition in conditions if condition is not None],
        )

    def _announce(self) -> None:
        """Once it is known of every group whether it can serve, say so; when none can, end."""
        self._planning.settle()
        groups = self._planning.generations()
        if self._announced or self._planning.is_look_due or not all(group.is_decided for group in groups):
            return
        if not any(group.was_ready for group in groups):
            failures = [failure for group in groups for failure in group.failures]
            reasons = {key_of(one): describe(one) for one in [*failures, *self._planning.wanted.refused]}
            self.exit_reason = "; ".join(reasons.values()) or "there is no model to serve"
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
