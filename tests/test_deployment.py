"""What docs/deployment.md shows is run as it stands: the balancer for real; the rest is held against the code."""

from __future__ import annotations

import configparser
import re
import shlex
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pytest

from batching.families import METRICS
from commands.arguments import parse
from front.settings import Settings
from tests.faults.asking import get, post
from tests.harness import ROOT, SOON_S, Server, fake_http_server, listens, wait_until
from tests.system_tools import system_tool

TEXT = (ROOT / "docs" / "deployment.md").read_text()
SETTINGS = {one.name.upper() for one in fields(Settings)}
DOUBLE = {"name": "double", "kind": "double"}
HOST = "models.example.com"


def block(language: str, number: int = 0) -> str:
    """The text of a code block."""
    found: list[str] = re.findall(rf"```{language}\n(.+?)```", TEXT, re.DOTALL)
    return found[number]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def balancer(servers: list[Server], folder: Path) -> Iterator[str]:
    """HAProxy with the configuration of the document, but for the addresses."""
    url = f"http://127.0.0.1:{free_port()}"
    text = block("haproxy").replace("bind :8000", f"bind {url.removeprefix('http://')}")
    for number, server in enumerate(servers, 1):
        assert f"10.0.0.{number}:8080" in text
        text = text.replace(f"10.0.0.{number}:8080", server.url.removeprefix("http://"))
    path = folder / "haproxy.cfg"
    path.write_text(text)
    program = system_tool("haproxy")
    with subprocess.Popen([program, "-db", "-f", path], stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: process.poll() is not None or listens(url), SOON_S, "HAProxy listens")
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            wait_until(lambda: get(url, "/health", Host=HOST).status == 200, SOON_S, "HAProxy has found a server")
            yield url
        finally:
            process.terminate()


class Callers:
    """Threads that ask until they are stopped. statuses: how often each was answered."""

    def __init__(self, url: str, count: int) -> None:
        self.statuses: Counter[int] = Counter()
        self._url = url
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._over.is_set():
            self.statuses[post(self._url, "/predict", {"features": [1.0]}, Host=HOST).status] += 1

    def until_answered(self, more: int) -> None:
        wanted = self.statuses.total() + more
        wait_until(lambda: self.statuses.total() >= wanted, SOON_S, f"{more} more requests are answered")

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(SOON_S)


def test_servers_behind_the_balancer_are_stopped_one_after_the_other_and_no_request_fails(tmp_path: Path) -> None:
    known = {"allowed_hosts": HOST}
    with (
        fake_http_server([DOUBLE], front_settings=known) as first,
        fake_http_server([DOUBLE], front_settings=known) as second,
        balancer([first, second], tmp_path) as url,
    ):
        callers = Callers(url, 4)
        try:
            callers.until_answered(100)
            first.signal()
            first.wait()
            callers.until_answered(100)
        finally:
            callers.end()
        assert set(callers.statuses) == {200}
        second.signal()
        second.wait()
        assert get(url, "/ready", Host=HOST).status == 503


def test_the_unit_starts_what_there_is_with_settings_that_there_are() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # the documented way to keep capitals
    unit.read_string(block("ini"))
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert program.endswith("/inference-server")
    verb, settings = parse(arguments, "0")
    assert (verb, settings.port) == ("serve", 8080)
    named = re.findall(r"^Environment=([A-Z_]+)=", block("ini"), re.MULTILINE)
    assert named
    assert set(named) <= SETTINGS
    assert float(unit["Service"]["TimeoutStopSec"]) > Settings().drain_timeout_s


def test_every_metric_that_an_alarm_asks_for_is_there() -> None:
    known = {one.name for one in METRICS}
    asked = {re.sub("_bucket$", "", name) for name in re.findall(r"inference_\w+", block("yaml", 1))}
    assert asked
    assert asked <= known


@pytest.mark.parametrize("document", ["deployment", "migration", "tuning"])
def test_every_setting_that_a_document_names_is_there(document: str) -> None:
    text = (ROOT / "docs" / f"{document}.md").read_text()
    named = set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`", text))
    assert named
    assert named <= SETTINGS | {"NOT_READY"}
