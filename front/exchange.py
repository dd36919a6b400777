"""A request's two halves, and every refusal: the one table from errors to statuses, and the body that explains them.

Owns what a native error looks like. Knows neither Bottle nor waitress: the application makes an exchange, somebody
carries its items to a worker and back (`front.loop` in the loop, `complete` by waiting).
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import orjson

from batching.client import Answer, Outcome, Target
from batching.counters import Slot
from batching.errors import BatchingError, Cancelled, DeadlineExceeded, ItemFailed, NoWorker, QueueFull
from front.catalog import Ambiguous, Entry, UnknownModel
from front.halves import CLIENT_GONE, Response
from front.recorder import Features, Recorder
from models.dialects import native
from models.errors import BadInput, BadOutput, TooLarge, UnsupportedMedia
from prediction_log.record import Captured

log = logging.getLogger("inference.app")

JSON = ("Content-Type", "application/json")
BODY_BYTES_MAX = 2048
RETRY_AFTER_MAX_S = 60
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}").fullmatch
_made_ids = itertools.count(1)
_made_by = os.urandom(6).hex()


class Refusal(Exception):
    """A refusal that belongs to HTTP, or to the log, rather than to models or batching."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


# The table: what happened, its status and its code. Order matters where one error is a kind of another.
STATUS = {
    "BAD_INPUT": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "REQUEST_TIMEOUT": 408,
    "TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "WRONG_HOST": 421,
    "HEADERS_TOO_LARGE": 431,
    "PREDICT_FAILED": 500,
    "INTERNAL_ERROR": 500,
    "NOT_IMPLEMENTED": 501,
    "NOT_READY": 503,
    "OVERLOADED": 503,
    "TIMEOUT": 504,
    "CLIENT_GONE": CLIENT_GONE,
}
CODE_OF_ERROR: dict[type[Exception], str] = {
    BadInput: "BAD_INPUT",
    Ambiguous: "BAD_INPUT",
    UnknownModel: "NOT_FOUND",
    TooLarge: "TOO_LARGE",
    UnsupportedMedia: "UNSUPPORTED_MEDIA_TYPE",
    BadOutput: "PREDICT_FAILED",
    ItemFailed: "PREDICT_FAILED",
    NoWorker: "NOT_READY",
    QueueFull: "OVERLOADED",
    DeadlineExceeded: "TIMEOUT",
    Cancelled: "CLIENT_GONE",
}
# What front.parser and front.chunks refuse; 400 and 505 are a malformed request like any other.
CODE_OF_STATUS = {
    408: "REQUEST_TIMEOUT",
    413: "TOO_LARGE",
    431: "HEADERS_TOO_LARGE",
    501: "NOT_IMPLEMENTED",
}
MESSAGES = {
    "NOT_READY": "no worker can take the request just now; try again in a moment",
    "OVERLOADED": "the server is busy; try again in a moment",
    "TIMEOUT": "no answer within the request's deadline",
    "PREDICT_FAILED": "the model could not answer this input",
    "INTERNAL_ERROR": "the server failed; the request's id is in its log",
}
UNLOGGED = "the prediction log cannot be written, and no answer leaves without it"


def request_id(given: str | None) -> str:
    """The client's id where it is well-formed, else one of ours, unique to this process and request."""
    if given and REQUEST_ID(given):
        return given
    return f"{_made_by}-{next(_made_ids):x}"


def code_of(error: Exception) -> str:
    """The code of an error, by the table."""
    return error.code if isinstance(error, Refusal) else CODE_OF_ERROR.get(type(error), "INTERNAL_ERROR")


def error_response(error: Exception, request_id: str) -> Response:
    """The answer that explains `error`, at most 2 KiB, with nothing of ours in it but the code."""
    code = code_of(error)
    if code == "INTERNAL_ERROR":
        log.error("request %s failed", request_id, exc_info=error)
    own_words = code not in MESSAGES or (isinstance(error, Refusal) and code != "INTERNAL_ERROR")
    message = str(error)[:400] if own_words else MESSAGES[code]
    body: dict[str, Any] = {"ok": False, "error": code, "message": message, "request_id": request_id}
    if isinstance(error, BadInput):
        extras = {"path": error.path, "expected": error.expected, "sample": error.sample}
        body |= {key: value for key, value in extras.items() if value is not None}
    elif code == "PREDICT_FAILED":
        body["reason"] = error.reason if isinstance(error, ItemFailed) else "bad_output"
        if isinstance(error, BadOutput):
            body["message"] = str(error)[:400]
    encoded = orjson.dumps(body)
    while len(encoded) > BODY_BYTES_MAX and {"sample", "expected"} & body.keys():
        body.pop("sample" if "sample" in body else "expected")
        encoded = orjson.dumps(body)
    headers = [JSON, ("X-Request-Id", request_id)]
    if STATUS[code] == 503:
        wait_s = error.wait_s if isinstance(error, QueueFull) else 0.0
        headers.append(("Retry-After", str(min(max(math.ceil(wait_s), 1), RETRY_AFTER_MAX_S))))
    return Response(STATUS[code], headers, encoded)


