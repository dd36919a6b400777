"""Models for tests: small ones of every kind. The demo models are in tests/conftest.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from models.execution import LoadedModel

Load = Callable[..., "LoadedModel"]


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
