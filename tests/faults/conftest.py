"""What all rows of the fault matrix share: where they say what they have measured, and the table made of that."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults.matrix import Figure, Matrix
from tests.harness import ROOT

TABLE = ROOT / ".cache" / "fault_matrix.md"
HERE = Path(__file__).parent

MATRIX = pytest.StashKey[Matrix]()
WHOLE = pytest.StashKey[bool]()

Say = Callable[[int, str, str], None]


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Say:
    """Call it with row, goal and what was measured: a line of the table, passed if the test does."""
    return partial(_note, request.config.stash.setdefault(MATRIX, Matrix()), request.node.nodeid)


def _note(matrix: Matrix, test: str, row: int, goal: str, measured: str) -> None:
    matrix.figures.append(Figure(row, goal, measured, test))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """A figure whose test fails, be it only in its end, has not passed."""
    outcome = yield
    if outcome.get_result().failed:
        item.config.stash.setdefault(MATRIX, Matrix()).failed.add(item.nodeid)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Whether the whole folder is about to run: only then is a row without a figure missing."""
    chosen = {item.path for item in session.items}
    narrowed = session.config.option.keyword or any("::" in argument for argument in session.config.args)
    session.config.stash[WHOLE] = not narrowed and chosen.issuperset(HERE.glob("test_*.py"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table, on the terminal and in a file."""
    matrix = config.stash.get(MATRIX, None)
    if matrix is not None and (matrix.figures or matrix.failed):
        terminalreporter.section("fault matrix")
        terminalreporter.write(matrix.write(TABLE, whole=config.stash[WHOLE]))
