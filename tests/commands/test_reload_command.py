"""`inference_server.py reload` against what a server may answer; the server here is a few lines of the test's own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ROOT, SOON_S

KEY = "a-key-of-more-than-sixteen-characters"
READY = {"name": "a", "version": "3", "state": "READY", "reason": None}
FAILED = {"name": "b", "version": "2", "state": "FAILED", "reason": "it is half a copy; version 1 serves"}


class Answers(HTTPServer):
    """Answers every request alike, and remembers what it was asked."""

    status = 200
    answer: bytes = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request of the command's."""

    server: Answers

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Not in the tests' output."""


@contextmanager
def answering(status: int, answer: Any) -> Iterator[Answers]:
    with Answers() as server:
        server.status, server.answer = status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "inference_server.py"), "reload", *arguments],
        capture_output=True,
        text=True,
        timeout=SOON_S,
        env={**os.environ, "no_proxy": "*"},
    )


def test_everything_is_looked_at_again_and_each_version_is_a_line(tmp_path: Path) -> None:
    with answering(200, {"ok": True, "models": [READY, FAILED]}) as server:
        done = run("--url", server.url)
        assert server.asked == [("/reload", None, {"model": None, "action": "reload"})]
    assert done.stdout == "a version 3 READY\nb version 2 FAILED: it is half a copy; version 1 serves\n"
    assert (done.returncode, done.stderr) == (0, "")


def test_one_model_is_named_taken_back_and_the_key_is_sent(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# of the operator\n\n{KEY}\nanother\n")
    with answering(200, {"ok": True, "models": []}) as server:
        done = run("digits", "--rollback", "--url", f"{server.url}/", "--key-file", str(tmp_path / "keys"))
        assert server.asked == [("/reload", f"Bearer {KEY}", {"model": "digits", "action": "rollback"})]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (500, {"ok": False, "message": "model b version 2 is half a copy", "models": [FAILED]}, "is half a copy"),
        (401, {"ok": False, "error": "UNAUTHORIZED", "message": "this route needs a key"}, "needs a key"),
        (200, {"ok": False, "reason": "there is nothing to go back to"}, "nothing to go back to"),
        (404, b"<html>nothing here</html>", "not this server"),
        (200, b"[1]", "not this server"),
    ],
    ids=["failed", "no-key", "refused", "another-server", "no-object"],
)
def test_a_refusal_is_one_line_on_stderr_and_its_own_code(status: int, answer: Any, said: str) -> None:
    with answering(status, answer) as server:
        done = run("--url", server.url)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_nobody_there_is_a_code_of_its_own() -> None:
    with socket.socket() as probe:  # bound but not listening: nobody accepts, and nobody else gets the port
        probe.bind(("127.0.0.1", 0))
        done = run("--url", f"http://127.0.0.1:{probe.getsockname()[1]}")
    assert done.returncode == 4
    assert "nobody answers at http://127.0.0.1" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["--url", "file:///etc/passwd"], ["--key-file", "/nowhere/keys"], ["a", "b"], ["--key-file", os.devnull]],
    ids=["url", "no-file", "two-models", "no-key"],
)
def test_what_makes_no_sense_is_a_question_of_usage(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
