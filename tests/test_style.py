"""Style, formatting and types of the whole repository: scripts/check runs this file alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(600)  # mypy's first run reads the types of every dependency
@pytest.mark.parametrize("tool", ["ruff check", "ruff format --check", "mypy"])
def test_the_repository_passes(tool: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *tool.split(), *(["."] if tool.startswith("ruff") else [])],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{tool}:\n{result.stdout}"
