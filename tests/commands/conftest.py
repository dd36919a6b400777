"""Where the log commands look: a folder, a file of SQLite, and a PostgreSQL with a password that must not be shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
