"""TensorFlow Serving's REST API, version 1, so that its clients find here what they know.

Owns the routes, the choice of a signature and the bodies of refusals; predict, classify and regress, and descriptions
are the modules' named tfs_*. docs/tensorflow_serving.md lists what differs from the original, and why.
"""

from __future__ import annotations

from collections.abc import Iterator

from models.contract import USUAL_SIGNATURE
from models.dialects import tfs_describe, tfs_examples, tfs_predict
from models.dialects.dialect import Asked, Call, Fault, Outputs, Rendered, Request, Route, Version, usable
from models.dialects.tfs_json import loads, shown
from models.errors import BadInput, TooLarge
from models.schema import Compiled
from models.tensors import dumps
from models.wording import clip

NAME = "tf_serving"
PREFIX = "/v1/"
PREDICT, CLASSIFY, REGRESS = "predict", "classify", "regress"
STATUS, METADATA, MODELS = "status", "metadata", "models"
_INT64_MAX = 2**63 - 1


def _routes() -> Iterator[Route]:
    yield Route("GET", "/v1/models", MODELS)
    for place in ("", "/versions/{version}", "/labels/{label}"):
        for action in (PREDICT, CLASSIFY, REGRESS):
            yield Route("POST", f"/v1/models/{{model}}{place}:{action}", action, infers=True)
        yield Route("GET", f"/v1/models/{{model}}{place}", STATUS)
        yield Route("GET", f"/v1/models/{{model}}{place}/metadata", METADATA)


ROUTES: tuple[Route, ...] = tuple(_routes())


def parse(version: Version, call: Call) -> Request:
    """The rows that a call asks about. Raises BadInput and TooLarge, with the original's words where it has any."""
    if len(call.body) > call.max_json_bytes:
        raise TooLarge(f"the body has {len(call.body)} bytes, at most {call.max_json_bytes} are taken")
    if call.action == PREDICT and (plain := tfs_predict.parse_plain(usable(version), call)) is not None:
        return plain
    body = loads(call.body)
    name = body.get("signature_name", "")
    if type(name) is not str:
        reason = "not formatted correctly. 'signature_name' key must be a string value."
        raise BadInput(f"JSON Value: {shown(body)} {reason}")
    compiled = _signature(version, name, call.action)
    read = tfs_predict.parse if call.action == PREDICT else tfs_examples.parse
    request = read(compiled, body, call)
    return request if compiled is version.compiled else _for_signature(request, compiled.contract.signature)


def _for_signature(request: Request, name: str) -> Request:
    return Request(request.items, request.count, request.many, signature=name, form=request.form)


def _signature(version: Version, name: str, action: str) -> Compiled:
    """The one that is meant; the usual one answers to "serving_default" too, whatever a contract made the usual one."""
    if name in version.signatures:
        return version.signatures[name]
    usual = usable(version)
    if name in ("", USUAL_SIGNATURE, usual.contract.signature, *usual.contract.aliases):
        return usual
    if action == PREDICT:
        raise BadInput(f'Serving signature name: "{clip(name, 64)}" not found in signature def')
    raise BadInput(f"No signature was found with the name: {clip(name, 64)}")


def render(compiled: Compiled, request: Request, outputs: Outputs) -> Rendered:
    """The answer to a request. Raises BadOutput."""
    write = tfs_predict.render if request.form.kind in ("rows", "columns") else tfs_examples.render
    return Rendered(write(compiled.contract, request, outputs))


def describe(asked: Asked) -> Rendered:
    """States, signatures, or the list of models."""
    if asked.action == MODELS:
        return Rendered(tfs_describe.models(asked))
    if asked.action == STATUS:
        return Rendered(tfs_describe.status(asked))
    if asked.version is None or asked.version.compiled is None:
        return _refused(404, _not_served(asked.model or "", asked.given, asked.path))
    return Rendered(tfs_describe.metadata(asked.version))


def refuse(fault: Fault) -> Rendered:
    """A refusal in the original's words where clients look for them, else in those of whoever refused."""
    if fault.code == "METHOD_NOT_ALLOWED" or (fault.code == "NOT_FOUND" and fault.model is None):
        return _refused(400, f"Malformed request: {fault.verb} {clip(fault.path, 200)}")
    if fault.code != "NOT_FOUND":
        return _refused(fault.status, fault.message)
    model, given = clip(fault.model or "", 64), clip(fault.given or "", 64)
    if "/labels/" in fault.path:
        return _refused(400, f"Unrecognized servable version label: {given}")
    if given.isdecimal() and int(given) > _INT64_MAX:
        return _refused(400, f"Failed to convert version: {given} to numeric.")
    if fault.verb == "POST" or fault.path.endswith("/metadata"):
        return _refused(404, _not_served(model, given, fault.path))
    what = f"version {given}" if given else "any versions"
    return _refused(404, f"Could not find {what} of model {model}")


def _not_served(model: str, given: str | None, path: str) -> str:
    which = f"Specific({model}, {given})" if given and "/versions/" in path else f"Latest({model})"
    return f"Servable not found for request: {which}"


def _refused(status: int, message: str) -> Rendered:
    return Rendered(dumps({"error": message}), status=status)
