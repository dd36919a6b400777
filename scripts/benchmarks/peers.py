"""`--peers`: who is installed, what each is asked, and our server beside them (benchmarks.beside does the measuring).

Also our own application under other WSGI servers, with workers of its own: what waiting in threads costs.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from peers.catalogue import BY_NAME, PEERS, Peer

from benchmarks import pictures, wrk
from benchmarks.beside import Limits, Neighbour, Ours, Running, begin, measure
from benchmarks.peer import RunningPeer
from benchmarks.processes import Program, ProgramError
from benchmarks.report import Report
from benchmarks.rounds import CONCURRENCIES, Options
from benchmarks.small_model import rows_for
from benchmarks.targets import ROOT, START_S, Measurement, ModelLoop, Server

THREADS = 64  # of a foreign WSGI server: one for each request under way
CHECKED = 8  # answers of each, before it is measured
# From the project's acceptance: ahead of every peer, and of some in more than requests a second.
AHEAD = Limits(rate_min=1.0)
LIMITS = {
    "mosec": Limits(rate_min=1.0, p99_max=1.0, cpu_max=1.0),
    "fastapi": Limits(rate_min=1.0, p50_max=1.1),
}
LOOP_MIN = 0.95
# Our application elsewhere, by the package to have, and how each is started.
FOREIGN = {
    "gunicorn": Peer(
        "ours under gunicorn",
        ("gunicorn",),
        (
            *("-m", "gunicorn", "-w", "2", "-k", "gthread", "--threads", str(THREADS), "--no-control-socket"),
            *("-b", "127.0.0.1:{port}", "--log-level", "warning", "inference_server:wsgi()"),
        ),
        note="gthread, 2 processes with 64 threads, attached to workers of their own",
    ),
    "granian": Peer(
        "ours under granian",
        ("granian",),
        (
            *("-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", "{port}", "--workers", "2"),
            *("--blocking-threads", str(THREADS), "--factory", "--no-access-log", "--log-level", "warning"),
            "inference_server:wsgi",
        ),
        note="2 processes with 64 threads, attached to workers of their own",
    ),
}


def home(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the peers' virtual environments are."""
    return Path(environment.get("BENCH_PEERS") or ROOT / ".bench" / "peers").absolute()


def chosen(names: Sequence[str]) -> list[Peer]:
    """The peers of these names, or all. Raises ProgramError for a name that is none, nor a foreign server's."""
    known = [*BY_NAME, *FOREIGN]
    for name in names:
        if name not in known:
            raise ProgramError(f"no peer is called {name}; there are {', '.join(known)}")
    return [BY_NAME[name] for name in dict.fromkeys(names) if name in BY_NAME] if names else list(PEERS)


def python_of(peer: Peer) -> Path:
    """The interpreter of a peer, there or not."""
    return home() / peer.name / "bin" / "python"


class Installed:
    """A peer as beside.Neighbour. asked: its bodies, as objects; expected: the right answers to the first of them."""

    def __init__(
        self,
        peer: Peer,
        python: Path,
        asked: Sequence[Any],
        expected: Sequence[float],
        environment: Mapping[str, str],
        folder: Path,
    ) -> None:
        self.name, self.note, self.limits = peer.name, peer.note, LIMITS.get(peer.name, AHEAD)
        self._peer, self._python, self._environment, self._folder = peer, python, environment, folder / peer.name
        encoded = [json.dumps(one).encode() for one in asked]
        self.bodies = wrk.Bodies.write(folder / f"bodies of {peer.name}", encoded, "application/json")
        self._questions = list(zip(encoded, expected, strict=False))

    def start(self) -> AbstractContextManager[Running]:
        """A new process."""
        return RunningPeer(self._peer, self._python, self._folder, self._environment, self._questions)


class Workers(Program):
    """Workers without fronts."""

    def __init__(self, socket: Path, model: Path) -> None:
        command = [sys.executable, str(ROOT / "inference_server.py"), "worker", "--socket", str(socket), str(model)]
        super().__init__(command)

    def wait_until_up(self) -> None:
        """The model is loaded."""
        self.line("ready", START_S)


class Foreign(Installed):
    """Our application under a server that is not ours."""

    def __init__(self, peer: Peer, asked: Sequence[Any], expected: Sequence[float], model: Path, folder: Path) -> None:
        self._socket, self._model = folder / f"{peer.packages[0]}.sock", model
        super().__init__(peer, Path(sys.executable), asked, expected, {"WORKER_SOCKET": str(self._socket)}, folder)
        self.limits = Limits()

    @contextmanager
    def start(self) -> Iterator[Running]:
        """Workers, and the server before them."""
        with Workers(self._socket, self._model), super().start() as running:
            yield running


