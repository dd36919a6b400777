"""TensorFlow Serving's part of the OpenAPI document: every model, its versions and labels, and the descriptions.

Owns these paths. Knows nothing of how components are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from front.catalog import Catalog, Entry
from front.openapi_native import Said, tag_of
from front.openapi_parts import INFERRING, NAMED, Operation, Parts, answer, content, in_path, one_of, reference
from front.settings import Settings
from models.dialects import tf_serving, tfs_schema
from models.schema import Compiled

TAG = "TensorFlow Serving"
TAGS = {TAG: "States and signatures of models, as TensorFlow Serving tells them; predictions are with their models."}
ACTIONS = (tf_serving.PREDICT, tf_serving.CLASSIFY, tf_serving.REGRESS)
_NOTES = (
    "TensorFlow Serving's REST API. Numbers may be the bare words NaN, Infinity and -Infinity, both ways; columns are "
    "of one length; signature_name may name any other signature of the model."
)


def predictions(parts: Parts, catalog: Catalog, settings: Settings) -> Said:
    """Of each model the version that serves, then each version and label by name."""
    for name in catalog.models:
        for place, which, entry in _places(catalog, name):
            if entry.compiled is None:
                continue
            for action in ACTIONS:
                if tfs_schema.offers(entry.compiled, action):
                    operation_id = f"tf_serving_{action}:{name}{which}"
                    path = f"/v1/models/{name}{place}:{action}"
                    yield path, "post", _inference(parts, settings, entry, entry.compiled, action, operation_id)


def _places(catalog: Catalog, name: str) -> Iterator[tuple[str, str, Entry]]:
    """What stands in the path, what in the operation's id, and the version that answers there."""
    yield "", "", catalog.find(name)
    for entry in catalog.versions(name):
        if entry.state == "READY":
            yield f"/versions/{entry.version}", f":version:{entry.version}", entry
    routing = catalog.routing.get(name)
    for label, version in routing.labels.items() if routing else ():
        if any(entry.version == version for entry in catalog.versions(name)):
            yield f"/labels/{quote(label, safe='')}", f":label:{label}", catalog.find(name, version)


def _inference(
    parts: Parts, settings: Settings, entry: Entry, compiled: Compiled, action: str, operation_id: str
) -> Operation:
    known = f"{entry.name}.{entry.version}.tf_serving_{action}"
    schema = tfs_schema.request_schema(entry, compiled, action, settings.queue_rows)
    examples = tfs_schema.request_examples(compiled, action)
    answered = parts.schema(f"{known}_answer", tfs_schema.answer_schema(compiled, action))
    return parts.operation(
        operation_id,
        tag_of(entry.name),
        f"{action} by {entry.name} version {entry.version}, as TensorFlow Serving has it",
        {200: answer("The results.", content(answered))},
        dialect=tf_serving,
        codes=INFERRING,
        parameters=[reference("parameters", "request_timeout"), reference("parameters", "content_encoding")],
        body=content(parts.schema(known, schema), examples),
        description=_NOTES,
    )


def descriptions(parts: Parts, catalog: Catalog) -> Said:
    """States and signatures, of any model."""
    bodies = {
        tf_serving.MODELS: tfs_schema.models_schema(),
        tf_serving.STATUS: tfs_schema.status_schema(),
        tf_serving.METADATA: tfs_schema.metadata_schema(),
    }
    summaries = {
        tf_serving.MODELS: "All models with the states of their versions",
        tf_serving.STATUS: "The states of versions",
        tf_serving.METADATA: "What each signature takes and gives",
    }
    labels = [label for routing in catalog.routing.values() for label in routing.labels]
    versions = [one.version for all_ in catalog.models.values() for one in all_]
    named = {
        "model": in_path("model", one_of(catalog.models), "its name"),
        "version": in_path("version", {**one_of(versions), "pattern": "^[0-9]+$"}, "its version"),
        "label": in_path("label", one_of(labels), "a label of one of its versions"),
    }
    for route in tf_serving.ROUTES:
        if route.infers:
            continue
        given = [name for name in named if f"{{{name}}}" in route.template]
        schema = parts.schema(f"tf_serving_{route.action}", bodies[route.action])
        yield (
            route.template,
            "get",
            parts.operation(
                ":".join((f"tf_serving_{route.action}", *given)),
                TAG,
                summaries[route.action],
                {200: answer("What is known.", content(schema))},
                dialect=tf_serving,
                codes=NAMED if given else (),
                parameters=[named[name] for name in given],
            ),
        )
