"""The whole server's part of the OpenAPI document: models, health, metrics, feedback, and what changes the server.

Owns these paths. Knows nothing of how components are kept.
"""

from __future__ import annotations

from front.administration import ACTIONS
from front.catalog import Catalog
from front.feedback import LABEL_BYTES_MAX, ROW_MAX
from front.openapi_native import Said
from front.openapi_parts import JSON, NAMED, WITH_BODY, Operation, Parts, answer, content, in_path, one_of, query
from models.dialects import native_schema
from models.dialects.dialect import ADMIN, OPEN
from models.dialects.schema_parts import closed, listed, opened
from models.keywords import Schema

MODELS, SERVER, ADMINISTRATION = "models", "server", "administration"
TAGS = {
    MODELS: "What is served, and what it takes and gives.",
    SERVER: "How the server is.",
    ADMINISTRATION: "What changes the server, or tells all of it.",
}
_OK: Schema = {"const": True}
_TEXT: Schema = {"type": "string"}
_MAYBE: Schema = {"type": ["string", "null"]}
_WHOLE: Schema = {"type": ["integer", "null"], "minimum": 0}


def server(parts: Parts, catalog: Catalog, *, has_log: bool) -> Said:
    """What is there whatever is served."""
    version = parts.schema("version", native_schema.version_schema())
    everything = closed({"ok": _OK, "default": _MAYBE, "models": listed(version)})
    yield (
        "/models",
        "get",
        parts.operation(
            "models", MODELS, "All models", {200: answer("The newest version of each.", content(everything))}
        ),
    )
    versions = [one.version for all_ in catalog.models.values() for one in all_]
    one = {"allOf": [{"$ref": version["$ref"]}, opened({"ok": _OK})]}
    yield (
        "/models/{model}",
        "get",
        parts.operation(
            "model",
            MODELS,
            "One model: contract, JSON Schema, sample, how to send it",
            {200: answer("The version that serves, or the one that was asked for.", content(one))},
            codes=NAMED,
            parameters=[
                in_path("model", one_of(catalog.models), "its name"),
                query("version", one_of(versions), "one of its versions"),
            ],
        ),
    )
    up = closed({"ok": _OK, "status": {"const": "up"}})
    yield (
        "/health",
        "get",
        parts.operation("health", SERVER, "Whether it lives", {200: answer("It does.", content(up))}, key=OPEN),
    )
    ready = parts.schema("readiness", _readiness())
    yield (
        "/ready",
        "get",
        parts.operation(
            "ready",
            SERVER,
            "Whether traffic is welcome, and what is wrong",
            {200: answer("It is.", content(ready)), 503: answer("It is not.", content(ready))},
            key=OPEN,
        ),
    )
    document = opened({"openapi": _TEXT, "info": {"type": "object"}, "paths": {"type": "object"}})
    yield (
        "/openapi.json",
        "get",
        parts.operation("openapi", SERVER, "This document", {200: answer("OpenAPI 3.1.", content(document))}),
    )
    yield from _administration(parts)
    yield "/feedback", "post", _feedback(parts, has_log=has_log)


def _readiness() -> Schema:
    state = {"enum": ["LOADING", "READY", "FAILED", "UNLOADED"]}
    worker = {"group": _TEXT, "responding": {"type": "boolean"}}
    times = dict.fromkeys(("computing_ms", "oldest_queued_ms", "last_answer_ms"), _WHOLE)
    return closed(
        {
            "ok": {"type": "boolean"},
            "status": {"enum": ["ready", "not ready"]},
            "models": listed(closed({"name": _TEXT, "version": _TEXT, "state": state, "reason": _MAYBE})),
            "workers": listed(closed({**worker, **times})),
            "degraded": {**listed(_TEXT), "description": "what is wrong, in sentences"},
        }
    )


def _administration(parts: Parts) -> Said:
    text = answer("Prometheus's text format.", {"text/plain": {"schema": _TEXT}})
    yield (
        "/metrics",
        "get",
        parts.operation("metrics", ADMINISTRATION, "Counters of all processes", {200: text}, key=ADMIN),
    )
    status = opened(
        {"server": _TEXT, "now": {"type": "number"}, "ready": {"type": "boolean"}, "models": listed({"type": "object"})}
    )
    yield (
        "/status",
        "get",
        parts.operation(
            "status",
            ADMINISTRATION,
            "The whole server at a glance",
            {200: answer("Its state.", content(status))},
            key=ADMIN,
        ),
    )
    name: Schema = {"type": "string", "maxLength": 64}
    needs_name = [action for action in ACTIONS if action in ("load", "unload")]
    others = [action for action in ACTIONS if action not in needs_name]
    word = {
        "anyOf": [
            closed(
                {"action": {"enum": others, "default": "reload"}, "model": {**name, "type": ["string", "null"]}},
                "action",
                "model",
            ),
            closed({"action": {"enum": needs_name}, "model": name}),
        ]
    }
    state = opened({"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _MAYBE})
    yield (
        "/reload",
        "post",
        parts.operation(
            "reload",
            ADMINISTRATION,
            "Reload, roll back, load or unload; answered when it is done",
            {200: answer("It is done.", content(closed({"ok": _OK, "models": listed(state)})))},
            key=ADMIN,
            codes=WITH_BODY,
            body=content(word, {"reload": {"summary": "look at everything now", "value": {"action": "reload"}}}),
            body_required=False,
        ),
    )


def _feedback(parts: Parts, *, has_log: bool) -> Operation:
    request_id: Schema = {
        "type": "string",
        "pattern": "^[A-Za-z0-9._:/+=@-]{1,128}$",
        "description": "X-Request-Id of an answer",
    }
    row: Schema = {"type": "integer", "minimum": 0, "maximum": ROW_MAX, "default": 0}
    label = {
        "type": ["string", "number", "boolean"],
        "description": f"what would have been right, of at most {LABEL_BYTES_MAX} bytes of JSON",
        "maxLength": LABEL_BYTES_MAX - 2,  # in its quotes
    }
    told = closed({"request_id": request_id, "label": label, "row": row}, "row")
    answered = closed({"ok": _OK, "request_id": _TEXT, "row": {"type": "integer"}})
    sample = {"request_id": "4bf92f35-1", "label": 7}
    return parts.operation(
        "feedback",
        SERVER,
        "What would have been right",
        {200: answer("It is in the prediction log.", {JSON: {"schema": answered}})} if has_log else {},
        codes=(*WITH_BODY, "NOT_READY") if has_log else (*WITH_BODY, "NOT_IMPLEMENTED"),
        body=content(told, {"class": {"summary": "it was a seven", "value": sample}}),
        description=""
        if has_log
        else "This server keeps no prediction log (DATABASE_URL is not set), so it has no use for it.",
    )
