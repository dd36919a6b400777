"""A planner at work on a real disk, with models that look whole from outside. Only the clock is moved by hand."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batching.groups import Wanted
from commands.planning import Planner
from commands.survey import ROUND_S

SETTLE_S = 1.0


class Clock:
    """Time as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """A planner at work on a folder. `look` lets enough time pass for everything that rests to settle."""

    def __init__(self, planner: Planner, clock: Clock) -> None:
        self.planner = planner
        self.clock = clock
        self.wanted = planner.first

    def glance(self, seconds: float = 0.25) -> Wanted | None:
        """One look, so long after the last one."""
        self.clock.now += seconds
        wanted = self.planner.look()
        self.wanted = wanted or self.wanted
        return wanted

    def look(self) -> Wanted | None:
        """What has come of everything that has happened; None where nothing has."""
        looks = [self.glance(ROUND_S), self.glance(), self.glance(SETTLE_S + 0.1)]
        return next((one for one in reversed(looks) if one is not None), None)

    def serve(self) -> None:
        """What is wanted now serves."""
        self.planner.proved([one for group in self.wanted.groups.values() for one in group])

    def versions(self, name: str = "a") -> list[str]:
        return [one["version"] for group in self.wanted.groups.values() for one in group if one["name"] == name]

    def reason(self, version: str, name: str = "a") -> str:
        return {(one["name"], one["version"]): one["reason"] for one in self.wanted.refused}.get((name, version), "")

    def file_of(self, version: str, name: str = "a") -> Path:
        """The file that a worker would load for it."""
        (path,) = {
            one["path"]
            for group in self.wanted.groups.values()
            for one in group
            if (one["name"], one["version"]) == (name, version)
        }
        return Path(path)

    def fail(self, version: str, reason: str = "it is broken", name: str = "a") -> None:
        self.planner.failed([{"name": name, "version": version, "reason": reason}])


Start = Callable[..., Desk]


def keras_file(path: Path, content: str = "{}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", content)
    return path


def saved_model(folder: Path) -> Path:
    variables = folder / "variables"
    variables.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph with _CHECKPOINTABLE_OBJECT_GRAPH")
    (variables / "variables.index").write_bytes(b"index")
    (variables / "variables.data-00000-of-00001").write_bytes(b"data")
    return folder


def say(folder: Path, **content: Any) -> None:
    (folder / "versions.json").write_text(json.dumps(content))
