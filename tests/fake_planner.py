"""A planner whose disk is one file that the test writes, and the test's end of it. What it is told it writes down."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from batching.groups import Action, Wanted, key_of

Groups = dict[str, list[dict[str, Any]]]


class Steering:
    """The test's end."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def want(
        self,
        groups: Groups | list[dict[str, Any]],
        refused: Sequence[dict[str, str]] = (),
        routing: dict[str, Any] | None = None,
    ) -> None:
        """From the next look on. groups: as in tests.harness."""
        named = groups if isinstance(groups, dict) else {"default": groups}
        versioned = {name: [{"version": "1", **model} for model in models] for name, models in named.items()}
        new = self._folder / "wanted.new"
        new.write_text(json.dumps({"groups": versioned, "refused": list(refused), "routing": routing or {}}))
        new.rename(self._folder / "wanted")
        knock = os.open(self._folder / "knock", os.O_WRONLY | os.O_NONBLOCK)
        os.write(knock, b"x")
        os.close(knock)

    def told(self, what: str) -> list[Any]:
        """All that the planner was told of this kind: failed, proved, rolled_back, ask."""
        try:
            lines = (self._folder / "told").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [said[what] for line in lines if what in (said := json.loads(line))]

    def proved(self) -> list[list[tuple[str, str]]]:
        """What has come to serve, each time: names and versions."""
        return [[key_of(one) for one in references] for references in self.told("proved")]


class FakePlanner:
    """In place of what has failed it wants what of that model served last, until its file changes or it is asked.

    An `instead` in a reference is what it knows of from an earlier life.
    """

    def __init__(self, folder: str, groups: Groups, refused: list[dict[str, str]]) -> None:
        self._folder = Path(folder)
        self._file: dict[str, Any] = {"groups": groups, "refused": refused, "routing": {}}
        self._last = Wanted(groups, refused)
        self._bad: list[tuple[dict[str, Any], str]] = []
        self._good: dict[str, dict[str, Any]] = {}
        os.mkfifo(self._folder / "knock")
        self._knock = os.open(self._folder / "knock", os.O_RDWR | os.O_NONBLOCK)

    def close(self) -> None:
        os.close(self._knock)

    def fileno(self) -> int:
        return self._knock

    def look(self) -> Wanted | None:
        with suppress(BlockingIOError):
            os.read(self._knock, 4096)
        path = self._folder / "wanted"
        if path.exists() and (file := json.loads(path.read_text())) != self._file:
            self._file, self._bad = file, []
        wanted = self._wanted()
        if wanted == self._last:
            return None
        self._last = wanted
        return wanted

    def _wanted(self) -> Wanted:
        reasons = {id: reason for one, reason in self._bad for id in [json.dumps(one)]}
        groups: Groups = {}
        refused = list(self._file["refused"])
        for name, references in self._file["groups"].items():
            chosen = []
            for one in references:
                if json.dumps(one) not in reasons:
                    chosen.append(one)
                    continue
                refused.append({"name": one["name"], "version": one["version"], "reason": reasons[json.dumps(one)]})
                if one["name"] in self._good or "instead" in one:
                    chosen.append(self._good.get(one["name"]) or one["instead"])
            if chosen:
                groups[name] = chosen
        return Wanted(groups, refused, self._file["routing"])

    def failed(self, failures: Sequence[dict[str, str]]) -> None:
        self._write("failed", list(failures))
        wanted = {key_of(one): one for references in self._last.groups.values() for one in references}
        self._bad += [(wanted[key_of(one)], one["reason"]) for one in failures if key_of(one) in wanted]

    def proved(self, references: Sequence[dict[str, Any]]) -> None:
        self._write("proved", list(references))
        self._good.update({one["name"]: one for one in references})

    def rolled_back(self, references: Sequence[dict[str, Any]]) -> None:
        self._write("rolled_back", list(references))
        self._bad += [(one, "it was taken back") for one in references]

    def ask(self, action: Action, model: str | None) -> None:
        self._write("ask", [action, model])
        names = {one["name"] for references in self._file["groups"].values() for one in references}
        if model is not None and model not in names:
            raise ValueError(f"there is no model {model}")
        self._bad = []
        if action == "unload":
            groups = {
                name: kept
                for name, references in self._file["groups"].items()
                if (kept := [one for one in references if one["name"] != model])
            }
            path = self._folder / "wanted"
            path.write_text(json.dumps({**self._file, "groups": groups}))

    def _write(self, what: str, said: Any) -> None:
        with (self._folder / "told").open("a") as file:
            file.write(json.dumps({what: said}) + "\n")
