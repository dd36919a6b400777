"""Where the log commands look: a folder, a file of SQLite, and a PostgreSQL with a password that must not be shown.
Where planners look: a folder of models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from commands.planning import Planner
from models import repository
from models.fingerprint import KEPT
from models.versions import parse_policy
from tests.commands.desk import SETTLE_S, Clock, Desk, Start, keras_file, saved_model
from tests.commands.log_program import SECRET
from tests.postgres import Postgres, Template, running_postgres


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'log.db'}"


@pytest.fixture(scope="module")
def postgres(template: Template) -> Iterator[Postgres]:
    with running_postgres(template) as running:
        running.set_password(SECRET)
        yield running


@pytest.fixture
def start() -> Iterator[Start]:
    """Makes desks; at the end nothing of theirs is left on disk."""
    with ExitStack() as stack:
        folders = []

        def make(
            path: Path, policy: str = "latest:1", settle_s: float = SETTLE_S, keep_dir: Path | None = None
        ) -> Desk:
            clock = Clock()
            where = repository.at(str(path))
            planner = Planner(where, parse_policy(policy), settle_s=settle_s, keep_dir=keep_dir, clock=clock)
            stack.callback(planner.close)
            folders.append(keep_dir or where.beside)
            return Desk(planner, clock)

        yield make
    assert not [left for folder in folders for left in folder.glob(f"{KEPT}*")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the models a (versions 1 and 2) and b."""
    for version in (1, 2):
        keras_file(tmp_path / "models" / "a" / str(version) / "x.keras")
    saved_model(tmp_path / "models" / "b" / "1")
    return tmp_path / "models"
