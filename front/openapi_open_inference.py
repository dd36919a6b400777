"""The Open Inference Protocol's part of the OpenAPI document: models, versions, descriptions, the repository.

Owns these paths. Knows nothing of how components are kept.
"""

from __future__ import annotations

from typing import Any

from front.catalog import Catalog, Entry
from front.openapi_native import Said, tag_of
from front.openapi_parts import (
    INFERRING,
    NAMED,
    WITH_BODY,
    Operation,
    Parts,
    answer,
    content,
    in_path,
    one_of,
    reference,
)
from front.settings import Settings
from models.dialects import oip_schema, open_inference
from models.dialects.dialect import Route
from models.dialects.oip_answer import BINARY
from models.schema import Compiled

TAG = "Open Inference Protocol"
TAGS = {TAG: "The server and its models, as Triton and KServe tell them; inference is with the models."}
_NOTES = (
    "The Open Inference Protocol. `data` has as many values as `shape` says, flat or nested. Tensors may come in "
    "binary behind the JSON, whose length is then in Inference-Header-Content-Length; outputs leave so where "
    "`binary_data` asks for it."
)
_SUMMARIES = {
    "server": "Name, version and extensions of the server",
    "live": "Whether it lives",
    "ready": "Whether traffic is welcome",
    "metadata": "Inputs, outputs and versions of a model",
    "model_ready": "Whether a model can be asked",
    "config": "A model's configuration, as Triton writes it",
    "stats": "What was counted since the server started",
    "index": "Every version with its state",
    "load": "Load a model; answered when it is done",
    "unload": "Unload a model; answered when it is done",
}
# What says by its status that it is not ready says so in its own words, or in those of a refusal.
_UNREADY = ("ready", "model_ready")


def predictions(parts: Parts, catalog: Catalog, settings: Settings) -> Said:
    """Of each model the version that serves, then each version by its number."""
    for name in catalog.models:
        for place, which, entry in _places(catalog, name):
            if entry.compiled is not None:
                operation_id = f"open_inference_infer:{name}{which}"
                yield (
                    f"/v2/models/{name}{place}/infer",
                    "post",
                    _inference(parts, settings, entry, entry.compiled, operation_id),
                )


def _places(catalog: Catalog, name: str) -> list[tuple[str, str, Entry]]:
    """What stands in the path, what in the operation's id, and the version that answers there."""
    ready = [entry for entry in catalog.versions(name) if entry.state == "READY"]
    versions = [(f"/versions/{entry.version}", f":version:{entry.version}", entry) for entry in ready]
    return [("", "", catalog.find(name)), *versions]


def _inference(parts: Parts, settings: Settings, entry: Entry, compiled: Compiled, operation_id: str) -> Operation:
    known = f"{entry.name}.{entry.version}.open_inference"
    schema = parts.schema(known, oip_schema.request_schema(compiled, settings.queue_rows))
    answered = parts.schema(f"{known}_answer", oip_schema.answer_schema(compiled.contract))
    bodies = content(answered) | {BINARY: {"schema": {"contentMediaType": BINARY}}}
    return parts.operation(
        operation_id,
        tag_of(entry.name),
        f"Inference by {entry.name} version {entry.version}, as the Open Inference Protocol has it",
        {200: answer("The outputs; in binary where that is asked for.", bodies)},
        dialect=open_inference,
        codes=(*INFERRING, "NOT_IMPLEMENTED"),
        parameters=[reference("parameters", "request_timeout"), reference("parameters", "content_encoding")],
        body=content(schema, oip_schema.request_examples(compiled)),
        description=_NOTES,
    )


def descriptions(parts: Parts, catalog: Catalog) -> Said:
    """What is said of the server and of any model, and what changes the repository."""
    versions = [one.version for all_ in catalog.models.values() for one in all_]
    named = {
        "model": in_path("model", one_of(catalog.models), "its name"),
        "version": in_path("version", {**one_of(versions), "pattern": "^[0-9]+$"}, "its version"),
    }
    for route in open_inference.ROUTES:
        if not route.infers:
            given = [name for name in named if f"{{{name}}}" in route.template]
            yield route.template, route.verb.lower(), _description(parts, route, given, [named[name] for name in given])


def _description(parts: Parts, route: Route, given: list[str], parameters: list[dict[str, Any]]) -> Operation:
    bodies, changes = oip_schema.schemas(), oip_schema.repository_schemas()
    action = route.action
    answers = {200: answer("It is done.", {})}
    if action in bodies:
        schema = parts.schema(f"open_inference_{action}", bodies[action])
        answers = {200: answer("What is known.", content(schema))}
        if action in _UNREADY:
            refused = parts.schema("refused.dialects", oip_schema.refusal_schema())
            answers[503] = answer("It is not.", content({"anyOf": [schema, refused]}), "Retry-After")
    codes: tuple[str, ...] = (*NAMED, "NOT_READY") if given else ()
    if action in changes:
        codes = (*codes, *WITH_BODY, "NOT_IMPLEMENTED")
    place = ["server"] if route.template == "/v2/" else given
    return parts.operation(
        ":".join(
            (f"open_inference_{action}", *(["all"] if route.template.endswith("/stats") and not given else place))
        ),
        TAG,
        _SUMMARIES[action],
        answers,
        dialect=open_inference,
        key=route.key,
        codes=codes,
        parameters=parameters,
        body=content(changes[action]) if action in changes else None,
        body_required=False,
    )
