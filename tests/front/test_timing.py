"""What answers say of their time: parts that fit into the total, on every answer of every dialect, and on refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from front import timing
from tests.faults.asking import get, post
from tests.front.test_loop import answers_in, everything_after
from tests.harness import Server, fake_http_server

PART = re.compile(r"(\w+);(?:dur=([0-9]+\.[0-9]{3})|desc=([0-9]+))").fullmatch
PARTS = ["parse", "queue", "batch", "compute", "encode", "total"]
ORIGIN = "https://example.com"
PREDICTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("/predict/double", {"features": [1.0]}),
    "native, many": ("/predict/double", {"instances": [[1.0], [2.0], [3.0]]}),
    "tf_serving": ("/v1/models/double:predict", {"instances": [[1.0], [2.0]]}),
    "open_inference": (
        "/v2/models/double/infer",
        {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}]},
    ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    models: list[dict[str, Any]] = [{"name": "double", "seconds": 0.02}, {"name": "short", "kind": "wrong_length"}]
    with fake_http_server(models, allowed_origins=ORIGIN) as running:
        yield running


def parts(header: str) -> dict[str, float]:
    """The header's parts, in milliseconds; the batch in rows."""
    found = {}
    for part in header.split(", "):
        match = PART(part)
        assert match, part
        found[match[1]] = float(match[2] or match[3])
    return found


@pytest.mark.parametrize("asked", PREDICTIONS)
def test_the_parts_of_a_prediction_fit_into_its_total(server: Server, asked: str) -> None:
    path, value = PREDICTIONS[asked]
    for _ in range(3):  # the first, and those whose header is known already
        reply = post(server.url, path, value)
        assert reply.status == 200, reply.body
        told = parts(reply.headers["server-timing"])
        assert list(told) == PARTS
        total, rows = told.pop("total"), told.pop("batch")
        assert sum(told.values()) <= total + 1e-9
        assert told["compute"] >= 20
        assert rows >= len(value.get("instances", [1]))


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "expected"),
    [
        ("POST", "/predict/double", b'{"features":["x"]}', 400, ["parse", "total"]),
        ("POST", "/predict/double", b"{", 400, ["parse", "total"]),
        ("POST", "/v1/models/double:predict", b"{}", 400, ["parse", "total"]),
        ("POST", "/v2/models/double/infer", b"{}", 400, ["parse", "total"]),
        ("POST", "/predict/short", b'{"features":[1]}', 500, ["parse", "total"]),
        ("POST", "/predict/nobody", b"{}", 404, ["total"]),
        ("POST", "/v2/models/nobody/infer", b"{}", 404, ["total"]),
        ("POST", "/feedback", b"{}", 400, ["total"]),
        ("GET", "/nothing", b"", 404, ["total"]),
        ("GET", "/predict/double", b"", 405, ["total"]),
        ("GET", "/health", b"", 200, ["total"]),
        ("GET", "/models", b"", 200, ["total"]),
        ("GET", "/metrics", b"", 200, ["total"]),
        ("GET", "/v1/models/double", b"", 200, ["total"]),
        ("GET", "/v2/health/ready", b"", 200, ["total"]),
        ("POST", "/reload", b"{}", 400, ["total"]),
    ],
)
def test_other_answers_and_refusals_say_how_long_they_took(
    server: Server, method: str, path: str, body: bytes, status: int, expected: list[str]
) -> None:
    reply = get(server.url, path) if method == "GET" else post(server.url, path, body)
    assert reply.status == status, reply.body
    told = parts(reply.headers["server-timing"])
    assert list(told) == expected
    assert sum(told.values()) <= 2 * told["total"]


def test_bytes_that_are_no_request_are_told_too(server: Server) -> None:
    ((status, headers, body),) = answers_in(everything_after(server, b"GARBAGE\r\n\r\n"))
    assert status == 400
    assert json.loads(body)["error"] == "BAD_INPUT"
    assert list(parts(headers["Server-Timing"])) == ["total"]


def test_a_page_of_an_allowed_origin_may_read_it(server: Server) -> None:
    for path, value in PREDICTIONS.values():
        reply = post(server.url, path, value, Origin=ORIGIN)
        assert reply.status == 200
        assert "Server-Timing" in reply.headers["access-control-expose-headers"]
        assert reply.headers["timing-allow-origin"] == ORIGIN
    assert "timing-allow-origin" not in get(server.url, "/health").headers


@pytest.mark.parametrize("us", [0, 1, 999, 1000, 4095, 4096, 123_456, 3_600_000_000])
def test_any_time_is_told_to_the_microsecond(us: int) -> None:
    _, header = timing.of_answer(us, us, 7, us, us, 4 * us + 1)
    told = parts(header)
    assert told["batch"] == 7
    assert told["parse"] == told["encode"] == us / 1000
    assert sum(told[name] for name in ("parse", "queue", "compute", "encode")) <= told["total"]
