"""Another server as a program: started under its own interpreter, found with all that it starts, checked, and ended.

Knows peers.catalogue's entries and nothing of what is measured.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peers.catalogue import Peer

from benchmarks import processes, wrk
from benchmarks.processes import Program, ProgramError
from benchmarks.targets import ROOT, SCRIPTS, START_S, Measurement

# Above most systems' ports for outgoing connections, which could take it before the peer does; two more for its own.
PORTS = range(20_000, 32_000, 4)
RETRY_S = 0.05
ASK_S = 30.0
UNDERSTOOD = (400, 415, 422)  # whoever answers so is up, and will not change its mind
TOLERANCE = 1e-4  # absolute and relative: XLA adds up in another order
TOKEN = "BENCH_PEER_TOKEN"  # noqa: S105 - marks processes, opens nothing


class RunningPeer(Program):
    """A peer with one model. questions: bodies and the right answers to them. seconds_to_ready: until the first one."""

    def __init__(
        self,
        peer: Peer,
        python: Path,
        folder: Path,
        environment: Mapping[str, str],
        questions: Sequence[tuple[bytes, float]],
    ) -> None:
        self.peer = peer
        self._questions = questions
        self._token = uuid.uuid4().hex
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in peer.files:
            filled = text.replace("{port}", str(self._port)).replace("{port+1}", str(self._port + 1))
            (folder / name).write_text(filled)
        command = [part.replace("{port}", str(self._port)).replace("{folder}", str(folder)) for part in peer.command]
        own = {"PYTHONPATH": f"{SCRIPTS}:{ROOT}", "HOME": str(folder), "PYTHONUNBUFFERED": "1", TOKEN: self._token}
        super().__init__(
            [str(python), *command], cwd=SCRIPTS, environment={**environment, **dict(peer.environment), **own}
        )

    def wait_until_up(self) -> None:
        """It answers, and right."""
        give_up, refused = time.monotonic() + START_S, ""
        while True:
            try:
                self.ask(self._questions[0][0])
                break
            except urllib.error.HTTPError as error:
                refused = f": {error.code} {error.read()[:200].decode(errors='replace')}"
                if error.code in UNDERSTOOD:
                    raise ProgramError(f"{self.peer.name} refuses the question{refused}") from None
            except (OSError, http.client.HTTPException):
                pass  # not yet
            if self._process.poll() is not None:
                raise ProgramError(f"{self.peer.name} ended{self._last_words()}")
            if time.monotonic() > give_up:
                raise ProgramError(
                    f"{self.peer.name} did not answer within {START_S:.0f} s{refused}{self._last_words()}"
                )
            time.sleep(RETRY_S)
        self.seconds_to_ready = time.monotonic() - self.started
        for question, right in self._questions:
            answer = self.ask(question)
            if not isinstance(answer, int | float) or abs(answer - right) > TOLERANCE + TOLERANCE * abs(right):
                raise ProgramError(f"{self.peer.name} answers {str(answer)[:40]} for {right}")

    def ask(self, body: bytes) -> Any:
        """One request, and what the answer says. Raises OSError (HTTPError of a refusal) and ProgramError."""
        request = urllib.request.Request(  # noqa: S310 - http
            self.url + self.peer.path, body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=ASK_S) as response:  # noqa: S310 - http
            content = response.read()
        try:
            return self.peer.answer(json.loads(content))
        except (ValueError, LookupError, TypeError):
            raise ProgramError(f"{self.peer.name} answers something else: {content[:200]!r}") from None

    def load(self, connections: int, seconds: int, bodies: wrk.Bodies) -> Measurement:
        """What wrk finds, and what it costs all of the peer's processes."""
        self.ask(self._questions[0][0])  # what a load before has left in its queue is answered now
        before = {pid: processes.cpu_seconds([pid]) for pid in self.pids()}
        load = wrk.run(self.url + self.peer.path, connections=connections, seconds=seconds, bodies=bodies)
        used = sum(processes.cpu_seconds([pid]) - before.get(pid, 0.0) for pid in self.pids())
        return Measurement(
            requests_per_s=load.requests_per_s,
            p50_ms=load.p50_ms,
            p99_ms=load.p99_ms,
            cpu_ms_per_request=used * 1000 / max(load.requests, 1),
            errors=load.errors + (load.requests == 0),
        )

    def pids(self) -> list[int]:
        """Its session, and whoever carries its mark: some start daemons in sessions of their own."""
        return sorted({*super().pids(), *marked(self._token)})

    def stop(self) -> None:
        """SIGTERM first. Some leave processes behind, which is theirs to answer for: they are killed without a word."""
        if not hasattr(self, "_process"):  # it could not be started
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(processes.STOP_S)
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProgramError):
            super().stop()


def marked(token: str) -> set[int]:
    """The processes that were started with this mark, and what those have started: a title may overwrite the mark."""
    found, mark = set(), f"{TOKEN}={token}".encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                found.add(int(entry.name))
    return processes.with_descendants(found)


def free_port() -> int:
    """The first of a few that are free now."""
    for port in PORTS:
        if all(_is_free(one) for one in (port, port + 1)):
            return port
    raise ProgramError("no port is free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
