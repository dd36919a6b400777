"""A dialect's routes in the application: what is asked of a model becomes an exchange, what is asked of us an answer.

Owns how paths are told apart and how a model's version is found. Knows no dialect by name: each is a module with the
names of models.dialects.dialect.Dialect.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import bottle
from bottle import request

from front.administration import Errand
from front.answering import base_url, body, body_of, my_id, note_entry, place_of, takes
from front.catalog import Catalog, Entry, UnknownModel
from front.counted import counted
from front.exchange import Exchange
from front.halves import Response
from front.predictions import Predictions
from front.readiness import readiness
from front.refusals import Refusal, error_response
from front.settings import Settings
from models.dialects.dialect import ADMIN, Asked, Dialect, Rendered, Route, nothing
from models.repository import NAME, VERSION

_PART = re.compile(r"{(model|version|label)}")
_PATTERNS = {"model": "[^/:]+", "version": "[0-9]+", "label": "[^/:]+"}
ADMIN_BODY_BYTES_MAX = 64 * 1024


class Speaking:
    """What the routes of one dialect do. server: our name and version, as the dialects tell it."""

    def __init__(
        self,
        dialect: Dialect,
        settings: Settings,
        client: Any,
        predictions: Predictions,
        server: str,
    ) -> None:
        self._dialect = dialect
        self._settings = settings
        self._client = client
        self._predictions = predictions
        self._server = server

    def install(self, app: bottle.Bottle) -> None:
        """Add the dialect's routes, and, where its paths are its own, what refuses all others that begin so."""
        for route in self._dialect.ROUTES:
            callback = self._infers(route) if route.infers else self._answers(route)
            app.route(
                rule_of(route.template),
                route.verb,
                callback,
                key=route.key,
                label=route.template,
                dialect=self._dialect,
            )
        prefix = self._dialect.PREFIX
        if prefix:
            everything = prefix.rstrip("/")
            for rule in (everything, f"{everything}/", f"{everything}/<rest:path>"):
                app.route(rule, "ANY", self._refuses(app), key="predict", label="", dialect=self._dialect)

    def _infers(self, route: Route) -> Callable[..., Any]:
        def infer(model: str | None = None, version: str | None = None, label: str | None = None) -> Any:
            if not self._dialect.PREFIX and request.environ.get("QUERY_STRING"):
                version, label = request.query.get("version"), request.query.get("label")
            entry = self._choose(route, model, version, label)
            return self.infer(entry, route.action, route.template, model, version or label)

        return infer

    def infer(self, entry: Entry, action: str, label: str, model: str | None, given: str | None) -> Exchange:
        """Put this request to a model. label: the route's name in metrics and the log; model, given: as in Place."""
        environ = request.environ
        note_entry(environ, entry, label, self._dialect.NAME)
        query = request.query.get if environ.get("QUERY_STRING") else nothing
        body = body_of(environ, self._body_bytes_max(action, environ))
        return self._predictions.exchange(self._dialect, action, entry, label, environ, body, query, model, given)

    def _body_bytes_max(self, action: str, environ: dict[str, Any]) -> int:
        """A native body is JSON but for pictures; of other dialects' the dialect knows how much of it is JSON."""
        if self._dialect.PREFIX or action == "classify" or "HTTP_CONTENT_ENCODING" in environ:
            return self._settings.max_body_bytes
        return self._settings.max_json_bytes

    def _choose(self, route: Route, model: str | None, version: str | None, label: str | None) -> Entry:
        catalog: Catalog = self._client.view
        if model is None:
            entry = catalog.for_classify() if route.action == "classify" else catalog.for_predict()
            if version is None and label is None:
                return entry
            model = entry.name
        self._check(model, version)
        return catalog.choose(model, version, label)

    @staticmethod
    def _check(model: str, version: str | None) -> None:
        """What could not be the name of one is looked for nowhere. Raises UnknownModel."""
        if not NAME.fullmatch(model) or not (version is None or VERSION.fullmatch(version)):
            raise UnknownModel(
                "a model's name is made of letters, digits, . _ and -, its version of digits; see GET /models"
            )

    def _answers(self, route: Route) -> Callable[..., Any]:
        def answer(model: str | None = None, version: str | None = None, label: str | None = None) -> Any:
            asked = self._asked(route, model, version, label)
            rendered = self._dialect.describe(asked)
            if route.key != ADMIN:
                return response_of(rendered)
            # The dialect has nothing against it: its answer is for when it is done.
            return Errand(route.action, model, response_of(rendered), my_id(), self._dialect, place_of(model, None))

        return answer

    def _asked(self, route: Route, model: str | None, version: str | None, label: str | None) -> Asked:
        catalog: Catalog = self._client.view
        if not self._dialect.PREFIX and model is not None:
            version = request.query.get("version")
        versions: list[Entry] = [one for all_ in catalog.models.values() for one in all_]
        found: Entry | None = None
        labels: dict[str, str] = {}
        if model is not None and route.key != ADMIN:
            self._check(model, version)
            versions = catalog.versions(model)
            found = catalog.find(model, version) if label is None else catalog.choose(model, label=label)
            routing = catalog.routing.get(model)
            labels = dict(routing.labels) if routing else {}
        elif not self._dialect.PREFIX:
            versions = [catalog.find(name) for name in catalog.models]
        is_ready, _ = readiness(catalog, self._client.counters, self._settings.predict_timeout_ms / 1000)
        counts = counted(self._client.counters)
        return Asked(
            route.action,
            request.method,
            request.path,
            model,
            version or label,
            found,
            versions,
            labels,
            is_ready,
            self._server,
            body(ADMIN_BODY_BYTES_MAX) if request.method == "POST" else b"",
            counts,
            base_url(),
            catalog.default,
        )

    def _refuses(self, app: bottle.Bottle) -> Callable[..., Any]:
        """Whatever begins as the dialect's paths do, and is none of its routes."""

        def refuse(rest: str = "") -> Any:
            verbs = [verb for verb in ("GET", "POST") if takes(app, verb)]
            code, message = "NOT_FOUND", "there is no such route"
            if verbs:
                code, message = "METHOD_NOT_ALLOWED", f"this route takes {', '.join(verbs)}"
            response = error_response(Refusal(code, message), my_id(), self._dialect, place_of(None, None))
            if verbs and response.status == 405:
                response.headers.append(("Allow", ", ".join(verbs)))
            return response

        return refuse


def response_of(rendered: Rendered) -> Response:
    """A dialect's answer as it leaves."""
    headers = [("Content-Type", rendered.content_type), ("X-Request-Id", my_id()), *rendered.headers]
    return Response(rendered.status, headers, rendered.body)


def rule_of(template: str) -> str:
    """A template in Bottle's language, in which a bare colon begins a part of the old kind, so it stands in one."""
    pieces = _PART.split(template)
    rule = ""
    for index, piece in enumerate(pieces):
        plain, colon, rest = piece.partition(":")
        rule += f"<{piece}:re:{_PATTERNS[piece]}>" if index % 2 else plain + (f"<:re:{colon}{rest}>" if colon else "")
    return rule
