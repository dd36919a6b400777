"""The examples of docs/open_inference.md, run as they stand against the demo models."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_server import InferenceServer
from models.dialects.oip_describe import EXTENSIONS
from models.dialects.open_inference import ROUTES
from tests.harness import ROOT

TEXT = (ROOT / "docs" / "open_inference.md").read_text()
COMMANDS = re.findall(r"^\$ (.+)\n((?:[^$`\n].*\n)+)", TEXT, re.MULTILINE)


@pytest.fixture(scope="module")
def server(demo_models: Path) -> Iterator[InferenceServer]:
    with InferenceServer(models=demo_models, default_model="dummy") as running:
        yield running


def numbers_near(said: Any, documented: Any) -> bool:
    """Equal, but for the last digits of numbers: models that are trained anew differ there."""
    if isinstance(documented, float):
        return bool(abs(said - documented) < 0.5)
    if isinstance(documented, dict):
        return said.keys() == documented.keys() and all(numbers_near(said[key], documented[key]) for key in documented)
    if isinstance(documented, list):
        return len(said) == len(documented) and all(map(numbers_near, said, documented))
    return bool(said == documented)


@pytest.mark.parametrize(("command", "answer"), COMMANDS, ids=[str(index) for index in range(len(COMMANDS))])
def test_a_command_answers_as_it_is_written(server: InferenceServer, command: str, answer: str) -> None:
    command = command.replace("http://127.0.0.1:8080", server.url)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    assert numbers_near(json.loads(done.stdout), json.loads(answer)), done.stdout


def test_the_client_s_example_runs(server: InferenceServer) -> None:
    (program,) = re.findall(r"```python\n(.+?)```", TEXT, re.DOTALL)
    program = program.replace("127.0.0.1:8080", server.url.removeprefix("http://"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert re.fullmatch(r"\[\[\S+\]\n \[\S+\]\]\n", done.stdout), done.stderr


def test_all_commands_are_found() -> None:
    assert len(COMMANDS) == TEXT.count("\n$ ") == 4


@pytest.mark.parametrize("action", sorted({route.action for route in ROUTES}))
def test_every_kind_of_route_is_in_the_table(action: str) -> None:
    ends = {route.template.replace("{model}", "M").rsplit("/", 1)[-1] for route in ROUTES if route.action == action}
    table = TEXT[: TEXT.index("## With curl")]
    assert any(f"/{end}" in table for end in ends if end)


def test_no_extension_is_claimed_that_the_table_of_differences_denies() -> None:
    assert not {"sequence", "trace", "logging", "parameters", "system_shared_memory"} & {*EXTENSIONS}
