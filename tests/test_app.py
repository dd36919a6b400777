"""Every route and every error code through webtest, with fake models in a real worker behind the application."""

from __future__ import annotations

import base64
import io
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from webtest import TestApp, TestResponse

from batching.blocking import BlockingClient
from batching.control import ControlChannel
from front.catalog import cataloguer
from front.refusals import STATUS
from inference_server import Settings, create_app
from tests.fakes import POISON
from tests.harness import SOON_S, Gate, gate, supervised

TestApp.__test__ = False
TestResponse.__test__ = False

MODELS: list[dict[str, Any]] = [
    {"name": "double", "narrow": {"description": "doubles", "examples": [{"request": {"features": [1.5]}}]}},
    {"name": "double", "version": "2", "kind": "calls"},
    {"name": "ten", "size": 10},
    {"name": "pair", "size": 2, "narrow": {
        "fields": [{"name": "feature1", "schema": {"minimum": 0}}, {"name": "feature2"}],
        "routes": ["/advanced_predict"],
    }},
    {"name": "poison", "kind": "poison"},
    {"name": "short", "kind": "wrong_length"},
    {"name": "nan", "kind": "nan"},
    {"name": "slow", "seconds": 0.3},
    {"name": "picture", "shape": [4, 4, 1], "kind": "scores", "classes": 3, "narrow": {
        "image": {"input": "x", "width": 4, "height": 4, "colour": "grey", "scale": 1.0},
        "labels": ["dark", "dim", "grey"],
    }},
    {"name": "vector", "size": 4, "kind": "scores", "classes": 3, "narrow": {"labels": ["a", "b", "c"]}},
    {"name": "refused", "kind": "refuses"},
]  # fmt: skip


def app_for(server: Any, **settings: Any) -> tuple[TestApp, BlockingClient]:
    """The application with a client of its own on the server's workers."""
    chosen = Settings(**settings)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(os.path.join(server.folder, "socket"))
    client = BlockingClient(ControlChannel(sock), cataloguer(chosen.default_model))
    assert client.wait_until(lambda catalog: catalog.serial > 0, SOON_S)
    return TestApp(create_app(chosen, client)), client


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with supervised(MODELS) as running:
        yield running


@pytest.fixture(scope="module")
def app(server: Any) -> Iterator[TestApp]:
    made, client = app_for(server)
    yield made
    client.close()


def refused(response: TestResponse, code: str) -> dict[str, Any]:
    """The body of a refusal, held to what every refusal promises."""
    body: dict[str, Any] = response.json
    assert (body["ok"], body["error"]) == (False, code)
    assert response.status_int == STATUS[code]
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert len(response.body) <= 2048
    assert "Traceback" not in response.text
    assert os.getcwd() not in response.text
    return body


def png(level: int, size: tuple[int, int] = (8, 8)) -> bytes:
    out = io.BytesIO()
    Image.new("L", size, level).save(out, "PNG")
    return out.getvalue()


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


# -- when the model does not answer ------------------------------------------------------------------------------------


def test_a_model_error_fails_its_own_request_alone(app: TestApp) -> None:
    body = refused(app.post_json("/predict/poison", {"features": [POISON]}, status=500), "PREDICT_FAILED")
    assert body["reason"] == "model_error"
    assert "poison" not in body["message"]
    assert app.post_json("/predict/poison", {"features": [1]}).json["prediction"] == 2.0


@pytest.mark.parametrize("name", ["short", "nan"])
def test_outputs_that_cannot_be_carried_are_bad_output(app: TestApp, name: str) -> None:
    body = refused(app.post_json(f"/predict/{name}", {"features": [1]}, status=500), "PREDICT_FAILED")
    assert body["reason"] == "bad_output"


def test_a_deadline_of_the_clients_own_is_kept(app: TestApp) -> None:
    headers = {"X-Request-Timeout-Ms": "50"}
    refused(app.post_json("/predict/slow", {"features": [1]}, headers=headers, status=504), "TIMEOUT")
    assert app.post_json("/predict/slow", {"features": [1]}).json["prediction"] == 2.0


