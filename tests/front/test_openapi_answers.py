"""What the OpenAPI document shows is so: every example is answered as it says, and every route is in it."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from front.catalog import Routing
from front.openapi import document
from front.settings import Settings
from models.dialects.schema_parts import plain_png
from tests.application import app_for
from tests.documented import HOUSE, MODELS
from tests.front.test_openapi import resolved
from tests.harness import Server, fake_http_server, supervised

# Pages for people, and what refuses everything that has no route.
NOT_DESCRIBED = {"/", "/docs", "/static/{name}"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with fake_http_server(MODELS, default_model="house") as running:
        yield running


@pytest.fixture(scope="module")
def told(server: Server) -> dict[str, Any]:
    whole = json.loads(ask(server, "/openapi.json")[1])
    document: dict[str, Any] = resolved(whole, whole)
    return document


def ask(server: Server, path: str, body: bytes | None = None, media: str = "") -> tuple[int, bytes]:
    request = urllib.request.Request(server.url + path, body, {"Content-Type": media} if media else {})
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.status, response.read()


def test_every_example_passes_its_schema_and_is_answered_as_the_document_says(
    server: Server, told: dict[str, Any]
) -> None:
    sent = 0
    for path, verbs in told["paths"].items():
        if path in ("/feedback", "/reload"):  # no log and no folder of models here; see tests/test_schemathesis.py
            continue
        for operation in verbs.values():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for name, example in content.get("examples", {}).items():
                shown = f"{path} {name}"
                assert Draft202012Validator(content["schema"]).is_valid(example["value"]), shown
                status, body = ask(server, path, json.dumps(example["value"]).encode())
                answer = operation["responses"]["200"]["content"]["application/json"]
                assert status == 200
                assert not [*Draft202012Validator(answer["schema"]).iter_errors(json.loads(body))], f"{shown}: {body!r}"
                wanted = answer.get("examples", {}).get(name)
                assert wanted is None or wanted["value"] == json.loads(body), shown
                sent += 1
    assert sent > 60


def test_every_prediction_has_an_example(told: dict[str, Any]) -> None:
    for path, verbs in told["paths"].items():
        if re.match(r"/predict|/classify|/v2/models/.*/infer$|/v1/models/.*:", path):
            assert verbs["post"]["requestBody"]["content"]["application/json"].get("examples"), path


def test_every_description_is_as_the_document_says(server: Server, told: dict[str, Any]) -> None:
    parts = {"{model}": "vector", "{version}": "2"}
    for template, verbs in told["paths"].items():
        path = re.sub(r"{\w+}", lambda part: parts.get(part[0], part[0]), template)
        if "get" not in verbs or "{" in path:  # nothing has a label here
            continue
        status, body = ask(server, path)
        ((media, answer),) = verbs["get"]["responses"]["200"]["content"].items()
        value = json.loads(body) if media == "application/json" else body.decode()
        errors = [error.message for error in Draft202012Validator(answer["schema"]).iter_errors(value)]
        assert (status, errors) == (200, []), path


@pytest.mark.parametrize("media", ["image/png", "multipart/form-data; boundary=x"])
def test_a_picture_comes_in_the_ways_that_are_described(server: Server, told: dict[str, Any], media: str) -> None:
    operation = told["paths"]["/classify/picture"]["post"]
    assert media.partition(";")[0] in operation["requestBody"]["content"]
    body = plain_png()
    if media.startswith("multipart"):
        body = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + body + b"\r\n--x--\r\n"  # names no file
    status, answer = ask(server, "/classify/picture", body, media)
    assert status == 200
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert Draft202012Validator(schema).is_valid(json.loads(answer))


def templates(app: Any) -> set[tuple[str, str]]:
    """(verb, path) of every route of the application, without those that are there to refuse."""
    found = set()
    for route in app.routes:
        template = route.config.get("label") or re.sub(r"<(\w+)(:\w+)?>", r"{\1}", route.rule)
        if route.method != "ANY" and template not in NOT_DESCRIBED:
            found.add((route.method.lower(), template))
    return found


def test_every_route_is_in_the_document_and_the_other_way_round() -> None:
    """Where a route is for each model its own, the document has it with the model's name."""
    with supervised([HOUSE]) as running:
        app, client = app_for(running, default_model="house")
        catalog = replace(client.view, routing={"house": Routing({"stable": "1"})})
        paths = document(catalog, Settings(), "1.2.3", has_log=False)["paths"]
        routes = templates(app.app)
        client.close()
    described = {(verb, path) for path, verbs in paths.items() for verb in verbs}
    filled = {
        (verb, path.replace("{model}", "house").replace("{version}", "1").replace("{label}", "stable"))
        for verb, path in routes - described
    }
    not_its_own = {(verb, path) for verb, path in filled if path.endswith(":regress") or path.startswith("/classify")}
    assert filled - not_its_own <= described
    assert described - routes - filled == {("post", "/rent")}  # the contract's own
