"""The Open Inference Protocol, version 2, over REST, with Triton's extensions that its own client and tools rely on.

Owns the routes and the bodies of refusals; requests, answers and descriptions are the modules' named oip_*. Where the
specification and Triton differ, what Triton's client reads decides; docs/open_inference.md lists what differs here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from models.body import loads
from models.dialects import oip_answer, oip_describe, oip_request
from models.dialects.dialect import ADMIN, OPEN, Asked, Call, Fault, Outputs, Rendered, Request, Route, Version, usable
from models.errors import BadInput, Unimplemented
from models.schema import Compiled
from models.tensors import dumps
from models.wording import clip

NAME = "open_inference"
PREFIX = "/v2"
LOAD, UNLOAD = "load", "unload"


def _of_model(verb: str, rest: str, action: str, *, infers: bool = False) -> Iterator[Route]:
    for place in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        yield Route(verb, f"{place}{rest}", action, infers)


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2", "server"),
    Route("GET", "/v2/", "server"),
    Route("GET", "/v2/health/live", "live", key=OPEN),
    Route("GET", "/v2/health/ready", "ready", key=OPEN),
    Route("GET", "/v2/models/stats", "stats"),  # before a model of that name, as in Triton
    *_of_model("POST", "/infer", "infer", infers=True),
    *_of_model("GET", "", "metadata"),
    *_of_model("GET", "/ready", "model_ready"),
    *_of_model("GET", "/config", "config"),
    *_of_model("GET", "/stats", "stats"),
    Route("POST", "/v2/repository/index", "index"),
    Route("POST", "/v2/repository/models/{model}/load", LOAD, key=ADMIN),
    Route("POST", "/v2/repository/models/{model}/unload", UNLOAD, key=ADMIN),
)

# Paths of Triton's that have no route here, and why; whoever calls one hears it, instead of a bare "Not Found".
_NOT_OFFERED = (
    (r"/v2/(system|cuda)sharedmemory/.*", "shared memory is not offered: send tensors in the request, in binary"),
    (r"/v2/(models/[^/]+/)?trace/setting", "tracing is not offered; metrics are under /metrics"),
    (r"/v2/logging", "changing the log over HTTP is not offered"),
    (r"/v2/models/[^/]+/(versions/[0-9]+/)?generate(_stream)?", "generate is not offered: use infer"),
    (r"/v2/repository/[^/]+/(index|models/[^/]+/(load|unload))", "'repository_name' specification is not supported"),
)
_OPERATION = re.compile(r"/v2/repository/models/([^/]+)/(load|unload)").fullmatch
_REASONS = tuple((re.compile(pattern).fullmatch, reason) for pattern, reason in _NOT_OFFERED)

# Triton's words, where clients look for them; any other refusal is in the words of whoever refused.
TEXT_CHARACTERS = 600
_TEXTS = {
    "METHOD_NOT_ALLOWED": "Method Not Allowed",
    "OVERLOADED": "Exceeds maximum queue size",
    "TIMEOUT": "Request timeout expired",
}


def parse(version: Version, call: Call) -> Request:
    """The rows that a call asks about. Raises BadInput, TooLarge or Unimplemented."""
    return oip_request.parse(usable(version), call)


def render(compiled: Compiled, request: Request, outputs: Outputs) -> Rendered:
    """The answer to a request. Raises BadOutput, and BadInput where JSON is wanted and cannot carry the answer."""
    return oip_answer.render(compiled.contract, request, outputs)


def describe(asked: Asked) -> Rendered:
    """The answer to a question, or to a load or unload once that is done. Raises BadInput or Unimplemented."""
    if asked.action in (LOAD, UNLOAD):
        _check_operation(asked.action, asked.body)
        return Rendered(b"")
    return oip_describe.describe(asked)


def refuse(fault: Fault) -> Rendered:
    """Every refusal has one member, the reason. Statuses are those of the one table."""
    if fault.code == "NOT_FOUND":
        return _not_found(fault)
    text = _TEXTS.get(fault.code, fault.message)
    if fault.code == "NOT_READY" and fault.model is not None:
        text = oip_describe.not_ready(fault.model, fault.given, fault.message)
    if operation := _OPERATION(fault.path):
        text = f"failed to {operation[2]} '{clip(operation[1], 64)}', {text}"
    return _error(text, fault.status)


def _not_found(fault: Fault) -> Rendered:
    if fault.model is not None:
        which = f"'{clip(fault.model, 64)}'" + (f" version {clip(fault.given, 20)}" if fault.given else "")
        return _error(f"Request for unknown model: {which} is not found", fault.status)
    for matches, reason in _REASONS:
        if matches(fault.path):
            return _error(reason, 501)
    return _error("Not Found", fault.status)


def _error(text: str, status: int) -> Rendered:
    return Rendered(dumps({"error": clip(text, TEXT_CHARACTERS)}), status=status)


# ---------------------------------------------------------------------------------------------- load and unload


def _check_operation(action: str, body: bytes) -> None:
    """Hold the body of a load or unload to what is offered: nothing that it says changes what is done.

    Raises:
        BadInput: it is no JSON object, or holds a parameter that there is none of.
        Unimplemented: a load that brings its own configuration or files.
    """
    parameters = loads(body).get("parameters") if body.strip() else None
    if parameters is None:
        return
    if type(parameters) is not dict:
        raise BadInput("Unable to parse 'parameters'")
    for name, value in parameters.items():
        if action == LOAD and (name == "config" or name.startswith("file:")):
            raise Unimplemented(
                f"'{clip(name, 64)}' is not offered: a model is loaded as it lies in the server's folder of models;"
                " change its files there, then load it"
            )
        if action != UNLOAD or name != "unload_dependents":
            raise BadInput(f"unexpected parameter '{clip(name, 64)}' in {action} request")
        if type(value) is not bool:
            raise BadInput("Unable to parse 'unload_dependents'")
