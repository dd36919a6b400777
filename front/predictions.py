"""From a call to an exchange: how much may be read, how long it may take, and whether that is for the loop or the pool.

Shared by the routes and by embedding; knows Bottle's request only by its environment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson

from batching.items import outputs_of
from front.answering import id_of
from front.catalog import Entry
from front.encodings import decode, encode
from front.exchange import UNLOGGED, Exchange, Manner, Services, Waiting
from front.halves import Response
from front.recorder import Recorder
from front.refusals import STATUS, NotServed, Refusal, code_of, request_id
from front.security import Guard
from front.settings import Settings
from front.tally import Tally
from front.tracing import traceparent_of
from models.dialects import native
from models.dialects.dialect import Call, Dialect, Request, nothing
from models.errors import BadInput
from models.schema import Compiled

IDENTITY = "identity"
EMBEDDED = "InferenceServer.predict"  # what the log calls the endpoint of calls that are no HTTP


class Predictions:
    """Makes exchanges for one application."""

    def __init__(self, settings: Settings, client: Any, guard: Guard, tally: Tally, recorder: Recorder | None) -> None:
        self._settings = settings
        self._client = client
        self._guard = guard
        self._services = Services(
            tally, recorder, settings.max_json_bytes, settings.queue_rows, settings.max_image_pixels
        )

    def exchange(
        self,
        dialect: Dialect,
        action: str,
        entry: Entry,
        route: str,
        environ: dict[str, Any],
        body: bytes,
        query: Callable[[str], str | None],
        model: str | None,
        given: str | None,
    ) -> Exchange:
        """One request to a model; model, given: as in front.refusals.Place.

        Raises NotServed while its contract is unknown, BadInput for a wrong time limit.
        """
        contract = ready(entry).contract
        coding, wanted = environ.get("HTTP_CONTENT_ENCODING", IDENTITY), environ.get("HTTP_ACCEPT_ENCODING")
        finish = None
        if wanted is not None or coding != IDENTITY:
            finish = Compressed(coding, wanted, self._settings.max_body_bytes)
        # Decoding a picture takes from a tenth of a millisecond to half a second: never in the loop.
        heavy = coding != IDENTITY or (action == "classify" and contract.image is not None)
        limit_ms, asked_ms = self._settings.predict_timeout_ms, environ.get("HTTP_X_REQUEST_TIMEOUT_MS")
        if asked_ms is not None:
            limit_ms = min(limit_ms, _milliseconds(asked_ms))
        words = {name: value for name, value in environ.items() if type(value) is str}  # the header without the body
        manner = Manner(
            self._services,
            entry,
            route,
            dialect,
            action,
            headers_of(words),
            query,
            (environ["REQUEST_METHOD"], environ["PATH_INFO"], model, given),
            finish,
            environ.get("HTTP_X_REQUEST_ID"),
            traceparent_of(environ),
            limit_ms / 1000,
            heavy,
            self._holding(entry, query),
        )
        return Exchange(manner, body, id_of(environ))

    def _holding(self, entry: Entry, query: Callable[[str], str | None]) -> Callable[[], bool] | None:
        """Whether the next request with the same header would go the same way: as long as models and keys are the same.

        None where a share of the requests goes to a canary, or the path says more than its route.
        """
        client, guard = self._client, self._guard
        routing = client.view.routing.get(entry.name)
        if query is not nothing or (routing is not None and routing.canary is not None):
            return None
        models, keys = client.view.serial, guard.serial
        return lambda: client.view.serial == models and guard.serial == keys


def _milliseconds(asked: str) -> int:
    """What a client gives its request. Raises BadInput."""
    if not (asked.isascii() and asked.isdigit() and int(asked[:9]) > 0 and len(asked) < 10):
        raise BadInput("X-Request-Timeout-Ms must be a whole number of milliseconds above 0")
    return int(asked)


class Compressed:
    """A body that came compressed, or an answer to somebody who takes it so; see front.exchange.Finish."""

    def __init__(self, coding: str, wanted: str | None, max_bytes: int) -> None:
        self._coding = coding
        self._wanted = wanted
        self._max_bytes = max_bytes

    def decode(self, call: Call) -> Call:
        return call._replace(body=decode(call.body, self._coding, self._max_bytes))

    def encode(self, response: Response) -> Response:
        if self._wanted is None:
            return response
        body, coding = encode(response.body, self._wanted)
        if coding is None:
            return response
        headers = [*response.headers, ("Content-Encoding", coding), ("Vary", "Accept-Encoding")]
        return Response(response.status, headers, body)


def headers_of(environ: dict[str, Any]) -> Callable[[str], str | None]:
    """A request's headers by their lower-case names."""

    def header(name: str) -> str | None:
        key = "CONTENT_TYPE" if name == "content-type" else f"HTTP_{name.upper().replace('-', '_')}"
        found: str | None = environ.get(key)
        return found

    return header


def ready(entry: Entry) -> Compiled:
    """The compiled contract of a version that can be asked. Raises NotServed otherwise."""
    if entry.compiled is None or entry.state in ("FAILED", "UNLOADED"):
        why = entry.reason or "it is being loaded; try again in a moment"
        raise NotServed(f"model {entry.name} version {entry.version} does not serve: {why}")
    return entry.compiled


def predict(
    client: Any, settings: Settings, recorder: Recorder | None, model: str, version: str | None, body: dict[str, Any]
) -> Any:
    """InferenceServer.predict: the same parsing, batching, rendering and log without HTTP. Raises the errors."""
    started = time.monotonic()
    entry = client.view.choose(model, version)
    id_ = request_id(None)
    encoded = orjson.dumps(body)
    waiting: Waiting = client
    try:
        compiled = ready(entry)
        limits = settings.max_json_bytes, settings.queue_rows, settings.max_image_pixels
        parsed: Request = native.parse(entry, Call("predict", encoded, nothing, *limits))
        items = [(len(item.rows), item.arrays) for item in parsed.items]
        outcomes = waiting.call(entry.target, items, started + settings.predict_timeout_ms / 1000)
        answer = native.render(compiled, parsed, outputs_of(outcomes)).body
    except Exception as error:
        if recorder is not None:
            code = code_of(error)
            seconds = time.monotonic() - started
            recorder.failed(entry, EMBEDDED, native.NAME, id_, STATUS[code], code, seconds, body=encoded)
        raise
    if recorder is not None:
        seconds = time.monotonic() - started
        logged = recorder.answered(entry, EMBEDDED, native.NAME, id_, parsed, None, encoded, outcomes, answer, seconds)
        if not logged and recorder.required:
            raise Refusal("NOT_READY", UNLOGGED)
    answered = orjson.loads(answer)
    return answered["predictions" if "predictions" in answered else "prediction"]
