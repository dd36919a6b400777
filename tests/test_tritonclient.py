"""Triton's own client against the whole server: what it sends is understood, and what it reads is there.

Only the models are fake. Loads and unloads are in test_tritonclient_repository.py, with real ones.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype

from tests.harness import fake_http_server
from tests.models.dialects.oip import DTYPES

Tensor = np.ndarray[Any, Any]
MODELS: list[dict[str, Any]] = [
    *({"name": f"echo_{dtype}", "kind": "echo", "inputs": [["x", dtype, [2]]]} for dtype in DTYPES.values()),
    {"name": "several", "kind": "echo", "inputs": [["a", "uint8", [2]], ["b", "string", []], ["c", "bool", [1, None]]]},
    {"name": "picture", "kind": "echo", "inputs": [["x", "float32", [224, 224, 3]]]},
    {"name": "scores", "kind": "scores", "classes": 3, "narrow": {"labels": ["ant", "bee", "cat"]}},
    {"name": "poison", "kind": "poison"},
    {"name": "slow", "seconds": 0.05},
    {"name": "bounded", "narrow": {"fields": [{"name": "age", "schema": {"minimum": 0, "maximum": 150}}]}},
    {"name": "nan", "kind": "nan"},
    {"name": "broken", "kind": "refuses"},
    {"name": "versions", "version": "1"},
    {"name": "versions", "version": "2"},
]
VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "BYTES": [b"caf\xc3\xa9", b""],
    **{datatype: [0, 100] for datatype in DTYPES if "INT" in datatype},
    **{datatype: [-1.5, 0.25] for datatype in DTYPES if datatype.startswith("FP")},
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with fake_http_server(MODELS, predict_timeout_ms=20_000.0) as server:
        yield server.url.removeprefix("http://")


@pytest.fixture
def client(url: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(url, concurrency=64) as made:
        yield made


def tensor(name: str, value: Tensor, *, binary: bool = True, datatype: str | None = None) -> triton.InferInput:
    """An input as Triton's users make one."""
    made = triton.InferInput(name, list(value.shape), datatype or np_to_triton_dtype(value.dtype))
    return made.set_data_from_numpy(value, binary_data=binary)


def column(*values: float) -> Tensor:
    return np.array(values, np.float32).reshape(-1, 1)


def same(a: Tensor, b: Tensor) -> bool:
    return bool(a.shape == b.shape and a.tolist() == b.tolist())


# ---------------------------------------------------------------------------------------------- the server


