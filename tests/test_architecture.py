"""The rooms and the arrows between them, held by reading every import (those inside functions too)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_ROOMS = {"build", "dist", "scripts", "tests"}

# The only files that may import TensorFlow or Keras.
TENSORFLOW_FILES = {"models/runtime.py", "models/loading.py", "models/execution.py", "models/compiled.py"}
TENSORFLOW = {"tensorflow", "keras"}

HTTP = {"bottle", "waitress", "webob", "http", "socketserver", "wsgiref"}
SQL = {"sqlalchemy", "pg8000", "sqlite3"}
SCHEMA = {"jsonschema", "jsonschema_rs"}
APP = {"inference_server", "commands", "front"}

# What each room must not know. TensorFlow is everybody's, and handled above.
FORBIDDEN = {
    "batching": APP | {"models", "prediction_log", "PIL", "prometheus_client"} | HTTP | SQL | SCHEMA,
    "models": APP | {"batching", "prediction_log", "prometheus_client"} | HTTP | SQL,
    "prediction_log": APP | {"batching", "models", "PIL", "prometheus_client"} | HTTP | SCHEMA,
    "front": {"inference_server", "commands"} | SQL,
    "commands": {"inference_server"} | HTTP | SQL | SCHEMA,
}

# Arrows inside a package: these files know nothing of ours but what is named.
LEAVES: dict[str, set[str]] = {
    "batching.errors": set(),
    "batching.policy": {"batching.errors"},
    "models.errors": set(),
    "models.contract": {"models.errors"},
}


def python_files() -> list[Path]:
    """Every module of ours that is shipped, relative to the root."""
    files = (path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    return sorted(path for path in files if path.parts[0] not in NOT_ROOMS and not path.parts[0].startswith("."))


def module_name(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, package: str) -> set[str]:
    """Dotted names that `source` imports; of `from a import b` both a and a.b, since b may be a module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def imports_of(file: Path) -> set[str]:
    name = module_name(file)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    return imports((ROOT / file).read_text(), package)


def tops(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import tensorflow.keras as k", {"tensorflow.keras"}),
        ("def load():\n    import keras", {"keras"}),
        ("from models import runtime", {"models", "models.runtime"}),
        ("from . import queue", {"batching", "batching.queue"}),
        ("from .errors import QueueFull", {"batching.errors", "batching.errors.QueueFull"}),
    ],
)
def test_every_way_to_import_is_seen(source: str, expected: set[str]) -> None:
    assert imports(source, "batching") == expected


@pytest.mark.parametrize("file", python_files(), ids=str)
def test_a_room_does_not_know_what_it_must_not(file: Path) -> None:
    room = module_name(file).partition(".")[0]
    forbidden = FORBIDDEN.get(room, set()) | (TENSORFLOW if file.as_posix() not in TENSORFLOW_FILES else set())
    assert not tops(imports_of(file)) & forbidden


@pytest.mark.parametrize("name", LEAVES)
def test_a_leaf_stays_a_leaf(name: str) -> None:
    file = Path(*name.split(".")).with_suffix(".py")
    ours = {module_name(path) for path in python_files()}
    assert imports_of(file) & ours <= LEAVES[name] | {name.partition(".")[0]}


def test_no_module_imports_itself_by_a_detour() -> None:
    """Two modules that import each other cannot be read, tested or replaced one at a time."""
    files = {module_name(file): file for file in python_files()}
    arrows = {
        # `from models import errors` names the package too; that is no arrow to what else it holds.
        name: {other for other in imports_of(file) & files.keys() if not name.startswith(f"{other}.")} - {name}
        for name, file in files.items()
    }
    while free := {name for name, others in arrows.items() if not others & arrows.keys()}:
        arrows = {name: others for name, others in arrows.items() if name not in free}
    assert not arrows, f"in or behind a circle: {sorted(arrows)}"


def test_the_list_of_tensorflow_files_is_not_longer_than_needed() -> None:
    assert {f.as_posix() for f in python_files() if tops(imports_of(f)) & TENSORFLOW} == TENSORFLOW_FILES
