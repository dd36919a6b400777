"""The bare model function in a loop: no HTTP, no queue, no checks. The other thing that the server is measured against.

A program of its own, so that TensorFlow has a fresh process as in a worker: `python -m benchmarks.model_loop MODEL`.
It takes one JSON object a line on stdin, answers with one on stdout, and ends with stdin. "do" says what:

    calls     rows, seconds                      the function alone, on random rows
    array     rows, seconds, file                the same on the rows of a numpy file, from first to last, over and over
    pictures  rows, seconds, folder, pipelined   decodes the files of the folder, over and over, and calls the function;
                                                 pipelined: a second thread decodes while the function runs
    tensors   rows, seconds, file, form, called  reads the file's bytes over and over, as float32 rows, and calls the
                                                 function if `called`: form "binary" copies them, "json" parses a list
    answers   inputs                             what the function gives for each row of the first input, one row a call
    classes   folder                             the class of each picture, one a call

The first four answer {"rows", "seconds", "cpu_seconds", "p50_ms", "p99_ms"}, the percentiles those of one call.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from inference_server import Settings  # noqa: E402 - the path comes first
from models import images, repository, runtime  # noqa: E402
from models.contract import Contract  # noqa: E402

WARM_UP_CALLS = 3
DECODED_AHEAD = 2  # batches


class Loop:
    """A loaded model and the loops around it."""

    def __init__(self, path: str, settings: Settings) -> None:
        (reference,) = repository.find(path)
        self._model = runtime.load(reference.to_json(), asdict(settings))
        self.contract = Contract.from_json(self._model.description)
        self._random = np.random.default_rng(0)
        self._max_pixels = settings.max_image_pixels

    def calls(self, rows: int, seconds: float) -> dict[str, float]:
        """The function alone."""
        batch = [
            self._random.standard_normal((rows, *(size or 1 for size in one.shape))).astype(one.dtype)
            for one in self.contract.inputs
        ]
        return self._timed(lambda: batch, rows, seconds)

    def array(self, rows: int, seconds: float, file: str) -> dict[str, float]:
        """The function alone, on rows that lie in memory."""
        values = np.load(file)
        batches = cycle([values[at : at + rows]] for at in range(0, max(len(values) - rows, 0) + 1, rows))
        return self._timed(lambda: next(batches), rows, seconds)

    def pictures(self, rows: int, seconds: float, folder: str, *, pipelined: bool) -> dict[str, float]:
        """Encoded pictures to scores, in one thread or two."""
        if not pipelined:
            return self._timed(self._decoder(folder, rows), rows, seconds)
        with ThreadPoolExecutor(1) as thread:
            return self._timed(_ahead(self._decoder(folder, rows), thread), rows, seconds)

    def tensors(self, rows: int, seconds: float, file: str, form: str, *, called: bool) -> dict[str, float]:
        """What any server must do with a tensor: have its bytes as an array of its own, and call the function."""
        data, shape = Path(file).read_bytes(), (rows, *(size or 1 for size in self.contract.inputs[0].shape))

        def copied() -> list[np.ndarray]:
            return [np.frombuffer(data, np.float32).reshape(shape).copy()]

        def parsed() -> list[np.ndarray]:
            return [np.array(orjson.loads(data), np.float32).reshape(shape)]

        return self._timed(copied if form == "binary" else parsed, rows, seconds, called=called)

    def answers(self, inputs: list[Any]) -> list[Any]:
        """The numbers of the first output for each row alone."""
        rows = np.asarray(inputs, self.contract.inputs[0].dtype)
        return [self._model.run([rows[at : at + 1]])[0].ravel().tolist() for at in range(len(rows))]

    def classes(self, folder: str) -> list[int]:
        """What the function says of each picture, in the order of their numbers."""
        count = len(list(Path(folder).iterdir()))
        take = self._decoder(folder, 1)
        return [int(self._model.run(take())[0].argmax()) for _ in range(count)]

    def _decoder(self, folder: str, rows: int) -> Callable[[], list[np.ndarray]]:
        image = self.contract.image
        if image is None:
            raise ValueError("the model takes no pictures")
        files: Iterator[bytes] = cycle(
            [path.read_bytes() for path in sorted(Path(folder).iterdir(), key=lambda path: int(path.name))]
        )
        return lambda: [
            np.stack([images.decode(data, image, max_pixels=self._max_pixels) for data in islice(files, rows)])
        ]

    def _timed(
        self, take: Callable[[], list[np.ndarray]], rows: int, seconds: float, *, called: bool = True
    ) -> dict[str, float]:
        use: Callable[[list[np.ndarray]], Any] = self._model.run if called else len
        for _ in range(WARM_UP_CALLS):
            use(take())
        calls_ms: list[float] = []
        cpu = time.process_time()
        started = at = time.perf_counter()
        while at - started < seconds:
            use(take())
            before, at = at, time.perf_counter()
            calls_ms.append((at - before) * 1000)
        return {
            "rows": rows * len(calls_ms),
            "seconds": at - started,
            "cpu_seconds": time.process_time() - cpu,
            "p50_ms": float(np.percentile(calls_ms, 50)),
            "p99_ms": float(np.percentile(calls_ms, 99)),
        }


def _ahead(make: Callable[[], list[np.ndarray]], thread: ThreadPoolExecutor) -> Callable[[], list[np.ndarray]]:
    """Gives what `make` makes, made by the thread a little ahead of who takes it."""
    made = deque(thread.submit(make) for _ in range(DECODED_AHEAD))

    def take() -> list[np.ndarray]:
        made.append(thread.submit(make))
        return made.popleft().result()

    return take


def main(path: str) -> None:
    """Say {"contract": …}, then answer orders until stdin ends."""
    # TensorFlow's libraries may print; nothing but answers may reach the reader of our stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    loop = Loop(path, Settings.from_environment())
    print(json.dumps({"contract": loop.contract.to_json()}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        answer = getattr(loop, order.pop("do"))(**order)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