def parser_error(status: int, message: str) -> Response:
    """The answer to bytes that are no acceptable HTTP request; the message speaks of the HTTP grammar only."""
    code = CODE_OF_STATUS.get(status, "BAD_INPUT")
    response = error_response(Refusal(code, f"the HTTP request cannot be accepted: {message}"), request_id(None))
    return response._replace(status=status)


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
            cells = self._cells[key] = (
                self._slot.counter("inference_requests_total", **labels),
                self._slot.histogram("inference_request_seconds", route=route),
            )
        cells[0].add(1)
        cells[1].observe(seconds)


class Waiting(Protocol):
    """What `complete` needs of a client."""

    def call(
        self, target: Target, items: Sequence[tuple[int, Sequence[np.ndarray]]], deadline: float
    ) -> list[Outcome]: ...


class Exchange:
    """One prediction request. See front.halves.Exchange for what its carrier may do with it.

    parse: body -> native.Request; render: the request and one list of outputs per item -> body of the answer.
    recorder: None where there is no prediction log.
    """

    __slots__ = (
        *("_body", "_features", "_parse", "_recorder", "_render", "_request", "_route", "_started", "_tally"),
        *("deadline", "entry", "heavy", "items", "request_id", "target"),
    )

    def __init__(
        self,
        entry: Entry,
        route: str,
        tally: Tally,
        recorder: Recorder | None,
        *,
        body: bytes,
        parse: Callable[[bytes], native.Request],
        render: Callable[[native.Request, list[list[np.ndarray]]], bytes],
        request_id: str,
        timeout_s: float,
        heavy: bool,
    ) -> None:
        self.entry = entry
        self.target = entry.target
        self.items: list[tuple[int, Any]] = []
        self.heavy = heavy
        self.request_id = request_id
        self._body = body
        self._features: Features | None = None
        self._route = route
        self._tally = tally
        self._recorder = recorder
        self._parse = parse
        self._render = render
        self._request: native.Request | None = None
        self._started = time.monotonic()
        self.deadline = self._started + timeout_s

    def begin(self) -> Response | None:
        """Prepare now unless heavy; the refusal if there is one."""
        if not self.heavy:
            try:
                self.prepare()
            except (BadInput, TooLarge, UnsupportedMedia) as error:
                return self.fail(error)
        return None

    def prepare(self) -> None:
        """Parse the body into items. Raises BadInput, TooLarge or UnsupportedMedia."""
        try:
            request = self._request = self._parse(self._body)
            self.items = [(len(item.rows), item.arrays) for item in request.items]
        finally:
            if self.heavy:  # hashing takes long, and here there is time: this is no loop
                self._capture()

    def answer(self, outcomes: list[Outcome]) -> Response:
        """Render what the model said; the first failure of an item is the request's. Logged before it is returned."""
        try:
            if (request := self._request) is None:
                raise RuntimeError("an answer to a request that was not prepared")
            outputs = []
            for outcome in outcomes:
                if not isinstance(outcome, Answer):
                    raise outcome
                outputs.append(outcome.outputs)
            body = self._render(request, outputs)
        except Exception as error:  # noqa: BLE001 - whatever failed, the client hears of it
            return self.fail(error)
        seconds = time.monotonic() - self._started
        if self._recorder is not None:
            logged = self._recorder.answered(
                self.entry, self._route, self.request_id, request, self._features, self._body, outcomes, body, seconds
            )
            if not logged and self._recorder.required:
                return self._refuse_unlogged()
        self._tally.add(self._route, self.entry, 200, seconds)
        return Response(200, [JSON, ("X-Request-Id", self.request_id)], body)

    def fail(self, error: Exception) -> Response:
        """The answer where there is nothing to render."""
        response = error_response(error, self.request_id)
        seconds = time.monotonic() - self._started
        if self._recorder is not None:
            if self.heavy and self._features is None:
                self._features = Features(Captured.NOTHING)  # refused unread; the loop has no time to hash it
            self._recorder.failed(
                self.entry,
                self._route,
                self.request_id,
                response.status,
                code_of(error),
                seconds,
                body=self._body,
                features=self._features,
            )
        self._tally.add(self._route, self.entry, response.status, seconds)
        return response

    def complete(self, client: Waiting) -> Response:
        """Both halves with a blocking wait between them."""
        try:
            if self.heavy:
                self.prepare()
            return self.answer(client.call(self.target, self.items, self.deadline))
        except (BatchingError, BadInput, TooLarge, UnsupportedMedia) as error:
            return self.fail(error)

    def _capture(self) -> None:
        """Keep what the log will say of the inputs, and let go of the bytes they came in."""
        if self._recorder is not None:
            self._features = self._recorder.features(self.entry, self._request, self._body)
        self._body = b""
        if self._request is not None and self._request.pictures:
            self._request = replace(self._request, pictures=())

    def _refuse_unlogged(self) -> Response:
        response = error_response(Refusal("NOT_READY", UNLOGGED), self.request_id)
        self._tally.add(self._route, self.entry, response.status, time.monotonic() - self._started)
        return response