@pytest.mark.parametrize("given", ["0", "-5", "soon", "1.5", "9" * 30])
def test_a_deadline_that_is_none_is_refused(app: TestApp, given: str) -> None:
    headers = {"X-Request-Timeout-Ms": given}
    refused(app.post_json("/predict/slow", {"features": [1]}, headers=headers, status=400), "BAD_INPUT")


def test_a_model_that_failed_to_load_is_not_ready_and_says_why_elsewhere(app: TestApp) -> None:
    response = app.post_json("/predict/refused", {"features": [1]}, status=503)
    refused(response, "NOT_READY")
    assert response.headers["Retry-After"]


def test_before_a_worker_is_ready_health_is_up_and_predictions_are_not_ready() -> None:
    with supervised([{"name": "late", "kind": "slow_refusal", "seconds": 30}], wait=False) as server:
        app, client = app_for(server)
        assert app.get("/health").status_int == 200
        assert refused_ready(app) == [("late", "LOADING")]
        response = app.post_json("/predict", {"features": [1]}, status=503)
        refused(response, "NOT_READY")
        assert response.headers["Retry-After"]
        client.close()


def refused_ready(app: TestApp) -> list[tuple[str, str]]:
    response = app.get("/ready", status=503)
    assert response.json["ok"] is False
    return [(model["name"], model["state"]) for model in response.json["models"]]


@pytest.fixture
def held() -> Iterator[Gate]:
    with gate() as made:
        yield made


def test_a_full_queue_is_overloaded(held: Gate) -> None:
    with supervised([held.model(), {"name": "free"}], queue_rows=1) as server:
        app, client = app_for(server, queue_rows=1, default_model="gated")
        first, other = app_for(server, queue_rows=1, default_model="gated")
        answers: list[TestResponse] = []
        thread = in_thread(lambda: answers.append(first.post_json("/predict", {"features": [1]})))
        call = held.next_call()
        waiting = in_thread(lambda: answers.append(app.post_json("/predict", {"features": [2]})))
        # The one row that may be in flight from this client is on its way: the next is refused at once.
        response = until_refused(app)
        refused(response, "OVERLOADED")
        assert response.headers["Retry-After"]
        call.let_go()
        held.next_call().let_go()
        thread.join(SOON_S)
        waiting.join(SOON_S)
        assert sorted(answer.json["prediction"] for answer in answers) == [2.0, 4.0]
        client.close()
        other.close()


def until_refused(app: TestApp) -> TestResponse:
    from tests.harness import wait_until

    def refusal() -> TestResponse | None:
        response = app.post_json("/predict", {"features": [3]}, headers={"X-Request-Timeout-Ms": "20"}, status="*")
        return response if response.json.get("error") == "OVERLOADED" else None

    found = wait_until(refusal, SOON_S, "an overloaded answer")
    assert found is not None
    return found


def in_thread(function: Callable[[], object]) -> Any:
    import threading

    thread = threading.Thread(target=function)
    thread.start()
    return thread


