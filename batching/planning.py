"""What the planner wants, brought to the crews; what has become of it, brought to the planner and to whoever asked.

Owns what is wanted now, and the admin calls that are not decided yet. Knows nothing of files (the planner's) and of
workers (the crews').
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from batching.child import Child, Stage, let_others_go_first
from batching.control import ControlChannel
from batching.counters import Slot
from batching.crew import FILES_PERIOD_S, Crew
from batching.fronts import Fronts
from batching.generations import FAILED, READY, Generation, merged
from batching.groups import Action, Plan, Wanted, describe, key_of
from batching.loop import Loop
from batching.processes import Processes

log = logging.getLogger("inference.supervisor")

LOOK_PERIOD_S = 0.25
WEIGH_PERIOD_S = 0.5
# Whoever asked hears when every front knows of it: the next request may go to another one. One that is stopped, no.
HEARD_S = 1.0
# A model with such calls keeps another's waiting for longer than their own takes.
LONG_CALL_S = 0.02


class Call:
    """An admin call that is not decided yet. failures: what has failed since, of its model or of any."""

    def __init__(
        self, channel: ControlChannel, id: int, action: str, model: str | None, refused: set[tuple[str, str]]
    ) -> None:
        self.channel = channel
        self.id = id
        self.action = action
        self.model = model
        self.refused_before = refused
        self.failures: dict[tuple[str, str], dict[str, str]] = {}
        self.decided: float | None = None  # since when (monotonic seconds)

    def concerns(self, version: dict[str, Any]) -> bool:
        """Whether it asks for this, among others."""
        return self.model in (None, version["name"])


class Planning:
    """crews: of all groups there ever were, by name. changed: tell the fronts how things stand now, then mend them."""

    def __init__(
        self, plan: Plan, processes: Processes, loop: Loop, slot: Slot, fronts: Fronts, *, changed: Callable[[], None]
    ) -> None:
        self.wanted = Wanted(plan.groups, plan.refused, plan.routing)
        self.crews: dict[str, Crew] = {}
        self.is_look_due = False
        self.changed = changed
        self._plan = plan
        self._planner = plan.planner
        self._processes = processes
        self._loop = loop
        self._slot = slot
        self._fronts = fronts
        self._calls: list[Call] = []
        self._closed = False
        self._bring_about()

    def start(self) -> None:
        """From now on, do what is wanted instead."""
        if self._planner is not None:
            if self._planner.fileno() >= 0:
                self._loop.watch(self._planner.fileno(), self.look)
            self._loop.every(LOOK_PERIOD_S, self.look)

    def fill(self) -> None:
        """Start what is missing anywhere."""
        for crew in self.crews.values():
            crew.fill()

    def generations(self) -> list[Generation]:
        """What serves, or will when it can, of all groups that are wanted."""
        return [self.crews[name].current for name in self.wanted.groups]

    def workers(self, stage: Stage) -> list[Child]:
        """Those at this stage, of all groups."""
        return [child for crew in self.crews.values() for child in crew.roster.at(stage)]

    def give_way(self) -> None:
        """Where several groups share the processor, workers with long calls let those with short ones go first.

        A group of its own (`isolate`) has no other sense. One group alone keeps its priority: it has no one to wait
        for but other programs.
        """
        workers = self.workers(Stage.ACTIVE)
        if len({child.group for child in workers}) > 1:
            for child in workers:
                if not child.gives_way and slowest_call_s(child.models) >= LONG_CALL_S:
                    child.gives_way = True
                    let_others_go_first(child.process.pid)

    def entries(self) -> list[dict[str, Any]]:
        """The snapshot's entries of all models."""
        return merged((entry for crew in self.crews.values() for entry in crew.entries()), self.wanted.refused)

    def close(self) -> None:
        """The server ends: nothing changes any more, and who still waits hears so."""
        self._closed = True
        for crew in self.crews.values():
            crew.close()
        for call in self._calls:
            self._answer(call, "the server ends")
        self._calls.clear()

    # -- what is wanted ------------------------------------------------------------------------------------------

    def look(self) -> None:
        """A chore, and whenever there may be news: ask the planner, and do what it says."""
        if self._planner is None or self._closed:
            return
        wanted = self._planner.look()
        was_due, self.is_look_due = self.is_look_due, False
        if wanted is not None:
            self.wanted = wanted
            self._bring_about()
        if wanted is not None or was_due:
            self.changed()
        self.settle()

    def _bring_about(self) -> None:
        for name, references in self.wanted.groups.items():
            if name not in self.crews:
                self.crews[name] = self._found(name)
            self.crews[name].want(references)
        self._end_groups()

    def _found(self, name: str) -> Crew:
        crew = Crew(name, self._plan, self._processes, self._loop, self._slot, self)
        self._loop.every(FILES_PERIOD_S, crew.look_at_files)
        self._loop.every(WEIGH_PERIOD_S, crew.weigh)
        return crew

    def _end_groups(self) -> bool:
        """End those not wanted any more, but not before their models have come to another group; whether any ended."""
        wanted = self.wanted.groups
        coming = {one["name"] for name in wanted if self.crews[name].is_changing for one in wanted[name]}
        ending = [
            crew
            for name, crew in self.crews.items()
            if name not in wanted and crew.current.references and not any(crew.holds(model) for model in coming)
        ]
        for crew in ending:
            crew.want([])
        return bool(ending)

    # -- what has become of it -----------------------------------------------------------------------------------

    def failed(self, failures: list[dict[str, str]]) -> None:
        """The planner hears, and is asked at once what else there is."""
        for call in self._calls:
            call.failures.update({key_of(one): one for one in failures if call.concerns(one)})
        if self._planner is not None:
            self._planner.failed(failures)
            self._look_soon()

    def proved(self, references: list[dict[str, Any]]) -> None:
        """The planner hears."""
        if self._planner is not None:
            self._planner.proved(references)

    def is_calm(self) -> bool:
        """Whether nobody is loading, so that one more to stand by disturbs nobody."""
        return not self.workers(Stage.LOADING)

    def settle(self) -> None:
        """Answer the calls that are decided, once every front knows how."""
        if any(self.crews[name].is_changing for name in self.wanted.groups) or self.is_look_due:
            return
        if self._end_groups():
            self.changed()
        now = time.monotonic()
        all_know = all(front.acknowledged >= self._fronts.serial for front in self._fronts)
        for call in list(self._calls):
            call.decided = call.decided or now
            if all_know or now >= call.decided + HEARD_S:
                self._calls.remove(call)
                self._answer(call, self._verdict(call))

    def _look_soon(self) -> None:
        if not self.is_look_due:
            self.is_look_due = True
            self._loop.after(0.0, self.look)

    # -- what somebody asks --------------------------------------------------------------------------------------

    def reload(self) -> None:
        """As if somebody had asked for it, but nobody waits for an answer."""
        if self._planner is not None and not self._closed:
            self._planner.ask("reload", None)
            self._look_soon()

    def administer(self, channel: ControlChannel, id: int, action: str, model: str | None) -> None:
        """A front asks. The answer may come at once, or when models have been loaded."""
        call = Call(channel, id, action, model, {key_of(one) for one in self.wanted.refused})
        if self._closed:
            self._answer(call, "the server ends")
        elif action == "rollback":
            self._answer(call, self._roll_back(model))
        elif self._planner is None:
            self._answer(call, "the models of this server do not change while it runs")
        else:
            try:
                self._planner.ask(cast("Action", action), model)
            except ValueError as error:
                self._answer(call, str(error))
                return
            log.info("asked to %s %s", action, model or "all models")
            self._calls.append(call)
            self._look_soon()

    def _roll_back(self, model: str | None) -> str | None:
        """Why not, if not."""
        holding = [crew for crew in self.crews.values() if crew.holds(model)]
        if not holding:
            return f"there is no model {model!r}" if model else "there is no model"
        if all(crew.kept is None for crew in holding):
            return "nothing is kept to go back to"
        for crew in holding:
            newer = crew.roll_back()
            if newer is not None and self._planner is not None:
                self._planner.rolled_back(newer)
        self._look_soon()
        self.changed()
        return None

    def _verdict(self, call: Call) -> str | None:
        """What went wrong, if anything did."""
        wrong = dict(call.failures)
        for one in self.wanted.refused:
            is_new = key_of(one) not in call.refused_before
            if call.concerns(one) and one.get("state", FAILED) == FAILED and (is_new or not self._has_ready(call)):
                wrong.setdefault(key_of(one), one)
        return "; ".join(describe(one) for one in wrong.values()) or None

    def _has_ready(self, call: Call) -> bool:
        """Whether any version serves of the model that is to be loaded."""
        return call.action != "load" or any(call.concerns(one) and one["state"] == READY for one in self.entries())

    def _answer(self, call: Call, reason: str | None) -> None:
        if self._fronts.of(call.channel) is None:
            return  # gone
        names = ("name", "version", "state", "reason")
        models = [{name: one[name] for name in names} for one in self.entries() if call.concerns(one)]
        answer = {"type": "admin_done", "id": call.id, "ok": reason is None, "reason": reason, "models": models}
        call.channel.send(answer)


def slowest_call_s(models: Sequence[dict[str, Any]]) -> float:
    """What the longest batch took that was tried at warm-up, of all these models."""
    return max((seconds for one in models for seconds in one["costs"].values()), default=0.0)