def test_health(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()


def test_readiness_of_models(client: triton.InferenceServerClient) -> None:
    assert client.is_model_ready("several")
    assert client.is_model_ready("versions", "1")
    assert not client.is_model_ready("versions", "3")
    assert not client.is_model_ready("broken")
    assert not client.is_model_ready("nobody")


def test_server_metadata(client: triton.InferenceServerClient) -> None:
    metadata = client.get_server_metadata()
    assert metadata["name"] == "inference-server"
    assert "binary_tensor_data" in metadata["extensions"]


def test_model_metadata(client: triton.InferenceServerClient) -> None:
    metadata = client.get_model_metadata("several")
    assert metadata["inputs"] == [
        {"name": "a", "datatype": "UINT8", "shape": [-1, 2]},
        {"name": "b", "datatype": "BYTES", "shape": [-1]},
        {"name": "c", "datatype": "BOOL", "shape": [-1, 1, -1]},
    ]
    assert [output["name"] for output in metadata["outputs"]] == ["a_out", "b_out", "c_out"]
    assert client.get_model_metadata("versions", "2")["versions"] == ["1", "2"]


def test_model_configuration(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("several")
    assert config["name"] == "several"
    assert config["max_batch_size"] >= 1
    assert [(one["name"], one["data_type"], one["dims"]) for one in config["input"]] == [
        ("a", "TYPE_UINT8", [2]),
        ("b", "TYPE_STRING", []),
        ("c", "TYPE_BOOL", [1, -1]),
    ]


def test_the_repository_s_index(client: triton.InferenceServerClient) -> None:
    index = {(entry["name"], entry["version"]): entry for entry in client.get_model_repository_index()}
    assert index["versions", "1"]["state"] == index["versions", "2"]["state"] == "READY"
    assert index["broken", "1"]["state"] == "UNAVAILABLE"
    assert index["broken", "1"]["reason"] == "it is refused by design"


def test_statistics(client: triton.InferenceServerClient) -> None:
    def counted() -> dict[str, Any]:
        (stats,) = client.get_inference_statistics("versions", "1")["model_stats"]
        return dict(stats)

    before = counted()
    for _ in range(3):
        client.infer("versions", [tensor("x", column(1, 2))], "1")
    with pytest.raises(InferenceServerException):
        client.infer("versions", [tensor("z", column(1))], "1")
    after = counted()
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["execution_count"] - before["execution_count"] == 3
    assert after["last_inference"] > 1_600_000_000_000
    success, fail = after["inference_stats"]["success"], after["inference_stats"]["fail"]
    assert success["count"] - before["inference_stats"]["success"]["count"] == 3
    assert success["ns"] > before["inference_stats"]["success"]["ns"]
    assert fail["count"] - before["inference_stats"]["fail"]["count"] == 1
    assert after["inference_stats"]["compute_infer"]["ns"] > 0


def test_statistics_of_all_models(client: triton.InferenceServerClient) -> None:
    stats = client.get_inference_statistics()["model_stats"]
    assert {"several", "poison", "versions"} <= {one["name"] for one in stats}
    assert "broken" not in {one["name"] for one in stats}
    of_both = client.get_inference_statistics("versions")["model_stats"]
    assert [one["version"] for one in of_both] == ["1", "2"]


# ---------------------------------------------------------------------------------------------- inference


@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "json out"])
@pytest.mark.parametrize("binary_in", [True, False], ids=["binary in", "json in"])
@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_comes_back_as_it_was(
    client: triton.InferenceServerClient, datatype: str, binary_in: bool, binary_out: bool
) -> None:
    value = np.array([VALUES[datatype]] * 3, triton_to_np_dtype(datatype))
    outputs = [triton.InferRequestedOutput("x_out", binary_data=binary_out)]
    result = client.infer(f"echo_{DTYPES[datatype]}", [tensor("x", value, binary=binary_in)], outputs=outputs)
    assert result.get_output("x_out")["datatype"] == datatype
    assert ("data" in result.get_output("x_out")) is not binary_out
    received = result.as_numpy("x_out")
    if datatype == "BYTES" and not binary_out:  # the client leaves text as it stands in JSON
        received = np.array([[text.encode() for text in row] for row in received], object)
    assert received.dtype == value.dtype
    assert same(received, value)


def test_bfloat16_reaches_a_model_of_float32(client: triton.InferenceServerClient) -> None:
    value = np.array([[1.5, -3.25]], triton_to_np_dtype("BF16"))  # older clients truncate float32 themselves
    result = client.infer("echo_float32", [tensor("x", value, datatype="BF16")])
    assert result.as_numpy("x_out").tolist() == [[1.5, -3.25]]


def test_bytes_that_are_no_text_travel_in_binary(client: triton.InferenceServerClient) -> None:
    value = np.array([[b"\xff\x00", b"\x80"]], object)
    assert same(client.infer("echo_string", [tensor("x", value)]).as_numpy("x_out"), value)
    outputs = [triton.InferRequestedOutput("x_out", binary_data=False)]
    with pytest.raises(InferenceServerException, match="not UTF-8; ask for it with 'binary_data' true"):
        client.infer("echo_string", [tensor("x", value)], outputs=outputs)


def test_several_inputs_and_outputs_each_in_its_own_way(client: triton.InferenceServerClient) -> None:
    a, b = np.array([[1, 2], [3, 4]], np.uint8), np.array([b"p", b"q"], object)
    c = np.array([[[True, False]], [[False, True]]])
    inputs = [tensor("c", c), tensor("a", a, binary=False), tensor("b", b)]
    outputs = [triton.InferRequestedOutput("b_out"), triton.InferRequestedOutput("c_out", binary_data=False)]
    result = client.infer("several", inputs, outputs=outputs, request_id="42")
    assert result.get_response()["id"] == "42"
    assert result.get_response()["model_name"] == "several"
    assert [output["name"] for output in result.get_response()["outputs"]] == ["b_out", "c_out"]
    assert same(result.as_numpy("b_out"), b)
    assert same(result.as_numpy("c_out"), c)
    assert result.as_numpy("a_out") is None


def test_eight_pictures_at_once(client: triton.InferenceServerClient) -> None:
    value = np.random.default_rng(1).random((8, 224, 224, 3), np.float32)
    received = client.infer("picture", [tensor("x", value)]).as_numpy("x_out")
    assert received.tobytes() == value.tobytes()


