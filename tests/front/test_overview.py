"""What GET /status says: the whole of the server, from the counters of all its processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batching.counters import Counters
from batching.families import ROWS, SECONDS
from batching.vitals import Vitals
from front import overview as module
from front.overview import overview
from tests.faults.asking import get, post, predict
from tests.front.test_catalog import catalogue, model
from tests.harness import SOON_S, fake_http_server, wait_until

DOUBLE = {"name": "double", "kind": "double"}


@pytest.fixture
def counters() -> Iterator[Counters]:
    made = Counters.create(4)
    yield made
    made.close()


def said(counters: Counters, *models: dict[str, Any], has_log: bool = False, **more: Any) -> dict[str, Any]:
    Vitals(counters.slot(2).words)
    return overview(catalogue(*models, **more), counters, server="inference-server 1", patience_s=2.0, has_log=has_log)


def test_every_part_is_there_and_in_the_description(counters: Counters) -> None:
    found = said(counters, model("m"))
    assert found["ready"]
    assert found["bounds"] == {"seconds": SECONDS, "rows": ROWS}
    assert all(part in (module.__doc__ or "") for part in {*found, *found["models"][0], *found["fronts"]})


def test_what_several_processes_counted_of_a_version_is_one_figure(counters: Counters) -> None:
    which = {"model": "m", "version": "1"}
    for slot in (1, 3):
        histogram = counters.slot(slot).histogram("inference_model_request_seconds", **which, outcome="answered")
        histogram.observe(0.25)
        counters.slot(slot).counter("inference_batches_total", **which).add(2)
    counters.slot(3).counter("inference_batches_total", model="m", version="2").add(9)
    (version,) = said(counters, model("m"))["models"]
    assert version["answered"]["sum"] == 0.5
    assert sum(version["answered"]["counts"]) == 2
    assert version["answered"]["counts"][SECONDS.index(0.25)] == 2
    assert version["batches"] == 4


def test_the_version_that_serves_and_the_canary_are_told_apart(counters: Counters) -> None:
    routing = {"m": {"labels": {"stable": "1"}, "canary": {"version": "2", "share": 0.25}}}
    found = said(counters, model("m"), model("m", version="2"), routing=routing)["models"]
    assert [(one["version"], one["serves"], one["labels"], one["canary_share"]) for one in found] == [
        ("2", False, [], 0.25),
        ("1", True, ["stable"], None),
    ]


def test_without_a_log_there_is_none_to_tell_of(counters: Counters) -> None:
    counters.slot(1).counter("inference_log_rows_written_total").add(3)
    assert said(counters, model("m"))["log"] is None
    assert said(counters, model("m"), has_log=True)["log"]["written"] == 3


def test_a_server_tells_what_it_has_just_done() -> None:
    with fake_http_server([DOUBLE], fronts=2) as server:
        before = get(server.url, "/status").json
        for number in range(5):
            assert predict(server.url, number, X_Request_Id=f"mine-{number}").status == 200
        assert post(server.url, "/predict", {"features": "no"}).status == 400

        def now() -> dict[str, Any]:
            told: dict[str, Any] = get(server.url, "/status").json
            return told

        wait_until(lambda: sum(now()["models"][0]["answered"]["counts"]) == 5, SOON_S, "five answers are counted")
        after = now()
    assert sum(before["models"][0]["answered"]["counts"]) == 0
    assert sum(after["models"][0]["failed"]["counts"]) == 1
    assert after["models"][0]["rows"] - before["models"][0]["rows"] == 5
    assert after["now"] > before["now"]
    recent = {one["request_id"]: one for one in after["recent"]}
    assert {f"mine-{number}" for number in range(5)} <= recent.keys()
    assert recent["mine-0"]["status"] == 200
    assert recent["mine-0"]["route"] == "/predict"
    assert recent["mine-0"]["total_ms"] >= recent["mine-0"]["compute_ms"] > 0


def test_only_an_admin_s_key_opens_it(tmp_path: Path) -> None:
    keys = {}
    for name in ("api_key_file", "admin_key_file"):
        path = tmp_path / name
        path.write_text(f"{name:_<40}\n")
        path.chmod(0o600)
        keys[name] = str(path)
    with fake_http_server([DOUBLE], front_settings=keys) as server:
        assert get(server.url, "/status").status == 401
        assert get(server.url, "/status", Authorization=f"Bearer {'api_key_file':_<40}").status == 403
        assert get(server.url, "/status", Authorization=f"Bearer {'admin_key_file':_<40}").status == 200
