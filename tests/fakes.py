"""Fake models for a real worker: no TensorFlow, one misbehaviour each. `load` is the loader."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.contract import Contract, Tensor
from models.errors import LoadError

POISON = 666.0


class Fake:
    """Doubles its input, after whatever its kind does. Reference: name, version, kind, and what the kind needs."""

    def __init__(self, reference: dict[str, Any]) -> None:
        self.reference = reference
        self.kind = reference.get("kind", "double")
        self.seconds = reference.get("seconds", 0.0)
        size = reference.get("size", 1)
        shape = () if size is None else (size,)
        self.contract = Contract(
            reference["name"],
            reference["version"],
            (Tensor("x", "float32", shape),),
            (Tensor("y", "float32", shape),),
            routes=tuple(reference.get("routes", ())),
        )
        self.description = self.contract.to_json()
        self.max_rows: int | None = reference.get("max_rows")
        self.calls = 0

    def warm_up(self, sizes: Sequence[int], budget_s: float) -> dict[int, float]:
        return {size: self.seconds or 1e-5 for size in sizes}

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        (x,) = inputs
        self.calls += 1
        if self.seconds:
            time.sleep(self.seconds)
        if self.kind == "poison" and (x == POISON).any():
            raise ValueError("poison")
        if self.kind == "crash" and (x == POISON).any():
            os.abort()
        if self.kind == "wrong_length":
            return [x[:-1]]
        if self.kind == "nan":
            return [np.full_like(x, np.nan)]
        if self.kind == "calls":  # how often it was called, to see how batches were cut
            return [np.full_like(x, self.calls)]
        if self.kind == "pid":
            return [np.full_like(x, os.getpid())]
        return [x * 2]


def load(reference: dict[str, Any], options: dict[str, Any]) -> Fake:
    """The loader: a kind that cannot load says so in its own way."""
    kind = reference.get("kind")
    if kind == "refuses":
        raise LoadError("it is refused by design")
    if kind == "broken":
        raise RuntimeError("secret detail /etc/passwd")
    if kind == "dies":
        os.abort()
    if kind == "needs_file" and not os.path.exists(reference["path"]):
        raise LoadError("its file is missing")
    return Fake(reference)
