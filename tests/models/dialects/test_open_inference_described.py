"""What the Open Inference Protocol says of server and models, how it refuses, and what a load or unload may hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from models.contract import Tensor
from models.dialects import open_inference
from models.dialects.dialect import ADMIN, OPEN, PREDICT, Asked, Counted, Fault, Rendered, Version
from models.errors import BadInput, Unimplemented
from tests.models.dialects.oip import DTYPES, Known, model

CONTRACT = model(
    Tensor("x", "float32", (None, 3)),
    Tensor("s", "string", ()),
    outputs=(Tensor("y", "int64", (2,)),),
)
NEW = Known(version="10", compiled=CONTRACT, costs={"1": 0.001, "16": 0.004})
OLD = replace(NEW, version="9")
BROKEN = Known(name="n", version="1", state="FAILED", reason="its file is cut short")
OUT = Known(name="o", version="1", state="UNLOADED")
COMING = Known(name="p", version="1", state="LOADING")
NOWHERE = Counted()


def asked(action: str, **more: Any) -> Asked:
    version: Version | None = more.pop("version", None)
    question = Asked(
        action=action, verb="GET", path="", model=version.name if version else None, given=None, version=version,
        versions=(), labels={}, is_ready=True, server="inference-server 1.2", body=b"", counted=lambda _: NOWHERE,
    )  # fmt: skip
    return question._replace(**more)


def said(rendered: Rendered, status: int = 200) -> Any:
    assert rendered.status == status
    assert rendered.content_type == "application/json"
    return orjson.loads(rendered.body)


# ---------------------------------------------------------------------------------------------- the server


def test_a_server_that_answers_is_live() -> None:
    assert said(open_inference.describe(asked("live", is_ready=False))) == {"live": True}


@pytest.mark.parametrize(("is_ready", "status"), [(True, 200), (False, 503)])
def test_a_server_is_ready_where_traffic_is_welcome(is_ready: bool, status: int) -> None:
    assert said(open_inference.describe(asked("ready", is_ready=is_ready)), status) == {"ready": is_ready}


def test_the_server_says_its_name_and_what_it_offers() -> None:
    metadata = said(open_inference.describe(asked("server")))
    assert (metadata["name"], metadata["version"]) == ("inference-server", "1.2")
    assert {"binary_tensor_data", "classification", "model_repository", "statistics"} <= {*metadata["extensions"]}
    assert not {"system_shared_memory", "sequence", "trace", "logging"} & {*metadata["extensions"]}


def test_the_index_lists_every_version_with_its_state_and_reason() -> None:
    index = said(open_inference.describe(asked("index", versions=(NEW, OLD, BROKEN, OUT, COMING))))
    assert [(entry["name"], entry["version"], entry["state"], entry["reason"]) for entry in index] == [
        ("m", "10", "READY", ""),
        ("m", "9", "READY", ""),
        ("n", "1", "UNAVAILABLE", "its file is cut short"),
        ("o", "1", "UNAVAILABLE", "unloaded"),
        ("p", "1", "LOADING", ""),
    ]


@pytest.mark.parametrize(
    ("body", "names"),
    [
        pytest.param(b"", ["m", "n"], id="an empty body"),
        pytest.param(b"{}", ["m", "n"], id="an empty object"),
        pytest.param(b'{"ready": false}', ["m", "n"], id="ready or not"),
        pytest.param(b'{"ready": true}', ["m"], id="only what is ready"),
    ],
)
def test_the_index_may_be_of_what_is_ready(body: bytes, names: list[str]) -> None:
    index = said(open_inference.describe(asked("index", versions=(NEW, BROKEN), body=body)))
    assert [entry["name"] for entry in index] == names


@pytest.mark.parametrize("body", [b'{"ready": 1}', b"ready", b"[]"])
def test_an_index_of_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(BadInput):
        open_inference.describe(asked("index", body=body))


# ---------------------------------------------------------------------------------------------- a model


def test_metadata_names_tensors_with_their_row_dimension() -> None:
    assert said(open_inference.describe(asked("metadata", version=NEW, versions=(NEW, OLD)))) == {
        "name": "m",
        "versions": ["9", "10"],
        "platform": "tensorflow_savedmodel",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, -1, 3]},
            {"name": "s", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1, 2]}],
    }


@pytest.mark.parametrize(("datatype", "dtype"), DTYPES.items())
def test_every_dtype_has_its_datatype(datatype: str, dtype: str) -> None:
    version = replace(NEW, compiled=model(Tensor("x", dtype, ())))
    metadata = said(open_inference.describe(asked("metadata", version=version)))
    config = said(open_inference.describe(asked("config", version=version)))
    assert metadata["inputs"][0]["datatype"] == datatype
    assert config["input"][0]["data_type"] == "TYPE_" + datatype.replace("BYTES", "STRING")


def test_the_configuration_holds_what_load_tools_read() -> None:
    config = said(open_inference.describe(asked("config", version=NEW, versions=(NEW, OLD))))
    assert config["name"] == "m"
    assert config["max_batch_size"] == 16
    assert [(tensor["name"], tensor["data_type"], tensor["dims"]) for tensor in config["input"]] == [
        ("x", "TYPE_FP32", [-1, 3]),
        ("s", "TYPE_STRING", []),
    ]
    assert [tensor["name"] for tensor in config["output"]] == ["y"]
    assert config["model_transaction_policy"] == {"decoupled": False}
    assert config["version_policy"] == {"specific": {"versions": [9, 10]}}


def test_the_contract_bounds_the_batch() -> None:
    version = replace(NEW, compiled=model(Tensor("x", "int8", ()), max_rows=4))
    assert said(open_inference.describe(asked("config", version=version)))["max_batch_size"] == 4


@pytest.mark.parametrize(("version", "status"), [(NEW, 200), (BROKEN, 503), (COMING, 503)])
def test_a_model_is_ready_where_it_answers(version: Known, status: int) -> None:
    ready = said(open_inference.describe(asked("model_ready", version=version)), status)
    assert ready == {"name": version.name, "ready": status == 200}


@pytest.mark.parametrize("action", ["metadata", "config"])
def test_of_a_version_that_does_not_answer_nothing_is_said_but_why(action: str) -> None:
    error = said(open_inference.describe(asked(action, version=BROKEN)), 503)["error"]
    assert error == "Request for unknown model: 'n' version 1 is not at ready state: its file is cut short"


# ---------------------------------------------------------------------------------------------- statistics

COUNTED = Counted(
    answered=3, failed=1, answered_s=0.25, failed_s=0.5, items=4, queue_s=1e-6, batches=2, rows=40, compute_s=0.002,
    last_answer_s=1700000000.1234,
)  # fmt: skip


def stats(**more: Any) -> list[dict[str, Any]]:
    rendered = open_inference.describe(asked("stats", counted=lambda _: COUNTED, **more))
    found: list[dict[str, Any]] = said(rendered)["model_stats"]
    return found


def test_statistics_are_in_triton_s_units() -> None:
    (found,) = stats(version=NEW, given="10")
    inference = found.pop("inference_stats")
    assert found == {
        "name": "m",
        "version": "10",
        "last_inference": 1700000000123,
        "inference_count": 40,
        "execution_count": 2,
        "response_stats": {},
        "batch_stats": [],
        "memory_usage": [],
    }
    assert inference["success"] == {"count": 3, "ns": 250_000_000}
    assert inference["fail"] == {"count": 1, "ns": 500_000_000}
    assert inference["queue"] == {"count": 4, "ns": 1000}
    assert inference["compute_infer"] == {"count": 2, "ns": 2_000_000}
    assert inference["cache_hit"] == {"count": 0, "ns": 0}


def test_statistics_without_a_version_are_of_all_that_answer() -> None:
    assert [one["version"] for one in stats(version=NEW, versions=(NEW, OLD, BROKEN))] == ["9", "10"]


def test_statistics_of_the_server_are_of_all_its_models() -> None:
    assert {one["name"] for one in stats(versions=(NEW, replace(OLD, name="k"), COMING))} == {"m", "k"}


def test_statistics_of_a_version_that_does_not_answer_are_refused() -> None:
    rendered = open_inference.describe(asked("stats", version=BROKEN, given="1"))
    assert said(rendered, 503)["error"].startswith("Request for unknown model: 'n' version 1 is not at ready state")


# ---------------------------------------------------------------------------------------------- routes and refusals


def test_only_health_is_open_and_only_load_and_unload_are_the_operators() -> None:
    keys = {route.action: route.key for route in open_inference.ROUTES}
    assert {action for action, key in keys.items() if key == OPEN} == {"live", "ready"}
    assert {action for action, key in keys.items() if key == ADMIN} == {"load", "unload"}
    assert keys["infer"] == PREDICT


def test_every_route_is_its_own_and_begins_as_all_of_them() -> None:
    places = [(route.verb, route.template) for route in open_inference.ROUTES]
    assert len({*places}) == len(places)
    assert all(template.startswith(open_inference.PREFIX) for _, template in places)
    assert {route.action for route in open_inference.ROUTES if route.infers} == {"infer"}


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        pytest.param(Fault("BAD_INPUT", "so it is", 400), 400, "so it is", id="the dialect's own words"),
        pytest.param(
            Fault("NOT_FOUND", "", 404, model="z"),
            404,
            "Request for unknown model: 'z' is not found",
            id="an unknown model",
        ),
        pytest.param(
            Fault("NOT_FOUND", "", 404, model="m", given="77"),
            404,
            "Request for unknown model: 'm' version 77 is not found",
            id="an unknown version",
        ),
        pytest.param(Fault("NOT_FOUND", "no such route", 404, path="/v2/x"), 404, "Not Found", id="an unknown path"),
        pytest.param(Fault("METHOD_NOT_ALLOWED", "", 405), 405, "Method Not Allowed", id="another verb"),
        pytest.param(Fault("OVERLOADED", "busy", 503), 503, "Exceeds maximum queue size", id="a full queue"),
        pytest.param(Fault("TIMEOUT", "late", 504), 504, "Request timeout expired", id="a deadline"),
        pytest.param(
            Fault("NOT_READY", "it is being loaded", 503, model="m", given="3"),
            503,
            "Request for unknown model: 'm' version 3 is not at ready state: it is being loaded",
            id="a version that loads",
        ),
        pytest.param(Fault("NOT_READY", "restarting", 503), 503, "restarting", id="no worker"),
        pytest.param(Fault("PREDICT_FAILED", "it could not", 500), 500, "it could not", id="a model that fails"),
    ],
)
def test_a_refusal_is_one_error(fault: Fault, status: int, error: str) -> None:
    assert said(open_inference.refuse(fault), status) == {"error": error}


@pytest.mark.parametrize(
    "path",
    [
        "/v2/systemsharedmemory/status",
        "/v2/cudasharedmemory/region/r/register",
        "/v2/trace/setting",
        "/v2/models/m/trace/setting",
        "/v2/logging",
        "/v2/models/m/generate",
        "/v2/models/m/versions/3/generate_stream",
        "/v2/repository/other/index",
    ],
)
def test_what_triton_has_and_we_do_not_is_refused_with_a_reason(path: str) -> None:
    error = said(open_inference.refuse(Fault("NOT_FOUND", "no such route", 404, path=path)), 501)["error"]
    assert "not offered" in error or "not supported" in error


def test_a_refusal_repeats_only_the_beginning_of_a_long_name() -> None:
    body = open_inference.refuse(Fault("NOT_FOUND", "", 404, model="z" * 5000, given="9" * 5000)).body
    assert len(body) < 200


# ---------------------------------------------------------------------------------------------- load and unload


@pytest.mark.parametrize(
    ("action", "body"),
    [
        pytest.param("load", b"", id="a load without a body"),
        pytest.param("load", b"{}", id="a load as the client sends it"),
        pytest.param("unload", b'{"parameters":{"unload_dependents":false}}', id="an unload as the client sends it"),
        pytest.param("unload", b'{"parameters":{"unload_dependents":true}}', id="an unload of dependents, of none"),
    ],
)
def test_plain_loads_and_unloads_are_taken(action: str, body: bytes) -> None:
    assert open_inference.describe(asked(action, body=body)) == Rendered(b"")


@pytest.mark.parametrize("name", ["config", "file:1/model.onnx"])
def test_a_load_brings_nothing_of_its_own(name: str) -> None:
    with pytest.raises(Unimplemented, match="as it lies in the server's folder"):
        open_inference.describe(asked("load", body=orjson.dumps({"parameters": {name: "e30="}})))


@pytest.mark.parametrize(
    ("action", "parameters"),
    [
        pytest.param("load", {"unload_dependents": True}, id="an unload's parameter"),
        pytest.param("load", {"mine": 1}, id="an unknown one"),
        pytest.param("unload", {"config": "{}"}, id="a load's parameter"),
        pytest.param("unload", {"unload_dependents": 1}, id="a number for a flag"),
        pytest.param("load", False, id="no object, though as good as nothing"),
        pytest.param("unload", [1], id="a list"),
    ],
)
def test_other_parameters_are_refused(action: str, parameters: Any) -> None:
    with pytest.raises(BadInput):
        open_inference.describe(asked(action, body=orjson.dumps({"parameters": parameters})))


def test_a_load_that_fails_says_which_and_why() -> None:
    fault = Fault("BAD_INPUT", "its file is cut short", 400, path="/v2/repository/models/m/load", model="m")
    assert said(open_inference.refuse(fault), 400) == {"error": "failed to load 'm', its file is cut short"}
