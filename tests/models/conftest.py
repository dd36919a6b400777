"""Models for tests: the demo models as their script makes them, and small ones of every kind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from models.execution import LoadedModel

ROOT = Path(__file__).resolve().parents[2]
# Kept from run to run, since training takes most of a minute; the script makes what is missing, under a lock.
DEMO_MODELS = ROOT / ".cache" / "demo_models"

Load = Callable[..., "LoadedModel"]


@pytest.fixture(scope="session")
def demo_models() -> Path:
    """The folder of demo models, made if need be. The first test that asks needs a time limit of minutes."""
    command = [sys.executable, str(ROOT / "scripts" / "create_demo_models.py"), "--out", str(DEMO_MODELS)]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert made.returncode == 0, made.stderr
    return DEMO_MODELS


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of a small model by its name in tests.models.zoo, written when it is first asked for."""
    from tests.models import zoo

    folder = tmp_path_factory.mktemp("zoo")
    written: dict[str, Path] = {}

    def path_of(name: str) -> Path:
        if name not in written:
            written[name] = zoo.write(name, folder / name)
        return written[name]

    return path_of


@pytest.fixture
def load(zoo: Callable[[str], Path], tmp_path: Path) -> Load:
    """Load a small model by name, or one at a path, with this contract.json and these options."""
    from models.repository import ModelReference
    from models.runtime import load

    def loaded(model: str | Path, contract: Any = None, *, version: str = "3", **options: Any) -> LoadedModel:
        path = zoo(model) if isinstance(model, str) else model
        kind: Any = {".keras": "keras", ".h5": "h5"}.get(path.suffix, "saved_model")
        written = tmp_path / "contract.json"
        if contract is not None:
            written.write_text(contract if isinstance(contract, str) else json.dumps(contract))
        reference = ModelReference(
            "zoo", version, str(path), kind, contract_path=None if contract is None else str(written)
        )
        return load(reference.to_json(), options)

    return loaded
