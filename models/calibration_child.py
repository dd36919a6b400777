"""A process that holds one model and measures what it is told to: one line of JSON in, one out.

Owns the measuring. Which figures are wanted, and what follows from them, is models.calibration_search's affair.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from models.errors import LoadError

if TYPE_CHECKING:
    import numpy as np

    from models.execution import LoadedModel

log = logging.getLogger("inference.models")

# What whoever asks wants to know in one go; a single call of a slow model takes longer.
SLICE_S = 0.03
PAIR_S = 0.3


def main() -> int:
    """Answer orders from stdin on stdout until there are no more; the exit code."""
    # Keras and TensorFlow print as they like; that goes where the log goes.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with answers, tempfile.TemporaryDirectory() as nothing:
        first = json.loads(sys.stdin.readline())
        options = {"calibration_dir": nothing, **first["options"]}
        try:
            from models.runtime import load

            model = load(first["reference"], options)
        except LoadError as error:
            _say(answers, {"refused": error.reason})
            return 0
        from models.compiled import RELEASE

        _say(answers, {"description": model.description, "tensorflow": RELEASE})
        measuring = Measuring(model)
        for line in sys.stdin:
            order = json.loads(line)
            try:
                answer = getattr(measuring, order.pop("do"))(**order)
            except Exception:
                log.exception("the model fails while it is measured")
                answer = {"refused": "it fails on made-up rows; stderr has the details"}
            _say(answers, answer)
    return 0


def _say(answers: IO[str], value: dict[str, Any]) -> None:
    print(json.dumps(value), file=answers, flush=True)


class Measuring:
    """What can be ordered: one method each, which raise whatever the model raises."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def warm(self, sizes: list[int], budget_s: float) -> dict[str, Any]:
        """Seconds of one call by rows, as a server measures them at its start."""
        return {"seconds": self._model.warm_up(sizes, budget_s)}

    def compile(self, rows: int) -> dict[str, Any]:
        """From now on XLA runs so many rows."""
        try:
            return {"seconds": self._model.compile_for(rows)}
        except LoadError as error:
            return {"fault": error.reason}

    def write_answers(self, rows: int, folder: str) -> dict[str, Any]:
        """What it answers to its sample, for another process to compare."""
        import numpy as np

        for at, array in enumerate(self._answers(rows)):
            np.save(Path(folder) / f"{rows}-{at}.npy", _plain(array))
        return {}

    def compare_answers(self, rows: int, folder: str) -> dict[str, Any]:
        """Whether it answers as the other process did."""
        import numpy as np

        from models.execution import agree

        ours = [_plain(array) for array in self._answers(rows)]
        theirs = [np.load(Path(folder) / f"{rows}-{at}.npy") for at in range(len(ours))]
        return {"agrees": agree(ours, theirs)}

    def _answers(self, rows: int) -> list[np.ndarray]:
        return [output for batch in self._model.sample(rows) for output in self._model.run(batch)]

    def time(self, rows: int) -> dict[str, Any]:
        """The least seconds of a call, the forms of input together, of as many as go into a slice."""
        total = 0.0
        for batch in self._model.sample(rows):
            times: list[float] = []
            give_up = time.perf_counter() + SLICE_S
            while not times or time.perf_counter() < give_up:
                started = time.perf_counter()
                self._model.run(batch)
                times.append(time.perf_counter() - started)
            total += min(times)
        return {"seconds": total}

    def pair(self, rows: int) -> dict[str, Any]:
        """Rows/s of two threads that each run batches, over those of one."""
        batch = next(self._model.sample(rows))

        def call() -> object:
            return self._model.run(batch)

        ratios = [_rate(call, 2) / _rate(call, 1) for _ in range(3)]
        return {"gain": sorted(ratios)[1]}


def _rate(call: Callable[[], object], threads: int) -> float:
    """Calls in a second, by so many threads at once."""
    counts = [0] * threads
    started = time.perf_counter()

    def work(index: int) -> None:
        while not counts[index] or time.perf_counter() - started < PAIR_S:
            call()
            counts[index] += 1

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - started)


def _plain(array: np.ndarray) -> np.ndarray:
    """Text as a file can hold it without code in it."""
    return array.astype("S") if array.dtype.kind == "O" else array
