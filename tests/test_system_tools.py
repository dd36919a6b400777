"""A missing command skips a test on a desk and fails it in CI."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import system_tools


@pytest.fixture
def _no_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_a_command_that_is_there_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrk").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert system_tools.system_tool("wrk") == str(tmp_path / "wrk")


@pytest.mark.usefixtures("_no_commands")
def test_a_missing_command_skips_outside_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="wrk"):
        system_tools.system_tool("wrk")


@pytest.mark.usefixtures("_no_commands")
def test_a_missing_command_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="wrk"):
        system_tools.system_tool("wrk")


def test_a_command_that_nothing_would_install_is_refused() -> None:
    with pytest.raises(KeyError):
        system_tools.system_tool("a-command-in-no-list")
