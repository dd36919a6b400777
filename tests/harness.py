"""Real servers for tests: started, watched and ended here, with nothing of them left behind. Only the models are fake.

Every wait has a limit and ends on the condition itself: `wait_until` is the one place in the tests that polls, and a
`Gate` lets a test see what a model was called with and hold that call for as long as it likes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil

from batching.blocking import BlockingClient
from batching.client import Answer, Outcome, Target
from batching.control import ControlChannel
from tests.fake_planner import Steering

ROOT = Path(__file__).parent.parent
# How long anything may take on a busy machine that ought to happen at once.
SOON_S = 20.0
# What a test's server may hold of its parent's environment: what a caller sets for one test comes on top.
# A batch may take long: a gate may be held for as long as a busy machine needs to look at what is behind it.
TUNING = {"warm_up_budget_s": 1.0, "drain_timeout_s": 10.0, "fronts": 1, "batch_limit_ms": 60_000.0}

T = TypeVar("T")
Groups = dict[str, list[dict[str, Any]]] | list[dict[str, Any]]


def wait_until(condition: Callable[[], T], timeout_s: float, what: str) -> T:
    """What `condition` returns as soon as that is true; an AssertionError that says `what` when it never is."""
    give_up = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < give_up, f"not within {timeout_s} s: {what}"
        time.sleep(0.005)
    return value


class Gate:
    """Where calls of a fake model of kind "gate" wait: `model` makes its reference, `next_call` sees the next one."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, f"gate{len(os.listdir(folder))}")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._listener.settimeout(SOON_S)
        self._calls: list[Call] = []

    def model(self, name: str = "gated", **more: Any) -> dict[str, Any]:
        """A model that waits here in every call, in the worker's computing thread."""
        return {"name": name, "kind": "gate", "gate": self.path, "cost": 0.01, **more}

    def next_call(self) -> Call:
        """The model's next call, which lasts until it is let go. Raises TimeoutError when none comes."""
        sock, _ = self._listener.accept()
        self._calls.append(Call(sock))
        return self._calls[-1]

    def open(self) -> None:
        """Let go of every call, and of all that come later."""
        self._listener.close()
        for call in self._calls:
            call.let_go()


class Call:
    """One call of the model that is going on. `values`: what it was called with, flat; `pid`: the worker."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        with sock.makefile() as lines:
            told = json.loads(lines.readline())
        self.pid: int = told["pid"]
        self.values: list[float] = told["values"]

    def let_go(self) -> None:
        """Let the call end; the answer is the input doubled."""
        self._socket.close()


@contextmanager
def gate() -> Iterator[Gate]:
    """A gate in a short temporary folder; open at the end."""
    with tempfile.TemporaryDirectory() as folder:
        made = Gate(folder)
        try:
            yield made
        finally:
            made.open()


class Server:
    """A supervisor in a process of its own. `expected_exit` is 0 unless the test says how else it has ended it."""

    def __init__(self, folder: str, order: dict[str, Any], environment: dict[str, str]) -> None:
        self.folder = folder
        self.planner = Steering(folder)  # of a server that was started as `planned`
        self.expected_exit = 0
        self.url = ""
        self._log = os.path.join(folder, "log")
        self._seen: dict[int, psutil.Process] = {}
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fake_server"],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # so that a test can signal the whole group
            )
        self.pid = self.process.pid
        assert self.process.stdin
        assert self.process.stdout
        self._said = self.process.stdout
        with self.process.stdin as stdin:
            json.dump(order, stdin)

    def hear(self) -> dict[str, Any]:
        """The next line of what tests.fake_server says: {"url"}, then {"ready"}. Empty when it has ended."""
        heard: dict[str, Any] = json.loads(self._said.readline() or "{}")
        return heard

    @property
    def log(self) -> str:
        """What the supervisor and all its children have written to stderr."""
        return Path(self._log).read_text(errors="replace")

    def children(self, role: str = "") -> list[int]:
        """Process ids of the fronts or workers that are alive, oldest first."""
        found = []
        for process in self._children():
            try:
                command = process.cmdline()
            except psutil.Error:
                continue
            if len(command) > 2 and command[-3] == "--child" and command[-2].startswith(role):
                found.append(process)
        return [process.pid for process in sorted(found, key=lambda process: (process.create_time(), process.pid))]

    def worker(self) -> int:
        """The process id of the only worker."""
        (pid,) = self.children("worker")
        return pid

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Signal the supervisor."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = SOON_S) -> int:
        """The exit code. Raises TimeoutExpired when it goes on."""
        return self.process.wait(timeout_s)

    def kill(self, pid: int) -> None:
        """`kill -9` of one of the children."""
        self._children()  # what the kernel may take down with it shall be looked for later
        os.kill(pid, signal.SIGKILL)

    def kill_supervisor(self) -> None:
        """`kill -9` of the supervisor itself."""
        self._children()
        self.expected_exit = -signal.SIGKILL
        self.process.kill()

    def survivors(self) -> list[psutil.Process]:
        """Children ever seen that still run. A zombie is not running: in a container nobody may collect it."""
        return [process for process in self._seen.values() if _runs(process)]

    def end(self) -> None:
        """End it if it has not ended yet, and hold that it ended as it should and took everything with it."""
        self._children()
        if self.process.poll() is None:
            self.signal()
        try:
            code = self.wait()
            wait_until(lambda: not self.survivors(), 2.0, f"no process is left of {sorted(self._seen)}")
        finally:
            for process in self.survivors():
                process.kill()
            self.process.kill()
            self.process.wait()
            self._said.close()
        assert code == self.expected_exit

    def _children(self) -> list[psutil.Process]:
        try:
            children = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self._seen.update((child.pid, child) for child in children)
        return children


class Supervised(Server):
    """A supervisor without fronts, and a client attached to it."""

    client: BlockingClient

    def attach(self, see: Callable[[dict[str, Any]], None] = lambda snapshot: None) -> BlockingClient:
        """One more client: what a foreign WSGI process would hold. `see` is shown every snapshot."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(os.path.join(self.folder, "socket"))

        def compile(snapshot: dict[str, Any]) -> dict[str, Any]:
            see(snapshot)
            return snapshot

        return BlockingClient(ControlChannel(sock), compile)

    def model(self, name: str) -> dict[str, Any]:
        """The model's entry in the newest snapshot."""
        (entry,) = [model for model in self.client.view["models"] if model["name"] == name]
        return dict(entry)

    def is_loaded(self) -> bool:
        """Whether it is decided for every model."""
        models = self.client.view["models"]
        return bool(models) and all(model["state"] != "LOADING" for model in models)

    def target(self, name: str) -> Target:
        """Where items for the model go."""
        entry = self.model(name)
        return Target(entry["group"], entry["generation"], entry["index"])

    def call(self, name: str, values: Sequence[float], timeout_s: float = SOON_S) -> list[Outcome]:
        """The outcomes of one item for each value, each of one row and one column. Raises as BlockingClient.call."""
        items = [(1, [np.array([[value]], np.float32)]) for value in values]
        return self.client.call(self.target(name), items, time.monotonic() + timeout_s)

    def until_state(self, name: str, state: str) -> dict[str, Any]:
        """The model's entry once it is in this state."""
        wait_until(lambda: self.client.view["serial"], SOON_S, "a first snapshot")
        return wait_until(lambda: self.model(name)["state"] == state and self.model(name), SOON_S, f"{name} is {state}")

    def until_replaced(self, workers: list[dict[str, Any]]) -> None:
        """Wait until there are as many workers as in these entries of an older snapshot, and others."""
        ids = {worker["id"] for worker in workers}

        def replaced() -> bool:
            now = self.client.view["workers"]
            return len(now) == len(workers) and {worker["id"] for worker in now} != ids

        wait_until(replaced, SOON_S, "another worker is ready")

    def counted(self, name: str, *labels: str) -> float:
        """A counter or gauge over all processes, as it stands now."""
        return self.client.counters.read().get((name, labels), [0.0])[0]


