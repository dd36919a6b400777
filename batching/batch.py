"""One model in a worker, and one batch on its way through it: whatever happens, one outcome for each item.

Owns the contract with a loaded model, and finding the guilty when a batch fails. Knows no sockets and no loop.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from batching import arrays
from batching.cost import Cost
from batching.counters import Slot
from batching.errors import Failure
from batching.queue import Item, ModelQueue
from batching.schedule import Line
from batching.vitals import Vitals

log = logging.getLogger("inference.worker")

WARM_UP_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class LoadedModel(Protocol):
    """What a loader returns. `description` is published to the fronts untouched (JSON-safe).

    others: further ways to call the model, by name; each is one of these itself, without others.
    """

    description: dict[str, Any]
    max_rows: int | None

    @property
    def others(self) -> Mapping[str, LoadedModel]: ...

    def warm_up(self, sizes: Sequence[int], budget_s: float) -> dict[int, float]:
        """Run each batch size until the budget is spent; rows -> seconds of one call."""

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Arrays of shape (rows, ...) in the contract's order in, the same out."""

    def canary(self) -> None:
        """One call with a row of its own, if it has one; raises what the model raises."""


class BadBatch(Exception):
    """The model answered with something that cannot be divided among the items."""


class Served:
    """One model in this worker: its line, with what waits and what batches cost, and its counters."""

    def __init__(self, index: int, model: LoadedModel, reference: dict[str, Any], options: dict[str, Any]) -> None:
        self.index = index
        self.model = model
        self.name, self.version = reference["name"], reference["version"]
        self.limit = min(options["batch_max_size"], model.max_rows or sys.maxsize)
        self.costs: dict[int, float] = {}
        self.proved = time.monotonic()  # when it last answered
        self.namesakes = [self]  # other versions and signatures of the same model, and itself
        self._queue = ModelQueue(options["queue_rows"], options["queue_bytes"])
        self._max_wait_s = options["batch_max_wait_ms"] / 1000
        self.line = self._lined()

    def warm_up(self, budget_s: float) -> None:
        """Let it measure what batches cost, as far as the budget goes."""
        sizes = [size for size in WARM_UP_SIZES if size < self.limit] + [self.limit]
        self.costs = dict(self.model.warm_up(sizes, budget_s))
        self.line = self._lined()

    def _lined(self) -> Line:
        return Line(self, self._queue, Cost(self.costs, self.limit), self._max_wait_s)

    def count_with(self, slot: Slot, vitals: Vitals) -> None:
        """Count in this slot, and tell there what runs."""
        self.vitals = vitals
        labels = {"model": self.name, "version": self.version}
        self.batches = slot.counter("inference_batches_total", **labels)
        self.rows = slot.counter("inference_rows_total", **labels)
        self.batch_rows = slot.histogram("inference_batch_rows", **labels)
        self.compute = slot.histogram("inference_compute_seconds", **labels)
        self.queued = slot.histogram("inference_queue_seconds", **labels)
        self.waiting = slot.gauge("inference_queue_rows", model=self.name)
        self.failed = {
            code: slot.counter("inference_items_failed_total", reason=code.name.lower(), **labels) for code in Failure
        }


class Batch:
    """Items of one layout on their way through the model, and what came of each."""

    __slots__ = ("clean", "compute_s", "items", "number", "outcomes", "rows", "run_rows", "served", "started")

    def __init__(self, served: Served, items: list[Item], number: int) -> None:
        self.served = served
        self.items = items
        self.rows = sum([item.rows for item in items])
        self.run_rows = served.line.cost.padded(self.rows)
        self.clean = True  # it was one call
        self.number = number
        self.started = time.monotonic()
        self.compute_s = 0.0
        # (layout, payload) or a failure, in the items' order
        self.outcomes: list[tuple[bytes, bytes] | Failure] = []

    def run(self) -> None:
        """Fill `outcomes`: whatever happens to the batch, one for each item."""
        try:
            self.outcomes = self._call(self.items, self.run_rows)
        except Exception as error:  # noqa: BLE001 - a model may raise anything, and its text stays in this process
            log.warning("%s: a batch of %d failed: %s", self.served.name, len(self.items), _brief(error))
            self.clean = False
            self.outcomes = self._isolate(self.items, error)
        self.compute_s = time.monotonic() - self.started

    def _call(self, items: list[Item], run_rows: int = 0) -> list[tuple[bytes, bytes] | Failure]:
        layout = arrays.layout_of(items[0].layout)
        rows = [item.rows for item in items]
        inputs = arrays.join(layout, [item.payload for item in items], rows)
        outputs = self._checked(inputs, sum(rows), run_rows)
        try:
            out_layout, payloads = arrays.split(outputs, rows)
        except KeyError as error:
            raise BadBatch(f"outputs of dtype {error}") from None
        return [(out_layout, payload) for payload in payloads]

    def _checked(self, inputs: list[np.ndarray], rows: int, run_rows: int) -> list[np.ndarray]:
        """The outputs for these rows; where running more is cheaper, the last row stands in for those missing."""
        run_rows = max(run_rows, rows)
        if run_rows > rows:
            inputs = [np.concatenate([array, np.repeat(array[-1:], run_rows - rows, axis=0)]) for array in inputs]
        vitals = self.served.vitals
        vitals.begin()
        try:
            outputs = [np.asarray(output) for output in self.served.model.run(inputs)]
        except SystemExit as error:  # it would end the computing thread, and nobody would be answered any more
            raise RuntimeError("the model called exit") from error
        finally:
            vitals.end()
        if not outputs or any(output.shape[:1] != (run_rows,) for output in outputs):
            raise BadBatch(f"{run_rows} rows in, outputs of shapes {[output.shape for output in outputs]}")
        return [output[:rows] for output in outputs] if run_rows > rows else outputs

    def _isolate(self, items: list[Item], error: Exception) -> list[tuple[bytes, bytes] | Failure]:
        """These items failed together: find the guilty. One of 32 costs 11 calls, all of 32 cost 35."""
        if len(items) == 1:
            return [Failure.BAD_OUTPUT if isinstance(error, BadBatch) else Failure.MODEL_ERROR]
        middle = len(items) // 2
        halves = items[:middle], items[middle:]
        tried = [self._try(half) for half in halves]
        if all(isinstance(result, Exception) for result in tried) and len(items) > 2:
            # Both halves failed, so the guilty are many: one call each is the cheapest way to the innocent.
            tried = [self._try([item]) for item in items]
            halves = tuple([item] for item in items)  # type: ignore[assignment]
        outcomes: list[tuple[bytes, bytes] | Failure] = []
        for half, result in zip(halves, tried, strict=True):
            outcomes += self._isolate(half, result) if isinstance(result, Exception) else result
        return outcomes

    def _try(self, items: list[Item]) -> list[tuple[bytes, bytes] | Failure] | Exception:
        try:
            return self._call(items)
        except Exception as error:  # noqa: BLE001 - as in run
            return error


class Canary:
    """A row of the model's own through the model, when nobody else asks: `failed` says how it went."""

    __slots__ = ("failed", "served")

    def __init__(self, served: Served) -> None:
        self.served = served
        self.failed = False

    def run(self) -> None:
        """One call."""
        self.served.vitals.begin()
        try:
            self.served.model.canary()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a model may raise anything
            log.warning("%s: its own row fails: %s", self.served.name, _brief(error))
            self.failed = True
        finally:
            self.served.vitals.end()


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"
