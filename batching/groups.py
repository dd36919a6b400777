"""What is to run: at first, and later as somebody who knows the disk (the planner) wants it.

A group is the models that share workers; all the versions in it are born and replaced together. How that goes is
batching.generations' and batching.crew's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0

Groups = dict[str, list[dict[str, Any]]]
Action = Literal["load", "unload", "reload"]


@dataclass(frozen=True)
class Wanted:
    """What should be served now.

    groups: as in Plan; two references are the same version of the same files exactly when they are equal.
    refused: versions that are not served: {"name", "version", "reason"}, and "state" where that is not FAILED.
    routing: model -> {"labels": {label: version}, "canary": {"version", "share"} or None}; passed on to the fronts.
    """

    groups: Groups
    refused: list[dict[str, str]] = field(default_factory=list)
    routing: dict[str, Any] = field(default_factory=dict)


class Planner(Protocol):
    """Who knows the disk, and what is to be served from it. All of it is quick, and all but `ask` raises nothing.

    It lives longer than the supervisor, and is ended by whoever made it.
    """

    def look(self) -> Wanted | None:
        """What should be served, where that is something else than the last time and has settled.

        What somebody has asked for is in the very next look, or is not to be had.
        """

    def fileno(self) -> int:
        """A descriptor that is readable when `look` may have news, until it was called; -1 where there is none."""

    def failed(self, failures: Sequence[dict[str, str]]) -> None:
        """These ({"name", "version", "reason"}) could not be loaded: the next look has others in their place, or none.

        They come again when they have changed, when somebody asks, and a bounded number of times by themselves.
        """

    def proved(self, references: Sequence[dict[str, Any]]) -> None:
        """These serve now."""

    def rolled_back(self, references: Sequence[dict[str, Any]]) -> None:
        """These did, until somebody took them back: not wanted again until they change or somebody asks."""

    def ask(self, action: Action, model: str | None) -> None:
        """Somebody's word on one model or (None) on all.

        Raises ValueError with the reason why that cannot be.
        """


@dataclass(frozen=True)
class Plan:
    """What to run. All of it but `entry` and `loader` is passed on, not understood.

    entry: the command that starts a child; the role ("front" or "worker") and a descriptor number are appended.
    groups: group name -> references of the model versions that share its workers; each has "name" and "version", and
        may have "path" and "contract_path", where a change makes another try to load it worthwhile.
    refused, routing: as in Wanted. planner: who says later what else is wanted; None: nothing ever is.
    rollback_s: how long the workers before a change are kept, so that it can be taken back at once; 0: not at all.
    options: for the loader and the queues (JSON-safe); front_settings: for the fronts (JSON-safe).
    spool: where the fronts log, None for nowhere (JSON-safe).
    services: role -> settings (JSON-safe) of further processes to keep running beside fronts and workers.
    workers, standby: for each group, how many serve and how many more are kept warm.
    worker_memory_mb: resident MiB beyond which a worker is replaced; None: never.
    quarantine_s: how long an input that killed its worker is refused unseen.
    """

    entry: Sequence[str]
    loader: str
    groups: Groups
    options: dict[str, Any]
    front_settings: dict[str, Any]
    refused: list[dict[str, str]] = field(default_factory=list)
    routing: dict[str, Any] = field(default_factory=dict)
    planner: Planner | None = None
    rollback_s: float = 60.0
    fronts: int = 1
    workers: int = 1
    standby: int = 0
    worker_memory_mb: int | None = None
    quarantine_s: float = 60.0
    drain_timeout_s: float = 30.0
    spool: dict[str, Any] | None = None
    services: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def linger_s(self) -> float:
        """How long a request may live, and so ask for the generation of models that served when it came."""
        return float(self.options["predict_timeout_ms"]) / 1000


def describe(failure: dict[str, str]) -> str:
    """A refusal in one line for the operator."""
    return f"model {failure['name']} version {failure['version']} cannot be served: {failure['reason']}"


def backoff_s(failed_starts: int) -> float:
    """Seconds until the next try: doubled each time up to a limit, after any number of tries (2**1024 is no float)."""
    return min(BACKOFF_FIRST_S * 2.0 ** min(failed_starts - 1, 10), BACKOFF_MAX_S)


def key_of(version: dict[str, Any]) -> tuple[str, str]:
    """What a reference, a failure or an entry is of: a model's name and its version."""
    return version["name"], version["version"]
