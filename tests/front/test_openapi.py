"""The OpenAPI document: valid by OpenAPI's own schema, the same each time, true to contracts and settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from front.catalog import Catalog, cataloguer
from front.openapi import Documents, document
from front.openapi_parts import MEANINGS, OUTSIDE
from front.refusals import STATUS
from front.settings import Settings
from tests.documented import DOUBLE, HOUSE, MIXED, MODELS, OPEN, PICTURE, SCALAR, VECTOR
from tests.fakes import load

# https://spec.openapis.org/oas/3.1/schema/2022-10-07, as it is published.
OFFICIAL = json.loads((Path(__file__).parent / "openapi-3.1-schema.json").read_text())


def catalog_of(
    *references: dict[str, Any], default: str | None = None, serial: int = 1, state: str = "READY", **routing: Any
) -> Catalog:
    """What a front makes of these models. routing: model -> labels, canary."""
    models = []
    for index, reference in enumerate(references):
        version = {"version": "1", **reference}
        models.append(
            {
                "name": version["name"],
                "version": version["version"],
                "group": "default",
                "generation": 1,
                "index": index,
                "state": state,
                "reason": None if state == "READY" else "it is refused by design",
                "description": load(version, {}).description if state == "READY" else None,
                "costs": {},
            }
        )
    snapshot = {"serial": serial, "models": models, "workers": [], "routing": routing}
    return cataloguer(default)(snapshot)


def documented(*references: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The document of these models, with references to schemas put in their places."""
    settings = Settings(**more.pop("settings", {}))
    has_log = more.pop("has_log", True)
    whole = json.loads(json.dumps(document(catalog_of(*references, **more), settings, "1.2.3", has_log=has_log)))
    told: dict[str, Any] = resolved(whole, whole)
    return told


