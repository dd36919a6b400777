"""Triton's own client loads and unloads real models: what it asked for is so when the call returns."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from inference_server import InferenceServer

ROW = np.linspace(-1, 1, 10, dtype=np.float32).reshape(1, 10)


@pytest.fixture(scope="module")
def folder(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("served")
    for name in ("dummy", "linear_regression"):
        shutil.copytree(demo_models / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[InferenceServer]:
    # Nothing is taken up by itself: what these tests see comes of what they ask for.
    with InferenceServer(models=folder, reload_settle_s=0.0) as running:
        yield running


@pytest.fixture
def client(server: InferenceServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://"), network_timeout=100.0) as made:
        yield made


def answer(client: triton.InferenceServerClient) -> np.ndarray[Any, Any]:
    """What the dummy model says of one row."""
    metadata = client.get_model_metadata("dummy")
    asked = triton.InferInput(metadata["inputs"][0]["name"], [1, 10], "FP32").set_data_from_numpy(ROW)
    answered: np.ndarray[Any, Any] = client.infer("dummy", [asked]).as_numpy(metadata["outputs"][0]["name"])
    return answered


def state(client: triton.InferenceServerClient, model: str) -> dict[str, Any]:
    """The model's entry in the index; it has one version here."""
    (entry,) = [one for one in client.get_model_repository_index() if one["name"] == model]
    return dict(entry)


def test_the_same_row_gives_the_same_bits_in_json_binary_and_natively(
    server: InferenceServer, client: triton.InferenceServerClient
) -> None:
    metadata = client.get_model_metadata("dummy")
    asked = triton.InferInput(metadata["inputs"][0]["name"], [1, 10], "FP32")
    output = metadata["outputs"][0]["name"]
    in_json = [triton.InferRequestedOutput(output, binary_data=False)]
    text = client.infer("dummy", [asked.set_data_from_numpy(ROW, binary_data=False)], outputs=in_json).as_numpy(output)
    body = json.dumps({"features": ROW[0].tolist()}).encode()
    with urllib.request.urlopen(f"{server.url}/predict/dummy", body) as response:
        native = json.load(response)["prediction"]
    assert answer(client).tobytes() == text.tobytes() == np.array([[native]], np.float32).tobytes()


def test_a_model_is_gone_while_it_is_unloaded_and_no_other_is(client: triton.InferenceServerClient) -> None:
    before = answer(client)
    client.unload_model("dummy")
    assert not client.is_model_ready("dummy")
    assert client.is_model_ready("linear_regression")
    assert state(client, "dummy")["state"] == "UNAVAILABLE"
    with pytest.raises(InferenceServerException) as refused:
        client.get_model_metadata("dummy")
    assert refused.value.status() == "503"
    client.load_model("dummy")
    assert client.is_model_ready("dummy")
    assert state(client, "dummy")["state"] == "READY"
    assert answer(client).tobytes() == before.tobytes()


def test_a_load_of_what_serves_changes_nothing(client: triton.InferenceServerClient) -> None:
    before = answer(client)
    client.load_model("dummy")
    assert answer(client).tobytes() == before.tobytes()


def test_a_new_version_that_cannot_be_loaded_leaves_the_old_one_serving(
    client: triton.InferenceServerClient, folder: Path
) -> None:
    before = answer(client)
    broken = folder / "dummy" / "2"
    broken.mkdir()
    (broken / "model.keras").write_bytes(b"no model")
    try:
        with pytest.raises(InferenceServerException, match="failed to load 'dummy', ") as refused:
            client.load_model("dummy")
        assert refused.value.status() == "400"
        assert answer(client).tobytes() == before.tobytes()
        index = [one for one in client.get_model_repository_index() if one["name"] == "dummy"]
        assert {one["version"]: one["state"] for one in index} == {"1": "READY", "2": "UNAVAILABLE"}
        assert all(one["reason"] for one in index if one["version"] == "2")
    finally:
        shutil.rmtree(broken)
    client.load_model("dummy")
    assert state(client, "dummy")["version"] == "1"


@pytest.mark.parametrize("action", ["load", "unload"])
def test_a_model_that_there_is_none_of(client: triton.InferenceServerClient, action: str) -> None:
    with pytest.raises(InferenceServerException, match=f"failed to {action} 'nobody', ") as refused:
        getattr(client, f"{action}_model")("nobody")
    assert refused.value.status() == "400"