def test_a_defect_of_ours_is_internal_error_and_tells_nothing(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    app, client = app_for(server)
    client.call = lambda *_: (_ for _ in ()).throw(RuntimeError("secret /etc/passwd"))  # type: ignore[method-assign]
    body = refused(app.post_json("/predict/poison", {"features": [1]}, status=500), "INTERNAL_ERROR")
    assert "secret" not in str(body)
    assert body["request_id"] in caplog.text
    client.close()


# -- classify ----------------------------------------------------------------------------------------------------------

DIM = png(1)
TEXT = base64.b64encode(DIM).decode()


@pytest.mark.parametrize(
    "send",
    [
        pytest.param(lambda app: app.post("/classify", {"image": TEXT}), id="form field, base64"),
        pytest.param(lambda app: app.post("/classify", {"image": f"data:image/png;base64,{TEXT}"}), id="data URI"),
        pytest.param(
            lambda app: app.post("/classify", {"image": base64.urlsafe_b64encode(DIM).decode()}), id="url-safe base64"
        ),
        pytest.param(lambda app: app.post("/classify", upload_files=[("image", "one.png", DIM)]), id="multipart file"),
        pytest.param(lambda app: app.post("/classify", DIM, content_type="image/png"), id="raw body"),
        pytest.param(
            lambda app: app.post("/classify", DIM, content_type="application/x-www-form-urlencoded"),
            id="raw body with curl's type",
        ),
        pytest.param(lambda app: app.post_json("/classify", {"image": TEXT}), id="json"),
        pytest.param(lambda app: app.post_json("/classify/picture", {"image": TEXT}), id="json to the model by name"),
    ],
)
def test_a_picture_is_classified_however_it_comes(app: TestApp, send: Callable[[TestApp], TestResponse]) -> None:
    body = send(app).json
    assert (body["ok"], body["predicted_class"], body["label"], body["model_version"]) == (True, 1, "dim", "1")
    assert body["top"][0] == {"class": 1, "label": "dim", "score": 1.0}
    assert len(body["top"]) == 3


def test_pictures_as_instances_are_answered_in_order(app: TestApp) -> None:
    instances: list[Any] = [{"image": base64.b64encode(png(level)).decode()} for level in (2, 0, 1)]
    body = app.post_json("/classify", {"instances": [*instances, TEXT]}).json
    assert [answer["predicted_class"] for answer in body["predictions"]] == [2, 0, 1, 1]


def test_top_says_how_many(app: TestApp) -> None:
    assert len(app.post("/classify?top=1", DIM).json["top"]) == 1
    refused(app.post("/classify?top=0", DIM, status=400), "BAD_INPUT")
    refused(app.post("/classify?top=x", DIM, status=400), "BAD_INPUT")


def test_features_are_classified_by_a_classifier_of_vectors(app: TestApp) -> None:
    body = app.post_json("/classify/vector", {"features": [2, 2, 2, 2]}).json
    assert (body["predicted_class"], body["label"]) == (2, "c")


@pytest.mark.parametrize(
    ("body", "content_type", "code", "path"),
    [
        (b"", "image/png", "BAD_INPUT", ""),
        (b"GIF89a", "image/gif", "BAD_INPUT", "/image"),
        (DIM[:40], "image/png", "BAD_INPUT", "/image"),
        (b"II*\0" + bytes(100), "image/tiff", "UNSUPPORTED_MEDIA_TYPE", ""),
        (b"hello", "image/png", "UNSUPPORTED_MEDIA_TYPE", ""),
        (b"hello", "text/plain", "BAD_INPUT", ""),
        (b"other=1", "application/x-www-form-urlencoded", "BAD_INPUT", ""),
        (b"image=%%%", "application/x-www-form-urlencoded", "BAD_INPUT", ""),
        (b'{"image": 5}', "application/json", "BAD_INPUT", "/image"),
        (b'{"image": "!!"}', "application/json", "BAD_INPUT", "/image"),
        (b'{"instances": ["aGk=", 5]}', "application/json", "BAD_INPUT", "/instances/1"),
        (b"--x\r\n", "multipart/form-data; boundary=x", "BAD_INPUT", ""),
        (b"--x\r\n", "multipart/form-data", "BAD_INPUT", ""),
        (png(0, (6000, 6000)), "image/png", "TOO_LARGE", ""),
    ],
)
def test_a_picture_that_is_none_is_explained(
    app: TestApp, body: bytes, content_type: str, code: str, path: str
) -> None:
    error = refused(app.post("/classify", body, content_type=content_type, status="*"), code)
    assert error.get("path", "") == path
    assert error["message"]


def test_a_model_that_is_no_classifier_says_so(app: TestApp) -> None:
    error = refused(app.post_json("/classify/ten", {"features": [0] * 10}, status=400), "BAD_INPUT")
    assert "not a classifier" in error["message"]


def test_with_several_image_classifiers_the_choices_are_listed() -> None:
    picture: dict[str, Any] = next(model for model in MODELS if model["name"] == "picture")
    with supervised([picture, {**picture, "name": "other"}]) as server:
        app, client = app_for(server)
        error = refused(app.post("/classify", DIM, status=400), "BAD_INPUT")
        assert "other, picture" in error["message"]
        client.close()
        app, client = app_for(server, default_model="other")
        assert app.post("/classify", DIM).json["predicted_class"] == 1
        client.close()
