"""A request's two halves: what happens between a dialect, a worker and the log.

Knows neither Bottle nor waitress: the application makes an exchange, somebody carries its items to a worker and back
(`front.loop` in the loop, `complete` by waiting).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from batching.client import Answer, Outcome, Target
from batching.items import outputs_of
from batching.transport import PRIORITY_MAX
from front import timing
from front.captured import Features
from front.catalog import Entry
from front.halves import Response
from front.recorder import Recorder
from front.refusals import Place, Refusal, code_of, error_response, request_id
from front.tally import Cells, Tally
from models.dialects.dialect import Call, Dialect, Request
from prediction_log.record import Captured

# A larger body is parsed in the thread pool: at about 100 MB/s this is 0.2 ms of the loop's time.
INLINE_BODY_BYTES = 16 * 1024
UNLOGGED = "the prediction log cannot be written, and no answer leaves without it"


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
    traceparent: see front.tracing. answered: where its answers are counted, once there was one.
    holds: whether all of that would be decided in the same way again; None where it must be decided for each request.
    """

    __slots__ = (
        *("action", "answered", "dialect", "entry", "finish", "given_id", "header", "heavy", "holds", "place", "query"),
        *("route", "services", "timeout_s", "traceparent"),
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
        traceparent: str,
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
        self.traceparent = traceparent
        self.answered: Cells | None = None
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
        return error_response(error, request_id, self.dialect, Place._make(self.place), self.traceparent)

    def counted(self, status: int) -> Cells:
        """Where answers of this status are counted."""
        return self.services.tally.cells(self.route, self.entry, self.dialect.NAME, status)


class Exchange:
    """One prediction request. See front.halves.Exchange for what its carrier may do with it."""

    __slots__ = (
        *("_body", "_features", "_manner", "_parse_s", "_request", "_size", "_started"),
        *("deadline", "heavy", "items", "priority", "request_id", "target"),
    )

    def __init__(self, manner: Manner, body: bytes, request_id: str) -> None:
        self.target = manner.entry.target
        self.items: list[tuple[int, Any]] = []
        size = self._size = len(body)
        self.heavy = manner.heavy or size > INLINE_BODY_BYTES
        self.priority = 0
        self.request_id = request_id
        self._manner = manner
        self._body = body
        self._features: Features | None = None
        self._request: Request | None = None
        self._parse_s = 0.0
        self._started = time.monotonic()
        self.deadline = self._started + manner.timeout_s

    def repeatable(self) -> Manner | None:
        """How further requests with the same header may be begun."""
        return self._manner if self._manner.holds is not None else None

    def prepare(self) -> None:
        """Parse the body into items. Raises what `fail` explains."""
        manner = self._manner
        began = time.monotonic()
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
            self._parse_s = time.monotonic() - began
            if self.heavy:  # hashing takes long, and here there is time: this is no loop
                self._capture()

    def answer(self, outcomes: list[Outcome]) -> Response:
        """Render what the model said; the first failure of an item is the request's. Logged before it is returned."""
        manner = self._manner
        entry, recorder = manner.entry, manner.services.recorder
        began = time.monotonic()
        try:
            if (request := self._request) is None:
                raise RuntimeError("an answer to a request that was not prepared")
            outputs = outputs_of(outcomes)
            rendered = manner.dialect.render(entry.compiled_for(request.signature), request, outputs)
        except Exception as error:  # noqa: BLE001 - whatever failed, the client hears of it
            return self.fail(error)
        now = time.monotonic()
        seconds, encode_s = now - self._started, now - began
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
                manner.traceparent,
            )
            if not logged and recorder.required:
                return self._refuse_unlogged()
        cells = manner.answered
        if cells is None:
            cells = manner.answered = manner.counted(200)
        cells.add(seconds, self._size, len(rendered.body), self._parse_s, encode_s)
        item = outcomes[0] if len(outcomes) == 1 else max(outcomes, key=_took_us, default=_NO_ITEM)
        _, queue_us, compute_us, batch_rows, _ = cast("Answer", item)  # else there would be no outputs
        parse_us, encode_us, total_us = int(self._parse_s * 1e6), int(encode_s * 1e6), int(seconds * 1e6) + 1
        if now >= manner.services.tally.recent.opens_at:
            kept = rendered.body if recorder is not None and recorder.keeps_outputs(entry) else b""
            self._remember(
                200,
                "",
                total_us,
                queue_us=queue_us,
                batch_rows=batch_rows,
                compute_us=compute_us,
                encode_us=encode_us,
                answer=kept,
            )
        headers = [
            ("Content-Type", rendered.content_type),
            ("X-Request-Id", self.request_id),
            timing.of_answer(parse_us, queue_us, batch_rows, compute_us, encode_us, total_us),
        ]
        if rendered.headers:
            headers += rendered.headers
        return Response(rendered.status, headers, rendered.body)

    def fail(self, error: Exception) -> Response:
        """The answer where there is nothing to render."""
        manner = self._manner
        recorder = manner.services.recorder
        response = manner.refusal(error, self.request_id)
        seconds = time.monotonic() - self._started
        code = code_of(error)
        if recorder is not None:
            if self.heavy and self._features is None:
                self._features = Features(Captured.NOTHING)  # refused unread; the loop has no time to hash it
            recorder.failed(
                manner.entry,
                manner.route,
                manner.dialect.NAME,
                self.request_id,
                response.status,
                code,
                seconds,
                body=self._body,
                features=self._features,
                traceparent=manner.traceparent,
            )
        return self._failed(response, code, seconds)

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
            self._features = recorder.features(
                manner.entry, manner.dialect.NAME, self.request_id, self._request, self._body, manner.traceparent
            )
        self._body = b""
        if self._request is not None and self._request.pictures:
            self._request = replace(self._request, pictures=())

    def _refuse_unlogged(self) -> Response:
        response = self._manner.refusal(Refusal("NOT_READY", UNLOGGED), self.request_id)
        return self._failed(response, "NOT_READY", time.monotonic() - self._started)

    def _failed(self, response: Response, code: str, seconds: float) -> Response:
        """Count a refusal or a failure, and tell how long it took."""
        status, total_us = response.status, int(seconds * 1e6) + 1
        self._manner.counted(status).add(seconds, self._size, len(response.body))
        self._remember(status, code, total_us)
        response.headers.append(timing.of_failure(int(self._parse_s * 1e6), total_us))
        return response

    def _remember(self, status: int, code: str, total_us: int, **measured: Any) -> None:
        """Put it among the last requests. measured: what else batching.recent.Recent.add is told of an answer."""
        manner, request = self._manner, self._request
        manner.services.tally.recent.add(
            self.request_id,
            manner.route,
            manner.entry.name,
            manner.entry.version,
            manner.dialect.NAME,
            status,
            code,
            request.count if request is not None else 0,
            total_us,
            int(self._parse_s * 1e6),
            **measured,
        )


_NO_ITEM = Answer([], 0, 0, 0, 0)


def _took_us(outcome: Outcome) -> int:
    return outcome.queue_us + outcome.compute_us if isinstance(outcome, Answer) else 0
