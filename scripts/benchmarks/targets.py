"""What is measured: the real server, the ordinary WSGI server and the bare model, each in processes of its own.

Owns how each is started and what is read from it. Knows nothing of rounds, nor of what its figures are compared with.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import processes, wrk
from benchmarks.processes import Program, ProgramError

SCRIPTS = Path(__file__).resolve().parents[1]
ROOT = SCRIPTS.parent
START_S = 180.0
RETRY_S = 0.01
CALM_S = 2.0  # between a load and the look at an idle server: a batch of pictures may still be computed


@dataclass(frozen=True)
class Measurement:
    """One leg of one round. A request is one row, or one picture; the percentiles are of a request, or of a call.

    cpu_ms_per_request: processor time of all the target's processes; the load generator's is not in it. cpu_ms_by_role
    divides it, where there are several.
    mean_batch: rows in one call of the model, None where no model is called.
    others_cpu_percent: of the cores' time meanwhile, what went to processes that have nothing to do with this.
    max_ms: of the slowest request.
    """

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms_per_request: float
    errors: int = 0
    mean_batch: float | None = None
    cpu_ms_by_role: Mapping[str, float] = field(default_factory=dict)
    others_cpu_percent: float | None = None
    max_ms: float | None = None


@dataclass(frozen=True)
class Usage:
    """What the processes of one role hold together after the load, and how busy they are without any."""

    processes: int
    pss_mb: float
    rss_mb: float
    idle_cpu_percent: float


class _Listening(Program):
    """A program that prints where it listens, under load."""

    url: str

    def wait_until_up(self) -> None:
        """The port is open."""
        self.url = self.line("listening on ", START_S)

    def load(self, path: str, connections: int, seconds: int, bodies: wrk.Bodies | None = None) -> Measurement:
        """What wrk finds at one of its paths."""
        return self.under(lambda: wrk.run(self.url + path, connections=connections, seconds=seconds, bodies=bodies))

    def under(self, loaded: Callable[[], wrk.Load]) -> Measurement:
        """What a load generator finds, and what its load costs here."""
        roles = {pid: _role(processes.command(pid)) for pid in self.pids()}
        batches_before, cpu_before = self.batches(), {pid: processes.cpu_seconds([pid]) for pid in roles}
        load = loaded()
        cpu_ms = dict.fromkeys(roles.values(), 0.0)
        for pid, role in roles.items():
            cpu_ms[role] += (processes.cpu_seconds([pid]) - cpu_before[pid]) * 1000 / max(load.requests, 1)
        batches = self.batches()
        calls, rows = (after - before for before, after in zip(batches_before, batches, strict=True))
        return Measurement(
            requests_per_s=load.requests_per_s,
            p50_ms=load.p50_ms,
            p99_ms=load.p99_ms,
            cpu_ms_per_request=sum(cpu_ms.values()),
            cpu_ms_by_role=cpu_ms if len(cpu_ms) > 1 else {},
            errors=load.errors + (load.requests == 0),
            mean_batch=rows / calls if calls else None,
            max_ms=load.max_ms,
        )

    def batches(self) -> tuple[float, float]:
        return 0.0, 0.0


class Server(_Listening):
    """inference_server.py with one model, as a user starts it: default settings but for what the environment says."""

    def __init__(self, model: Path, **settings: str) -> None:
        environment = {"HOST": "127.0.0.1", "PORT": "0", **settings}
        super().__init__([sys.executable, str(ROOT / "inference_server.py"), str(model)], environment=environment)

    def wait_until_up(self) -> None:
        """It listens before its models are loaded; both are told."""
        super().wait_until_up()
        self.line("ready after ", START_S)
        while not self._is_ready():
            time.sleep(RETRY_S)
        self.seconds_to_ready = time.monotonic() - self.started

    def _is_ready(self) -> bool:
        try:
            with self._get("/ready"):
                return True
        except urllib.error.HTTPError:
            return False
        except OSError as error:
            raise ProgramError(f"the server says it is ready, and does not answer: {error}") from None

    def _get(self, path: str) -> http.client.HTTPResponse:
        response: http.client.HTTPResponse = urllib.request.urlopen(self.url + path, timeout=10)  # noqa: S310 - http
        return response

    def batches(self) -> tuple[float, float]:
        """(calls of the model, rows in them) since the start."""
        calls, rows = self.counted("inference_batches_total", "inference_rows_total")
        return calls, rows

    def counted(self, *families: str) -> list[float]:
        """Each family's sum over its series."""
        with self._get("/metrics") as response:
            lines = response.read().decode().splitlines()
        return [_sum(lines, family) for family in families]

    def fronts(self) -> int:
        """How many processes speak HTTP."""
        return sum(_role(processes.command(pid)) == "front" for pid in self.pids())

    def usage(self, idle_seconds: float) -> dict[str, Usage]:
        """By role, with the whole server as "all". Nothing may load it meanwhile."""
        time.sleep(CALM_S)
        pids = self.pids()
        before = {pid: processes.cpu_seconds([pid]) for pid in pids}
        started = time.monotonic()
        time.sleep(idle_seconds)
        elapsed = time.monotonic() - started
        idle = {pid: (processes.cpu_seconds([pid]) - before[pid]) * 100 / elapsed for pid in pids}
        roles: dict[str, list[int]] = defaultdict(list)
        for pid in pids:
            roles[_role(processes.command(pid))].append(pid)
        return {role: _usage(members, idle) for role, members in {**roles, "all": pids}.items()}


