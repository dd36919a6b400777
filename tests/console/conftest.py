"""What the console's tests share: one browser, and fake models that show every side of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.chromium import chromium
from tests.harness import Server, fake_http_server

EVIL = "<img src=x onerror=alert(1)>"
LONG = "a_model_with_a_name_that_is_as_long_as_the_names_of_models_may_be"
MODELS: list[dict[str, Any]] = [
    {
        "name": "pictures",
        "kind": "scores",
        "classes": 10,
        "shape": [16, 16, 1],
        "narrow": {"labels": [str(digit) for digit in range(10)], "image": {"colour": "grey"}},
    },
    {
        "name": "rent",
        "size": 2,
        "narrow": {
            "description": f"Rent from size and rooms {EVIL}",
            "fields": [
                {"name": "square_metres", "schema": {"minimum": 5, "maximum": 1000}, "description": "in m²"},
                {"name": "rooms", "schema": {"minimum": 1}, "description": "without kitchen and bath"},
            ],
            "examples": [{"request": {"square_metres": 60, "rooms": 2}}],
        },
    },
    {"name": "vector", "size": 10},
    {"name": "block", "shape": [40, 50]},
    {"name": "nothing", "kind": "nan", "narrow": {"null_for_nan": True}},
    {"name": "flowers", "kind": "scores", "classes": 3, "size": 4, "narrow": {"labels": [EVIL, "x" * 60, "virginica"]}},
]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One for all tests here."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shared server's predictions are logged."""
    return tmp_path_factory.mktemp("log") / "spool"


@pytest.fixture(scope="module")
def server(spool: Path) -> Iterator[Server]:
    """Two fronts, a worker, a log."""
    with fake_http_server(MODELS, fronts=2, prediction_log_dir=str(spool)) as running:
        yield running
