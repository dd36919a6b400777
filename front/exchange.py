"""A request's two halves: what happens between a dialect, a worker and the log.

Knows neither Bottle nor waitress: the application makes an exchange, somebody carries its items to a worker and back
(`front.loop` in the loop, `complete` by waiting).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from batching.client import Outcome, Target
from batching.counters import Gauge, Histogram, Slot
from batching.items import outputs_of
from batching.transport import PRIORITY_MAX
from front.captured import Features
from front.catalog import Entry
from front.halves import Response
from front.recorder import Recorder
from front.refusals import Place, Refusal, code_of, error_response
from models.dialects.dialect import Call, Dialect, Request
from prediction_log.record import Captured

UNLOGGED = "the prediction log cannot be written, and no answer leaves without it"


class Tally:
    """Counts answered requests; cells are looked up once per combination, all of them from closed sets."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._cells: dict[tuple[str, str, str, int], Any] = {}

    def add(self, route: str, entry: Entry | None, status: int, seconds: float) -> None:
        """One answer of `status` by `route` (a template) and, where known, a model version."""
        name, version = (entry.name, entry.version) if entry else ("", "")
        key = (route, name, version, status)
        cells = self._cells.get(key)
        if cells is None:
            labels = {"route": route, "model": name, "version": version, "status": str(status)}
            outcome = "answered" if status == 200 else "failed"
            cells = self._cells[key] = (
                self._slot.counter("inference_requests_total", **labels),
                self._slot.histogram("inference_request_seconds", route=route),
                self._of_model(name, version, outcome) if entry else None,
                self._last_answer(name, version) if status == 200 and entry else None,
            )
        cells[0].add(1)
        cells[1].observe(seconds)
        if cells[2] is not None:
            cells[2].observe(seconds)
        if cells[3] is not None:
            cells[3].set(time.time())

    def _of_model(self, model: str, version: str, outcome: str) -> Histogram:
        return self._slot.histogram("inference_model_request_seconds", model=model, version=version, outcome=outcome)

    def _last_answer(self, model: str, version: str) -> Gauge:
        name = "inference_last_answer_timestamp_seconds"
        return self._slot.gauge(name, model=model, version=version, front=self._slot.index)


class Finish(Protocol):
    """What stands between the wire and a dialect: a body may come, and an answer may leave, compressed."""

    def decode(self, call: Call) -> Call:
        """The call with its body as the dialect takes it. Raises what `fail` explains."""

    def encode(self, response: Response) -> Response:
        """The answer as it leaves."""


class Waiting(Protocol):
    """What `complete` needs of a client."""

    def call(
        self, target: Target, items: Sequence[tuple[int, Sequence[np.ndarray]]], deadline: float, priority: int = 0
    ) -> list[Outcome]: ...


