"""The workers of one group: how many serve, who stands by, who is replaced, and when the next try is.

Owns each worker's stage. Level-triggered: whatever has happened, `advance` moves up who is ready and lets go of who is
replaced, then (after the fronts were told) `fill` starts what is missing. So no two events can get in each other's way.
Knows nothing of fronts; how a process is started and found dead is batching.processes' affair.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from batching.child import Child, Stage, offer_to_oom_killer, resident_bytes
from batching.counters import Slot
from batching.fingerprint import Fingerprint, fingerprint
from batching.groups import Group, Plan, backoff_s, describe
from batching.loop import Loop
from batching.processes import Processes

log = logging.getLogger("inference.supervisor")

# A worker that crashes (rather than reports) before it was ever ready gets so many tries before we give up at start.
START_TRIES = 3
# Files are looked at so often while a start has failed; twice the same, and they are no longer being written.
FILES_PERIOD_S = 0.25
# A worker that needs replacing sooner than this after it was ready shows that replacing it helps little.
SHORT_LIFE_S = 60.0
# One that is beyond the limit before its first request would be replaced all the time: no sooner than this, then.
TOO_HEAVY_PAUSE_S = 600.0
MIB = 2**20


class Crew:
    """changed: to be called when something has happened that fronts must hear of; it calls `fill` in the end.

    is_calm: whether no worker of any group is loading, so that one more to stand by disturbs nobody.
    """

    def __init__(
        self,
        group: Group,
        plan: Plan,
        processes: Processes,
        loop: Loop,
        slot: Slot,
        *,
        changed: Callable[[], None],
        is_calm: Callable[[], bool],
    ) -> None:
        self.group = group
        self.condition: str | None = None
        self._plan = plan
        self._processes = processes
        self._loop = loop
        self._slot = slot
        self._changed = changed
        self._is_calm = is_calm
        self._members: list[Child] = []
        self._closed = False
        self._next_try = 0.0
        self._tried: Fingerprint = ()  # the files as they were at the last start
        self._last_look: Fingerprint = ()
        self._short_lives = 0
        self._next_recycling = 0.0

    def members(self, *stages: Stage) -> list[Child]:
        """Its workers, those that have come into service first in front; all, or those of these stages."""
        return [child for child in self._members if not stages or child.stage in stages]

    def close(self) -> None:
        """The server ends: nothing is started any more, and what is not ready yet is of no use."""
        self._closed = True
        for child in self.members(Stage.LOADING):
            child.doom = "ended"
            self._processes.kill(child)

    # -- starting and moving up ----------------------------------------------------------------------------------

    def advance(self) -> None:
        """Put the warm into the places of the dead, and let go of those that are to be replaced and have been."""
        staying = [child for child in self.members(Stage.ACTIVE) if child.outgoing is None]
        for child in self.members(Stage.WARM)[: max(self._plan.workers - len(staying), 0)]:
            child.stage = Stage.ACTIVE
            self.group.loaded, self.group.failures = child.models, child.failures
            self.group.was_ready = True
            staying.append(child)
        if len(staying) >= self._plan.workers:
            for child in [child for child in self.members(Stage.ACTIVE) if child.outgoing is not None]:
                self._retire(child)

    def fill(self) -> None:
        """Start what is missing: who serves first, then one at a time who stands by."""
        if self._closed or time.monotonic() < self._next_try:
            return
        loading, warm = len(self.members(Stage.LOADING)), len(self.members(Stage.WARM))
        staying = [child for child in self.members(Stage.ACTIVE) if child.outgoing is None]
        missing = self._plan.workers - len(staying) - loading
        if self.group.failed_starts:  # one try at a time will do
            missing = min(missing, 1 - loading)
        for _ in range(missing):
            self._start()
        if missing <= 0 and warm < self._plan.standby and self._is_calm():
            self._start()

    def _start(self) -> None:
        self._tried = fingerprint(self.group.references)
        self._slot.counter("inference_worker_starts_total", group=self.group.name).add(1)
        hello = {"loader": self._plan.loader, "models": self.group.references, "options": self._plan.options}
        try:
            child = self._processes.start("worker", hello)
        except OSError as error:  # no memory, no processes, no descriptors
            log.error("no worker can be started: %s", error.strerror)  # noqa: TRY400 - a trace would say no more
            self._back_off()
            return
        offer_to_oom_killer(child.process.pid)
        child.group, child.generation = self.group.name, self.group.generation
        self._members.append(child)

    def _back_off(self) -> None:
        self.group.failed_starts += 1
        delay_s = backoff_s(self.group.failed_starts)
        log.warning("the next worker starts in %.1f s", delay_s)
        self._next_try = time.monotonic() + delay_s
        self._loop.after(delay_s, self.fill)

    def look_at_files(self) -> None:
        """A chore: where starts fail, files that have changed and rest again are worth another try at once."""
        if time.monotonic() >= self._next_try or self._closed:
            return
        look = fingerprint(self.group.references)
        if look == self._last_look and look != self._tried:
            log.info("the files of group %s have changed: trying again", self.group.name)
            self._next_try = 0.0
            self.fill()
        self._last_look = look

    # -- hearing -------------------------------------------------------------------------------------------------

    def heard_ready(self, child: Child, message: dict[str, Any]) -> None:
        """A worker has loaded what it can, and serves from now on or stands by."""
        child.stage, child.ready_at = Stage.WARM, time.monotonic()
        child.models, child.failures = message["models"], message["failures"]
        child.limit_s = message["batch_limit_s"]
        self.group.failed_starts = 0
        self._members.remove(child)
        self._members.append(child)
        for failure in child.failures:
            log.error("%s", describe(failure))
        self.advance()
        memory_mb = resident_bytes(child.process.pid) // MIB
        stands_by = "" if child.stage is Stage.ACTIVE else " and stands by"
        took_s = child.ready_at - child.started
        log.info("worker %d is ready after %.1f s%s; it holds %d MiB", child.process.pid, took_s, stands_by, memory_mb)
        self._judge_fresh(memory_mb)
        self._changed()

    def heard_failure(self, failures: list[dict[str, str]]) -> None:
        """A worker could load nothing: its process ends, and another tries again, as the files may be mended."""
        if not self.members(Stage.ACTIVE):
            self.group.failures = failures
        for failure in failures:
            log.error("%s", describe(failure))
        self._changed()

    def lost(self, child: Child) -> None:
        """A worker is dead, this very moment: who stands by takes its place in the snapshot that leaves it out."""
        if child.stage is Stage.LOADING:
            return  # nobody misses it, and how it ended says what comes next
        self._members.remove(child)
        self.advance()
        self._changed()

    def ended(self, child: Child, how: str) -> None:
        """The same worker is gone, and this is how."""
        if child.stage is Stage.LOADING:
            self._members.remove(child)
        if child.doom == "ended":
            return
        if child.stage is Stage.RETIRING:
            log.info("worker %d has ended (%s)", child.process.pid, how)
        else:
            log.error("worker %d died (%s)", child.process.pid, how)
        reason = child.doom or ("failed_start" if child.stage is Stage.LOADING else "crashed")
        self._slot.counter("inference_worker_deaths_total", group=self.group.name, reason=reason).add(1)
        if child.stage is Stage.LOADING and not self._closed:
            self._back_off()
            self._give_up_after_tries(how)
            self._changed()

    def _give_up_after_tries(self, how: str) -> None:
        group = self.group
        if not group.was_ready and not group.failures and group.failed_starts >= START_TRIES:
            reason = f"its worker died {START_TRIES} times before it was ready ({how})"
            group.failures = [
                {"name": one["name"], "version": one["version"], "reason": reason} for one in group.references
            ]

    # -- replacing who is alive ----------------------------------------------------------------------------------

    def replace(self, child: Child, reason: str) -> None:
        """Have another worker in this one's place, ready first, so that no request is lost. `reason`: for the count."""
        child.outgoing = reason
        self.advance()
        self._changed()

    def _retire(self, child: Child) -> None:
        """It gets no more (the snapshot that now comes leaves it out), answers what it has, and ends."""
        child.stage, child.doom = Stage.RETIRING, child.outgoing
        self._loop.after(0.0, partial(self._tell_to_retire, child))
        self._loop.after(self._plan.drain_timeout_s, partial(self._processes.kill, child))

    def _tell_to_retire(self, child: Child) -> None:
        if self._processes.is_alive(child):
            child.channel.send({"type": "retire"})

    def weigh(self) -> None:
        """A chore: replace a worker that has grown beyond the limit; one at a time."""
        limit_mb = self._plan.worker_memory_mb
        now = time.monotonic()
        if limit_mb is None or self._closed or now < self._next_recycling or self._is_replacing():
            return
        weights = [(resident_bytes(child.process.pid) // MIB, child.id, child) for child in self.members(Stage.ACTIVE)]
        memory_mb, _, child = max(weights, default=(0, 0, None))
        if child is None or memory_mb <= limit_mb:
            return
        self._short_lives = self._short_lives + 1 if now - child.ready_at < SHORT_LIFE_S else 0
        self._next_recycling = now + (backoff_s(self._short_lives) if self._short_lives else 0.0)
        log.warning("worker %d holds %d MiB, more than %d: replacing it", child.process.pid, memory_mb, limit_mb)
        self.replace(child, "memory")

    def _is_replacing(self) -> bool:
        return bool(self.members(Stage.RETIRING)) or any(child.outgoing is not None for child in self._members)

    def _judge_fresh(self, memory_mb: int) -> None:
        """Whether a worker that has not served yet is beyond the limit: said once, for replacing it would not help."""
        limit_mb = self._plan.worker_memory_mb
        if limit_mb is None or memory_mb <= limit_mb:
            self.condition = None
            return
        self._next_recycling = time.monotonic() + TOO_HEAVY_PAUSE_S
        if self.condition is None:
            self.condition = (
                f"a new worker of group {self.group.name} holds {memory_mb} MiB, more than its limit of {limit_mb} MiB:"
                " replacing it would not help"
            )
            log.warning("%s", self.condition)
