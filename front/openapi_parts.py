"""What the operations of the OpenAPI document are put together from: parameters, headers, refusals, keys, schemas.

Owns the components and the form of one operation. Which refusals there are comes from the one table of front.refusals,
and what a dialect makes of each from the dialect itself. Knows no route.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from front.refusals import RETRY_AFTER_MAX_S, STATUS
from front.settings import Settings
from models.dialects import native
from models.dialects.dialect import ADMIN, OPEN, PREDICT, Dialect, Fault
from models.dialects.schema_parts import opened
from models.keywords import Schema

JSON = "application/json"
Operation = dict[str, Any]

# Which refusals an operation can meet: any; one with a body; one about a model or a version; one that a model answers.
EVERYWHERE = ("BAD_INPUT", "FORBIDDEN", "WRONG_HOST", "HEADERS_TOO_LARGE", "INTERNAL_ERROR")
WITH_BODY = ("REQUEST_TIMEOUT", "TOO_LARGE")
NAMED = ("NOT_FOUND",)
INFERRING = (*WITH_BODY, *NAMED, "UNSUPPORTED_MEDIA_TYPE", "PREDICT_FAILED", "NOT_READY", "OVERLOADED", "TIMEOUT")
KEYED = ("UNAUTHORIZED",)
# What no operation of a document can meet: another verb, and nobody there to hear it.
OUTSIDE = ("METHOD_NOT_ALLOWED", "CLIENT_GONE")

MEANINGS = {
    400: "The body, a parameter or a header does not fit.",
    401: "No key, or one that is not known here.",
    403: "A call by another site's page, or a key that does not open this.",
    404: "There is no such model, version or label.",
    405: "The path takes other verbs.",
    408: "The body did not come in its time.",
    413: "The body, a picture or the number of rows is beyond a limit.",
    415: "An encoding or a picture's format that is not read.",
    421: "The server does not answer to this Host.",
    431: "The header is too large.",
    500: "The model could not answer this input, or the server failed.",
    501: "It is not offered.",
    503: "No worker can take it just now, or too much is waiting: try again after Retry-After.",
    504: "The deadline passed.",
}

HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {
        "description": "the request's own where it was well-formed, else one of ours",
        "schema": {"type": "string"},
    },
    "Server-Timing": {
        "description": "milliseconds of parse, queue, compute, encode and total; the batch's rows as its desc",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "seconds",
        "schema": {"type": "integer", "minimum": 1, "maximum": RETRY_AFTER_MAX_S},
    },
    "Allow": {"description": "the verbs that the path takes", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "Bearer", "schema": {"type": "string"}},
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "request_id": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "up to 128 letters, digits and ._:/+=@- that come back; others are replaced",
        "schema": {"type": "string"},
    },
    "request_timeout": {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "milliseconds until the answer is of no use; it can only shorten the server's own limit",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    },
    "content_encoding": {
        "name": "Content-Encoding",
        "in": "header",
        "description": "how the body is compressed; it must be so",
        "schema": {"enum": ["identity", "gzip", "deflate"]},
    },
}


def reference(kind: str, name: str) -> dict[str, str]:
    """To a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def query(name: str, schema: Schema, description: str) -> dict[str, Any]:
    """A parameter behind the question mark."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def in_path(name: str, schema: Schema, description: str) -> dict[str, Any]:
    """A part of the path."""
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def one_of(known: Iterable[str]) -> Schema:
    """One of these names; any text where none is known yet."""
    names = list(dict.fromkeys(known))
    return {"type": "string", **({"enum": names} if names else {})}


def content(schema: Schema, examples: Mapping[str, Any] | None = None, media: str = JSON) -> dict[str, Any]:
    """A body of one media type."""
    return {media: {"schema": schema, **({"examples": dict(examples)} if examples else {})}}


def answer(description: str, body: Mapping[str, Any], *headers: str) -> dict[str, Any]:
    """A response that is no refusal."""
    named = {name: reference("headers", name) for name in ("X-Request-Id", "Server-Timing", *headers)}
    return {"description": description, "headers": named, "content": dict(body)}


class Parts:
    """The components of one document, which grow while its operations are made."""

    def __init__(self, settings: Settings) -> None:
        self._schemas: dict[str, Schema] = {}
        self._responses: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, str] = {}
        if settings.api_key_file is not None:
            self._keys = {PREDICT: "key", ADMIN: "key"}
        if settings.admin_key_file is not None:
            self._keys[ADMIN] = "admin_key"

    def schema(self, name: str, schema: Schema) -> dict[str, str]:
        """The schema under this name, which stands for one schema only."""
        if self._schemas.setdefault(name, schema) != schema:
            raise ValueError(f"two schemas are named {name}")
        return reference("schemas", name)

    def operation(
        self,
        operation_id: str,
        tag: str,
        summary: str,
        answers: Mapping[int, dict[str, Any]],
        *,
        dialect: Dialect = native,
        key: str = PREDICT,
        codes: Sequence[str] = (),
        parameters: Sequence[dict[str, Any]] = (),
        body: dict[str, Any] | None = None,
        body_required: bool = True,
        description: str = "",
    ) -> Operation:
        """One operation. answers: no refusals. codes: of refusals, beside those that everything meets."""
        keyed = KEYED if key in self._keys else ()
        statuses = {self._refusal(dialect, code) for code in (*EVERYWHERE, *keyed, *codes)}
        responses = {str(status): reference("responses", f"{dialect.NAME}.{status}") for status in sorted(statuses)}
        responses |= {str(status): one for status, one in answers.items()}
        made: Operation = {"operationId": operation_id, "tags": [tag], "summary": summary}
        if description:
            made["description"] = description
        if listed := [*parameters, reference("parameters", "request_id")]:
            made["parameters"] = listed
        if body is not None:
            made["requestBody"] = {"required": body_required, "content": body}
        made["responses"] = dict(sorted(responses.items()))
        made["security"] = [{self._keys[key]: []}] if key in self._keys and key != OPEN else []
        return made

    def _refusal(self, dialect: Dialect, code: str) -> int:
        """Make the response that a dialect gives for a code, unless it is there; its status."""
        fault = Fault(code, "", STATUS[code], model="model", given="1", path="/model")
        status = dialect.refuse(fault).status
        name = f"{dialect.NAME}.{status}"
        if name not in self._responses:
            headers = {503: ("Retry-After",), 401: ("WWW-Authenticate",), 405: ("Allow",)}.get(status, ())
            schema = _own_refusal(status) if dialect.NAME == native.NAME else opened({"error": {"type": "string"}})
            body = content(
                self.schema(f"refused.{name}" if dialect.NAME == native.NAME else "refused.dialects", schema)
            )
            self._responses[name] = answer(MEANINGS[status], body, *headers)
        return status

    def components(self) -> dict[str, Any]:
        """All of them, by kind."""
        self._refusal(native, "METHOD_NOT_ALLOWED")
        schemes = {
            name: {"type": "http", "scheme": "bearer", "description": _KEYS[name]}
            for name in sorted({*self._keys.values()})
        }
        return {
            "schemas": dict(sorted(self._schemas.items())),
            "responses": dict(sorted(self._responses.items())),
            "parameters": PARAMETERS,
            "headers": HEADERS,
            **({"securitySchemes": schemes} if schemes else {}),
        }


_KEYS = {
    "key": "one of the keys in the file that API_KEY_FILE names",
    "admin_key": "one of the keys in the file that ADMIN_KEY_FILE names",
}


def _own_refusal(status: int) -> Schema:
    """The native body: which codes have this status, and what else it may say."""
    text = {"type": "string"}
    extras: dict[str, Schema] = {}
    if status in (400, 413, 415):
        extras = {
            "path": {**text, "description": "JSON pointer of the first bad element"},
            "expected": text,
            "sample": {"description": "a body that would pass"},
        }
    if status == STATUS["PREDICT_FAILED"]:
        extras = {"reason": {"enum": ["model_error", "bad_output", "worker_crashed"]}}
    codes = [code for code, one in STATUS.items() if one == status]
    own: dict[str, Schema] = {"ok": {"const": False}, "error": {"enum": codes}, "message": text, "request_id": text}
    return opened({**own, **extras}, *extras)
