"""The models as a front knows them: one immutable view per snapshot. Owns which model a request is for.

Knows nothing of HTTP beyond the names of routes, and nothing of processes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from batching.client import Target
from models.contract import Contract
from models.errors import LoadError
from models.narrowing import is_classifier
from models.schema import Compiled, compile_contract


class UnknownModel(Exception):
    """No model or version of that name."""


class Ambiguous(Exception):
    """The request names no model and several would do; `choices` are their names."""

    def __init__(self, message: str, choices: list[str]) -> None:
        super().__init__(message)
        self.choices = choices


class UnknownLabel(UnknownModel):
    """No version has this label, or the one that has it is not served."""


@dataclass(frozen=True)
class Entry:
    """One version of one model; see models.dialects.dialect.Version. `compiled` is None until a worker has reported it.

    target: where items for the usual signature go; targets: for each signature by name.
    """

    name: str
    version: str
    state: str
    reason: str | None
    target: Target
    compiled: Compiled | None
    costs: dict[str, float]
    signatures: dict[str, Compiled] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None

    @property
    def contract(self) -> Contract | None:
        return self.compiled.contract if self.compiled else None

    def compiled_for(self, signature: str | None) -> Compiled:
        """Of a signature that requests were parsed for; None is the usual one."""
        compiled = self.compiled if signature is None else self.signatures[signature]
        if compiled is None:
            raise RuntimeError("an answer of a model that is not loaded")
        return compiled


class Routing(NamedTuple):
    """Where requests go that name no version. labels: label -> version.

    share: of such requests, that goes to the version `canary`.
    """

    labels: dict[str, str] = {}  # noqa: RUF012 - never changed
    canary: str | None = None
    share: float = 0.0


class ActiveWorker(NamedTuple):
    """A worker that serves; its vital signs are in this slot of the counters."""

    group: str
    slot: int


@dataclass(frozen=True)
class Catalog:
    """One snapshot, compiled. `models` holds each model's versions, newest first; `newest` the one that serves.

    conditions: what is wrong, in words, with processes that serve on nevertheless.
    """

    serial: int
    draining: bool
    models: dict[str, list[Entry]]
    groups: set[str]
    workers: tuple[ActiveWorker, ...]
    default: str | None
    newest: dict[str, Entry]
    conditions: tuple[str, ...] = ()
    routing: dict[str, Routing] = field(default_factory=dict)

    def find(self, name: str, version: str | None = None) -> Entry:
        """The version asked for, or the newest that can be served. Raises UnknownModel."""
        if version is None and name in self.newest:
            return self.newest[name]
        versions = self.versions(name)
        for entry in versions:
            if entry.version == version or (version and int(entry.version) == int(version)):
                return entry
        known = ", ".join(entry.version for entry in versions)
        raise UnknownModel(f"model {name} has no version {str(version)[:20]!r}; it has: {known}")

    def versions(self, name: str) -> list[Entry]:
        """All that is known of a model, newest first. Raises UnknownModel."""
        versions = self.models.get(name)
        if not versions:
            raise UnknownModel(f"there is no model {name[:64]!r}; there are: {', '.join(self.models) or 'none'}")
        return versions

    def choose(self, name: str, version: str | None = None, label: str | None = None) -> Entry:
        """The version that answers a request; where none is named, that may be the canary. Raises UnknownModel."""
        routing = self.routing.get(name)
        if routing is None and version is None and label is None:
            return self.find(name)
        if label is not None:
            self.versions(name)
            if routing is None or label not in routing.labels:
                known = ", ".join(routing.labels) if routing and routing.labels else "none"
                raise UnknownLabel(f"model {name} has no label {label[:64]!r}; it has: {known}")
            return self.find(name, routing.labels[label])
        if version is None and routing is not None and routing.canary is not None:
            canary = self.find(name, routing.canary)
            if canary.state == "READY" and random.random() < routing.share:  # noqa: S311 - a share, no secret
                return canary
        return self.find(name, version)

    def for_predict(self) -> Entry:
        """The default model, else the only one. Raises Ambiguous."""
        if self.default is not None:
            return self.choose(self.default)
        if len(self.models) == 1:
            return self.choose(next(iter(self.models)))
        return self._only([self.find(name) for name in self.models], "model", "/predict")

    def for_classify(self) -> Entry:
        """The only image classifier, else the default model if it is a classifier. Raises Ambiguous."""
        return self.choose(self._classifier().name)

    def _classifier(self) -> Entry:
        newest = [self.find(name) for name in self.models]
        images = [entry for entry in newest if entry.contract and entry.contract.image]
        if len(images) == 1:
            return images[0]
        if self.default is not None and (not images or any(entry.name == self.default for entry in images)):
            entry = self.find(self.default)
            if entry.contract is None or is_classifier(entry.contract):
                return entry
        choices = images or [entry for entry in newest if entry.contract and is_classifier(entry.contract)]
        return self._only(choices or newest, "image classifier", "/classify")

    def for_route(self, route: str) -> Entry | None:
        """The model whose contract claims this extra route."""
        for name in self.models:
            entry = self.find(name)
            if entry.contract and route in entry.contract.routes:
                chosen = self.choose(name)
                return chosen if chosen.contract and route in chosen.contract.routes else entry
        return None

    def is_ready(self) -> bool:
        """Whether traffic is welcome: not draining, something can be served, and every group has a worker."""
        served = [entry for versions in self.models.values() for entry in versions if entry.state == "READY"]
        return bool(served) and not self.draining and self.groups <= {worker.group for worker in self.workers}

    @staticmethod
    def _only(entries: list[Entry], what: str, route: str) -> Entry:
        if len(entries) == 1:
            return entries[0]
        names = [entry.name for entry in entries]
        raise Ambiguous(f"there is no single {what}: post to {route}/<model> with one of {', '.join(names)}", names)


def _serving(versions: list[Entry], routing: Routing) -> Entry:
    """Of versions, newest first, the one for requests that name none; the canary only where nothing else serves."""
    states = ("READY", "LOADING")

    def rank(entry: Entry) -> tuple[int, bool]:
        return states.index(entry.state) if entry.state in states else len(states), entry.version == routing.canary

    return min(versions, key=rank)


def sign(entry: Entry, compiled: Compiled, target: Target) -> None:
    """Tell an entry of one of its signatures, under each of its names."""
    for name in (compiled.contract.signature, *compiled.contract.aliases):
        entry.signatures[name], entry.targets[name] = compiled, target


def _routing(told: dict[str, Any]) -> Routing:
    canary = told.get("canary") or {}
    return Routing(dict(told.get("labels", {})), canary.get("version"), canary.get("share", 0.0))


def cataloguer(default: str | None) -> Callable[[dict[str, Any]], Catalog]:
    """The `compile` of a client: snapshots in, catalogs out; contracts that stay the same are compiled once."""
    compiled: dict[tuple[str, str, str], tuple[dict[str, Any], Compiled | LoadError]] = {}

    def compile_once(model: dict[str, Any], signature: dict[str, Any] | None = None) -> Compiled | LoadError | None:
        description = model["description"] if signature is None else signature["description"]
        if description is None:
            return None
        key = (model["name"], model["version"], "" if signature is None else signature["name"])
        if key not in compiled or compiled[key][0] != description:
            try:
                compiled[key] = (description, compile_contract(Contract.from_json(description)))
            except LoadError as error:
                compiled[key] = (description, error)
        return compiled[key][1]

    served: set[str] = set()  # groups that have been ready once
    begun = False  # whether all of the first ones were, or had failed

    def needed(models: dict[str, list[Entry]]) -> set[str]:
        """The groups without which traffic is not welcome: at the start all, later those that have served before."""
        nonlocal begun
        entries = [entry for versions in models.values() for entry in versions if entry.target.group]
        served.update(entry.target.group for entry in entries if entry.state == "READY")
        begun = begun or (bool(served) and all(one.state != "LOADING" or one.target.group in served for one in entries))
        groups = {entry.target.group for entry in entries}
        return groups & served if begun else groups

    def catalogue(snapshot: dict[str, Any]) -> Catalog:
        models: dict[str, list[Entry]] = {}
        for model in snapshot["models"]:
            target = Target(model["group"], model["generation"], model["index"])
            made, state, reason = compile_once(model), model["state"], model["reason"]
            if isinstance(made, LoadError):  # the contract holds what no request could satisfy
                state, reason, made = "FAILED", made.reason, None
            entry = Entry(
                model["name"], model["version"], state, reason, target, made, model["costs"],
                calibration=model.get("calibration"),
            )  # fmt: skip
            if made is not None:
                sign(entry, made, target)
                for further in model.get("signatures", ()):
                    other = compile_once(model, further)
                    if isinstance(other, Compiled):
                        sign(entry, other, target._replace(place=further["index"]))
            models.setdefault(entry.name, []).append(entry)
        for versions in models.values():
            versions.sort(key=lambda entry: int(entry.version), reverse=True)
        known = {(model["name"], model["version"]) for model in snapshot["models"]}
        for gone in [key for key in compiled if key[:2] not in known]:
            del compiled[gone]
        routing = {name: _routing(told) for name, told in snapshot.get("routing", {}).items()}
        return Catalog(
            snapshot["serial"],
            snapshot.get("draining", False),
            dict(sorted(models.items())),
            needed(models),
            tuple(ActiveWorker(worker["group"], worker["slot"]) for worker in snapshot["workers"]),
            default if default in models else None,
            {name: _serving(all_, routing.get(name, Routing())) for name, all_ in models.items()},
            tuple(snapshot.get("conditions", ())),
            routing,
        )

    return catalogue
