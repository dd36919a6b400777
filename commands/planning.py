"""What is to be served, now and later: the planner that the supervisor asks (batching.groups.Planner).

Owns the decisions: what has settled on disk (commands.survey), the rules (models.versions), what could not be loaded
and when that is tried again, what an operator said, and which copies are kept (models.shelf).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batching.groups import Wanted
from commands.survey import Survey
from models.repository import ModelReference, Repository
from models.shelf import Moving, Shelf
from models.versions import Choice, Policy, Rules, choose

log = logging.getLogger("inference.models")

# What could not be loaded is tried again so long after the first, second and third time; then only on a change or word.
RETRIES_S = (5.0, 30.0, 120.0)

Key = tuple[str, str, str]
"""Model, version, digest of the files."""


@dataclass
class Bad:
    """A version that could not be loaded, or was taken back.

    due: when to try it again, None: never by itself. is_tried: that time has come, and how it went is not known yet.
    """

    reason: str
    failures: int
    due: float | None
    is_tried: bool = False


class Planner:
    """policy: for models of which nothing else is said. settle_s: 0 changes nothing unless asked to."""

    def __init__(
        self,
        repository: Repository,
        policy: Policy,
        *,
        settle_s: float,
        keep_dir: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._is_manual = not settle_s
        self._survey = Survey(repository, settle_s, clock=clock)
        self._shelf = Shelf(keep_dir or repository.beside)
        self._bad: dict[Key, Bad] = {}
        self._unloaded: set[str] = set()
        self._serving: dict[str, list[ModelReference]] = {}  # by group, what was proved last
        self._before: dict[str, list[ModelReference]] = {}  # and before that
        self._out_of_date = False
        self._told_before = Wanted({})  # its workers may be loading still
        self._told = self._wanted()

    @property
    def first(self) -> Wanted:
        """What is to be served at first."""
        return self._told

    # -- the supervisor's questions and words --------------------------------------------------------------------

    def fileno(self) -> int:
        return self._survey.fileno()

    def look(self) -> Wanted | None:
        """What should be served, where that has changed."""
        self._shelf.complain()
        changed = self._survey.look()
        changed |= self._begin_retries() or self._out_of_date
        if not changed:
            return None
        self._out_of_date = False
        wanted = self._wanted()
        is_new = wanted != self._told
        if is_new:
            self._told_before, self._told = self._told, wanted
        self._tidy()
        return wanted if is_new else None

    def failed(self, failures: Sequence[dict[str, str]]) -> None:
        """These of the last Wanted could not be loaded."""
        last = {(one["name"], one["version"]): one for group in self._told.groups.values() for one in group}
        for failure in failures:
            reference = last.get((failure["name"], failure["version"]))
            if reference is None:
                continue
            key = _key(ModelReference.from_json(reference))
            count = self._bad[key].failures + 1 if key in self._bad else 1
            due = None if self._is_manual or count > len(RETRIES_S) else self._clock() + RETRIES_S[count - 1]
            self._bad[key] = Bad(failure["reason"], count, due)
            self._out_of_date = True

    def proved(self, references: Sequence[dict[str, Any]]) -> None:
        """These serve now."""
        groups: dict[str, list[ModelReference]] = {}
        for one in map(ModelReference.from_json, references):
            groups.setdefault(_group(one), []).append(one)
            self._bad.pop(_key(one), None)
        for name, proved in groups.items():
            if self._serving.get(name) != proved:
                self._before[name] = self._serving.get(name, [])
                self._serving[name] = proved
        self._tidy()

    def rolled_back(self, references: Sequence[dict[str, Any]]) -> None:
        """These did serve, until somebody took them back."""
        groups: dict[str, list[ModelReference]] = {}
        for one in map(ModelReference.from_json, references):
            groups.setdefault(_group(one), []).append(one)
        for name, back in groups.items():
            serving, before = self._serving.get(name, []), self._before.get(name, [])
            if serving == back:
                self._serving[name], self._before[name] = serving, before = before, serving
            # A version that serves on was not taken back.
            for key in {_key(one) for one in back} - {_key(one) for one in serving}:
                self._bad[key] = Bad("an operator took it back", 0, None)
        self._out_of_date = True

    def ask(self, action: str, model: str | None) -> None:
        """An operator's word (load, reload, unload) on one model, or on all.

        Raises ValueError with the reason why that cannot be.
        """
        if action not in ("load", "reload", "unload"):
            raise ValueError(f"what is asked is none of load, reload and unload: {action[:20]!r}")
        if action == "unload" and model is None:
            raise ValueError("the model that is to be unloaded must be named")
        if action != "unload":
            self._survey.look_at_all()
        if model is not None and model not in self._survey.models():
            raise ValueError(f"there is no model {model[:64]}")
        if action == "unload" and model is not None:
            self._unloaded.add(model)
        else:
            self._unloaded.discard(model or "")
            self._bad = {key: bad for key, bad in self._bad.items() if model not in (None, key[0])}
        self._out_of_date = True

    def close(self) -> None:
        """Watch nothing and keep nothing any more."""
        self._survey.close()
        self._shelf.close()

    # -- deciding ------------------------------------------------------------------------------------------------

    def _begin_retries(self) -> bool:
        """Whether there is a version whose time has come to be tried again."""
        now = self._clock()
        due = [bad for bad in self._bad.values() if bad.due is not None and bad.due <= now and not bad.is_tried]
        for bad in due:
            bad.is_tried = True
        return bool(due)

    def _fault(self, reference: ModelReference) -> str | None:
        """What is known against a version that looks well from outside; nothing while it is tried again."""
        bad = self._bad.get(_key(reference))
        return None if bad is None or bad.is_tried else bad.reason

    def _wanted(self) -> Wanted:
        groups: dict[str, list[dict[str, Any]]] = {}
        refused: list[dict[str, str]] = []
        routing: dict[str, Any] = {}
        said = self._survey.rules()
        for name, found in self._survey.models().items():
            rules, fault = said[name]
            if name in self._unloaded:
                refused += [
                    {"name": name, "version": one.version, "reason": "an operator unloaded it", "state": "UNLOADED"}
                    for one in choose(found, rules, self._policy, self._fault).chosen
                ]
                continue
            choice = self._choice(name, found, rules)
            reasons = dict(choice.refused)
            if fault is None and self._survey.is_gone:
                fault = "the folder of models is not there; it serves on from copies"
            if fault is not None and choice.chosen:
                reasons.setdefault(choice.chosen[-1].version, fault)
            refused += [{"name": name, "version": version, "reason": reason} for version, reason in reasons.items()]
            if choice.routing["labels"] or choice.routing["canary"]:
                routing[name] = choice.routing
            for one in choice.chosen:
                groups.setdefault(_group(one), []).append(one.to_json())
        return Wanted(groups, refused, routing)

    def _choice(self, name: str, found: list[ModelReference], rules: Rules) -> Choice:
        """The choice among what can be kept: what is written to at this very moment is left for a later look."""
        proved = [one for one in self._served() if one.name == name]
        moving: set[Key] = set()

        def fault(one: ModelReference) -> str | None:
            return "its files are still changing" if _key(one) in moving else self._fault(one)

        while True:
            choice = choose(found, rules, self._policy, fault, proved)
            kept = []
            for one in choice.chosen:
                try:
                    kept.append(self._shelf.keep(one))
                except Moving:
                    moving.add(_key(one))
            if len(kept) == len(choice.chosen):
                return Choice(kept, choice.refused, choice.routing)

    def _tidy(self) -> None:
        """Let go of copies and verdicts that nobody needs any more."""
        for name in self._serving.keys() - self._told.groups.keys():
            del self._serving[name]
            self._before.pop(name, None)
        told = [
            ModelReference.from_json(one)
            for wanted in (self._told, self._told_before)
            for group in wanted.groups.values()
            for one in group
        ]
        self._shelf.retain([*told, *self._served()])
        on_disk = [one for found in self._survey.models().values() for one in found]
        known = {_key(one) for one in [*on_disk, *self._served()]}
        self._bad = {key: bad for key, bad in self._bad.items() if key in known}

    def _served(self) -> list[ModelReference]:
        """What serves, and what did before."""
        return [one for groups in (self._serving, self._before) for group in groups.values() for one in group]


def _group(reference: ModelReference) -> str:
    """The models that share workers: all but those that ask for their own."""
    return reference.name if reference.isolate else "default"


def _key(reference: ModelReference) -> Key:
    return reference.name, reference.version, reference.digest
