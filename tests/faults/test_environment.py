"""Row 45: a disk that nobody may write to, no temporary folder, no shared memory, files that are not there.

The whole server, with a real model: TensorFlow and Keras like temporary files, too. It serves, or ends at once and says
why in one line.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.asking import get, post
from tests.harness import ROOT, SOON_S, wait_until

Figure = Callable[[int, str, str], None]
START_S = 60.0
ENDS_S = 2.0
ENTRY = [sys.executable, str(ROOT / "inference_server.py")]
# Read-only: the root, and whatever is mounted below it where programs like to write. Then become the server.
READ_ONLY = """
set -e
for folder in /tmp /var/tmp /dev/shm /home /root "$HOME" "$PWD"; do
    if [ -d "$folder" ]; then mount --bind "$folder" "$folder"; mount -o remount,ro,bind "$folder"; fi
done
mount -o remount,ro,bind /
mount -t tmpfs -o ro none /dev/shm
if touch /dev/shm/x /tmp/x "$PWD/x" /x 2>/dev/null; then echo "still writable" >&2; exit 99; fi
exec "$@"
"""
WAYS = (["unshare", "-m"], ["unshare", "-rm"], ["sudo", "-nE", "unshare", "-m"])


@functools.cache
def read_only() -> list[str]:
    """What to put before a command, so that it finds no place to write to; nothing where no such place can be made."""
    for way in WAYS:
        command = [*way, "sh", "-c", READ_ONLY, "sh"]
        try:
            if subprocess.run([*command, "true"], cwd=ROOT, capture_output=True).returncode == 0:
                return command
        except FileNotFoundError:
            continue
    return []


def environment(**more: str) -> dict[str, str]:
    """No temporary folder that could be written to, not even by root."""
    nowhere = dict.fromkeys(("TMPDIR", "TEMP", "TMP", "XDG_CACHE_HOME"), "/proc/nowhere")
    return {**os.environ, **nowhere, "WARM_UP_BUDGET_S": "0.5", "FRONTS": "1", **more}


@contextmanager
def serving(before: Sequence[str], arguments: Sequence[str], **more: str) -> Iterator[tuple[str, float]]:
    """Where a server listens and how long it took to be ready, for the block; then it ends as it should."""
    begun = time.monotonic()
    command = [*before, *ENTRY, *arguments, "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        try:
            said = process.stdout.readline()
            assert said.startswith("listening on "), said + process.stderr.read()
            url = said.split()[-1]
            said = process.stdout.readline()
            assert said.startswith("ready after"), process.stderr.read()
            yield url, time.monotonic() - begun
            process.send_signal(signal.SIGTERM)
            assert process.wait(SOON_S) == 0
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


@pytest.mark.parametrize("where", ["nowhere to write", "no temporary folder"])
def test_a_server_that_can_write_nowhere_serves(where: str, demo_models: Path, figure: Figure) -> None:
    before = read_only() if where == "nowhere to write" else []
    with serving(before, [str(demo_models / "dummy")]) as (url, seconds):
        reply = post(url, "/predict", {"features": [1.0] * 10})
        assert (reply.status, reply.json["ok"]) == (200, True)
    how = "mounted read-only" if before else "by TMPDIR only"
    figure(45, "serves, or ends <= 2 s with one line", f"{where} ({how}): serves after {seconds:.1f} s")


def test_a_log_that_cannot_be_written_is_said_and_keeps_nobody_from_serving(demo_models: Path, figure: Figure) -> None:
    arguments = [str(demo_models / "dummy"), "--prediction-log-dir", "/proc/nowhere/log"]
    with serving(read_only(), arguments) as (url, seconds):
        assert post(url, "/predict", {"features": [1.0] * 10}).status == 200
        told = wait_until(lambda: get(url, "/ready").json["degraded"], SOON_S, "the log is degraded")
        assert any("log" in one for one in told)
    figure(45, "serves, or ends <= 2 s with one line", f"no place for the log: serves after {seconds:.1f} s, says so")


UNUSABLE = {
    "keys that are not there": ["{model}", "--api-key-file", "/proc/nowhere/keys"],
    "keys that are a folder": ["{model}", "--admin-key-file", "/proc"],
    "a socket in no folder": ["worker", "--socket", "/proc/nowhere/socket", "{model}"],
    "a model that is not there": ["/proc/nowhere/model.keras"],
    "a folder of models that is not there": ["--model-dir", "/proc/nowhere"],
    "a host that is none": ["{model}", "--allowed-hosts", "http://x"],
    "an origin that is none": ["{model}", "--allowed-origins", "*"],
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_work_ends_at_once_with_one_line(name: str, demo_models: Path, figure: Figure) -> None:
    arguments = [one.format(model=demo_models / "dummy") for one in UNUSABLE[name]]
    begun = time.monotonic()
    done = subprocess.run(
        [*read_only(), *ENTRY, *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=START_S
    )
    seconds = time.monotonic() - begun
    assert done.returncode in (2, 3, 4), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("inference_server: ")
    assert len(line) < 300
    figure(45, "serves, or ends <= 2 s with one line", f"{name}: ends after {seconds:.2f} s with {done.returncode}")
    assert seconds < 5 * ENDS_S
