"""Fake models for a real worker: no TensorFlow, one misbehaviour each. `load` is the loader."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.contract import Contract, Tensor
from models.errors import LoadError
from models.narrowing import narrow
from tests.fakes_tensors import Echo

POISON = 666.0
# A row that waits at the gate of any model that has one.
HELD = 555.0
LEAK_BYTES = 10 << 20
# Takes longer than anybody lives, in native code that holds the interpreter's lock.
ENDLESS = re.compile("(?:a+)+$"), "a" * 60 + "b"


class Fake:
    """Doubles its input (or multiplies it by `factor`), after whatever its kind does.

    Reference: name, version, kind, and what the kind needs. `seconds` is what a call takes, `cost` what warm-up says it
    takes (from 2 ms on, batches run in the computing thread), `description_bytes` how much it has to say of itself;
    `shape` of one row, `classes` of a classifier, and `narrow`, its contract.json. `seen` is a file that gets a line of
    JSON for every call: the values.
    """

    def __init__(self, reference: dict[str, Any]) -> None:
        self.reference = reference
        self.kind = reference.get("kind", "double")
        self.seconds = reference.get("seconds", 0.0)
        size = reference.get("size", 1)
        shape = tuple(reference.get("shape", () if size is None else (size,)))
        classes = reference.get("classes")
        self.contract = Contract(
            reference["name"],
            reference["version"],
            (Tensor("x", "float32", shape),),
            (Tensor("y", "float32", shape if classes is None else (classes,)),),
            description="x" * reference.get("description_bytes", 0),
            routes=tuple(reference.get("routes", ())),
        )
        if "narrow" in reference:  # what a contract.json would hold
            self.contract = narrow(self.contract, reference["narrow"])
        self.description = self.contract.to_json()
        self.max_rows: int | None = reference.get("max_rows")
        self.calibration: dict[str, Any] | None = None
        self.others: dict[str, Fake] = {}
        self.calls = 0
        self.call_rows: list[int] = []
        self._leaked: list[bytes] = []

    def warm_up(self, sizes: Sequence[int], budget_s: float) -> dict[int, float]:
        return dict.fromkeys(sizes, self.reference.get("cost", self.seconds or 1e-5))

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        x = inputs[0]
        self.calls += 1
        self.call_rows.append(len(x))
        if "seen" in self.reference:
            self._write_down(x)
        if "gate" in self.reference and (self.kind == "gate" or bool((x == HELD).any())):
            self._wait_at_gate(x)
        if self.seconds:
            time.sleep(self.seconds)
        poisoned = bool((x == POISON).any())
        match self.kind:
            case "poison" if poisoned:
                raise ValueError("poison")
            case "crash" if poisoned:
                os.abort()
            case "exits":  # what no model should do
                raise SystemExit(7)
            case "wrong_length":
                return [x[:-1]]
            case "no_outputs":
                return []
            case "complex":  # nothing a frame has a code for
                return [x.astype(np.complex64)]
            case "objects":
                return [np.full(len(x), 5, dtype=object)]
            case "nan":
                return [np.full_like(x, np.nan)]
            case "calls":  # how often it was called, to see how batches were cut
                return [np.full_like(x, self.calls)]
            case "pid":
                return [np.full_like(x, os.getpid())]
            case "modules":  # which of the named modules this process has imported
                return [np.full_like(x, sum(name in sys.modules for name in self.reference["modules"]))]
            case "main_thread":  # whether the batch runs in the worker's loop
                return [np.full_like(x, threading.current_thread() is threading.main_thread())]
            case "scores":  # the class is the brightness of the picture, or the first feature
                level = x.reshape(len(x), -1).mean(axis=1).round().astype(int) % self.reference["classes"]
                return [np.eye(self.reference["classes"], dtype=np.float32)[level]]
            case "large":
                return [np.repeat(x, self.reference["columns"], axis=1)]
            case "spins" if poisoned:
                ENDLESS[0].match(ENDLESS[1])
            case "leaks":
                self._leaked.append(b"x" * LEAK_BYTES)
            case "hungry" if poisoned:
                _eat_all_memory()
        return [x * self.reference.get("factor", 2)]

    def _write_down(self, x: np.ndarray) -> None:
        line = json.dumps(x.ravel().tolist()).encode() + b"\n"
        fd = os.open(self.reference["seen"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, line)  # in one call: another worker may write there, too
        os.close(fd)

    def canary(self) -> None:
        """Its own row fails while there is a file where `sick` says."""
        if os.path.exists(self.reference.get("sick", "")):
            raise RuntimeError("sick")

    def _wait_at_gate(self, x: np.ndarray) -> None:
        """Tell tests.harness.Gate what came, and wait until it lets go; a gate that is gone is open."""
        with socket.socket(socket.AF_UNIX) as gate:
            try:
                gate.connect(self.reference["gate"])
                gate.sendall(json.dumps({"pid": os.getpid(), "values": x.ravel().tolist()}).encode() + b"\n")
                gate.recv(1)
            except OSError:
                return


def _eat_all_memory() -> None:
    """Take memory until there is no more, and die of it as the kernel would have it."""
    limit = 1 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    taken = []
    try:
        while True:
            taken.append(bytes(LEAK_BYTES))
    except MemoryError:
        os.kill(os.getpid(), signal.SIGKILL)


def load(reference: dict[str, Any], options: dict[str, Any]) -> Any:
    """The loader: a kind that cannot load says so in its own way, and one of TensorFlow's is a real model."""
    kind = reference.get("kind")
    time.sleep(reference.get("load_seconds", 0.0))
    if kind in ("keras", "saved_model"):
        from models import runtime

        return runtime.load(reference, options)
    if kind == "echo":
        return Echo(reference)
    if kind == "refuses":
        raise LoadError("it is refused by design")
    if kind == "broken":
        raise RuntimeError("secret detail /etc/passwd")
    if kind == "dies":
        os.abort()
    if kind == "held":  # waits at the gate for as long as the test likes
        Fake(reference)._wait_at_gate(np.zeros(0))
    if kind == "slow_refusal":
        time.sleep(reference["seconds"])
        raise LoadError("it is refused after a while")
    if kind == "needs_file" and not os.path.exists(reference["path"]):
        raise LoadError("its file is missing")
    return Fake(reference)
