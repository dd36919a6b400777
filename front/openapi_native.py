"""The native dialect's part of the OpenAPI document: predictions of each model, by name, by default and by contract.

Owns these paths. Knows nothing of how components are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from front.catalog import Ambiguous, Catalog, Entry
from front.openapi_parts import (
    INFERRING,
    Operation,
    Parts,
    answer,
    content,
    one_of,
    query,
    reference,
)
from front.settings import Settings
from models.contract import Contract
from models.dialects import native_schema
from models.dialects.native import TOP_DEFAULT, TOP_MAX
from models.narrowing import is_classifier
from models.schema import Compiled

Said = Iterator[tuple[str, str, Operation]]
"""(path, verb, operation)"""


def tag_of(name: str) -> str:
    """Under which a model's own operations stand."""
    return f"model {name}"


def predictions(parts: Parts, catalog: Catalog, settings: Settings) -> Said:
    """Of every model that is known, then of those that requests without a name mean."""
    for name in catalog.models:
        entry = catalog.find(name)
        if entry.compiled is None:
            continue
        yield f"/predict/{name}", "post", _inference(parts, catalog, settings, entry, "predict", f"predict:{name}")
        if is_classifier(entry.compiled.contract):
            classify = _inference(parts, catalog, settings, entry, "classify", f"classify:{name}")
            yield f"/classify/{name}", "post", classify
        for route in entry.compiled.contract.routes:
            if _claims(catalog, route) is entry:
                operation = _inference(parts, catalog, settings, entry, "advanced", f"route:{route[1:]}")
                yield route, "post", operation
    for path, chosen, action in (
        ("/predict", catalog.for_predict, "predict"),
        ("/classify", catalog.for_classify, "classify"),
    ):
        try:
            entry = catalog.find(chosen().name)
        except Ambiguous:
            continue
        if entry.compiled is not None and (action == "predict" or is_classifier(entry.compiled.contract)):
            yield path, "post", _inference(parts, catalog, settings, entry, action, action)


def _claims(catalog: Catalog, route: str) -> Entry | None:
    """The model that answers at a route of contracts where no canary is drawn."""
    for name in catalog.models:
        entry = catalog.find(name)
        if entry.contract and route in entry.contract.routes:
            return entry
    return None


def _inference(
    parts: Parts, catalog: Catalog, settings: Settings, entry: Entry, action: str, operation_id: str
) -> Operation:
    compiled = entry.compiled
    if compiled is None:
        raise ValueError("nothing is known of its requests")
    contract = compiled.contract
    pictures = action == "classify" and contract.image is not None
    known = f"{entry.name}.{entry.version}"
    schema = native_schema.picture_schema if pictures else native_schema.request_schema
    request = parts.schema(
        f"{known}.{'picture_request' if pictures else 'request'}", schema(compiled, settings.queue_rows)
    )
    body = content(request, native_schema.request_examples(compiled, action))
    if pictures:
        body |= native_schema.picture_content(compiled)
    answers = answer(
        "The answer, or one for each row.",
        content(
            parts.schema(f"{known}.{action}_answer", native_schema.answer_schema(contract, action)),
            native_schema.answer_examples(compiled, action),
        ),
    )
    parameters = [reference("parameters", "request_timeout"), reference("parameters", "content_encoding")]
    if action != "advanced":
        parameters += _versions(catalog, entry, compiled)
    if action == "classify":
        top = {"type": "integer", "minimum": 1, "maximum": TOP_MAX, "default": TOP_DEFAULT}
        parameters.append(query("top", top, "how many classes to name"))
    return parts.operation(
        operation_id,
        tag_of(entry.name),
        _summary(action, entry.name),
        {200: answers},
        codes=INFERRING,
        parameters=parameters,
        body=body,
        description=_described(contract, entry.version),
    )


def _summary(action: str, name: str) -> str:
    words = {
        "predict": "A prediction of",
        "classify": "The best classes by",
        "advanced": "A prediction, in its own shape, of",
    }
    return f"{words[action]} {name}"


def _described(contract: Contract, version: str) -> str:
    text = f"{contract.description}\n\n" if contract.description else ""
    return f"{text}Of version {version}. JSON is read whatever the Content-Type says."


def _versions(catalog: Catalog, entry: Entry, compiled: Compiled) -> list[dict[str, Any]]:
    """By which other versions may be asked: those that take the same."""
    same = [
        one.version
        for one in catalog.versions(entry.name)
        if one.state == "READY" and one.compiled is not None and one.compiled.json_schema == compiled.json_schema
    ]
    parameters = []
    if same:
        told = "a version to ask, of those that take the same; for others see GET /models"
        parameters.append(query("version", one_of(same), told))
    routing = catalog.routing.get(entry.name)
    labels = [] if routing is None else [label for label, version in routing.labels.items() if version in same]
    if labels:
        parameters.append(query("label", one_of(labels), "a label of a version, instead of its number"))
    return parameters
