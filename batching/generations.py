"""A generation: versions of models that are born together in a group's workers, and how their starts have gone.

Owns what a snapshot says of a model. A generation's references never change; another list of them is another generation
with a number of its own, which is never used again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from batching.groups import backoff_s, key_of

READY, LOADING, FAILED = "READY", "LOADING", "FAILED"
_RANKS = (FAILED, LOADING, READY)


class Generation:
    """was_ready: a worker has held it. next_try: no sooner does another start (monotonic seconds)."""

    def __init__(self, group: str, number: int, references: list[dict[str, Any]]) -> None:
        self.group = group
        self.number = number
        self.references = references
        self.loaded: list[dict[str, Any]] = []  # as the last ready worker reported them
        self.failures: list[dict[str, str]] = []
        self.was_ready = False
        self.failed_starts = 0
        self.next_try = 0.0
        self.began = time.monotonic()
        self._told: set[tuple[str, str]] = set()

    @property
    def is_decided(self) -> bool:
        """Whether it is known if it can serve; one that holds nothing need not."""
        return self.was_ready or bool(self.failures) or not self.references

    def served(self) -> list[dict[str, Any]]:
        """Its references without those that could not be loaded."""
        failed = {key_of(failure) for failure in self.failures}
        return [reference for reference in self.references if key_of(reference) not in failed]

    def take_up(self, models: list[dict[str, Any]], failures: list[dict[str, str]]) -> bool:
        """A worker of it serves from now on, with these; whether any other ones did before."""
        before = self.served() if self.was_ready else None
        self.loaded, self.failures, self.was_ready = models, failures, True
        return self.served() != before

    def untold(self, failures: Iterable[dict[str, str]]) -> list[dict[str, str]]:
        """Those of these failures that were not among the last ones; each of several workers reports the same."""
        fresh = [failure for failure in failures if key_of(failure) not in self._told]
        self._told |= {key_of(failure) for failure in fresh}
        return fresh

    def blame(self, versions: Iterable[dict[str, Any]], reason: str) -> list[dict[str, str]]:
        """Failures of these versions of it, all for the same reason."""
        return [{"name": one["name"], "version": one["version"], "reason": reason} for one in versions]

    def put_off(self) -> float:
        """A start has failed: seconds until the next one."""
        self.failed_starts += 1
        delay_s = backoff_s(self.failed_starts)
        self.next_try = time.monotonic() + delay_s
        return delay_s

    def entries(self, *, ready: bool) -> list[dict[str, Any]]:
        """The snapshot's entries of its models; `ready` when a worker holds them just now."""
        common = {"group": self.group, "generation": self.number}
        loaded = {key_of(model): model for model in self.loaded}
        failed = {key_of(failure): failure["reason"] for failure in self.failures}
        entries: list[dict[str, Any]] = []
        for index, reference in enumerate(self.references):
            key = key_of(reference)
            entry = {"name": key[0], "version": key[1], **common, "index": index, "description": None, "costs": {}}
            if key in loaded:
                reason = None if ready else failed.get(key, "its worker is being restarted")
                entry |= {**loaded[key], "state": READY if ready else LOADING, "reason": reason}
            else:
                entry |= {"state": FAILED if key in failed else LOADING, "reason": failed.get(key)}
            entries.append(entry)
        return entries


def merged(entries: Iterable[dict[str, Any]], refused: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """The snapshot's entries, one for each version: the one that can do most, and of equal ones the last.

    refused: versions that are not served, and why. One may serve all the same, as it was before its files became what
    they are: then the reason stands with it.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in entries:
        known = found.get(key_of(entry))
        if known is None or _RANKS.index(entry["state"]) >= _RANKS.index(known["state"]):
            found[key_of(entry)] = entry
    common = {"group": "", "generation": 0, "index": 0, "description": None, "costs": {}, "state": FAILED}
    for version in refused:
        known = found.get(key_of(version))
        if known is None or known["state"] == FAILED:
            found[key_of(version)] = {**common, **version}
        elif version.get("state", FAILED) == FAILED:
            found[key_of(version)] = {**known, "reason": version["reason"]}
    return list(found.values())