class Exchange:
    """One prediction request. See front.halves.Exchange for what its carrier may do with it.

    call: how it arrived; what decodes its body is part of parsing it. place: a front.refusals.Place, not yet made.
    recorder: None where there is no prediction log.
    """

    __slots__ = (
        *(
            "_call",
            "_dialect",
            "_features",
            "_finish",
            "_place",
            "_recorder",
            "_request",
            "_route",
            "_started",
            "_tally",
        ),
        *("deadline", "entry", "heavy", "items", "priority", "request_id", "target"),
    )

    def __init__(
        self,
        entry: Entry,
        route: str,
        tally: Tally,
        recorder: Recorder | None,
        dialect: Dialect,
        call: Call,
        place: tuple[str, str, str | None, str | None],
        finish: Finish | None,
        request_id: str,
        timeout_s: float,
        heavy: bool,
    ) -> None:
        self.entry = entry
        self.target = entry.target
        self.items: list[tuple[int, Any]] = []
        self.heavy = heavy
        self.priority = 0
        self.request_id = request_id
        self._call = call
        self._dialect = dialect
        self._features: Features | None = None
        self._finish = finish
        self._place = place
        self._route = route
        self._tally = tally
        self._recorder = recorder
        self._request: Request | None = None
        self._started = time.monotonic()
        self.deadline = self._started + timeout_s

    def prepare(self) -> None:
        """Parse the body into items. Raises what `fail` explains."""
        try:
            if self._finish is not None:
                self._call = self._finish.decode(self._call)
            request = self._request = self._dialect.parse(self.entry, self._call)
            self.items = [(len(item.rows), item.arrays) for item in request.items]
            self.priority = min(request.priority, PRIORITY_MAX)
            if request.signature is not None:
                self.target = self.entry.targets[request.signature]
            if request.timeout_s is not None:
                self.deadline = min(self.deadline, self._started + request.timeout_s)
        finally:
            if self.heavy:  # hashing takes long, and here there is time: this is no loop
                self._capture()

    def answer(self, outcomes: list[Outcome]) -> Response:
        """Render what the model said; the first failure of an item is the request's. Logged before it is returned."""
        try:
            if (request := self._request) is None:
                raise RuntimeError("an answer to a request that was not prepared")
            outputs = outputs_of(outcomes)
            rendered = self._dialect.render(self.entry.compiled_for(request.signature), request, outputs)
        except Exception as error:  # noqa: BLE001 - whatever failed, the client hears of it
            return self.fail(error)
        seconds = time.monotonic() - self._started
        if self._recorder is not None:
            logged = self._recorder.answered(
                self.entry,
                self._route,
                self._dialect.NAME,
                self.request_id,
                request,
                self._features,
                self._call.body,
                outcomes,
                rendered.body,
                seconds,
            )
            if not logged and self._recorder.required:
                return self._refuse_unlogged()
        self._tally.add(self._route, self.entry, 200, seconds)
        headers = [("Content-Type", rendered.content_type), ("X-Request-Id", self.request_id)]
        if rendered.headers:
            headers += rendered.headers
        return Response(rendered.status, headers, rendered.body)

    def fail(self, error: Exception) -> Response:
        """The answer where there is nothing to render."""
        response = error_response(error, self.request_id, self._dialect, Place._make(self._place))
        seconds = time.monotonic() - self._started
        if self._recorder is not None:
            if self.heavy and self._features is None:
                self._features = Features(Captured.NOTHING)  # refused unread; the loop has no time to hash it
            self._recorder.failed(
                self.entry,
                self._route,
                self._dialect.NAME,
                self.request_id,
                response.status,
                code_of(error),
                seconds,
                body=self._call.body,
                features=self._features,
            )
        self._tally.add(self._route, self.entry, response.status, seconds)
        return response

    def complete(self, client: Waiting) -> Response:
        """Both halves with a blocking wait between them."""
        try:
            self.prepare()
            return self.packed(self.answer(client.call(self.target, self.items, self.deadline, self.priority)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client hears of it
            return self.fail(error)

    @property
    def packs(self) -> bool:
        """Whether the client takes its answer compressed."""
        return self._finish is not None

    def packed(self, response: Response) -> Response:
        """An answer as it leaves; a long one takes some milliseconds to compress."""
        return response if self._finish is None else self._finish.encode(response)

    def _capture(self) -> None:
        """Keep what the log will say of the inputs, and let go of the bytes they came in."""
        if self._recorder is not None:
            self._features = self._recorder.features(self.entry, self._dialect.NAME, self._request, self._call.body)
        self._call = self._call._replace(body=b"")
        if self._request is not None and self._request.pictures:
            self._request = replace(self._request, pictures=())

    def _refuse_unlogged(self) -> Response:
        refusal = Refusal("NOT_READY", UNLOGGED)
        response = error_response(refusal, self.request_id, self._dialect, Place._make(self._place))
        self._tally.add(self._route, self.entry, response.status, time.monotonic() - self._started)
        return response
