"""A real PostgreSQL for each test that asks for one, and stores over it or over sqlite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from prediction_log.database import Store
from tests.postgres import Postgres, Template, running_postgres


@pytest.fixture
def postgres(template: Template) -> Iterator[Postgres]:
    """A server of the test's own."""
    with running_postgres(template) as server:
        yield server


@pytest.fixture
def store(postgres: Postgres) -> Iterator[Store]:
    """A prepared store in PostgreSQL."""
    with closing(Store(postgres.url())) as opened:
        opened.prepare()
        yield opened


@pytest.fixture(params=["postgresql", "sqlite"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A prepared store in each kind of database: what holds for one holds for the other."""
    if request.param == "postgresql":
        yield request.getfixturevalue("store")
        return
    with closing(Store(f"sqlite:///{tmp_path / 'log.db'}")) as opened:
        opened.prepare()
        yield opened