def values(outcomes: Sequence[Outcome]) -> list[float]:
    """All numbers of the outcomes, flat; an AssertionError when one is no answer."""
    found: list[float] = []
    for outcome in outcomes:
        assert isinstance(outcome, Answer), outcome
        found += outcome.outputs[0].ravel().tolist()
    return found


@contextmanager
def supervised(
    groups: Groups,
    *,
    wait: bool = True,
    attach: bool = True,
    planned: bool = False,
    environment: dict[str, str] | None = None,
    **settings: Any,
) -> Iterator[Supervised]:
    """A supervisor with fake models and an attached client (unless `attach` is false); READY unless `wait` is false.

    groups: group name -> references of tests.fakes, or the references of one group; "version" is 1 unless given.
    planned: what is wanted may change, see tests.fake_planner. terminal: what it hangs on, as from a shell.
    """
    with _folder() as folder:
        path = os.path.join(folder, "socket")
        order = _order(groups, http=False, socket=path, settings=settings, planned=folder if planned else None)
        server = Supervised(folder, order, environment or {})
        with _ended(server):
            assert server.hear() == {"url": None}
            with ExitStack() as stack:
                if attach:
                    server.client = stack.enter_context(closing(server.attach()))
                if wait:
                    assert server.hear(), "it ended while it started"
                    wait_until(server.is_loaded, SOON_S, "no model is loading")
                yield server
        assert server.expected_exit < 0 or not os.path.exists(path), "the socket's path is left behind"


@contextmanager
def fake_http_server(
    groups: Groups,
    *,
    wait: bool = True,
    planned: bool = False,
    environment: dict[str, str] | None = None,
    **settings: Any,
) -> Iterator[Server]:
    """The whole server over HTTP on a free port, with fake models; ready unless `wait` is false."""
    with _folder() as folder:
        order = _order(groups, http=True, socket=None, settings=settings, planned=folder if planned else None)
        server = Server(folder, order, environment or {})
        with _ended(server):
            server.url = server.hear()["url"]
            if wait:
                assert server.hear(), "it ended while it started"
            yield server
        assert not listens(server.url), "the port is still open"


def listens(url: str) -> bool:
    """Whether anybody accepts connections there."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _order(
    groups: Groups, *, http: bool, socket: str | None, settings: dict[str, Any], planned: str | None
) -> dict[str, Any]:
    named = groups if isinstance(groups, dict) else {"default": groups}
    versioned = {name: [{"version": "1", **model} for model in models] for name, models in named.items()}
    refused = settings.pop("refused", [])
    front_settings = settings.pop("front_settings", {})
    terminal = settings.pop("terminal", None)
    return {
        "groups": versioned,
        "refused": refused,
        "front_settings": front_settings,
        "settings": {**TUNING, "port": 0, **settings},
        "http": http,
        "socket": socket,
        "planned": planned,
        "terminal": terminal,
    }


@contextmanager
def _folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is too long for a socket's path
        yield folder


@contextmanager
def _ended(server: Server) -> Iterator[None]:
    """End the server after the block; whatever fails then shows the server's log."""
    try:
        try:
            yield
        finally:
            server.end()
    except BaseException as error:
        error.add_note(f"The server's log:\n{server.log[-8000:]}")
        raise


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
