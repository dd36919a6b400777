"""Every route, and what they say to requests that are right and to those that are not."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from webtest import TestApp

from tests.application import app_for, refused

# -- what is always there ----------------------------------------------------------------------------------------------


def test_health_is_up(app: TestApp) -> None:
    assert app.get("/health").json == {"ok": True, "status": "up"}


def test_ready_names_every_model_with_its_state_and_reason(app: TestApp) -> None:
    body = app.get("/ready").json
    assert body["ok"] is True
    states = {(model["name"], model["version"]): (model["state"], model["reason"]) for model in body["models"]}
    assert states["double", "1"] == ("READY", None)
    assert states["refused", "1"] == ("FAILED", "it is refused by design")
    assert body["degraded"] == ["refused version 1: it is refused by design"]


def test_models_show_contract_schema_sample_and_curl(app: TestApp) -> None:
    models = {(model["name"], model["version"]): model for model in app.get("/models").json["models"]}
    assert set(models) >= {("double", "2"), ("pair", "1"), ("refused", "1")}
    one = app.get("/models/pair").json
    assert one["ok"] is True
    assert [field["name"] for field in one["contract"]["fields"]] == ["feature1", "feature2"]
    assert one["json_schema"]["anyOf"]
    assert "/predict/pair" in one["curl"]
    assert app.post_json("/predict/pair", one["sample"]).json["ok"] is True
    assert app.get("/models/double", {"version": "1"}).json["contract"]["description"] == "doubles"


def test_metrics_are_what_prometheus_reads(app: TestApp) -> None:
    app.post_json("/predict/ten", {"features": [0.0] * 10})
    response = app.get("/metrics")
    assert response.content_type == "text/plain"
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    counted = {
        tuple(sample.labels.values()): sample.value
        for sample in families["inference_requests"].samples
        if sample.name == "inference_requests_total"
    }
    assert any({"ten", "200"} <= set(labels) and value >= 1 for labels, value in counted.items())
    assert families["inference_batches"].samples


@pytest.mark.parametrize(
    "path", ["/nothing", "/v3/models/x:predict", "/predict/ten/more", "/models/ten/x", "/%ff", "/hea%fflth"]
)
def test_what_is_not_there_is_404(app: TestApp, path: str) -> None:
    refused(app.get(path, status=404), "NOT_FOUND")
    refused(app.post(path, "{}", status=404), "NOT_FOUND")


@pytest.mark.parametrize(
    ("verb", "path", "allowed"),
    [
        ("GET", "/predict", "POST"),
        ("GET", "/predict/ten", "POST"),
        ("DELETE", "/classify", "POST"),
        ("POST", "/health", "GET"),
        ("PUT", "/models", "GET"),
        ("GET", "/advanced_predict", "POST"),
    ],
)
def test_another_verb_is_405_and_says_which_would_do(app: TestApp, verb: str, path: str, allowed: str) -> None:
    response = app.request(path, method=verb, status=405)
    refused(response, "METHOD_NOT_ALLOWED")
    assert response.headers["Allow"] == allowed


# -- the request id ----------------------------------------------------------------------------------------------------


def test_a_well_formed_request_id_is_echoed(app: TestApp) -> None:
    response = app.post_json("/predict/ten", {"features": [0.0] * 10}, headers={"X-Request-Id": "abc-1.2:3"})
    assert response.headers["X-Request-Id"] == "abc-1.2:3"
    assert app.get("/health", headers={"X-Request-Id": "h1"}).headers["X-Request-Id"] == "h1"


@pytest.mark.parametrize("given", ["", "with space", "x" * 129, "ü", "a;b", "<script>"])
def test_another_request_id_is_replaced(app: TestApp, given: str) -> None:
    headers = {"X-Request-Id": given.encode().decode("latin-1")}
    made = app.get("/health", headers=headers).headers["X-Request-Id"]
    assert made != given
    assert made != app.get("/health").headers["X-Request-Id"]


# -- predict -----------------------------------------------------------------------------------------------------------


def test_features_give_a_prediction(app: TestApp) -> None:
    body = app.post_json("/predict/double?version=1", {"features": [1.25]}).json
    assert body == {"ok": True, "prediction": 2.5, "model_version": "1"}


def test_a_version_can_be_asked_of_the_default_model_too(server: Any) -> None:
    app, client = app_for(server, default_model="double")
    assert app.post_json("/predict?version=1", {"features": [1.25]}).json["model_version"] == "1"
    assert app.post_json("/predict", {"features": [1.25]}).json["model_version"] == "2"
    refused(app.post_json("/predict?version=9", {"features": [1.25]}, status=404), "NOT_FOUND")
    client.close()


def test_the_newest_version_serves_by_default(app: TestApp) -> None:
    assert app.post_json("/predict/double", {"features": [1.0]}).json["model_version"] == "2"


def test_instances_give_predictions_in_order(app: TestApp) -> None:
    body = app.post_json("/predict/ten", {"instances": [{"features": [float(i)] * 10} for i in range(70)]}).json
    assert [row[0] for row in body["predictions"]] == [2.0 * i for i in range(70)]


def test_named_fields_go_in_order(app: TestApp) -> None:
    assert app.post_json("/predict/pair", {"feature2": 2, "feature1": 1}).json["prediction"] == [2.0, 4.0]


def test_the_input_goes_by_its_own_name(app: TestApp) -> None:
    assert app.post_json("/predict/poison", {"x": [3]}).json["prediction"] == 6.0


def test_the_content_type_does_not_matter(app: TestApp) -> None:
    for content_type in ("application/x-www-form-urlencoded", "text/plain", "image/png"):
        assert app.post("/predict/poison", '{"features": [3]}', content_type=content_type).json["prediction"] == 6.0


def test_a_claimed_route_keeps_the_shape(app: TestApp) -> None:
    body = app.post_json("/advanced_predict", {"feature1": 1, "feature2": 2}).json
    assert body["prediction"] == [[2.0, 4.0]]
    error = refused(app.post_json("/advanced_predict", {"feature1": 1}, status=400), "BAD_INPUT")
    assert "feature2" in error["message"]
    error = refused(app.post_json("/advanced_predict", {"feature1": -1, "feature2": 2}, status=400), "BAD_INPUT")
    assert error["path"] == "/feature1"


def test_without_a_name_and_without_a_default_the_choices_are_listed(app: TestApp) -> None:
    body = refused(app.post_json("/predict", {"features": [1]}, status=400), "BAD_INPUT")
    assert "double" in body["message"]
    assert "pair" in body["message"]


def test_the_default_model_answers_without_a_name(server: Any) -> None:
    app, client = app_for(server, default_model="poison")
    assert app.post_json("/predict", {"features": [2]}).json["prediction"] == 4.0
    client.close()


def test_an_unknown_model_or_version_is_404_and_lists_what_there_is(app: TestApp) -> None:
    assert "double" in refused(app.post_json("/predict/nope", {}, status=404), "NOT_FOUND")["message"]
    assert "2, 1" in refused(app.post_json("/predict/double?version=9", {}, status=404), "NOT_FOUND")["message"]
    refused(app.get("/models/nope", status=404), "NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "path", "said"),
    [
        (b"", None, "empty"),
        (b"[1]", None, "object"),
        (b'{"features": [1, 2}', None, ""),
        (b'{"features": [NaN]}', None, ""),
        (b'{"features": [1e999]}', None, ""),
        (b'{"features": ["\\ud800"]}', None, ""),
        (b'{"features": [1], "features": [2]}', "/features", ""),
        (b'\xff\xfe{"features": [1]}', None, ""),
        (b'{"features": [1, 2]}', "/features", "2 numbers"),
        (b'{"features": [true]}', "/features/0", ""),
        (b'{"features": [1e300]}', "/features/0", ""),
        (b'{"feature": [1]}', "/feature", ""),
        (b'{"instances": [[1], [1, 2]]}', "/instances/1", ""),
        (b'{"instances": []}', "/instances", ""),
    ],
)
def test_bad_input_is_explained_with_path_and_sample(app: TestApp, body: bytes, path: str | None, said: str) -> None:
    error = refused(app.post("/predict/poison", body, status=400), "BAD_INPUT")
    assert said in error["message"]
    assert error.get("path", "") == (path or "")
    assert app.post_json("/predict/poison", error["sample"]).json["ok"] is True


def test_a_deep_bomb_is_refused(app: TestApp) -> None:
    for bomb in (b"[" * 100_000, b'{"features":' * 50_000, b'{"features": [' + b"[]," * 1_000_000):
        response = app.post("/predict/poison", bomb, status="*")
        refused(response, response.json["error"])
        assert response.status_int in {400, 413}


def test_a_body_above_the_limit_is_413(server: Any) -> None:
    app, client = app_for(server, max_json_bytes=1000, max_body_bytes=2000)
    refused(app.post("/predict/poison", b" " * 1001, status=413), "TOO_LARGE")
    refused(app.post("/classify/picture", b" " * 2001, status=413), "TOO_LARGE")
    client.close()
