"""One server for all tests of the application, and the application on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from webtest import TestApp

from tests.application import MODELS, app_for
from tests.harness import supervised


@pytest.fixture(scope="package")
def server() -> Iterator[Any]:
    with supervised(MODELS) as running:
        yield running


@pytest.fixture(scope="package")
def app(server: Any) -> Iterator[TestApp]:
    made, client = app_for(server)
    yield made
    client.close()
