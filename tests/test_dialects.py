"""One model, five ways to ask it: every dialect's answer to the same row has the same bits."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_server import InferenceServer

ROWS = 32


@pytest.fixture(scope="module")
def url(demo_models: Path) -> Iterator[str]:
    with InferenceServer(demo_models / "dummy") as server:
        yield server.url


def post(url: str, body: bytes, **headers: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(url, body, named), timeout=30) as response:
        answer: bytes = response.read()
    return answer


def asked(url: str, path: str, body: Any) -> Any:
    return json.loads(post(url + path, json.dumps(body).encode()))


def native(url: str, rows: np.ndarray) -> Any:
    return asked(url, "/predict/dummy", {"instances": rows.tolist()})["predictions"]


def tf_serving(url: str, rows: np.ndarray) -> Any:
    return asked(url, "/v1/models/dummy:predict", {"instances": rows.tolist()})["predictions"]


def tf_serving_columns(url: str, rows: np.ndarray) -> Any:
    return asked(url, "/v1/models/dummy/versions/1:predict", {"inputs": {"features": rows.tolist()}})["outputs"]


def tensor(rows: np.ndarray) -> dict[str, Any]:
    return {"name": "features", "shape": list(rows.shape), "datatype": "FP32"}


def open_inference(url: str, rows: np.ndarray) -> Any:
    body = {"inputs": [{**tensor(rows), "data": rows.ravel().tolist()}]}
    return asked(url, "/v2/models/dummy/infer", body)["outputs"][0]["data"]


def open_inference_binary(url: str, rows: np.ndarray) -> Any:
    inputs = [{**tensor(rows), "parameters": {"binary_data_size": rows.nbytes}}]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    size = str(len(head))
    answer = post(f"{url}/v2/models/dummy/infer", head + rows.tobytes(), Inference_Header_Content_Length=size)
    return np.frombuffer(answer[-4 * len(rows) :], np.float32)


WAYS = [native, tf_serving, tf_serving_columns, open_inference, open_inference_binary]
Way = Callable[[str, np.ndarray], Any]


def answers(way: Way, url: str, rows: np.ndarray) -> np.ndarray:
    return np.array(way(url, rows), np.float32).ravel()


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((ROWS, 10)).astype(np.float32)


@pytest.fixture(scope="module")
def alone(url: str, rows: np.ndarray) -> np.ndarray:
    """What the native dialect says to each row by itself."""
    return np.concatenate([answers(native, url, rows[at : at + 1]) for at in range(ROWS)])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_row_alone_has_the_same_bits_in_every_dialect(
    way: Way, url: str, rows: np.ndarray, alone: np.ndarray
) -> None:
    found = np.concatenate([answers(way, url, rows[at : at + 1]) for at in range(ROWS)])
    assert found.tobytes() == alone.tobytes()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_rows_in_a_batch_agree_within_what_is_promised(way: Way, url: str, rows: np.ndarray, alone: np.ndarray) -> None:
    assert (np.abs(answers(way, url, rows) - alone) <= 1e-5 + 1e-5 * np.abs(alone)).all()


def test_dialects_that_share_batches_agree_within_what_is_promised(
    url: str, rows: np.ndarray, alone: np.ndarray
) -> None:
    """All at once, so that rows of one dialect lie beside another's."""
    with ThreadPoolExecutor(16) as pool:
        jobs = [(at, pool.submit(answers, WAYS[at % len(WAYS)], url, rows[at : at + 1])) for at in range(ROWS)]
        for at, job in jobs:
            assert abs(job.result()[0] - alone[at]) <= 1e-5 + 1e-5 * abs(alone[at])
