"""What a front counts of each answer: how many, how long, how large, by route, model, version, dialect and status.

Owns which cells one answer moves, and that they are looked up once per combination. All labels are from closed sets:
route templates, the models that are there, our dialects, our statuses.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import Protocol

from batching.counters import ROUND, Slot
from batching.families import BYTES, SECONDS, SHORT_SECONDS


class Version(Protocol):
    """What is needed of a version of a model."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...


class Cells:
    """Those of one combination. `add` is on the hottest path: it writes to the cells itself."""

    __slots__ = ("_bytes_in", "_bytes_out", "_encode", "_last", "_model", "_parse", "_requests", "_route", "_values")

    def __init__(
        self, slot: Slot, route: str, model: str, version: str, dialect: str, status: int, *, of_model: bool
    ) -> None:
        labels = {"route": route, "model": model, "version": version, "dialect": dialect, "status": str(status)}
        of = {"model": model, "version": version}
        self._values = slot.values
        self._requests = slot.counter("inference_requests_total", **labels).index
        self._route = slot.histogram("inference_request_seconds", route=route).index
        self._bytes_in = slot.histogram("inference_request_bytes", route=route).index
        self._bytes_out = slot.histogram("inference_response_bytes", route=route).index
        self._model = self._parse = self._encode = self._last = -1
        if of_model:
            outcome = "answered" if status == 200 else "failed"
            self._model = slot.histogram("inference_model_request_seconds", **of, outcome=outcome).index
        if of_model and status == 200:
            self._parse = slot.histogram("inference_parse_seconds", **of).index
            self._encode = slot.histogram("inference_encode_seconds", **of).index
            self._last = slot.gauge("inference_last_answer_timestamp_seconds", **of, front=slot.index).index

    def add(self, seconds: float, size_in: int, size_out: int, parse_s: float = 0.0, encode_s: float = 0.0) -> None:
        """One answer. parse_s, encode_s: of a model's.

        A sum is rounded as batching.counters.Histogram does it; bytes are whole numbers already.
        """
        values = self._values
        values[self._requests] += 1.0
        bucket = bisect_left(SECONDS, seconds) + 1
        rounded = (seconds + ROUND) - ROUND
        at = self._route
        values[at] += rounded
        values[at + bucket] += 1.0
        at = self._bytes_in
        values[at] += size_in
        values[at + 1 + bisect_left(BYTES, size_in)] += 1.0
        at = self._bytes_out
        values[at] += size_out
        values[at + 1 + bisect_left(BYTES, size_out)] += 1.0
        at = self._model
        if at < 0:
            return
        values[at] += rounded
        values[at + bucket] += 1.0
        at = self._parse
        if at < 0:
            return
        values[at] += (parse_s + ROUND) - ROUND
        values[at + 1 + bisect_left(SHORT_SECONDS, parse_s)] += 1.0
        at = self._encode
        values[at] += (encode_s + ROUND) - ROUND
        values[at + 1 + bisect_left(SHORT_SECONDS, encode_s)] += 1.0
        values[self._last] = time.time()


class Tally:
    """Counts answered requests of one process. recent: the ring of its last ones."""

    def __init__(self, slot: Slot) -> None:
        self.recent = slot.recent
        self._slot = slot
        self._cells: dict[tuple[str, str, str, str, int], Cells] = {}

    def cells(self, route: str, entry: Version | None, dialect: str, status: int) -> Cells:
        """Where answers of `status` by `route` (a template), in a dialect and of a version, if any, are counted."""
        name, version = (entry.name, entry.version) if entry else ("", "")
        key = (route, name, version, dialect, status)
        found = self._cells.get(key)
        if found is None:
            found = self._cells[key] = Cells(self._slot, *key, of_model=entry is not None)
        return found
