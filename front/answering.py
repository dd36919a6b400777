"""What stands around every route: the guard before it, the count after it, and an answer whatever it raises.

Owns how the application speaks HTTP through Bottle. Knows no route: the application's read as sentences made of this.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import bottle
import orjson
from bottle import request

from front import timing
from front.administration import Errand
from front.halves import Response
from front.labour import Labour
from front.recorder import Recorder
from front.refusals import Place, Refusal, code_of, error_response, request_id
from front.security import ADMIN, PREDICT, Guard, Headers, Shared
from front.tally import Tally
from front.tracing import traceparent_of
from models.dialects import native
from models.dialects.dialect import Dialect

log = logging.getLogger("inference.app")

# The route of whatever has none.
EVERYTHING = "/<path:path>"
JSON = ("Content-Type", "application/json")
EMPTY = Response(200, [], b"")
# Places in a request's environment.
_ID, _ENTRY = "inference.id", "inference.entry"
_BOTTLES_OWN = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "TOO_LARGE"}


class Answering:
    """A plugin of Bottle's. A route says by `key` which key it needs (unless it says, an admin's), by `label` what
    it is called in metrics (its rule), and by `dialect` in whose words it refuses (ours).
    """

    name, api = "answering", 2

    def __init__(self, guard: Guard, tally: Tally, recorder: Recorder | None) -> None:
        self.guard = guard
        self._tally = tally
        self._recorder = recorder

    def setup(self, app: bottle.Bottle) -> None:
        """Nothing; Bottle asks."""

    def apply(self, callback: Callable[..., Any], route: bottle.Route) -> Callable[..., Any]:
        """The route as it is called: refused, answered or failed, it is counted once (an exchange counts itself)."""
        needs = route.config.get("key", ADMIN)
        label = route.config.get("label", "" if route.method == "ANY" else route.rule)
        dialect: Dialect = route.config.get("dialect", native)
        spoken = dialect.NAME if "dialect" in route.config else ""
        is_asked = bool(label) and route.method == "POST" and needs == PREDICT

        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.monotonic()
            environ = request.environ
            verdict = self.guard.ask(environ, needs)
            try:
                if verdict.code is not None:
                    raise Refusal(verdict.code, verdict.message)
                said = EMPTY if verdict.is_answer else callback(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the one place where errors end
                said = self._failed(error, started, dialect, kwargs)
                if is_asked:
                    self._remember(error, said.status, started, label, spoken, kwargs)
            if isinstance(said, Response):
                return self._counted(said, environ, label, spoken, started, verdict.headers)
            if isinstance(said, Errand | Labour):
                if isinstance(said, Errand):
                    said.traceparent = traceparent_of(environ)
                said.finish = lambda response: self._counted(response, environ, label, spoken, started, verdict.headers)
                return said
            return Shared(said, verdict.headers) if verdict.headers else said

        return call

    def _counted(
        self, response: Response, environ: dict[str, Any], label: str, spoken: str, started: float, headers: Headers
    ) -> Response:
        """spoken: the dialect's name, of routes that have one."""
        seconds = time.monotonic() - started
        size = int(environ.get("CONTENT_LENGTH") or 0)
        self._tally.cells(label, None, spoken, response.status).add(seconds, size, len(response.body))
        return response._replace(headers=[*response.headers, timing.total(seconds), *headers])

    def _failed(self, error: Exception, started: float, dialect: Dialect, path: dict[str, str]) -> Response:
        """path: the parts of it that the route has named."""
        place = place_of(path.get("model"), path.get("version") or path.get("label"))
        environ = request.environ
        traceparent = traceparent_of(environ)
        result = error_response(error, my_id(), dialect, place, traceparent)
        if self._recorder is not None and _ENTRY in environ:
            entry, route, spoken = environ[_ENTRY]
            seconds = time.monotonic() - started
            code = code_of(error)
            self._recorder.failed(entry, route, spoken, my_id(), result.status, code, seconds, traceparent=traceparent)
        return result

    def _remember(
        self, error: Exception, status: int, started: float, label: str, spoken: str, path: dict[str, str]
    ) -> None:
        """Put what was refused before there was an exchange among the last requests."""
        total_us = int((time.monotonic() - started) * 1e6)
        model, version = path.get("model") or "", path.get("version") or ""
        self._tally.recent.add(my_id(), label, model, version, spoken, status, code_of(error), 0, total_us)

    def refuse(self, error: bottle.HTTPError) -> Response:
        """What is refused before any route."""
        code = "INTERNAL_ERROR" if error.status_code >= 500 else _BOTTLES_OWN.get(error.status_code, "BAD_INPUT")
        if error.exception:
            told = {"traceparent": traceparent_of(request.environ)}
            log.error("request %s failed before its route", my_id(), exc_info=error.exception, extra=told)
        message = "the request cannot be read" if code == "BAD_INPUT" else "there is nothing here"
        response = error_response(Refusal(code, message), my_id())
        self._tally.cells("", None, "", response.status).add(0.0, 0, len(response.body))
        response.headers.append(timing.total(0.0))
        return response


def guard_of(app: bottle.Bottle) -> Guard:
    """Who watches over an application's routes."""
    guard: Guard = next(plugin.guard for plugin in app.plugins if isinstance(plugin, Answering))
    return guard


def note_entry(environ: dict[str, Any], entry: Any, route: str, dialect: str) -> None:
    """Whose request it is, for the prediction log should it fail before there is an exchange."""
    environ[_ENTRY] = entry, route, dialect


def place_of(model: str | None, given: str | None) -> Place:
    """Where this request went."""
    environ = request.environ
    return Place(environ["REQUEST_METHOD"], environ["PATH_INFO"], model, given)


def answer_json(value: Any, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(status, [JSON, ("X-Request-Id", my_id())], orjson.dumps(value))


def my_id() -> str:
    """One id for a request, however often it is asked for."""
    return id_of(request.environ)


def id_of(environ: dict[str, Any]) -> str:
    """The same for whoever has the environment at hand: Bottle's request looks it up in its thread each time."""
    found: str | None = environ.get(_ID)
    if found is None:
        found = environ[_ID] = request_id(environ.get("HTTP_X_REQUEST_ID"))
    return found


def body(limit: int) -> bytes:
    """The request's body. Raises Refusal where it is longer."""
    return body_of(request.environ, limit)


def body_of(environ: dict[str, Any], limit: int) -> bytes:
    """The same as `id_of` is for `my_id`."""
    size = int(environ.get("CONTENT_LENGTH") or 0)
    if size > limit:
        raise Refusal("TOO_LARGE", f"the body has {size} bytes; at most {limit} are taken here")
    return bytes(environ["wsgi.input"].read(size)) if size > 0 else b""


def base_url() -> str:
    """Where the caller reaches us: by the Host that the guard has seen, and no other header."""
    environ = request.environ
    is_tls = "https" in (environ.get("HTTP_X_FORWARDED_PROTO"), environ["wsgi.url_scheme"])
    host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    return f"{'https' if is_tls else 'http'}://{host}"


def takes(app: bottle.Bottle, verb: str) -> bool:
    """Whether a route of its own takes this request's path with another verb."""
    try:
        route, _ = app.router.match({**request.environ, "REQUEST_METHOD": verb})
    except bottle.HTTPError:
        return False
    return bool(route.method != "ANY")  # such a route is there to refuse
