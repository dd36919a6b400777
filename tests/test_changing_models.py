"""The whole server while its models change on disk: what is served, from which files, and what is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from inference_server import InferenceServer
from tests.harness import wait_until
from tests.test_server import START_S, TEN, post, worker_of


@pytest.fixture
def root(demo_models: Path, tmp_path: Path) -> Path:
    """A folder with version 1 of one model."""
    shutil.copytree(demo_models / "dummy" / "1", tmp_path / "dummy" / "1")
    return tmp_path


def served(server: InferenceServer) -> str:
    """The version that answers a request that names none."""
    status, body = post(f"{server.url}/predict", {"features": TEN})
    assert status == 200, body
    return str(body["model_version"])


def test_a_good_copy_serves_a_bad_one_does_not_and_a_deleted_one_is_gone(root: Path) -> None:
    with InferenceServer(model_dir=str(root), reload_settle_s=0.3) as server:
        assert served(server) == "1"
        shutil.copytree(root / "dummy" / "1", root / "dummy" / "2")
        wait_until(lambda: served(server) == "2", START_S, "version 2 serves")
        (root / "dummy" / "3").mkdir()
        (root / "dummy" / "3" / "x.keras").write_bytes(b"PK\x03\x04 not a model")
        wait_until(lambda: "version 3" in str(degraded(server)), START_S, "version 3 is refused")
        assert "; version 2 serves" in degraded(server)[0]
        assert served(server) == "2"
        shutil.rmtree(root / "dummy" / "3")
        shutil.rmtree(root / "dummy" / "2")
        wait_until(lambda: served(server) == "1", START_S, "version 1 serves again")
        assert degraded(server) == []
    assert [path.name for path in root.iterdir()] == ["dummy"]


def degraded(server: InferenceServer) -> list[str]:
    """What /ready says is wrong."""
    with urllib.request.urlopen(f"{server.url}/ready", timeout=30) as response:
        found: list[str] = json.load(response)["degraded"]
    return found


def test_a_worker_that_is_killed_after_its_model_was_deleted_is_replaced(root: Path) -> None:
    with InferenceServer(model_dir=str(root), reload_settle_s=0.0) as server:
        before = worker_of(server)
        shutil.rmtree(root / "dummy")
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: worker_of(server, but=before), START_S, "another worker")
        wait_until(lambda: post(f"{server.url}/predict", {"features": TEN})[0] == 200, START_S, "an answer")
    assert list(root.iterdir()) == []


def test_several_versions_serve_at_once_where_the_policy_says_so(root: Path) -> None:
    shutil.copytree(root / "dummy" / "1", root / "dummy" / "2")
    (root / "dummy" / "versions.json").write_text('{"policy": "all"}')
    with InferenceServer(model_dir=str(root)) as server:
        answers = [post(f"{server.url}/predict/dummy?version={one}", {"features": TEN})[1] for one in ("1", "2")]
    assert [answer["model_version"] for answer in answers] == ["1", "2"]
    assert answers[0]["prediction"] == answers[1]["prediction"]


def test_a_new_version_is_tried_on_logged_requests_before_it_serves(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("log")
    settings: dict[str, Any] = {"reload_settle_s": 0.3, "reload_replay": 5, "prediction_log_dir": str(log)}
    with InferenceServer(model_dir=str(root), **settings) as server:
        for _ in range(3):
            assert served(server) == "1"
        copy = root / "dummy" / "2"
        shutil.copytree(root / "dummy" / "1", root / "unfit")
        (root / "unfit" / "contract.json").write_text('{"request_schema": {"items": {"maximum": 0}}}')
        (root / "unfit").rename(copy)
        wait_until(lambda: "logged request" in str(degraded(server)), START_S, "version 2 is refused")
        assert served(server) == "1"
        shutil.rmtree(copy)
        shutil.copytree(root / "dummy" / "1", root / "dummy" / "3")
        wait_until(lambda: served(server) == "3", START_S, "version 3 serves")
