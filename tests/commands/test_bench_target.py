"""Requests made from what another server says of its models; such servers are played here by their metadata."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from commands import bench_target, terminal
from commands.bench_target import Server
from tests.commands.odd_server import odd_server

CHANCE = random.Random(0)


def tensor(kind: str, *sizes: int) -> dict[str, Any]:
    """An input in TensorFlow Serving's metadata."""
    return {"dtype": kind, "tensor_shape": {"dim": [{"size": str(size), "name": ""} for size in sizes]}}


def test_a_body_of_the_open_protocol_has_what_each_input_takes() -> None:
    told = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 2, -1]},
            {"name": "i", "datatype": "UINT8", "shape": ["-1"]},
            {"name": "t", "datatype": "BYTES", "shape": [-1, 1]},
            {"name": "b", "datatype": "BOOL", "shape": [-1, 2]},
        ]
    }
    inputs = bench_target._inputs_v2(told)
    made = {one["name"]: one for one in json.loads(bench_target._body_v2(inputs, 3, CHANCE))["inputs"]}
    assert {name: one["shape"] for name, one in made.items()} == {"x": [3, 2, 1], "i": [3], "t": [3, 1], "b": [3, 2]}
    assert {name: len(one["data"]) for name, one in made.items()} == {"x": 6, "i": 3, "t": 3, "b": 6}
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in made["x"]["data"])
    assert set(made["i"]["data"]) <= {0, 1}
    assert set(made["t"]["data"]) == {"text"}
    assert {type(value) for value in made["b"]["data"]} == {bool}


def test_a_fixed_first_dimension_is_kept() -> None:
    (made,) = json.loads(bench_target._body_v2([("x", "FP32", [4, 2])], 1, CHANCE))["inputs"]
    assert (made["shape"], len(made["data"])) == ([4, 2], 8)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"x": tensor("DT_FLOAT", -1)}, [0.0, 0.0]),
        ({"x": tensor("DT_FLOAT", -1, 2, 1)}, [[[0.0], [0.0]]] * 2),
        ({"x": tensor("DT_STRING", -1), "y": tensor("DT_INT64", -1, -1)}, [{"x": "text", "y": [0]}] * 2),
    ],
    ids=["plain values", "nested lists", "inputs by name"],
)
def test_a_body_of_tensorflow_serving_has_an_instance_for_each_row(inputs: dict[str, Any], expected: Any) -> None:
    told = {"metadata": {"signature_def": {"signature_def": {"other": {}, "serving_default": {"inputs": inputs}}}}}
    made = json.loads(bench_target._body_tfs(bench_target._inputs_tfs(told), 2, CHANCE))["instances"]

    def zeroed(value: Any) -> Any:
        if isinstance(value, list):
            return [zeroed(one) for one in value]
        if isinstance(value, dict):
            return {key: zeroed(one) for key, one in value.items()}
        return value if isinstance(value, str) else type(value)(0)

    assert zeroed(made) == expected


@pytest.mark.parametrize("dialect", bench_target.DIALECTS)
def test_a_server_that_describes_nothing_is_asked_with_a_body_of_the_users(dialect: str) -> None:
    with odd_server() as server:
        there = Server(server.url, None)
        with pytest.raises(terminal.Complaint, match="--model"):
            bench_target.find(there, dialect=dialect, model=None, body=None, rows=None, deadline_ms=None)
        with pytest.raises(terminal.Complaint, match="--body"):
            bench_target.find(there, dialect=dialect, model="m", body=None, rows=None, deadline_ms=None)
    assert not [head for head in server.heads if b"/infer" in head]


def test_a_request_has_key_deadline_and_host_as_the_server_wants_them() -> None:
    with odd_server() as server:
        there = Server(f"{server.url}/prefix/", "a-key")
        made = there.request("/predict/m", b"{}", "application/json", 50.0)
    head, _, body = made.partition(b"\r\n\r\n")
    assert body == b"{}"
    assert head.splitlines() == [
        b"POST /prefix/predict/m HTTP/1.1", f"Host: {server.url[7:]}".encode(), b"Content-Type: application/json",
        b"Authorization: Bearer a-key", b"X-Request-Timeout-Ms: 50", b"Content-Length: 2",
    ]  # fmt: skip
