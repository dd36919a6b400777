"""A request's two halves: what happens between a dialect, a worker and the log.

Knows neither Bottle nor waitress: the application makes an exchange, somebody carries its items to a worker and back
(`front.loop` in the loop, `complete` by waiting).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from batching.client import Outcome, Target
from batching.counters import Gauge, Histogram, Slot
from batching.items import outputs_of
from batching.transport import PRIORITY_MAX
from front.captured import Features
from front.catalog import Entry
from front.halves import Response
from front.recorder import Recorder
from front.refusals import Place, Refusal, code_of, error_response, request_id
from models.dialects.dialect import Call, Dialect, Request
from prediction_log.record import Captured

# A larger body is parsed in the thread pool: at about 100 MB/s this is 0.2 ms of the loop's time.
INLINE_BODY_BYTES = 16 * 1024
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


class Services(NamedTuple):
    """What all exchanges of one application share. recorder: None where there is no prediction log.

    max_…: more of it in a request is refused.
    """

    tally: Tally
    recorder: Recorder | None
    max_json_bytes: int
    max_rows: int
    max_image_pixels: int


class Manner:
    """What requests with the same header have in common: who answers them, in which words, and within what time.

    place: a front.refusals.Place, not yet made. given_id: as the client sent it. heavy: whatever the body's size.
    holds: whether all of that would be decided in the same way again; None where it must be decided for each request.
    """

    __slots__ = (
        *("action", "dialect", "entry", "finish", "given_id", "header", "heavy", "holds", "place", "query", "route"),
        *("services", "timeout_s"),
    )

    def __init__(
        self,
        services: Services,
        entry: Entry,
        route: str,
        dialect: Dialect,
        action: str,
        header: Callable[[str], str | None],
        query: Callable[[str], str | None],
        place: tuple[str, str, str | None, str | None],
        finish: Finish | None,
        given_id: str | None,
        timeout_s: float,
        heavy: bool,
        holds: Callable[[], bool] | None,
    ) -> None:
        self.services = services
        self.entry = entry
        self.route = route
        self.dialect = dialect
        self.action = action
        self.header = header
        self.query = query
        self.place = place
        self.finish = finish
        self.given_id = given_id
        self.timeout_s = timeout_s
        self.heavy = heavy
        self.holds = holds

    def again(self, body: bytes) -> Exchange | None:
        """The exchange of another request with this header; None where it must be decided anew."""
        if self.holds is None or not self.holds():
            return None
        return Exchange(self, body, request_id(self.given_id))

    def call(self, body: bytes) -> Call:
        """The request as its dialect takes it, but for a coding of the body."""
        _, _, max_json_bytes, max_rows, max_image_pixels = self.services
        return Call(self.action, body, self.header, max_json_bytes, max_rows, max_image_pixels, self.query)

    def refusal(self, error: Exception, request_id: str) -> Response:
        """What a request hears instead of an answer."""
        return error_response(error, request_id, self.dialect, Place._make(self.place))


class Exchange:
    """One prediction request. See front.halves.Exchange for what its carrier may do with it."""

    __slots__ = (
        *("_body", "_features", "_manner", "_request", "_started"),
        *("deadline", "heavy", "items", "priority", "request_id", "target"),
    )

    def __init__(self, manner: Manner, body: bytes, request_id: str) -> None:
        self.target = manner.entry.target
        self.items: list[tuple[int, Any]] = []
        self.heavy = manner.heavy or len(body) > INLINE_BODY_BYTES
        self.priority = 0
        self.request_id = request_id
        self._manner = manner
        self._body = body
        self._features: Features | None = None
        self._request: Request | None = None
        self._started = time.monotonic()
        self.deadline = self._started + manner.timeout_s

    def repeatable(self) -> Manner | None:
        """How further requests with the same header may be begun."""
        return self._manner if self._manner.holds is not None else None

    def prepare(self) -> None:
        """Parse the body into items. Raises what `fail` explains."""
        manner = self._manner
        try:
            call = manner.call(self._body)
            if manner.finish is not None:
                call = manner.finish.decode(call)
                self._body = call.body
            request = self._request = manner.dialect.parse(manner.entry, call)
            self.items = [(len(item.rows), item.arrays) for item in request.items]
            if request.priority:
                self.priority = min(request.priority, PRIORITY_MAX)
            if request.signature is not None:
                self.target = manner.entry.targets[request.signature]
            if request.timeout_s is not None:
                self.deadline = min(self.deadline, self._started + request.timeout_s)
        finally:
            if self.heavy:  # hashing takes long, and here there is time: this is no loop
                self._capture()

    def answer(self, outcomes: list[Outcome]) -> Response:
        """Render what the model said; the first failure of an item is the request's. Logged before it is returned."""
        manner = self._manner
        entry, recorder = manner.entry, manner.services.recorder
        try:
            if (request := self._request) is None:
                raise RuntimeError("an answer to a request that was not prepared")
            outputs = outputs_of(outcomes)
            rendered = manner.dialect.render(entry.compiled_for(request.signature), request, outputs)
        except Exception as error:  # noqa: BLE001 - whatever failed, the client hears of it
            return self.fail(error)
        seconds = time.monotonic() - self._started
        if recorder is not None:
            logged = recorder.answered(
                entry,
                manner.route,
                manner.dialect.NAME,
                self.request_id,
                request,
                self._features,
                self._body,
                outcomes,
                rendered.body,
                seconds,
            )
            if not logged and recorder.required:
                return self._refuse_unlogged()
        manner.services.tally.add(manner.route, entry, 200, seconds)
        headers = [("Content-Type", rendered.content_type), ("X-Request-Id", self.request_id)]
        if rendered.headers:
            headers += rendered.headers
        return Response(rendered.status, headers, rendered.body)

    def fail(self, error: Exception) -> Response:
        """The answer where there is nothing to render."""
        manner = self._manner
        recorder = manner.services.recorder
        response = manner.refusal(error, self.request_id)
        seconds = time.monotonic() - self._started
        if recorder is not None:
            if self.heavy and self._features is None:
                self._features = Features(Captured.NOTHING)  # refused unread; the loop has no time to hash it
            recorder.failed(
                manner.entry,
                manner.route,
                manner.dialect.NAME,
                self.request_id,
                response.status,
                code_of(error),
                seconds,
                body=self._body,
                features=self._features,
            )
        manner.services.tally.add(manner.route, manner.entry, response.status, seconds)
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
        return self._manner.finish is not None

    def packed(self, response: Response) -> Response:
        """An answer as it leaves; a long one takes some milliseconds to compress."""
        finish = self._manner.finish
        return response if finish is None else finish.encode(response)

    def _capture(self) -> None:
        """Keep what the log will say of the inputs, and let go of the bytes they came in."""
        manner = self._manner
        recorder = manner.services.recorder
        if recorder is not None:
            self._features = recorder.features(manner.entry, manner.dialect.NAME, self._request, self._body)
        self._body = b""
        if self._request is not None and self._request.pictures:
            self._request = replace(self._request, pictures=())

    def _refuse_unlogged(self) -> Response:
        manner = self._manner
        response = manner.refusal(Refusal("NOT_READY", UNLOGGED), self.request_id)
        manner.services.tally.add(manner.route, manner.entry, response.status, time.monotonic() - self._started)
        return response
