"""Whether a model's files are whole, as far as their outside shows. Knows neither names nor versions."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Literal

Kind = Literal["keras", "h5", "saved_model"]

KINDS: dict[str, Kind] = {".keras": "keras", ".h5": "h5"}

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# In every graph that restores what TensorFlow 2 saved, and what TensorFlow 1 did.
_RESTORES = (b"_CHECKPOINTABLE_OBJECT_GRAPH", b"RestoreV2")
_SHARD = re.compile(r"variables\.data-[0-9]{5}-of-([0-9]{5})")


def file_fault(path: Path) -> str | None:
    """What is wrong with a model file, as far as its outside shows. Half a zip has no directory, which comes last."""
    if path.suffix not in KINDS:
        return "it is neither a .keras file nor a SavedModel's folder"
    with path.open("rb") as file:
        keras = path.suffix == ".keras"
        whole = zipfile.is_zipfile(file) if keras else file.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC
    return None if whole else f"it is not a whole {path.suffix} file (is it damaged, or still being copied?)"


def saved_model_fault(folder: Path) -> str | None:
    """What is missing of a SavedModel. TensorFlow 1 wrote some that have no variables."""
    copying = "(is it still being copied?)"
    if not (folder / "saved_model.pb").stat().st_size:
        return f"its saved_model.pb is empty {copying}"
    variables = folder / "variables"
    is_there = variables.is_dir()
    if not is_there or not any(variables.iterdir()):
        with (folder / "saved_model.pb").open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as graph:
            if all(graph.find(mark) == -1 for mark in _RESTORES):
                return None
    if not is_there:
        return f"its variables folder is missing {copying}"
    shards = [found for entry in visible(variables) if (found := _SHARD.fullmatch(entry.name))]
    if not (variables / "variables.index").exists() or len(shards) != int(shards[0][1] if shards else 1):
        return f"files are missing in its variables folder {copying}"
    return None


def visible(folder: Path) -> list[Path]:
    """Its entries by name without the hidden ones; empty where it cannot be read, which is found out soon enough."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []


def guarded(fault: Callable[[], str | None]) -> str | None:
    """A fault, or that it could not be looked for: files come and go while a version is copied or removed."""
    try:
        return fault()
    except OSError as error:
        return unreadable(error)


def unreadable(error: OSError) -> str:
    """The refusal of what the system does not let us read."""
    return f"it cannot be read: {error.strerror}"