class Loop:
    """The in-process loop over the same pictures as beside.Neighbour: what a server of pictures is to come close to."""

    name, note, limits = "loop without HTTP", "", Limits(rate_min=LOOP_MIN)

    def __init__(self, model: Path, jpegs: wrk.Bodies, rows: int, *, pipelined: bool) -> None:
        self.bodies = jpegs
        self._model, self._rows, self._pipelined = model, rows, pipelined

    @contextmanager
    def start(self) -> Iterator[Running]:
        """A process with the model."""
        with ModelLoop(self._model) as loop:
            yield _RunningLoop(loop, self._rows, pipelined=self._pipelined)


class _RunningLoop:
    def __init__(self, loop: ModelLoop, rows: int, *, pipelined: bool) -> None:
        self._loop, self._rows, self._pipelined = loop, rows, pipelined
        self.seconds_to_ready = loop.seconds_to_ready

    def load(self, connections: int, seconds: int, bodies: wrk.Bodies) -> Measurement:
        return self._loop.pictures(self._rows, seconds, bodies.folder, pipelined=self._pipelined)


def run(model: Path, names: Sequence[str], options: Options) -> Report:
    """The small model beside all peers that are installed, or those of these names."""
    report = begin("Beside other servers, a small model", "request", model.name, {}, options)
    there = installed(chosen(names), report, options)
    with ModelLoop(model) as loop:
        (size,) = loop.contract["inputs"][0]["shape"]
        rows = rows_for(loop.contract)
        expected = [answer[0] for answer in loop.answers(rows[:CHECKED])]
    environment = {"BENCH_MODEL": str(model), "BENCH_KIND": "numbers", "BENCH_FEATURES": str(size)}
    neighbours: list[Neighbour] = [
        Installed(peer, python_of(peer), [peer.body(row) for row in rows], expected, environment, options.scratch)
        for peer in there
    ]
    for name, peer in FOREIGN.items():
        if names and name not in names:
            continue
        if importlib.util.find_spec(name):
            asked = [peer.body(row) for row in rows]
            neighbours.append(Foreign(peer, asked, expected, model, options.scratch))
        else:
            report.notes.append(f"{peer.name} is left out: {name} is not installed")
    bodies = [json.dumps({"features": row}).encode() for row in rows]
    with Server(model) as server:
        ours = Ours(server, "/predict", wrk.Bodies.write(options.scratch / "bodies", bodies, "application/json"))
        measure(ours, neighbours, CONCURRENCIES, options, report)
        report.usage = server.usage(options.idle_seconds)
    return report


def run_pictures(model: Path, names: Sequence[str], options: Options) -> Report:
    """MobileNetV2 and base64 JPEGs beside the peers that can, and beside a loop without HTTP."""
    settings = {"PREDICT_TIMEOUT_MS": pictures.TIMEOUT_MS}
    report = begin("Beside other servers, MobileNetV2 and base64 JPEGs", "picture", model.name, settings, options)
    there = installed([one for one in chosen(names) if one.picture], report, options)
    jpegs = pictures.photos()
    texts = [base64.b64encode(jpeg).decode() for jpeg in jpegs]
    folder = options.scratch
    raw = wrk.Bodies.write(folder / "jpegs", jpegs, "image/jpeg")
    encoded = [pictures.in_json(jpeg) for jpeg in jpegs]
    with ModelLoop(model) as loop:
        expected = loop.classes(raw.folder)[:CHECKED]
        tried = {
            pipelined: pictures.best_batch(loop, raw.folder, options, pipelined=pipelined)
            for pipelined in (False, True)
        }
    pipelined = max(tried, key=lambda one: max(tried[one][1].values()))
    report.facts["the loop's pictures/s by batch"] = tried[pipelined][1]
    neighbours: list[Neighbour] = [Loop(model, raw, tried[pipelined][0], pipelined=pipelined)]
    environment = {"BENCH_MODEL": str(model), "BENCH_KIND": "pictures"}
    for peer in there:
        asked = [peer.picture(text) for text in texts if peer.picture]
        neighbours.append(Installed(peer, python_of(peer), asked, expected, environment, folder))
    with Server(model, **settings) as server:
        ours = Ours(server, "/classify", wrk.Bodies.write(folder / "bodies", encoded, "application/json"))
        measure(ours, neighbours, pictures.CONCURRENCIES, options, report)
        report.usage = server.usage(options.idle_seconds)
    return report


def installed(peers: Sequence[Peer], report: Report, options: Options) -> list[Peer]:
    """Those with an interpreter of their own; the others are named. Raises ProgramError where all are."""
    absent = [peer.name for peer in peers if not python_of(peer).exists()]
    said = f"not installed, and left out: {', '.join(absent)} (scripts/bench --install-peers {' '.join(absent)})"
    if absent and len(absent) == len(peers):
        raise ProgramError(said)
    if absent:
        options.say(said)
        report.notes.append(said)
    return [peer for peer in peers if peer.name not in absent]
