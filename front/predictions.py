"""From a body to an exchange: which dialect function parses it, which renders it, and what a model says of itself.

Shared by the routes and by embedding; knows Bottle's request only by the few attributes it reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from batching.client import Answer
from batching.errors import NoWorker
from front.catalog import Entry
from front.exchange import STATUS, UNLOGGED, Exchange, Refusal, Tally, Waiting, code_of, request_id
from front.recorder import Recorder
from front.settings import Settings
from front.uploads import pictures
from models.contract import Contract, Image
from models.dialects import native
from models.errors import BadInput
from models.images import decode
from models.narrowing import is_classifier
from models.schema import Compiled
from models.tensors import Item

if TYPE_CHECKING:
    from bottle import BaseRequest


Render = Callable[[Compiled, native.Request, list[list[np.ndarray]]], bytes]
EMBEDDED = "InferenceServer.predict"  # what the log calls the endpoint of calls that are no HTTP
TOP_DEFAULT, TOP_MAX = 3, 1000
# A larger body is parsed in the thread pool: at about 100 MB/s this is 0.2 ms of the loop's time.
INLINE_BODY_BYTES = 16 * 1024


class Predictions:
    """Makes exchanges for one application."""

    def __init__(self, settings: Settings, tally: Tally, recorder: Recorder | None) -> None:
        self._settings = settings
        self._limits = _limits(settings)
        self._tally = tally
        self._recorder = recorder

    def exchange(
        self, entry: Entry, route: str, body: bytes, render: Render, request: BaseRequest, request_id: str
    ) -> Exchange:
        """One for a JSON body of tensors. Raises NoWorker while the model's contract is unknown."""
        compiled = ready(entry)
        limits = self._limits
        return Exchange(
            entry,
            route,
            self._tally,
            self._recorder,
            body=body,
            parse=lambda body: native.parse(compiled, body, **limits),
            render=lambda parsed, outputs: render(compiled, parsed, outputs),
            request_id=request_id,
            timeout_s=self._timeout_s(request),
            heavy=len(body) > INLINE_BODY_BYTES,
        )

    def classify(self, entry: Entry, route: str, body: bytes, request: BaseRequest, request_id: str) -> Exchange:
        """One for pictures in any of their ways, or for the tensors of a classifier of vectors."""
        compiled = ready(entry)
        contract = compiled.contract
        if not is_classifier(contract):
            raise BadInput(f"model {contract.name} is not a classifier: it has neither labels nor an image input")
        top = _top(request.query.get("top"))
        content_type = request.environ.get("CONTENT_TYPE", "")
        image = contract.image
        # More could never be queued, and each costs some time before anything is known of it.
        max_rows = min(contract.max_rows or self._settings.queue_rows, self._settings.queue_rows)

        def parse(body: bytes) -> native.Request:
            if image is not None:
                limit = self._settings.max_json_bytes
                found = pictures(body, content_type, max_json_bytes=limit, max_rows=max_rows)
                if found is not None:
                    return self._pixels(contract, image, *found)
            return native.parse(compiled, body, **self._limits)

        return Exchange(
            entry,
            route,
            self._tally,
            self._recorder,
            body=body,
            parse=parse,
            render=lambda parsed, outputs: native.render_classify(compiled, parsed, outputs, top=top),
            request_id=request_id,
            timeout_s=self._timeout_s(request),
            # Decoding a picture takes from a tenth of a millisecond to half a second: never in the loop.
            heavy=image is not None or len(body) > INLINE_BODY_BYTES,
        )

    def describe(self, entry: Entry, base_url: str) -> dict[str, Any]:
        """What GET /models says of one version."""
        state = {"name": entry.name, "version": entry.version, "state": entry.state, "reason": entry.reason}
        if entry.compiled is None:
            return state
        described = native.describe(entry.compiled, base_url=base_url)
        if entry.compiled.contract.image is not None:
            described["curl_picture"] = f"curl -F image=@picture.png {base_url}/classify/{entry.name}"
        return {**state, **described, "batch_seconds": entry.costs}

    def _pixels(self, contract: Contract, image: Image, encoded: list[bytes], as_instances: bool) -> native.Request:
        flat = len(contract.inputs[0].shape) == 2
        rows = []
        for position, data in enumerate(encoded):
            try:
                pixels = decode(data, image, max_pixels=self._settings.max_image_pixels, squeeze=flat)
            except BadInput as error:
                error.path = f"/instances/{position}" if as_instances else "/image"
                raise
            rows.append(pixels)
        item = Item((np.stack(rows),), range(len(rows)))
        return native.Request((item,), len(rows), as_instances, pictures=encoded)

    def _timeout_s(self, request: BaseRequest) -> float:
        """The server's limit, or less where the client asks for less."""
        limit_ms = self._settings.predict_timeout_ms
        asked = request.environ.get("HTTP_X_REQUEST_TIMEOUT_MS")
        if asked is not None:
            if not (asked.isascii() and asked.isdigit() and int(asked[:9]) > 0 and len(asked) < 10):
                raise BadInput("X-Request-Timeout-Ms must be a whole number of milliseconds above 0")
            limit_ms = min(limit_ms, int(asked))
        return limit_ms / 1000


def _limits(settings: Settings) -> dict[str, int]:
    """Of a JSON body; more rows than the queue holds could never be answered."""
    return {"max_json_bytes": settings.max_json_bytes, "max_rows": settings.queue_rows}


def ready(entry: Entry) -> Compiled:
    """The compiled contract of a version that can be asked. Raises NoWorker otherwise."""
    if entry.compiled is None or entry.state == "FAILED":
        raise NoWorker(entry.reason or "the model is being loaded")
    return entry.compiled


def predict(
    client: Any, settings: Settings, recorder: Recorder | None, model: str, version: str | None, body: dict[str, Any]
) -> Any:
    """InferenceServer.predict: the same parsing, batching, rendering and log without HTTP. Raises the errors."""
    started = time.monotonic()
    entry = client.view.find(model, version)
    id_ = request_id(None)
    encoded = orjson.dumps(body)
    waiting: Waiting = client
    try:
        compiled = ready(entry)
        parsed = native.parse(compiled, encoded, **_limits(settings))
        items = [(len(item.rows), item.arrays) for item in parsed.items]
        outcomes = waiting.call(entry.target, items, started + settings.predict_timeout_ms / 1000)
        outputs = []
        for outcome in outcomes:
            if not isinstance(outcome, Answer):
                raise outcome
            outputs.append(outcome.outputs)
        answer = native.render_predict(compiled, parsed, outputs)
    except Exception as error:
        if recorder is not None:
            code = code_of(error)
            recorder.failed(entry, EMBEDDED, id_, STATUS[code], code, time.monotonic() - started, body=encoded)
        raise
    if recorder is not None:
        seconds = time.monotonic() - started
        logged = recorder.answered(entry, EMBEDDED, id_, parsed, None, encoded, outcomes, answer, seconds)
        if not logged and recorder.required:
            raise Refusal("NOT_READY", UNLOGGED)
    answered = orjson.loads(answer)
    return answered["predictions" if "predictions" in answered else "prediction"]


def _top(text: str | None) -> int:
    if text is None:
        return TOP_DEFAULT
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= TOP_MAX):
        raise BadInput(f"top must be a whole number from 1 to {TOP_MAX}")
    return int(text)
