"""`inference_server.py check` as an operator runs it: real models and processes, and a server that uses the result."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from inference_server import InferenceServer
from tests.harness import ROOT


def check(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "inference_server.py"), "check", *map(str, arguments)],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=110,
    )  # fmt: skip


def told(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    (model,) = json.loads(ended.stdout)["models"]
    return dict(model)


@pytest.fixture
def dummy(demo_models: Path, tmp_path: Path) -> Path:
    """A folder of versions, ours to change."""
    return Path(shutil.copytree(demo_models / "dummy", tmp_path / "dummy"))


def test_a_good_model_is_described_timed_and_what_it_refuses_is_shown(dummy: Path, tmp_path: Path) -> None:
    ended = check(dummy, CALIBRATION_DIR=str(tmp_path / "store"))
    assert ended.returncode == 0, ended.stderr
    shown = (
        "dummy version 1 can be served",
        "float32",
        '{"features": [',
        '"features" is missing',
        "rows/s",
        "JSON Schema",
    )
    for words in (*shown, "██"):
        assert words in ended.stdout
    assert "Not calibrated" in ended.stdout
    assert not (tmp_path / "store").exists()


def test_for_machines_it_is_json(dummy: Path, tmp_path: Path) -> None:
    ended = check(dummy, "--json", CALIBRATION_DIR=str(tmp_path / "store"), BATCH_MAX_SIZE="4")
    model = told(ended)
    assert (ended.returncode, model["ok"], model["reason"]) == (0, True, None)
    assert list(model["batch_seconds"]) == ["1", "2", "4"]
    assert [len(one["shape"]) for one in model["contract"]["inputs"]] == [1]
    assert all(one["message"] for one in model["refused"])
    assert model["calibration"] is None
    assert model["json_schema"]["anyOf"]
    assert any("unknown key" in one["message"] for one in model["refused"])


def test_a_model_that_does_not_keep_its_promises_cannot_be_served(dummy: Path) -> None:
    promise = {"examples": [{"request": {"features": [0.0] * 10}, "answer": {"prediction": 1e6}}]}
    (dummy / "contract.json").write_text(json.dumps(promise))
    (dummy / "1" / "contract.json").unlink(missing_ok=True)
    ended = check(dummy)
    assert ended.returncode == 1
    assert "dummy version 1 cannot be served: it does not answer its own example 0 as promised" in ended.stdout


@pytest.mark.parametrize("what", ["damaged", "missing"])
def test_what_is_no_model_is_told_in_one_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / "m.keras"
    if what == "damaged":
        path.write_bytes(b"PK no archive")
    ended = check(path)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stdout + ended.stderr
    assert len((ended.stdout + ended.stderr).strip().splitlines()) == 1


def test_words_that_make_no_sense_are_refused_and_a_wrong_setting_named(dummy: Path) -> None:
    assert check().returncode == 2
    ended = check(dummy, BATCH_MAX_SIZE="none")
    assert (ended.returncode, "BATCH_MAX_SIZE" in ended.stderr) == (2, True)


def test_what_is_calibrated_is_kept_and_the_next_server_shows_it(dummy: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    ended = check(dummy, "--calibrate", "--json", CALIBRATION_DIR=str(store), BATCH_MAX_SIZE="2")
    assert ended.returncode == 0, ended.stderr
    model = told(ended)
    assert [str(path) for path in store.iterdir()] == [model["kept"]]
    assert "XLA" in [one["name"] for one in model["candidates"]]
    found = model["calibration"]
    assert told(check(dummy, "--json", CALIBRATION_DIR=str(store)))["calibration"] == found
    with InferenceServer(dummy, calibration_dir=str(store)) as server:
        with urllib.request.urlopen(f"{server.url}/models") as response:
            (shown,) = json.load(response)["models"]
        assert shown["calibration"] == {
            **{name: found[name] for name in ("call", "sizes", "threads", "best_rows", "measured_at")},
            "gain": round(found["gain"], 2),
        }


def test_a_server_without_a_calibration_says_so(dummy: Path, tmp_path: Path) -> None:
    with (
        InferenceServer(dummy, calibration_dir=str(tmp_path / "store")) as server,
        urllib.request.urlopen(f"{server.url}/models") as response,
    ):
        (shown,) = json.load(response)["models"]
    assert shown["calibration"] is None


def test_where_it_cannot_be_kept_that_is_said(dummy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    ended = check(
        dummy, "--calibrate", CALIBRATION_DIR=str(tmp_path / "file"), BATCH_MAX_SIZE="1", INTRA_OP_THREADS="1"
    )
    assert ended.returncode == 1
    assert "CALIBRATION_DIR" in ended.stdout