def resolved(node: Any, whole: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [resolved(part, whole) for part in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target: Any = whole
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return resolved(target, whole)
    return {key: resolved(part, whole) for key, part in node.items()}


def post(told: dict[str, Any], path: str) -> dict[str, Any]:
    """The operation that posts there."""
    operation: dict[str, Any] = told["paths"][path]["post"]
    return operation


def request_of(told: dict[str, Any], path: str, media: str = "application/json") -> Draft202012Validator:
    """What the document says of the body that is posted there."""
    return Draft202012Validator(post(told, path)["requestBody"]["content"][media]["schema"])


def answer_of(told: dict[str, Any], path: str, verb: str = "post") -> Draft202012Validator:
    return Draft202012Validator(told["paths"][path][verb]["responses"]["200"]["content"]["application/json"]["schema"])


# -- the whole ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "references", [pytest.param(MODELS, id="many models"), pytest.param([], id="none"), pytest.param([HOUSE], id="one")]
)
@pytest.mark.parametrize("key_file", [None, "api_key_file", "admin_key_file"])
def test_the_document_is_valid_openapi(references: list[dict[str, Any]], key_file: str | None) -> None:
    routing: dict[str, Any] = {"vector": {"labels": {"stable": "1", "a b": "2"}}} if len(references) > 1 else {}
    keys: dict[str, Any] = {key_file: "/keys"} if key_file else {}
    settings = Settings(**keys)
    told = document(catalog_of(*references, **routing), settings, "1.2.3", has_log=True)
    errors = [f"{error.json_path}: {error.message[:200]}" for error in Draft202012Validator(OFFICIAL).iter_errors(told)]
    assert not errors
    for name, schema in told["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert name


def test_operation_ids_are_unique_and_tags_are_described() -> None:
    told = documented(*MODELS, default="house", vector={"labels": {"stable": "1"}})
    operations = [operation for verbs in told["paths"].values() for operation in verbs.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    assert {tag for operation in operations for tag in operation["tags"]} <= {tag["name"] for tag in told["tags"]}


def test_every_component_is_used_and_every_reference_leads_somewhere() -> None:
    told = document(catalog_of(*MODELS), Settings(api_key_file="/keys"), "1.2.3", has_log=True)
    text = json.dumps(told)
    for kind, components in told["components"].items():
        for name in components if kind != "securitySchemes" else ():
            used = f'"#/components/{kind}/{name}"' in text
            assert used or name == "native.405", name  # no operation can be asked with another verb than its own
    resolved(told, told)


def test_it_is_the_same_each_time_and_made_once_for_a_catalog() -> None:
    documents = Documents(Settings(), "1.2.3", has_log=False)
    first = documents.of(catalog_of(*MODELS, serial=7))
    assert documents.of(catalog_of(*MODELS, serial=7)) is first
    assert documents.of(catalog_of(DOUBLE, serial=8)) != first
    assert documents.of(catalog_of(*MODELS, serial=9)) == first


def test_every_code_of_the_table_of_errors_is_there_with_its_status() -> None:
    told = documented(*MODELS, has_log=False, settings={"api_key_file": "/keys"})
    said: dict[int, set[str]] = {}
    for path, verbs in told["paths"].items():
        if path.startswith(("/v1", "/v2")):
            continue
        for operation in verbs.values():
            for status, response in operation["responses"].items():
                body = response["content"].get("application/json", {}).get("schema", {}).get("properties", {})
                said.setdefault(int(status), set()).update(body.get("error", {}).get("enum", ()))
    for code, status in STATUS.items():
        assert code in OUTSIDE or code in said[status], code
        assert status in MEANINGS or code == "CLIENT_GONE"


# -- models ------------------------------------------------------------------------------------------------------------


def test_fields_are_described_with_their_ranges() -> None:
    told = documented(HOUSE)
    request = request_of(told, "/predict/house")
    assert request.is_valid({"size": 60.5, "rooms": 3})
    assert request.is_valid({"features": [60.5, 3]})
    assert request.is_valid({"instances": [{"size": 0, "rooms": 1}, {"size": 100, "rooms": 20}]})
    assert not request.is_valid({"size": 101, "rooms": 3})
    assert not request.is_valid({"features": [60.5, 0]})
    assert not request.is_valid({"size": 60.5})
    assert request_of(told, "/rent").is_valid({"size": 60.5, "rooms": 3})
    assert answer_of(told, "/rent").is_valid({"ok": True, "prediction": [[1.0, 2.0]], "model_version": "1"})
    assert not answer_of(told, "/rent").is_valid({"ok": True, "prediction": [1.0, 2.0], "model_version": "1"})
    assert "no bath" in json.dumps(request.schema)


def test_numbers_have_the_bounds_of_their_dtypes() -> None:
    request = request_of(documented(MIXED), "/predict/mixed")
    good = {"flag": True, "count": -(2**63), "big": [0, 2**64 - 1], "words": ["a"], "half": [[65504], [-1.5]]}
    assert request.is_valid(good)
    for name, bad in {
        "flag": 1,
        "count": 2**63,
        "big": [-1, 0],
        "words": [1],
        "half": [[65520], [0]],  # half a step beyond the largest
    }.items():
        assert not request.is_valid({**good, name: bad}), name
    assert not request.is_valid({**good, "big": [1]})
    one_more = {**good, "more": 1}
    assert not request.is_valid(one_more)


def test_unknown_dimensions_take_any_length() -> None:
    request = request_of(documented(OPEN), "/predict/open")
    assert request.is_valid({"x": [[1, 2, 3]] * 7})
    assert request.is_valid({"features": []})
    assert not request.is_valid({"x": [[1, 2]]})


def test_a_scalar_a_row_is_a_plain_number_of_at_most_so_many_rows() -> None:
    told = documented(SCALAR)
    request = request_of(told, "/predict/scalar")
    assert request.is_valid({"age": 4})
    assert request.is_valid({"instances": [4] * 16})
    assert not request.is_valid({"instances": [4] * 17})
    assert answer_of(told, "/predict/scalar").is_valid({"ok": True, "predictions": [8], "model_version": "1"})


def test_null_stands_for_nan_only_where_the_contract_says_so() -> None:
    told = documented(DOUBLE, SCALAR)
    null = {"ok": True, "prediction": None, "model_version": "1"}
    assert answer_of(told, "/predict/double").is_valid(null)
    assert not answer_of(told, "/predict/scalar").is_valid(null)


def test_pictures_come_in_all_their_ways_and_classes_have_the_contracts_labels() -> None:
    told = documented(PICTURE, VECTOR)
    kinds = set(post(told, "/classify/picture")["requestBody"]["content"])
    assert kinds >= {"application/json", "multipart/form-data", "application/x-www-form-urlencoded", "image/png"}
    assert set(post(told, "/classify/vector")["requestBody"]["content"]) == {"application/json"}
    answer = answer_of(told, "/classify/picture")
    best = {"class": 1, "label": "dim", "score": 1.0}
    good = {"ok": True, "predicted_class": 1, "label": "dim", "top": [best], "model_version": "1"}
    assert answer.is_valid(good)
    assert not answer.is_valid({**good, "label": "other"})
    assert not answer.is_valid({**good, "predicted_class": 3})
    assert "/classify" in told["paths"]  # the only image classifier
    assert "/predict" not in told["paths"]  # two models, and none is the default


def test_versions_and_labels_have_paths_of_their_own() -> None:
    other = {**VECTOR, "version": "2", "size": 5}
    told = documented(VECTOR, other, vector={"labels": {"stable": "1", "a b": "2"}})
    paths = told["paths"]
    row = {"instances": [[1, 2, 3, 4]]}
    for place in ("/versions/1", "/labels/stable"):
        assert request_of(told, f"/v1/models/vector{place}:predict").is_valid(row)
    for place in ("", "/versions/2", "/labels/a%20b"):
        assert not request_of(told, f"/v1/models/vector{place}:predict").is_valid(row)
    assert {"/v2/models/vector/versions/1/infer", "/v2/models/vector/versions/2/infer"} <= set(paths)
    named = {one["name"]: one for one in post(told, "/predict/vector")["parameters"]}
    assert named["version"]["schema"]["enum"] == ["2"]  # version 1 takes other rows
    assert named["label"]["schema"]["enum"] == ["a b"]


def test_classify_and_regress_are_there_for_models_that_answer_them() -> None:
    paths = documented(*MODELS)["paths"]
    assert {"/v1/models/picture:classify", "/v1/models/double:regress"} <= set(paths)
    assert not {"/v1/models/mixed:classify", "/v1/models/mixed:regress", "/v1/models/picture:regress"} & set(paths)


def test_a_model_that_is_not_loaded_has_no_paths_but_a_word() -> None:
    told = documented(DOUBLE, state="FAILED")
    assert not [path for path in told["paths"] if "double" in path]
    (tag,) = (tag for tag in told["tags"] if tag["name"] == "model double")
    assert tag["description"] == "Version 1: FAILED (it is refused by design)"


# -- settings ----------------------------------------------------------------------------------------------------------


def test_limits_are_those_of_the_settings() -> None:
    request = request_of(documented(DOUBLE, settings={"queue_rows": 3}), "/predict/double")
    assert request.is_valid({"instances": [[1]] * 3})
    assert not request.is_valid({"instances": [[1]] * 4})


@pytest.mark.parametrize(
    ("keys", "predicts", "administers"),
    [
        ({}, [], []),
        ({"api_key_file": "/keys"}, [{"key": []}], [{"key": []}]),
        ({"admin_key_file": "/admin"}, [], [{"admin_key": []}]),
        ({"api_key_file": "/keys", "admin_key_file": "/admin"}, [{"key": []}], [{"admin_key": []}]),
    ],
    ids=["no keys", "one file", "admins alone", "both files"],
)
def test_operations_name_the_key_that_they_need(keys: dict[str, str], predicts: Any, administers: Any) -> None:
    told = documented(DOUBLE, settings=keys)
    for path in ("/predict/double", "/v1/models/double:predict", "/v2/models/double/infer", "/feedback"):
        assert post(told, path)["security"] == predicts
        assert ("401" in post(told, path)["responses"]) == bool(predicts)
    assert told["paths"]["/models"]["get"]["security"] == predicts
    for path in ("/reload", "/v2/repository/models/{model}/load"):
        assert post(told, path)["security"] == administers
    assert told["paths"]["/metrics"]["get"]["security"] == administers
    for path in ("/health", "/ready", "/v2/health/ready"):
        assert told["paths"][path]["get"]["security"] == []
    schemes = told["components"].get("securitySchemes", {})
    assert set(schemes) == {name for needs in (*predicts, *administers) for name in needs}


def test_without_a_prediction_log_feedback_is_not_offered() -> None:
    assert "200" in post(documented(DOUBLE), "/feedback")["responses"]
    responses = post(documented(DOUBLE, has_log=False), "/feedback")["responses"]
    assert "200" not in responses
    assert responses["501"]["content"]["application/json"]["schema"]["properties"]["error"]["enum"] == [
        "NOT_IMPLEMENTED"
    ]
