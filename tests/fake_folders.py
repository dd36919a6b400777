"""A folder of models whose versions look like SavedModels from outside and hold fakes: how a test changes it while a
server watches, and the loader that a worker of that server has.

A version's `fake.json` says what tests.fakes is to make of it. A version without one is a real SavedModel.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from models.contract_file import read_contract
from models.errors import LoadError
from models.rehearsal import rehearse
from tests import fakes

FILE = "fake.json"
DAMAGED = "{"
# Of a program whose variables lie in a folder of their own, which must be there, too.
HALF_A_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"


def load(reference: dict[str, Any], options: dict[str, Any]) -> Any:
    """The loader: what the contract says holds, and the examples in it must be answered, as for a real model."""
    path = Path(reference["path"]) / FILE
    if not path.exists():
        return fakes.load(reference, options)
    try:
        told = json.loads(path.read_text())
    except ValueError:
        raise LoadError("its file is damaged") from None
    contract = reference["contract_path"]
    narrowed = {} if contract is None else {"narrow": read_contract(contract)}
    model = fakes.load({"name": reference["name"], "version": reference["version"], **narrowed, **told}, options)
    rehearse(model, model.contract)
    return model


class Disk:
    """root: the folder of models, made here. What is to be copied into it is made beside it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        self._staging = folder / "staging"
        self._made = 0

    def version(self, model: str, number: int) -> Path:
        """Where it lies, or would."""
        return self.root / model / str(number)

    def make(
        self, *, graph: bytes = b"graph", contract: dict[str, Any] | None = None, damaged: bool = False, **fake: Any
    ) -> Path:
        """A version beside the folder of models. fake: as in a reference of tests.fakes."""
        self._made += 1
        made = self._staging / str(self._made)
        made.mkdir(parents=True)
        (made / "saved_model.pb").write_bytes(graph)
        (made / FILE).write_text(DAMAGED if damaged else json.dumps(fake))
        if contract is not None:
            (made / "contract.json").write_text(json.dumps(contract))
        return made

    def put(self, model: str, number: int, **how: Any) -> float:
        """Copy a new version there, as `cp -r` does; when that was done. how: as in `make`."""
        shutil.copytree(self.make(**how), self.version(model, number))
        return time.monotonic()

    def remove(self, model: str, *numbers: int) -> None:
        """Delete versions."""
        for number in numbers:
            shutil.rmtree(self.version(model, number))

    def say(self, model: str, file: str, **content: Any) -> None:
        """Write a model's contract.json or versions.json."""
        folder = self.root / model
        folder.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(content))
