"""The OpenAPI 3.1 document of what is served now: every model's own paths, schemas, examples and refusals.

Owns the document as a whole and when it is made anew. What is in it comes from the catalog and the settings; its parts
are the modules named openapi_*. Says nothing of addresses: whoever reads it knows where it came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from front import openapi_native, openapi_open_inference, openapi_server, openapi_tf_serving
from front.catalog import Catalog
from front.openapi_native import Said
from front.openapi_parts import Parts
from front.settings import Settings

VERSION = "3.1.0"
_ABOUT = (
    "One port, three languages: a plain `/predict`, TensorFlow Serving's REST and the Open Inference Protocol. Every "
    "refusal says why; `X-Request-Id` finds it in the log. Bodies may come, and answers leave, in gzip or deflate. A "
    "path that is asked with a verb that it does not take answers 405 and names those in `Allow` (under /v1: 400, as "
    "TensorFlow Serving does)."
)


def document(catalog: Catalog, settings: Settings, version: str, *, has_log: bool) -> dict[str, Any]:
    """The document of one catalog. version: of this server. has_log: whether predictions are logged."""
    parts = Parts(settings)
    paths: dict[str, dict[str, Any]] = {}
    for path, verb, operation in _operations(parts, catalog, settings, has_log=has_log):
        paths.setdefault(path, {})[verb] = operation
    described = {
        **{openapi_native.tag_of(name): _described(catalog, name) for name in catalog.models},
        **openapi_server.TAGS,
        **openapi_tf_serving.TAGS,
        **openapi_open_inference.TAGS,
    }
    return {
        "openapi": VERSION,
        "info": {
            "title": "inference-server",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in described.items()],
        "paths": paths,
        "components": parts.components(),
    }


def _operations(parts: Parts, catalog: Catalog, settings: Settings, *, has_log: bool) -> Said:
    yield from _sorted(openapi_native.predictions(parts, catalog, settings))
    yield from _sorted(openapi_tf_serving.predictions(parts, catalog, settings))
    yield from _sorted(openapi_open_inference.predictions(parts, catalog, settings))
    yield from openapi_server.server(parts, catalog, has_log=has_log)
    yield from openapi_tf_serving.descriptions(parts, catalog)
    yield from openapi_open_inference.descriptions(parts, catalog)


def _sorted(said: Said) -> Iterator[tuple[str, str, Any]]:
    """Those without a name in their path first."""
    return iter(sorted(said, key=lambda one: (one[0].count("/"), one[0])))


def _described(catalog: Catalog, name: str) -> str:
    entry = catalog.find(name)
    told = entry.contract.description if entry.contract else ""
    state = f"Version {entry.version}: {entry.state}" + (f" ({entry.reason})" if entry.reason else "")
    return f"{told}\n\n{state}" if told else state


class Documents:
    """The document as it is sent, made once for each catalog."""

    def __init__(self, settings: Settings, version: str, *, has_log: bool) -> None:
        self._settings = settings
        self._version = version
        self._has_log = has_log
        self._made: tuple[int, bytes] | None = None

    def of(self, catalog: Catalog) -> bytes:
        """The document of this catalog as JSON."""
        made = self._made
        if made is None or made[0] != catalog.serial:
            text = orjson.dumps(document(catalog, self._settings, self._version, has_log=self._has_log))
            made = self._made = catalog.serial, text
        return made[1]