class ConstantServer(_Listening):
    """Ordinary waitress and Bottle in one process, answering a constant with so many threads."""

    def __init__(self, threads: int) -> None:
        super().__init__([sys.executable, "-m", "benchmarks.constant_server", str(threads)], cwd=SCRIPTS)


class ConstantFront(_Listening):
    """Our own loop in so many processes, answering a constant."""

    def __init__(self, fronts: int) -> None:
        super().__init__([sys.executable, "-m", "benchmarks.constant_front", str(fronts)], cwd=SCRIPTS)


class ModelLoop(Program):
    """The bare model; see benchmarks.model_loop for what it does. `contract` is the model's."""

    def __init__(self, model: Path) -> None:
        super().__init__([sys.executable, "-m", "benchmarks.model_loop", str(model.resolve())], cwd=SCRIPTS)

    def wait_until_up(self) -> None:
        """The model is loaded."""
        self.contract: dict[str, Any] = json.loads(self.line("", START_S))["contract"]
        self.seconds_to_ready = time.monotonic() - self.started

    def calls(self, rows: int, seconds: float) -> Measurement:
        """The function alone, so many rows a call."""
        return self._measure(do="calls", rows=rows, seconds=seconds)

    def array(self, rows: int, seconds: float, file: Path) -> Measurement:
        """The function alone on the rows of a numpy file, so many a call."""
        return self._measure(do="array", rows=rows, seconds=seconds, file=str(file))

    def pictures(self, rows: int, seconds: float, folder: Path, *, pipelined: bool) -> Measurement:
        """Decoding and the function, so many pictures a call, in one thread or two."""
        return self._measure(do="pictures", rows=rows, seconds=seconds, folder=str(folder), pipelined=pipelined)

    def tensors(self, rows: int, seconds: float, file: Path, form: str, *, called: bool = True) -> Measurement:
        """A tensor's bytes to an array and, where `called`, into the function; form: "binary" or "json"."""
        return self._measure(do="tensors", rows=rows, seconds=seconds, file=str(file), form=form, called=called)

    def answers(self, inputs: Sequence[Sequence[float]]) -> list[Any]:
        """What the function says to each row alone."""
        answers: list[Any] = self._ask(do="answers", inputs=inputs)
        return answers

    def classes(self, folder: Path) -> list[int]:
        """The class of each picture of the folder."""
        classes: list[int] = self._ask(do="classes", folder=str(folder))
        return classes

    def _measure(self, **order: Any) -> Measurement:
        found = self._ask(**order)
        return Measurement(
            requests_per_s=found["rows"] / found["seconds"],
            p50_ms=found["p50_ms"],
            p99_ms=found["p99_ms"],
            cpu_ms_per_request=found["cpu_seconds"] * 1000 / found["rows"],
            mean_batch=order["rows"],
        )

    def _ask(self, **order: Any) -> Any:
        self.say(json.dumps(order))
        return json.loads(self.line("", START_S))


def server_settings() -> dict[str, str]:
    """The server's settings that the environment changes, without secrets and without what the bench itself sets."""
    sys.path.insert(0, str(ROOT))
    from front.settings import SECRETS, Settings

    names = {name.upper() for name in asdict(Settings()).keys() - SECRETS} - {"HOST", "PORT", "MODEL_PATH", "MODEL_DIR"}
    return {name: os.environ[name] for name in sorted(names) if os.environ.get(name)}


def _sum(lines: Sequence[str], family: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{family}{{", f"{family} ")))


def _role(command: Sequence[str]) -> str:
    return command[command.index("--child") + 1] if "--child" in command else "supervisor"


def _usage(pids: Sequence[int], idle_cpu_percent: dict[int, float]) -> Usage:
    memories = [processes.memory(pid) for pid in pids]
    return Usage(
        processes=len(pids),
        pss_mb=sum(one.pss_mb for one in memories),
        rss_mb=sum(one.rss_mb for one in memories),
        idle_cpu_percent=sum(idle_cpu_percent[pid] for pid in pids),
    )
