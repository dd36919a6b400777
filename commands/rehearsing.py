"""A planner that has every new version tried on logged requests: it tells the worker where they will lie.

Owns the files with excerpts of the prediction log, and the processes that write them (commands.excerpt). What is wanted
is the other planner's affair; how a version is tried is models.rehearsal's.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from batching.child import environment
from batching.groups import Action, Wanted
from commands.excerpt import Order
from commands.planning import Planner

log = logging.getLogger("inference.models")

Key = tuple[str, str, str]


class Rehearsing:
    """entry: the command that starts a child. order: of an excerpt, but for the model and the file."""

    def __init__(self, planner: Planner, first: Wanted, entry: Sequence[str], order: Order) -> None:
        self._planner = planner
        self._entry = entry
        self._order = order
        self._folder = Path(tempfile.mkdtemp(prefix="rehearsal-"))  # for our eyes only: it holds what clients have sent
        self._known: dict[Key, str | None] = dict.fromkeys(map(_key, _references(first)))
        self._processes: list[subprocess.Popen[bytes]] = []

    def look(self) -> Wanted | None:
        """As the other planner says; what is new knows where its requests are."""
        self._processes = [process for process in self._processes if process.poll() is None]
        wanted = self._planner.look()
        if wanted is None:
            return None
        for one in _references(wanted):
            if _key(one) not in self._known:
                self._known[_key(one)] = self._fetch(one["name"], one["digest"])
        groups = {
            name: [{**one, "rehearsal_path": self._known[_key(one)]} for one in references]
            for name, references in wanted.groups.items()
        }
        return replace(wanted, groups=groups)

    def _fetch(self, model: str, digest: str) -> str | None:
        """Have the excerpt written; where it will be."""
        path = str(self._folder / f"{model}-{digest}")
        try:
            process = subprocess.Popen([*self._entry, "excerpt", "0"], stdin=subprocess.PIPE, env=environment())
        except OSError as error:  # no memory, no processes
            log.error("no logged requests are tried on model %s: %s", model, error.strerror)  # noqa: TRY400
            return None
        order = self._order._replace(model=model, to=path)
        stdin = process.stdin
        assert stdin is not None  # noqa: S101 - it was asked for
        with stdin:
            stdin.write(json.dumps(order._asdict()).encode())
        self._processes.append(process)
        return path

    def fileno(self) -> int:
        return self._planner.fileno()

    def failed(self, failures: Sequence[dict[str, str]]) -> None:
        self._planner.failed(failures)

    def proved(self, references: Sequence[dict[str, Any]]) -> None:
        self._planner.proved(_plain(references))

    def rolled_back(self, references: Sequence[dict[str, Any]]) -> None:
        self._planner.rolled_back(_plain(references))

    def ask(self, action: Action, model: str | None) -> None:
        self._planner.ask(action, model)

    def close(self) -> None:
        """Nothing of it stays."""
        for process in self._processes:
            process.kill()
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._planner.close()


def _references(wanted: Wanted) -> list[dict[str, Any]]:
    return [one for group in wanted.groups.values() for one in group]


def _key(reference: dict[str, Any]) -> Key:
    return reference["name"], reference["version"], reference["digest"]


def _plain(references: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As the other planner gave them."""
    return [{**one, "rehearsal_path": None} for one in references]
