"""Commands that tests need and pip cannot bring. Owns what happens when one is missing; scripts/test installs them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

LIST = Path(__file__).parent.parent / "requirements-system.txt"


def listed() -> dict[str, str]:
    """The commands of requirements-system.txt, each with its Debian package."""
    rows = (line.split() for line in LIST.read_text().splitlines() if line and not line.startswith("#"))
    return {command: package for command, package, *_ in rows}


def system_tool(command: str) -> str:
    """Path of a listed command. Without it the calling test is skipped, and fails where CI=true.

    Raises KeyError for a command that is not listed, since nothing would ever install it.
    """
    package = listed()[command]
    path = shutil.which(command)
    if path is None:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"needs {command} (Debian package {package})")
    return path
