"""What is to run, and how it goes for each group of models. Owns what a snapshot says of a model.

A group is the models that share workers; all the versions in it are born and replaced together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0


@dataclass(frozen=True)
class Plan:
    """What to run. All of it but `entry` and `loader` is passed on, not understood.

    entry: the command that starts a child; the role ("front" or "worker") and a descriptor number are appended.
    groups: group name -> references of the model versions that share its workers; each has "name" and "version", and
        may have "path" and "contract_path", where a change makes another try to load it worthwhile.
    refused: versions that cannot be served at all: {"name", "version", "reason"}.
    options: for the loader and the queues (JSON-safe); front_settings: for the fronts (JSON-safe).
    spool: where the fronts log, None for nowhere (JSON-safe).
    services: role -> settings (JSON-safe) of further processes to keep running beside fronts and workers.
    workers, standby: for each group, how many serve and how many more are kept warm.
    worker_memory_mb: resident MiB beyond which a worker is replaced; None: never.
    quarantine_s: how long an input that killed its worker is refused unseen.
    """

    entry: Sequence[str]
    loader: str
    groups: dict[str, list[dict[str, Any]]]
    options: dict[str, Any]
    front_settings: dict[str, Any]
    refused: list[dict[str, str]] = field(default_factory=list)
    fronts: int = 1
    workers: int = 1
    standby: int = 0
    worker_memory_mb: int | None = None
    quarantine_s: float = 60.0
    drain_timeout_s: float = 30.0
    spool: dict[str, Any] | None = None
    services: dict[str, dict[str, Any]] = field(default_factory=dict)


class Group:
    """Models that share workers, and how their starts have gone."""

    def __init__(self, name: str, references: list[dict[str, Any]]) -> None:
        self.name = name
        self.references = references
        self.generation = 1
        self.loaded: list[dict[str, Any]] = []  # as the last ready worker reported them
        self.failures: list[dict[str, str]] = []
        self.was_ready = False
        self.failed_starts = 0

    def entries(self, *, ready: bool) -> list[dict[str, Any]]:
        """The snapshot's entries of its models; `ready` when a worker holds them just now."""
        common = {"group": self.name, "generation": self.generation}
        loaded = {(model["name"], model["version"]): model for model in self.loaded}
        failed = {(failure["name"], failure["version"]): failure["reason"] for failure in self.failures}
        entries: list[dict[str, Any]] = []
        for index, reference in enumerate(self.references):
            key = (reference["name"], reference["version"])
            entry = {"name": key[0], "version": key[1], **common, "index": index, "description": None, "costs": {}}
            if key in loaded:
                reason = None if ready else failed.get(key, "its worker is being restarted")
                entry |= {**loaded[key], "state": "READY" if ready else "LOADING", "reason": reason}
            else:
                entry |= {"state": "FAILED" if key in failed else "LOADING", "reason": failed.get(key)}
            entries.append(entry)
        return entries


def refused_entries(refused: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """The snapshot's entries of versions that no group holds, because they cannot be served at all."""
    common = {"group": "", "generation": 0, "index": 0, "description": None, "costs": {}, "state": "FAILED"}
    return [{**common, **version} for version in refused]


def describe(failure: dict[str, str]) -> str:
    """A refusal in one line for the operator."""
    return f"model {failure['name']} version {failure['version']} cannot be served: {failure['reason']}"


def backoff_s(failed_starts: int) -> float:
    """Seconds until the next try: doubled each time up to a limit, after any number of tries (2**1024 is no float)."""
    return min(BACKOFF_FIRST_S * 2.0 ** min(failed_starts - 1, 10), BACKOFF_MAX_S)
