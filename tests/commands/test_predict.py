"""`predict` as somebody at a terminal uses it: a model of their own, and a server that runs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_server import InferenceServer
from tests.harness import ROOT

KEY = "a-key-of-more-than-sixteen-characters"
ROW = [0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, -0.8, 0.9, -1.0]


def predict(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, str(ROOT / "inference_server.py"), "predict", *map(str, arguments)],
        input=stdin, capture_output=True, timeout=60, env={**os.environ, "no_proxy": "*"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def server(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The demo models behind a key; the address and the key's file."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{KEY}\n")
    keys.chmod(0o600)
    with InferenceServer(demo_models, api_key_file=str(keys)) as running:
        yield running.url, keys


def ask(server: tuple[str, Path], *arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return predict(*arguments, "--url", server[0], "--key-file", server[1], stdin=stdin)


def told(done: subprocess.CompletedProcess[bytes]) -> Any:
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_a_models_file_is_loaded_for_one_request(demo_models: Path, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"features": ROW}))
    answer = told(predict(demo_models / "dummy", body))
    assert answer["ok"] is True
    assert answer["model_version"] == "1"
    assert isinstance(answer["prediction"], float)


def test_whatever_holds_the_rows_the_answers_are_the_same(server: tuple[str, Path], tmp_path: Path) -> None:
    lone = told(ask(server, "dummy", "-", stdin=json.dumps({"features": ROW}).encode()))["prediction"]
    array = io.BytesIO()
    np.save(array, np.array([ROW, ROW], "float32"))
    lines = tmp_path / "rows.jsonl"
    lines.write_text(json.dumps({"features": ROW}) + "\n\n" + json.dumps(ROW) + "\n")
    assert told(ask(server, "dummy", "-", stdin=array.getvalue()))["predictions"] == pytest.approx([lone] * 2, 1e-5)
    assert told(ask(server, "dummy", lines))["predictions"] == pytest.approx([lone] * 2, 1e-5)


def test_columns_are_found_by_their_names(server: tuple[str, Path], tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("id,feature2,feature1\n7,2,1.5\n8,0,3\n")
    named = [{"feature1": 1.5, "feature2": 2}, {"feature1": 3, "feature2": 0}]
    expected = told(ask(server, "two_features", "-", stdin=json.dumps({"instances": named}).encode()))
    assert told(ask(server, "two_features", table)) == expected


def test_a_picture_is_classified(server: tuple[str, Path], held_out_digits: list[tuple[bytes, int]]) -> None:
    picture, digit = held_out_digits[0]
    answer = told(ask(server, "digits", "-", stdin=picture))
    assert answer["predicted_class"] == digit
    assert len(answer["top"]) == 3


def test_a_refusal_is_explained_as_the_server_does(server: tuple[str, Path]) -> None:
    done = ask(server, "dummy", "-", stdin=b'{"features": [1, 2, "three"]}')
    assert (done.returncode, done.stdout) == (1, b"")
    message, *more = done.stderr.decode().splitlines()
    assert message.startswith("inference_server: ")
    words = "\n".join(more)
    assert "at: /features" in words
    assert "expected: " in words
    assert 'sample: {"features": [' in words


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "said"),
    [
        (["nothing", "-"], b"{}", 1, "there is no model 'nothing'"),
        (["dummy", "/nowhere/body.json"], b"", 2, "/nowhere/body.json cannot be read"),
        (["dummy", "-"], b"\x93NUMPY nonsense", 1, "cannot be read"),
        (["dummy", "-", "--version", "9"], b"{}", 1, "has no version '9'"),
    ],
    ids=["no-model", "no-file", "no-array", "no-version"],
)
def test_what_cannot_be_asked_is_told(
    server: tuple[str, Path], arguments: list[str], stdin: bytes, code: int, said: str
) -> None:
    done = ask(server, *arguments, stdin=stdin)
    assert (done.returncode, said in done.stderr.decode()) == (code, True), done.stderr


def test_no_key_no_server_no_model_and_no_sense_are_told_apart(server: tuple[str, Path], tmp_path: Path) -> None:
    assert "key" in predict("dummy", "-", "--url", server[0], stdin=b"{}").stderr.decode()
    assert predict("dummy", "-", "--url", "http://127.0.0.1:1", stdin=b"{}").returncode == 4
    assert predict(tmp_path / "nothing", "-", stdin=b"{}").returncode == 3
    assert predict("dummy", "-", "--version", "1").returncode == 2
