"""`status` of a server that runs, of one that is half well, and where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands.status_page import quantile
from tests.harness import ROOT, SOON_S, Server, fake_http_server

KEY = "a-key-of-more-than-sixteen-characters"


def status(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "inference_server.py"), "status", *map(str, arguments)],
        capture_output=True, text=True, timeout=SOON_S, env={**os.environ, "no_proxy": "*"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"{KEY}\n")
    file.chmod(0o600)
    return file


@pytest.fixture(scope="module")
def server(keys: Path) -> Iterator[Server]:
    """A good model and one that cannot be loaded, behind an admin's key."""
    good, bad = {"name": "good"}, {"name": "bad", "kind": "refuses"}
    with fake_http_server({"a": [good], "b": [bad]}, admin_key_file=str(keys)) as running:
        yield running


def ask(url: str) -> None:
    request = urllib.request.Request(f"{url}/predict/good", b'{"features": [1]}')
    with urllib.request.urlopen(request, timeout=SOON_S) as response:
        assert json.load(response)["prediction"] == 2


def test_it_shows_models_workers_rates_and_why_the_server_is_degraded(server: Server, keys: Path) -> None:
    ask(server.url)
    done = status("--url", server.url, "--key-file", keys)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "ready, degraded"
    assert any("FAILED" in line and "bad version 1" in line and "refused by design" in line for line in lines)
    assert any("READY" in line and "good version 1" in line for line in lines)
    assert any(line.split()[:2] == ["responds", "group"] for line in lines)
    for words in ("answers/s", "p99 ms", "connections", "memory", "Prediction log"):
        assert words in done.stdout


def test_for_machines_it_is_the_servers_own_answer(server: Server, keys: Path) -> None:
    ask(server.url)
    done = status("--url", server.url, "--key-file", keys, "--json")
    told: dict[str, Any] = json.loads(done.stdout)
    good = next(one for one in told["models"] if one["name"] == "good")
    assert sum(good["answered"]["counts"]) >= 1
    assert (done.returncode, told["ready"], bool(told["degraded"])) == (1, True, True)


def test_without_the_key_it_is_what_everybody_may_know(server: Server) -> None:
    done = status("--url", server.url)
    assert done.returncode == 1
    assert "good version 1" in done.stdout
    assert "--key-file" in done.stdout


def test_a_server_that_is_well_is_told_by_the_exit_code_and_watched_until_nobody_reads() -> None:
    with fake_http_server([{"name": "good"}]) as running:
        done = status("--url", running.url)
        assert (done.returncode, done.stdout.splitlines()[0]) == (0, "ready")
        command = [sys.executable, str(ROOT / "inference_server.py"), "status", "--watch", "--json"]
        with subprocess.Popen([*command, "--url", running.url], stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout
            looks = [json.loads(watching.stdout.readline())["now"] for _ in range(2)]
            watching.stdout.close()
            assert watching.wait(SOON_S) == 0
    assert looks[0] < looks[1]


def test_nobody_there_has_an_exit_code_of_its_own() -> None:
    done = status("--url", "http://127.0.0.1:1")
    assert (done.returncode, "nobody answers" in done.stderr, done.stderr.count("\n")) == (4, True, 1)


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([0, 10, 0, 0], 0.5, (1.5, True)),
        ([10, 0, 0, 10], 0.5, (1.0, True)),
        ([10, 0, 0, 10], 0.99, (4.0, False)),
        ([0, 0, 0, 0], 0.5, None),
    ],
    ids=["within", "edge", "beyond", "empty"],
)
def test_a_percentile_is_read_from_a_histogram(counts: list[int], share: float, expected: Any) -> None:
    assert quantile(counts, [1.0, 2.0, 4.0], share) == expected