@pytest.mark.parametrize("answer", [None, "gzip", "deflate"], ids=lambda name: f"answer {name}")
@pytest.mark.parametrize("request_", [None, "gzip", "deflate"], ids=lambda name: f"request {name}")
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_compressed_both_ways(
    client: triton.InferenceServerClient, request_: str | None, answer: str | None, binary: bool
) -> None:
    value = np.repeat(np.arange(2000, dtype=np.float32), 2).reshape(-1, 2)
    result = client.infer(
        "echo_float32",
        [tensor("x", value, binary=binary)],
        outputs=[triton.InferRequestedOutput("x_out", binary_data=binary)],
        request_compression_algorithm=request_,
        response_compression_algorithm=answer,
    )
    assert same(result.as_numpy("x_out"), value)


def test_versions(client: triton.InferenceServerClient) -> None:
    for asked, answered in (("1", "1"), ("2", "2"), ("", "2")):
        response = client.infer("versions", [tensor("x", column(1))], asked).get_response()
        assert response["model_version"] == answered


def test_classes(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("y", class_count=2)]
    found = client.infer("scores", [tensor("x", column(1, 2))], outputs=outputs).as_numpy("y")
    assert [entry.decode() for entry in found[:, 0]] == ["1.000000:1:bee", "1.000000:2:cat"]
    assert found.shape == (2, 2)


def test_priority_and_parameters_are_taken(client: triton.InferenceServerClient) -> None:
    result = client.infer("slow", [tensor("x", column(1))], priority=1, timeout=10_000_000, parameters={"mine": 1})
    assert result.as_numpy("y").tolist() == [[2.0]]


def test_bodies_made_and_read_without_the_client(url: str) -> None:
    body, json_size = triton.InferenceServerClient.generate_request_body([tensor("x", column(3))])
    request = urllib.request.Request(f"http://{url}/v2/models/versions/infer", body)
    request.add_header("Inference-Header-Content-Length", str(json_size))
    with urllib.request.urlopen(request) as response:
        assert response.headers["Content-Type"] == "application/octet-stream"
        header = int(response.headers["Inference-Header-Content-Length"])
        result = triton.InferenceServerClient.parse_response_body(response.read(), header_length=header)
    assert result.as_numpy("y").tolist() == [[6.0]]


def test_a_raw_request(url: str) -> None:
    request = urllib.request.Request(f"http://{url}/v2/models/versions/infer", column(3).tobytes())
    request.add_header("Inference-Header-Content-Length", "0")
    with urllib.request.urlopen(request) as response:
        header = int(response.headers["Inference-Header-Content-Length"])
        body = response.read()
    assert json.loads(body[:header])["outputs"][0]["shape"] == [1, 1]
    assert np.frombuffer(body[header:], np.float32).tolist() == [6.0]


# ---------------------------------------------------------------------------------------------- many at once


def test_64_in_flight(client: triton.InferenceServerClient) -> None:
    asked = [client.async_infer("slow", [tensor("x", column(i))], request_id=str(i)) for i in range(64)]
    for i, one in enumerate(asked):
        result = one.get_result(timeout=60)
        assert result.get_response()["id"] == str(i)
        assert result.as_numpy("y").tolist() == [[2.0 * i]]


def test_one_of_many_that_fails_fails_alone(client: triton.InferenceServerClient) -> None:
    values = [1.0, 2.0, 666.0, 3.0]
    asked = [client.async_infer("poison", [tensor("x", column(value))]) for value in values]
    for value, one in zip(values, asked, strict=True):
        if value == 666.0:
            with pytest.raises(InferenceServerException, match=r"\[500\]"):
                one.get_result(timeout=60)
        else:
            assert one.get_result(timeout=60).as_numpy("y").tolist() == [[2 * value]]


def test_64_in_flight_by_asyncio(url: str) -> None:
    async def ask_all() -> list[list[list[float]]]:
        async with triton_aio.InferenceServerClient(url, conn_limit=64) as client:
            asked = [client.infer("slow", [tensor("x", column(i))]) for i in range(64)]
            return [result.as_numpy("y").tolist() for result in await asyncio.gather(*asked)]

    assert asyncio.run(ask_all()) == [[[2.0 * i]] for i in range(64)]


# ---------------------------------------------------------------------------------------------- refusals


