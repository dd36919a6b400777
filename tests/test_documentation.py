"""The documents say what the code does: settings, routes, commands, error codes, metrics, exit codes."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from batching.families import METRICS
from commands.arguments import COMMANDS
from front.refusals import MESSAGES, STATUS
from front.settings import Settings
from inference_server import create_app
from prediction_log.table import COLUMNS
from tests.harness import ROOT

README = (ROOT / "README.md").read_text()
DOCS = runpy.run_path(str(ROOT / "scripts" / "update_docs.py"), run_name="docs")
NOT_YET = {"UNAUTHORIZED", "FORBIDDEN", "REQUEST_TIMEOUT", "WRONG_HOST", "CLIENT_GONE"}


def test_what_the_documents_repeat_is_what_the_code_says() -> None:
    assert DOCS["readme"](README) == README, "run scripts/update_docs.py"
    assert DOCS["commands_document"]() == (ROOT / "docs" / "commands.md").read_text(), "run scripts/update_docs.py"
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


def routes() -> list[str]:
    """The templates of all routes of the application, but for the dialects', which have documents of their own."""
    client = SimpleNamespace(slot=Mock(), counters=Mock(), view=Mock())
    rules = {rule_to_template(route.rule) for route in create_app(Settings(), client).routes if route.method != "ANY"}
    return sorted(rule for rule in rules if not rule.startswith(("/v1", "/v2", "/static")))


def rule_to_template(rule: str) -> str:
    """Bottle's way to write a path -> the documents'."""
    return re.sub(r"<(\w+)[^>]*>", r"{\1}", rule)


@pytest.mark.parametrize("route", routes())
def test_every_route_is_in_the_readme(route: str) -> None:
    assert re.search(rf"\| .*`(?:GET|POST) {re.escape(route)}`", README)


def test_every_metric_is_in_the_readme() -> None:
    missing = [metric.name for metric in METRICS if f"`{metric.name}`" not in README]
    assert missing == []


@pytest.mark.parametrize("column", sorted({"id"}.union(*COLUMNS.values())))
def test_every_column_of_the_log_is_in_the_readme(column: str) -> None:
    assert f"`{column}`" in README


@pytest.mark.parametrize("verb", ["status", "tail", "check", "ship", "replay"])
def test_every_log_command_is_in_the_readme(verb: str) -> None:
    assert f"$ inference-server log {verb}" in README


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_its_help_in_the_documents(name: str) -> None:
    assert f"\n## {name}\n" in (ROOT / "docs" / "commands.md").read_text()


@pytest.mark.parametrize("document", [*Path(ROOT, "docs").glob("*.md"), ROOT / "README.md"], ids=lambda path: path.name)
def test_every_link_to_a_file_leads_to_one(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", sorted(path.name for path in Path(ROOT, "docs").glob("*.md")))
def test_every_document_is_named_in_the_readme(document: str) -> None:
    assert f"(docs/{document})" in README
