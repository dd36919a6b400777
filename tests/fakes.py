"""Fake models for a real worker: no TensorFlow, one misbehaviour each. `load` is the loader."""

from __future__ import annotations

import json
import os
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

POISON = 666.0


class Fake:
    """Doubles its input, after whatever its kind does.

    Reference: name, version, kind, and what the kind needs. `seconds` is what a call takes, `cost` what warm-up says it
    takes (from 2 ms on, batches run in the computing thread), `description_bytes` how much it has to say of itself;
    `shape` of one row, `classes` of a classifier, and `narrow`, its contract.json.
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
        self.calls = 0
        self.call_rows: list[int] = []

    def warm_up(self, sizes: Sequence[int], budget_s: float) -> dict[int, float]:
        return dict.fromkeys(sizes, self.reference.get("cost", self.seconds or 1e-5))

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        x = inputs[0]
        self.calls += 1
        self.call_rows.append(len(x))
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
            case "gate":
                self._wait_at_gate(x)
            case "scores":  # the class is the brightness of the picture, or the first feature
                level = x.reshape(len(x), -1).mean(axis=1).round().astype(int) % self.reference["classes"]
                return [np.eye(self.reference["classes"], dtype=np.float32)[level]]
            case "large":
                return [np.repeat(x, self.reference["columns"], axis=1)]
        return [x * 2]

    def _wait_at_gate(self, x: np.ndarray) -> None:
        """Tell tests.harness.Gate what came, and wait until it lets go; a gate that is gone is open."""
        with socket.socket(socket.AF_UNIX) as gate:
            try:
                gate.connect(self.reference["gate"])
                gate.sendall(json.dumps({"pid": os.getpid(), "values": x.ravel().tolist()}).encode() + b"\n")
                gate.recv(1)
            except OSError:
                return


def load(reference: dict[str, Any], options: dict[str, Any]) -> Fake:
    """The loader: a kind that cannot load says so in its own way."""
    kind = reference.get("kind")
    if kind == "refuses":
        raise LoadError("it is refused by design")
    if kind == "broken":
        raise RuntimeError("secret detail /etc/passwd")
    if kind == "dies":
        os.abort()
    if kind == "slow_refusal":
        time.sleep(reference["seconds"])
        raise LoadError("it is refused after a while")
    if kind == "needs_file" and not os.path.exists(reference["path"]):
        raise LoadError("its file is missing")
    return Fake(reference)
