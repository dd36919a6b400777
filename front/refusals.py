"""Every refusal: the one table from errors to codes and statuses, and the answer in a dialect's words.

Owns which error is the caller's, ours or nobody's. What a body looks like is its dialect's affair; knows neither Bottle
nor waitress.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
from typing import NamedTuple

from batching.errors import Cancelled, DeadlineExceeded, ItemFailed, NoWorker, QueueFull
from front import timing
from front.catalog import Ambiguous, UnknownLabel, UnknownModel
from front.halves import CLIENT_GONE, Response
from models.dialects import native
from models.dialects.dialect import Dialect, Fault
from models.errors import BadInput, BadOutput, TooLarge, Unimplemented, UnsupportedMedia

log = logging.getLogger("inference.app")

RETRY_AFTER_MAX_S = 60
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}").fullmatch
_made_ids = itertools.count(1)
_made_by = os.urandom(6).hex()


class Refusal(Exception):
    """A refusal that belongs to HTTP, or to the log, rather than to models or batching."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class NotServed(NoWorker):
    """The version cannot answer just now, or not at all; the message says why, and is safe to show."""


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
    UnknownLabel: "NOT_FOUND",
    TooLarge: "TOO_LARGE",
    UnsupportedMedia: "UNSUPPORTED_MEDIA_TYPE",
    Unimplemented: "NOT_IMPLEMENTED",
    BadOutput: "PREDICT_FAILED",
    ItemFailed: "PREDICT_FAILED",
    NoWorker: "NOT_READY",
    NotServed: "NOT_READY",
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


def request_id(given: str | None) -> str:
    """The client's id where it is well-formed, else one of ours, unique to this process and request."""
    if given and REQUEST_ID(given):
        return given
    return f"{_made_by}-{next(_made_ids):x}"


def code_of(error: Exception) -> str:
    """The code of an error, by the table."""
    return error.code if isinstance(error, Refusal) else CODE_OF_ERROR.get(type(error), "INTERNAL_ERROR")


class Place(NamedTuple):
    """Where a request went: what a refusal may need to say. model, given: as in models.dialects.dialect.Asked."""

    verb: str = ""
    path: str = ""
    model: str | None = None
    given: str | None = None


NOWHERE = Place()
_NATIVE: Dialect = native


def error_response(
    error: Exception, request_id: str, dialect: Dialect = _NATIVE, place: Place = NOWHERE, traceparent: str = ""
) -> Response:
    """The answer that explains `error` in a dialect's words, with nothing of ours in it but the code."""
    code = code_of(error)
    if code == "INTERNAL_ERROR":
        log.error("request %s failed", request_id, exc_info=error, extra={"traceparent": traceparent})
    own_words = code not in MESSAGES or (isinstance(error, Refusal | NotServed) and code != "INTERNAL_ERROR")
    reason, extras = None, {}
    if isinstance(error, BadInput):
        extras = {"pointer": error.path, "expected": error.expected, "sample": error.sample}
    elif code == "PREDICT_FAILED":
        reason = error.reason if isinstance(error, ItemFailed) else "bad_output"
        own_words = isinstance(error, BadOutput)
    message = str(error) if own_words else MESSAGES[code]
    fault = Fault(code, message, STATUS[code], *place, reason=reason, request_id=request_id, **extras)
    rendered = dialect.refuse(fault)
    headers = [("Content-Type", rendered.content_type), ("X-Request-Id", request_id), *rendered.headers]
    if rendered.status == 503:
        wait_s = error.wait_s if isinstance(error, QueueFull) else 0.0
        headers.append(("Retry-After", str(min(max(math.ceil(wait_s), 1), RETRY_AFTER_MAX_S))))
    return Response(rendered.status, headers, rendered.body)


def parser_error(status: int, message: str) -> Response:
    """The answer to bytes that are no acceptable HTTP request; the message speaks of the HTTP grammar only."""
    code = CODE_OF_STATUS.get(status, "BAD_INPUT")
    response = error_response(Refusal(code, f"the HTTP request cannot be accepted: {message}"), request_id(None))
    response.headers.append(timing.total(0.0))  # there never was a whole request
    return response._replace(status=status)
