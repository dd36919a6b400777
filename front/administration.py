"""A word to the supervisor from whoever may change the server: load, unload, reload, roll back. And its answer.

Owns how long that may take and what is said of it. What it sets off is the supervisor's affair.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import orjson

from front.halves import Response
from front.refusals import Place, Refusal, error_response
from models.dialects.dialect import Dialect

log = logging.getLogger("inference.app")

ACTIONS = ("reload", "rollback", "load", "unload")
# Loading large models takes minutes.
TIMEOUT_S = 600.0
BODY_BYTES_MAX = 4096


class Errand:
    """One word. done: the answer where all went well; None for one that tells of every model it concerned.

    finish: what is done to the answer before it leaves. traceparent: of whoever asked (front.tracing), for the log.
    """

    def __init__(
        self, action: str, model: str | None, done: Response | None, request_id: str, dialect: Dialect, place: Place
    ) -> None:
        self._action = action
        self._model = model
        self._done = done
        self._request_id = request_id
        self._dialect = dialect
        self._place = place
        self.traceparent = ""
        self.finish: Callable[[Response], Response] = lambda response: response

    def begin(self, loop: Any, answer: Callable[[Response], None]) -> None:
        """In a loop: `answer` hears the response once."""
        loop.client.administer(self._action, self._model, lambda told: answer(self.finish(self._response(told))))

    def complete(self, client: Any) -> Response:
        """Where a thread may wait."""
        return self.finish(self._response(client.administer(self._action, self._model, TIMEOUT_S)))

    def fail(self, error: Exception) -> Response:
        """The answer where none comes any more."""
        return error_response(error, self._request_id, self._dialect, self._place)

    def repeatable(self) -> None:
        """The next one must be asked for again."""

    def _response(self, told: dict[str, Any]) -> Response:
        about = {"request_id": self._request_id, "traceparent": self.traceparent}
        log.info("%s %s: %s", self._action, self._model or "all models", told["reason"] or "done", extra=about)
        if not told["ok"]:
            return self.fail(Refusal("BAD_INPUT", told["reason"]))
        if self._done is not None:
            return self._done
        body = orjson.dumps({"ok": True, "models": told["models"]})
        return Response(200, [("Content-Type", "application/json"), ("X-Request-Id", self._request_id)], body)


def parse_word(body: bytes) -> tuple[str, str | None]:
    """(action, model or None for all) of POST /reload, whose body may be empty. Raises Refusal."""
    try:
        told = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        raise Refusal("BAD_INPUT", "the body is not valid JSON") from None
    if not isinstance(told, dict) or told.keys() - {"action", "model"}:
        raise Refusal("BAD_INPUT", 'the body must be an object with "action" and "model", or empty')
    action, model = told.get("action", "reload"), told.get("model")
    if action not in ACTIONS:
        raise Refusal("BAD_INPUT", f'"action" must be one of {", ".join(ACTIONS)}')
    if not (model is None or (isinstance(model, str) and len(model) <= 64)):
        raise Refusal("BAD_INPUT", '"model" must be the name of a model')
    if action in ("load", "unload") and model is None:
        raise Refusal("BAD_INPUT", f'"{action}" needs the name of a model')
    return action, model
