"""Every command of the README and the guides is run as it stands, or held against the parser that would take it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands.arguments import parse
from inference_server import InferenceServer
from models.contract import Contract, Tensor
from models.narrowing import narrow
from prediction_log.table import COLUMNS
from tests.faults.asking import post
from tests.harness import ROOT, SOON_S, wait_until

DOCUMENTS = {name: (ROOT / name).read_text() for name in ("README.md", "docs/migration.md", "docs/tuning.md")}
README = DOCUMENTS["README.md"]
LOCAL = "http://127.0.0.1:8080"
ROW = {"features": [0.5] * 10}
# What is run for real by the tests named, with more around it than fits here.
ELSEWHERE = {
    "scripts/serve": "tests/test_scripts.py",
    "scripts/test": "tests/test_scripts.py",
    "inference_server.py worker": "tests/test_server.py",
    "WORKER_SOCKET=": "tests/test_server.py",
    "inference-server log replay": "tests/commands/test_replay.py",
    "inference-server log ship": "tests/commands/test_log_ship.py",
    "DATABASE_URL=postgresql": "tests/prediction_log/test_server.py",
}


def commands(name: str) -> list[tuple[str, str]]:
    """(command, what it prints where that is shown) of a document."""
    blocks = re.findall(r"```console\n(.+?)```", DOCUMENTS[name], re.DOTALL)
    return [
        (re.split(r"\s# ", command)[0].strip(), answer.strip())
        for block in blocks
        for command, answer in re.findall(r"^\$ (.+)\n((?:(?!\$ ).+\n)*)", block, re.MULTILINE)
    ]


ALL = [(name, *one) for name in DOCUMENTS for one in commands(name)]
CURLS = [(command, answer) for name, command, answer in ALL if command.startswith("curl") and name == "README.md"]
OURS = [command for _, command, _ in ALL if command.startswith("inference-server ")]
SERVES = [one for one in OURS if re.match(r"inference-server \S*/", one)]
RUN = sorted({one for one in OURS if one not in SERVES and not one.startswith(tuple(ELSEWHERE))})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, demo_models: Path, held_out_digits: Any) -> Path:
    """Where the commands are run: with the files that they name."""
    made = tmp_path_factory.mktemp("documents")
    (made / "seven.png").write_bytes(next(png for png, digit in held_out_digits if digit == 7))
    (made / "row.json").write_text(json.dumps(ROW))
    (made / "rows.csv").write_text("\n".join([",".join("abcdefghij"), *[",".join(["0.5"] * 10)] * 3]) + "\n")
    (made / "path" / "to").mkdir(parents=True)
    (model,) = (demo_models / "dummy").rglob("*.keras")
    shutil.copy(model, made / "path" / "to" / "model.keras")
    shutil.copy(model, made / "path" / "to" / "model")
    return made


@pytest.fixture(scope="module")
def server(demo_models: Path, folder: Path) -> Iterator[InferenceServer]:
    log = str(folder / "inference_logs")
    with InferenceServer(models=demo_models, default_model="dummy", prediction_log_dir=log) as running:
        yield running


def run(command: str, server: InferenceServer, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command of a document, with this test's server for the one it speaks of."""
    words = shlex.split(command)
    if words[0] == "inference-server":
        words = [sys.executable, str(ROOT / "inference_server.py"), *words[1:]]
        asks = len(words) > 2 and words[2] in ("status", "reload") and LOCAL not in command
        words += ["--url", LOCAL] if asks else []
        words += ["--window", "0.2"] if words[2:3] == ["bench"] else []
    words = [word.replace(LOCAL, server.url).replace("path/to/model", "path/to/model.keras") for word in words]
    words = [word.replace(".keras.keras", ".keras") for word in words]
    if words[2:4] == ["reload", "name"]:
        words[3] = "dummy"
    environment = {**os.environ, "PREDICTION_LOG_DIR": str(folder / "inference_logs"), "WARM_UP_BUDGET_S": "0.5"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)


