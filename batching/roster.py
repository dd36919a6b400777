"""The worker processes of one group: started, told to go, and gone. Owns the list of them; decides nothing.

Knows nothing of what becomes of models: that is batching.crew's affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from batching.child import Child, Stage, offer_to_oom_killer
from batching.counters import Slot
from batching.generations import Generation
from batching.groups import Plan
from batching.loop import Loop
from batching.processes import Processes

# Why a worker ends that has done nothing wrong: its generation serves no longer, or it has nothing to finish.
LET_GO, ENDED = "let go", "ended"
# A front lets go of the last link to a worker so much later, at the most, than it should.
LATE_S = 1.0


class Roster:
    """Iterating gives the workers, those that have come into service first in front."""

    def __init__(self, name: str, plan: Plan, processes: Processes, loop: Loop, slot: Slot) -> None:
        self._name = name
        self._plan = plan
        self._processes = processes
        self._loop = loop
        self._slot = slot
        self._members: list[Child] = []

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._members))

    def at(self, *stages: Stage) -> list[Child]:
        """Those of these stages."""
        return [child for child in self._members if child.stage in stages]

    def of(self, generation: Generation, *stages: Stage) -> list[Child]:
        """The same, of one generation."""
        return [child for child in self.at(*stages) if child.generation == generation.number]

    def start(self, generation: Generation) -> None:
        """One more. Raises OSError: no memory, no processes, no descriptors."""
        self._slot.counter("inference_worker_starts_total", group=self._name).add(1)
        hello: dict[str, Any] = {"loader": self._plan.loader, "models": generation.references}
        child = self._processes.start("worker", {**hello, "options": self._plan.options})
        offer_to_oom_killer(child.process.pid)
        child.group, child.generation = self._name, generation.number
        self._members.append(child)

    def move_to_the_end(self, child: Child) -> None:
        """It comes into service now, after all the others."""
        self._members.remove(child)
        self._members.append(child)

    def forget(self, child: Child) -> None:
        """It is of no more use, or gone."""
        if child in self._members:
            self._members.remove(child)

    def count_end(self, reason: str) -> None:
        """A worker has ended, and not as it should."""
        self._slot.counter("inference_worker_deaths_total", group=self._name, reason=reason).add(1)

    def leave(self, generation: Generation) -> None:
        """All of it end: who has served finishes what it has, and who is still loading has nothing."""
        for child in self.of(generation, Stage.ACTIVE, Stage.KEPT, Stage.WARM):
            self.retire(child, LET_GO)
        for child in self.of(generation, Stage.LOADING):
            self.discard(child)

    def discard(self, child: Child) -> None:
        """It has nothing to finish. Not in this very pass, in which others may be on their way to its place."""
        child.stage, child.doom = Stage.RETIRING, ENDED
        self._loop.after(0.0, partial(self._processes.kill, child))

    def retire(self, child: Child, why: str) -> None:
        """It gets no more (the snapshot that now comes leaves it out), answers what it has, and ends."""
        child.stage, child.doom, child.outgoing = Stage.RETIRING, why, why
        self._loop.after(0.0, partial(self._tell_to_retire, child))
        patience_s = max(self._plan.drain_timeout_s, self._plan.linger_s + LATE_S)
        self._loop.after(patience_s, partial(self._processes.kill, child))

    def _tell_to_retire(self, child: Child) -> None:
        if self._processes.is_alive(child):
            child.channel.send({"type": "retire"})

    def close(self) -> None:
        """The server ends: what is not ready yet is of no use."""
        for child in self.at(Stage.LOADING):
            child.doom = ENDED
            self._processes.kill(child)
