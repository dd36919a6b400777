"""Pictures and classes, however they come."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from webtest import TestApp, TestResponse

from tests.application import MODELS, app_for, png, refused
from tests.harness import supervised

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