def failure(call: Any) -> tuple[str, str]:
    """(status, message) of a call that is refused."""
    with pytest.raises(InferenceServerException) as refused:
        call()
    return refused.value.status(), refused.value.message()


@pytest.mark.parametrize(
    ("model", "version", "value", "status", "message"),
    [
        pytest.param(
            "nobody", "", column(1), "404", "Request for unknown model: 'nobody' is not found", id="unknown model"
        ),
        pytest.param(
            "versions",
            "9",
            column(1),
            "404",
            "Request for unknown model: 'versions' version 9 is not found",
            id="unknown version",
        ),
        pytest.param(
            "versions",
            "",
            column(1).astype(np.float64),
            "400",
            "inference input 'x' data-type is 'FP64', but model 'versions' expects 'FP32'",
            id="another datatype",
        ),
        pytest.param(
            "versions",
            "",
            np.zeros((1, 3), np.float32),
            "400",
            "unexpected shape for input 'x' for model 'versions'. Expected [-1,1], got [1,3]",
            id="another shape",
        ),
        pytest.param("bounded", "", column(200), "400", "row 0/0 must be", id="outside the contract"),
        pytest.param("broken", "", column(1), "503", "'broken'", id="a model that is not loaded"),
        pytest.param("poison", "", column(666), "500", "could not answer", id="a model that fails"),
    ],
)
def test_refusals_say_why(
    client: triton.InferenceServerClient, model: str, version: str, value: Tensor, status: str, message: str
) -> None:
    found = failure(lambda: client.infer(model, [tensor("x", value)], version))
    assert found[0] == status
    assert message in found[1]


def test_a_request_that_is_too_late(client: triton.InferenceServerClient) -> None:
    found = failure(lambda: client.infer("slow", [tensor("x", column(1))], timeout=1000))
    assert found == ("504", "Request timeout expired")


def test_nan_travels_in_binary_alone(client: triton.InferenceServerClient) -> None:
    assert np.isnan(client.infer("nan", [tensor("x", column(np.nan))]).as_numpy("y")).all()
    outputs = [triton.InferRequestedOutput("y", binary_data=False)]
    assert failure(lambda: client.infer("nan", [tensor("x", column(1))], outputs=outputs))[0] == "500"


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda client: client.get_trace_settings(), id="trace settings"),
        pytest.param(lambda client: client.update_trace_settings("versions", {}), id="trace settings of a model"),
        pytest.param(lambda client: client.get_log_settings(), id="log settings"),
        pytest.param(lambda client: client.update_log_settings({}), id="new log settings"),
        pytest.param(lambda client: client.get_system_shared_memory_status(), id="shared memory"),
        pytest.param(lambda client: client.register_system_shared_memory("r", "k", 8), id="new shared memory"),
        pytest.param(lambda client: client.unregister_system_shared_memory(), id="no more shared memory"),
        pytest.param(lambda client: client.get_cuda_shared_memory_status(), id="a GPU's memory"),
        pytest.param(
            lambda client: client.infer("versions", [tensor("x", column(1))], sequence_id=5, sequence_start=True),
            id="sequences",
        ),
        pytest.param(lambda client: client.load_model("versions", config="{}"), id="a configuration of one's own"),
    ],
)
def test_what_is_not_offered_says_so(client: triton.InferenceServerClient, call: Any) -> None:
    status, message = failure(lambda: call(client))
    assert status == "501"
    assert "not offered" in message


def test_an_input_in_shared_memory(client: triton.InferenceServerClient) -> None:
    shared = triton.InferInput("x", [1, 1], "FP32")
    shared.set_shared_memory("region", 4)
    assert failure(lambda: client.infer("versions", [shared]))[0] == "501"


@pytest.mark.parametrize(
    ("verb", "path", "status", "error"),
    [
        pytest.param("GET", "/v2/nothing", 404, "Not Found", id="an unknown path"),
        pytest.param("POST", "/v2/health/live", 405, "Method Not Allowed", id="another verb"),
        pytest.param("GET", "/v2/models/versions/infer", 405, "Method Not Allowed", id="a GET of an answer"),
    ],
)
def test_paths_and_verbs_that_there_are_not(url: str, verb: str, path: str, status: int, error: str) -> None:
    request = urllib.request.Request(f"http://{url}{path}", b"{}" if verb == "POST" else None, method=verb)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    with refused.value as response:
        assert response.status == status
        assert json.load(response) == {"error": error}