def test_every_command_is_run_somewhere() -> None:
    known = (*ELSEWHERE, "curl ", "inference-server ", "kill -HUP", "psql -c", "python inference_server.py ")
    assert [command for _, command, _ in ALL if not command.startswith(known)] == []
    assert all((ROOT / path).exists() for path in ELSEWHERE.values())


@pytest.mark.parametrize(("command", "answer"), CURLS, ids=[command[:40] for command, _ in CURLS])
def test_a_curl_answers_what_it_shows(server: InferenceServer, folder: Path, command: str, answer: str) -> None:
    said, shown = json.loads(run(f"{command} --silent", server, folder).stdout), answer.replace("…", "")
    assert said["ok"] is ('"ok":true' in shown)
    assert all(f'"{key}"' in shown for key in said if key not in ("request_id", "path"))
    for key in ("predicted_class", "error"):
        assert key not in said or f'"{key}":{json.dumps(said[key])}' in shown


@pytest.mark.parametrize("command", RUN)
def test_a_command_does_what_it_says(server: InferenceServer, folder: Path, command: str) -> None:
    assert post(server.url, "/predict", ROW).status == 200  # so that the log has something to tell of
    rolls_back = "--rollback" in command  # there is nothing before what the server began with
    done = run(command, server, folder)
    is_unsteady = "no load became stable" in done.stderr  # a busy machine, and windows of 0.2 s
    assert done.returncode == (1 if rolls_back or is_unsteady else 0), done.stderr[-2000:]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", SERVES)
def test_a_command_that_serves_is_understood(command: str) -> None:
    verb, settings = parse(shlex.split(command)[1:], "0")
    assert verb == "serve"
    assert settings.model_path is not None


def test_the_columns_that_the_readme_asks_psql_for_are_there() -> None:
    (query,) = [command for _, command, _ in ALL if command.startswith("psql")]
    columns, where = re.findall(r"select (.+) from inference_logs where (\w+) = ", query)[0]
    assert {*columns.split(", "), where} <= COLUMNS["predictions"].keys()


def test_a_hang_up_is_a_reload(server: InferenceServer) -> None:
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: post(server.url, "/predict", ROW).status == 200, SOON_S, "it serves on")


def test_the_readme_s_program_runs(folder: Path) -> None:
    (program,) = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    url, prediction = done.stdout.splitlines()
    assert url.startswith("http://127.0.0.1:"), done.stderr
    assert isinstance(float(prediction), float)


@pytest.mark.parametrize("name", ["README.md", "docs/migration.md"])
def test_a_contract_that_is_shown_is_one(name: str) -> None:
    blocks = re.findall(r"```json\n(.+?)```", DOCUMENTS[name], re.DOTALL)
    shown = [value for value in map(json.loads, blocks) if "fields" in value]
    assert shown
    inputs, outputs = (Tensor("x", "float32", (2,)),), (Tensor("y", "float32", (1,)),)
    for value in shown:
        narrowed = narrow(Contract("rent", "1", inputs, outputs), value)
        assert narrowed.routes == ("/rent",)


def test_the_way_from_flask_leads_to_an_answer(tmp_path: Path) -> None:
    (contract,) = re.findall(r"```json\n(.+?)```", DOCUMENTS["docs/migration.md"], re.DOTALL)
    (ask,) = [command for name, command, _ in ALL if name == "docs/migration.md" and command.startswith("curl")]
    (serve,) = [command for name, command, _ in ALL if name == "docs/migration.md" and "rent.keras" in command]
    path = tmp_path / shlex.split(serve)[1]
    path.parent.mkdir()
    program = (
        "import keras, sys; keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer='ones')])"
        ".save(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", program, path], check=True, capture_output=True, timeout=100)
    (path.parent / "rent.contract.json").write_text(contract)
    with InferenceServer(models=path) as server:
        done = run(f"{ask} --silent", server, tmp_path)
        own = post(server.url, "/rent", {"square_metres": 60, "rooms": 2})
    assert json.loads(done.stdout)["prediction"] == 62.0
    assert own.json["prediction"] == [[62.0]]
