"""A share of the requests goes to a version on trial, over HTTP: counted and logged apart, and changed by a file."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.fake_folders import Disk
from tests.faults.asking import Reply, counted, get, post, predict
from tests.faults.base import faulty_server
from tests.faults.load import Load, assert_promises, logged, statuses
from tests.faults.reloading import MODEL, Clients, judge
from tests.harness import SOON_S, wait_until

REQUESTS, SHARE = 1500, 0.3
# Six standard deviations: once in five hundred million runs.
SLACK = 6 * math.sqrt(REQUESTS * SHARE * (1 - SHARE))
LABELS = {"stable": 1, "trial": 2}


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """Version 1 serves, version 2 is on trial; each multiplies by its number."""
    disk = Disk(tmp_path)
    disk.put(MODEL, 1, factor=1)
    disk.put(MODEL, 2, factor=2)
    disk.say(MODEL, "versions.json", labels=LABELS, canary={"to": "trial", "share": SHARE})
    return disk


def labelled(url: str, label: str) -> Reply:
    """The answer of the version with this label, which TensorFlow Serving's dialect knows."""
    return post(url, f"/v1/models/{MODEL}/labels/{label}:predict", {"instances": [[1.0]]})


def test_a_share_goes_to_the_version_on_trial_and_is_counted_and_logged_apart(disk: Disk, tmp_path: Path) -> None:
    log = tmp_path / "log"
    clients = Clients(20.0)
    for version in (1, 2):
        clients.allow(version, version)
    settings: dict[str, Any] = {"fronts": 2, "predict_timeout_ms": 20_000.0, "prediction_log_dir": str(log)}
    with faulty_server([], model_dir=str(disk.root), **settings) as server:
        with Load(server.url, 8, make=clients.native, limit=REQUESTS) as load:
            asked = load.join(120)
        labels = {"model": MODEL, "status": "200"}
        metrics = {
            version: counted(server.url, "inference_requests_total", version=version, **labels) for version in "12"
        }
        assert predict(server.url, 1.0, f"{MODEL}?version=1").json["prediction"] == 1.0
        assert predict(server.url, 1.0, f"{MODEL}?version=2").json["prediction"] == 2.0
        named = [labelled(server.url, label).json["predictions"] for label in LABELS]
    assert_promises(asked, faults=())
    assert statuses(asked) == {"200": REQUESTS}
    heard = {version: number for (version, _), number in clients.heard.items()}
    assert abs(heard["2"] - REQUESTS * SHARE) <= SLACK
    assert metrics == heard
    ids = {one.id for one in asked}
    rows = [row for row in logged(log) if row["request_id"] in ids]
    assert Counter(row["version"] for row in rows) == heard
    assert all(row["prediction"] == int(row["version"]) * json.loads(row["features"])[0] for row in rows)
    assert named == [[[1.0]], [[2.0]]]


def test_labels_and_share_change_without_another_worker(disk: Disk) -> None:
    with faulty_server([], model_dir=str(disk.root), fronts=2, reload_settle_s=0.1) as server:
        before = server.children("worker")
        answers: Any = Counter(predict(server.url, 1.0, MODEL).json["model_version"] for _ in range(100))
        assert set(answers) == {"1", "2"}
        disk.say(MODEL, "versions.json", labels={"stable": 2, "old": 1}, canary={"to": "stable", "share": 1})

        def is_known() -> bool:
            replies = [labelled(server.url, "stable") for _ in range(8)]
            assert {reply.status for reply in replies} == {200}
            return all(reply.json["predictions"] == [[2.0]] for reply in replies)

        wait_until(is_known, SOON_S, "the label means another version")
        assert {predict(server.url, 1.0, MODEL).json["model_version"] for _ in range(50)} == {"2"}
        assert labelled(server.url, "old").json["predictions"] == [[1.0]]
        gone = labelled(server.url, "trial")
        assert (gone.status, judge(*gone)) == (400, '400: b\'{"error":"Unrecognized servable version label: trial"}\'')
        assert server.children("worker") == before
        assert get(server.url, "/ready").json["degraded"] == []
