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
from batching.transport import ANSWERED_BYTES, WHOLE_BYTES, Payload
from batching.vitals import Vitals

log = logging.getLogger("inference.worker")

_WARM_UP_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def warm_up_sizes(limit: int) -> list[int]:
    """The batches to measure of a model that takes so many rows at once."""
    return [size for size in _WARM_UP_SIZES if size < limit] + [limit]


class LoadedModel(Protocol):
    """What a loader returns. `description` is published to the fronts untouched (JSON-safe).

    others: further ways to call the model, by name; each is one of these itself, without others.
    calibration: how it is run and why, where that was measured; published as the description is.
    """

    description: dict[str, Any]
    max_rows: int | None
    calibration: dict[str, Any] | None

    @property
    def others(self) -> Mapping[str, LoadedModel]: ...

    def warm_up(self, sizes: Sequence[int], budget_s: float) -> dict[int, float]:
        """Run each batch size until the budget is spent; rows -> seconds of one call."""

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Arrays of shape (rows, ...) in the contract's order in, the same out.

        Those that come out must stay what they are: large ones are sent from where they lie.
        """

    def canary(self) -> None:
        """One call with a row of its own, if it has one; raises what the model raises."""


Outcome = tuple[bytes, Payload] | Failure
"""What came of an item: the layout and bytes of its outputs, or why there are none."""


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
        self.costs = dict(self.model.warm_up(warm_up_sizes(self.limit), budget_s))
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
    """Items of one layout on their way through the model, and what came of each.

    outputs: of all rows, in the items' order, where that was one call and they are small, so that they may be answered
    together. None otherwise: then `outcomes` has (layout, payload) or a failure for each.
    """

    __slots__ = (
        *("clean", "compute_s", "items", "layout", "number", "outcomes", "outputs", "rows", "run_rows", "served"),
        "started",
    )

    def __init__(self, served: Served, items: list[Item], number: int) -> None:
        self.served = served
        self.items = items
        self.rows = sum([item.rows for item in items])
        self.run_rows = served.line.cost.padded(self.rows)
        self.clean = True  # it was one call
        self.number = number
        self.started = time.monotonic()
        self.compute_s = 0.0
        self.layout = b""
        self.outputs: list[np.ndarray] | None = None
        self.outcomes: list[Outcome] = []

    def run(self) -> None:
        """Whatever happens to the batch, something comes of every item."""
        try:
            outputs = self._call(self.items, self.run_rows)
            if _is_small(outputs, len(self.items)):
                self.layout = _layout(outputs)
                self.outputs = outputs
            else:
                self.outcomes = _divided(outputs, self.items)
        except Exception as error:  # noqa: BLE001 - a model may raise anything, and its text stays in this process
            log.warning("%s: a batch of %d failed: %s", self.served.name, len(self.items), _brief(error))
            self.clean = False
            self.outcomes = self._isolate(self.items, error)
        self.compute_s = time.monotonic() - self.started

    def divide(self) -> list[Outcome]:
        """One outcome for each item, also where they could be answered together."""
        return self.outcomes if self.outputs is None else _divided(self.outputs, self.items)

    def _call(self, items: list[Item], run_rows: int = 0) -> list[np.ndarray]:
        layout = arrays.layout_of(items[0].layout)
        rows = [item.rows for item in items]
        inputs = arrays.join(layout, [item.payload for item in items], rows)
        return self._checked(inputs, sum(rows), run_rows)

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

    def _isolate(self, items: list[Item], error: Exception) -> list[Outcome]:
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
        outcomes: list[Outcome] = []
        for half, result in zip(halves, tried, strict=True):
            outcomes += self._isolate(half, result) if isinstance(result, Exception) else result
        return outcomes

    def _try(self, items: list[Item]) -> list[Outcome] | Exception:
        try:
            return _divided(self._call(items), items)
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


def _is_small(outputs: list[np.ndarray], items: int) -> bool:
    """Whether they may be told in one frame; of strings nobody knows before they are encoded."""
    size = items * ANSWERED_BYTES
    for output in outputs:
        if output.dtype.kind in "OSU":
            return False
        size += output.nbytes
    return size <= WHOLE_BYTES


def _layout(outputs: list[np.ndarray]) -> bytes:
    try:
        return arrays.layout_bytes(outputs)
    except KeyError as error:
        raise BadBatch(f"outputs of dtype {error}") from None


def _divided(outputs: list[np.ndarray], items: list[Item]) -> list[Outcome]:
    try:
        layout, payloads = arrays.split(outputs, [item.rows for item in items])
    except KeyError as error:
        raise BadBatch(f"outputs of dtype {error}") from None
    return [(layout, payload) for payload in payloads]


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"
