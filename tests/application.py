"""The application through webtest, with fake models in a real worker behind it: what its tests share."""

from __future__ import annotations

import io
import os
import socket
from typing import Any

from PIL import Image
from webtest import TestApp, TestResponse

from batching.blocking import BlockingClient
from batching.control import ControlChannel
from front.catalog import cataloguer
from front.refusals import STATUS
from inference_server import Settings, create_app
from tests.harness import SOON_S

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
