"""The documents say what the code does: settings, routes, error codes, metrics, exit codes."""

from __future__ import annotations

import runpy

import pytest

from batching.families import METRICS
from commands import serve
from front.refusals import MESSAGES, STATUS
from front.settings import Settings
from prediction_log.table import COLUMNS
from tests.harness import ROOT

README = (ROOT / "README.md").read_text()
DOCS = runpy.run_path(str(ROOT / "scripts" / "update_docs.py"), run_name="docs")
NOT_YET = {"UNAUTHORIZED", "FORBIDDEN", "REQUEST_TIMEOUT", "WRONG_HOST", "CLIENT_GONE"}


def test_the_settings_table_and_env_example_are_what_the_code_says() -> None:
    assert DOCS["readme"](README) == README, "run scripts/update_docs.py"
    assert DOCS["env_example"]() == (ROOT / ".env.example").read_text(), "run scripts/update_docs.py"


def test_env_example_is_the_default_settings() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    environ = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert Settings.from_environment(environ) == Settings()


@pytest.mark.parametrize("code", sorted(STATUS.keys() - NOT_YET))
def test_every_error_code_is_in_the_readme_with_its_status(code: str) -> None:
    (row,) = [line for line in README.splitlines() if line.startswith("|") and f"`{code}`" in line]
    assert str(STATUS[code]) in row


def test_every_message_belongs_to_a_code() -> None:
    assert MESSAGES.keys() <= STATUS.keys()


@pytest.mark.parametrize("route", ["/health", "/ready", "/metrics", "/models", "/predict", "/classify", "/feedback"])
def test_every_route_is_in_the_readme(route: str) -> None:
    assert f" {route}`" in README


def test_every_metric_is_in_the_readme() -> None:
    missing = [metric.name for metric in METRICS if f"`{metric.name}`" not in README]
    assert missing == []


@pytest.mark.parametrize("column", sorted({"id"}.union(*COLUMNS.values())))
def test_every_column_of_the_log_is_in_the_readme(column: str) -> None:
    assert f"`{column}`" in README


@pytest.mark.parametrize("verb", ["status", "tail", "check", "ship", "replay"])
def test_every_log_command_is_in_the_readme(verb: str) -> None:
    assert f"$ inference-server log {verb}" in README


def test_exit_codes_are_in_the_readme() -> None:
    said = README[README.index("Exit codes:") :]
    for code in (serve.EXIT_USAGE, serve.EXIT_MODEL, serve.EXIT_ADDRESS):
        assert f" {code} " in said[:400]
