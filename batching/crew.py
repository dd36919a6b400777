"""The workers of one group: how many serve, who stands by, who is replaced, and when the next try is.

Owns each worker's stage. Level-triggered: whatever has happened, `advance` moves up who is ready and lets go of who is
replaced, then (after the fronts were told) `fill` starts what is missing. So no two events can get in each other's way.
Knows nothing of fronts; starting and ending is batching.roster's affair, who is too heavy batching.scales'.

A worker belongs to a generation. The current one serves. While another list of models is wanted there is a candidate,
which loads beside it; in the pass in which all its workers are ready it becomes the current one, and the one before is
kept for a while. One that fails touches nobody. There are never three: the kept one has gone when a candidate starts.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any, Protocol

from batching.child import Child, Stage, resident_bytes
from batching.counters import Slot
from batching.fingerprint import Files
from batching.generations import Generation
from batching.groups import Plan, describe
from batching.loop import Loop
from batching.processes import Processes
from batching.roster import ENDED, LET_GO, Roster
from batching.scales import MIB, Scales

log = logging.getLogger("inference.supervisor")

# A worker that crashes (rather than reports) before it was ever ready gets so many tries before we give up at start.
START_TRIES = 3
# Files are looked at so often while a start has failed.
FILES_PERIOD_S = 0.25


class Listener(Protocol):
    """Who hears what becomes of a crew."""

    def changed(self) -> None:
        """Something has happened that fronts must hear of; calls `fill` in the end."""

    def is_calm(self) -> bool:
        """Whether no worker of any group is loading, so that one more to stand by disturbs nobody."""

    def failed(self, failures: list[dict[str, str]]) -> None:
        """These versions cannot be served."""

    def proved(self, references: list[dict[str, Any]]) -> None:
        """These serve now, and others did before."""


class Crew:
    """current: the generation that serves, or that will when it can; candidate: the next; kept: the one before."""

    def __init__(self, name: str, plan: Plan, processes: Processes, loop: Loop, slot: Slot, listener: Listener) -> None:
        self.name = name
        self.current = Generation(name, 0, [])
        self.candidate: Generation | None = None
        self.kept: Generation | None = None
        self.roster = Roster(name, plan, processes, loop, slot)
        self.scales = Scales(plan.worker_memory_mb)
        self._plan = plan
        self._loop = loop
        self._slot = slot
        self._listener = listener
        self._number = 0
        self._files = Files()
        self._closed = False

    @property
    def is_changing(self) -> bool:
        """Whether it is not known yet if what is wanted can be served."""
        return self.candidate is not None or not self.current.is_decided

    def holds(self, model: str | None) -> bool:
        """Whether it serves a version of this model, or kept or expects one; None: of any."""
        generations = [one for one in (self.current, self.candidate, self.kept) if one is not None]
        return any(model in (None, reference["name"]) for one in generations for reference in one.references)

    def entries(self) -> list[dict[str, Any]]:
        """The snapshot's entries of all its models."""
        coming = self.candidate.entries(ready=False) if self.candidate else []
        return [*coming, *self.current.entries(ready=bool(self.roster.at(Stage.ACTIVE)))]

    def close(self) -> None:
        """The server ends: nothing is started any more, and what is not ready yet is of no use."""
        self._closed = True
        self.candidate = None
        self.roster.close()

    # -- what is wanted ------------------------------------------------------------------------------------------

    def want(self, references: list[dict[str, Any]]) -> None:
        """Serve these, and as long as they cannot be served, go on with what is; none: end. `fill` does the rest."""
        if self._closed or (self.candidate and references == self.candidate.references):
            return
        if self.candidate is not None:
            log.info("group %s: generation %d is not wanted any more", self.name, self.candidate.number)
            self._drop_candidate()
        if not self.current.was_ready or not references:
            if references != self.current.references:
                self._begin_anew(references)
        elif references != self.current.served():
            self.let_go_of_kept()
            self.candidate = self._next(references)
            log.info("group %s: generation %d is to come, with %s", self.name, self._number, _names(references))

    def roll_back(self) -> list[dict[str, Any]] | None:
        """Serve what was served before the last change, at once: what is taken back. None: nothing is kept."""
        newer, older = self.current, self.kept
        if older is None or self._closed:
            return None
        self._drop_candidate()
        self.kept = None
        self.roster.leave(newer)
        for child in self.roster.of(older, Stage.KEPT):
            child.stage = Stage.WARM
        self._serve(older, "rolled_back")
        log.warning("group %s: back to generation %d from %d", self.name, older.number, newer.number)
        self.advance()
        return [one for one in newer.served() if one not in older.served()]

    def let_go_of_kept(self, only: Generation | None = None) -> None:
        """End the generation before the current one; only: if it still is this one."""
        generation = self.kept
        if generation is None or only not in (None, generation):
            return
        self.kept = None
        log.info("group %s: generation %d is kept no longer", self.name, generation.number)
        self.roster.leave(generation)

    def _next(self, references: list[dict[str, Any]]) -> Generation:
        self._number += 1
        return Generation(self.name, self._number, references)

    def _begin_anew(self, references: list[dict[str, Any]]) -> None:
        """Nothing serves that would have to go on, or nothing shall: the current generation is another one."""
        older = self.current
        self.let_go_of_kept()
        self.current = self._next(references) if references else Generation(self.name, self._number, [])
        self._slot.gauge("inference_generation", group=self.name).set(self.current.number if references else 0)
        if older.references:
            log.info("group %s: now %s", self.name, _names(references) if references else "not wanted any more")
        self.roster.leave(older)

    def _switch(self, candidate: Generation) -> None:
        """In one step, so that the next snapshot holds the new generation and not the old one."""
        older, self.candidate = self.current, None
        serving = self.roster.of(older, Stage.ACTIVE)
        if self._plan.rollback_s > 0 and serving:
            self.kept = older
            for child in serving:
                child.stage, child.outgoing = Stage.KEPT, None
            self._loop.after(self._plan.rollback_s, partial(self.let_go_of_kept, older))
        for child in self.roster.of(older, Stage.ACTIVE, Stage.WARM):
            self.roster.retire(child, LET_GO)
        for child in self.roster.of(older, Stage.LOADING):
            self.roster.discard(child)
        ready = self.roster.of(candidate, Stage.WARM)
        candidate.take_up(ready[-1].models, [])
        self._serve(candidate, "switched")
        memory_mb = sum(resident_bytes(child.process.pid) for child in ready) // MIB
        took_s = time.monotonic() - candidate.began
        log.info(
            "group %s: generation %d serves after %.1f s, with %d MiB", self.name, candidate.number, took_s, memory_mb
        )

    def _serve(self, generation: Generation, outcome: str) -> None:
        self.current = generation
        self._slot.gauge("inference_generation", group=self.name).set(generation.number)
        self._count(outcome)
        self._listener.proved(generation.served())

    def _fail_candidate(self, generation: Generation, failures: list[dict[str, str]]) -> None:
        self._drop_candidate()
        self._count("failed")
        for failure in failures:
            log.error("group %s: generation %d is refused: %s", self.name, generation.number, describe(failure))
        self._listener.failed(failures)
        self._listener.changed()

    def _drop_candidate(self) -> None:
        generation, self.candidate = self.candidate, None
        if generation is not None:
            for child in self.roster.of(generation, Stage.LOADING, Stage.WARM):
                self.roster.discard(child)

    def _lose_candidate(self, generation: Generation, reason: str) -> None:
        """It did not say what is wrong: what is new in it is to blame. If nothing is, it is tried again."""
        served = self.current.served()
        new = [one for one in generation.references if one not in served]
        if new:
            self._fail_candidate(generation, generation.blame(new, reason))
        else:
            self._back_off(generation)

    def _count(self, outcome: str) -> None:
        self._slot.counter("inference_reloads_total", group=self.name, outcome=outcome).add(1)

    # -- starting and moving up ----------------------------------------------------------------------------------

    def advance(self) -> None:
        """Put the warm into the places of the dead, and let go of those that are to be replaced and have been."""
        workers = self._plan.workers
        if self.candidate is not None and len(self.roster.of(self.candidate, Stage.WARM)) >= workers:
            self._switch(self.candidate)
        staying = [child for child in self.roster.of(self.current, Stage.ACTIVE) if child.outgoing is None]
        for child in self.roster.of(self.current, Stage.WARM)[: max(workers - len(staying), 0)]:
            child.stage = Stage.ACTIVE
            staying.append(child)
            if self.current.take_up(child.models, child.failures):
                self._listener.proved(self.current.served())
        if len(staying) >= workers:
            for child in self.roster.at(Stage.ACTIVE):
                if child.outgoing is not None:
                    self.roster.retire(child, child.outgoing)

    def fill(self) -> None:
        """Start what is missing: who serves first, then one at a time who stands by."""
        if self._closed:
            return
        current, coming, now = self.current, self.candidate, time.monotonic()
        if current.references and now >= current.next_try:
            staying = [child for child in self.roster.of(current, Stage.ACTIVE) if child.outgoing is None]
            missing = self._plan.workers - len(staying) - len(self.roster.of(current, Stage.LOADING))
            self._start(current, missing)
            standby = len(self.roster.of(current, Stage.WARM))
            if missing <= 0 and standby < self._plan.standby and not coming and self._listener.is_calm():
                self._start(current, 1)
        if coming is not None and now >= coming.next_try and not self._is_third_left():
            there = self.roster.of(coming, Stage.WARM, Stage.LOADING)
            self._start(coming, self._plan.workers - len(there))

    def _is_third_left(self) -> bool:
        """Whether memory of another generation than the two is still held."""
        return any(child.generation != self.current.number for child in self.roster.at(Stage.RETIRING))

    def _start(self, generation: Generation, missing: int) -> None:
        if generation.failed_starts:  # one try at a time will do
            missing = min(missing, 1 - len(self.roster.of(generation, Stage.LOADING)))
        for _ in range(missing):
            self._files.tried(generation.references)
            try:
                self.roster.start(generation)
            except OSError as error:
                log.error("no worker can be started: %s", error.strerror)  # noqa: TRY400 - a trace would say no more
                self._back_off(generation)
                return

    def _back_off(self, generation: Generation) -> None:
        delay_s = generation.put_off()
        log.warning("the next worker starts in %.1f s", delay_s)
        self._loop.after(delay_s, self.fill)

    def look_at_files(self) -> None:
        """A chore: where starts fail, files that have changed and rest again are worth another try at once."""
        if time.monotonic() >= self.current.next_try or self._closed:
            return
        if self._files.are_worth_a_try(self.current.references):
            log.info("the files of group %s have changed: trying again", self.name)
            self.current.next_try = 0.0
            self.fill()

    def weigh(self) -> None:
        """A chore: replace a worker that has grown beyond the limit; one at a time, ready first: no request is lost."""
        is_replacing = self.roster.at(Stage.RETIRING) or any(child.outgoing is not None for child in self.roster)
        if self._closed or self.candidate is not None or is_replacing:
            return
        child = self.scales.too_heavy(self.roster.at(Stage.ACTIVE))
        if child is not None:
            child.outgoing = "memory"
            self.advance()
            self._listener.changed()

    # -- hearing -------------------------------------------------------------------------------------------------

    def heard_ready(self, child: Child, message: dict[str, Any]) -> None:
        """A worker has loaded what it can: it serves from now on, stands by, or waits for the others of a candidate."""
        if child.stage is not Stage.LOADING:
            return  # given up in this very pass
        child.stage, child.ready_at = Stage.WARM, time.monotonic()
        child.models, child.failures = message["models"], message["failures"]
        child.limit_s = message["batch_limit_s"]
        self.roster.move_to_the_end(child)
        candidate = self._candidate_of(child)
        if candidate is not None and child.failures:
            self._fail_candidate(candidate, child.failures)
            return
        (candidate or self.current).failed_starts = 0
        for failure in child.failures:
            log.error("%s", describe(failure))
        self.advance()
        memory_mb = resident_bytes(child.process.pid) // MIB
        waits = " and waits for others" if self._candidate_of(child) else " and stands by"
        how = "" if child.stage is Stage.ACTIVE else waits
        took_s = child.ready_at - child.started
        log.info("worker %d is ready after %.1f s%s; it holds %d MiB", child.process.pid, took_s, how, memory_mb)
        self.scales.judge_fresh(self.name, memory_mb)
        self._tell_of(child.failures)
        self._listener.changed()

    def heard_failure(self, child: Child, failures: list[dict[str, str]]) -> None:
        """A worker could load nothing: its process ends, and another tries again, as the files may be mended."""
        if child.stage is not Stage.LOADING:
            return  # given up in this very pass
        candidate = self._candidate_of(child)
        if candidate is not None:
            self._fail_candidate(candidate, failures)
            return
        if not self.roster.at(Stage.ACTIVE):
            self.current.failures = failures
        for failure in failures:
            log.error("%s", describe(failure))
        if not self.current.was_ready:  # else it was served, and a next worker will serve it again
            self._tell_of(failures)
        self._listener.changed()

    def lost(self, child: Child) -> None:
        """A worker is dead, this very moment: who stands by takes its place in the snapshot that leaves it out."""
        if child.stage in (Stage.LOADING, Stage.RETIRING):
            return  # nobody misses it, and how it ended says what comes next
        self.roster.forget(child)
        if not self.roster.at(Stage.KEPT):
            self.kept = None
        self.advance()
        self._listener.changed()

    def ended(self, child: Child, how: str) -> None:
        """The same worker is gone, and this is how."""
        self.roster.forget(child)
        candidate = self._candidate_of(child)
        if child.doom == ENDED:
            self.fill()  # a candidate may have waited for this
            return
        if child.stage is Stage.RETIRING:
            log.info("worker %d has ended (%s)", child.process.pid, how)
        else:
            log.error("worker %d died (%s)", child.process.pid, how)
        if child.doom != LET_GO:
            self.roster.count_end(child.doom or ("failed_start" if child.stage is Stage.LOADING else "crashed"))
        if candidate is not None:
            self._lose_candidate(candidate, f"its worker died before it was ready ({how})")
        elif child.stage is Stage.LOADING and not self._closed:
            self._back_off(self.current)
            self._give_up_after_tries(how)
            self._listener.changed()
        else:
            self.fill()

    def _candidate_of(self, child: Child) -> Generation | None:
        """The candidate, if this is a worker of it."""
        return self.candidate if self.candidate and child.generation == self.candidate.number else None

    def _tell_of(self, failures: list[dict[str, str]]) -> None:
        untold = self.current.untold(failures)
        if untold:
            self._listener.failed(untold)

    def _give_up_after_tries(self, how: str) -> None:
        current = self.current
        if not current.was_ready and not current.failures and current.failed_starts >= START_TRIES:
            reason = f"its worker died {START_TRIES} times before it was ready ({how})"
            current.failures = current.blame(current.references, reason)
            self._tell_of(current.failures)


def _names(references: list[dict[str, Any]]) -> str:
    return ", ".join(f"{one['name']} {one['version']}" for one in references)
