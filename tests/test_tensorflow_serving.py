"""TensorFlow Serving's clients against the whole server: a model directory made for it, without any file added."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from inference_server import InferenceServer
from tests.harness import ROOT

DOCUMENT = ROOT / "docs" / "tensorflow_serving.md"
COMMANDS = re.findall(r"^(curl (?:.|\\\n)*?)\n# (?:(\d{3}) )?(\{.*\})$", DOCUMENT.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceServer]:
    from tests.models import zoo

    folder: Path = tmp_path_factory.mktemp("models")
    for name, version in (
        ("half_plus_three", "123"),
        ("half_plus_two", "1"),
        ("half_plus_two", "2"),
        ("exported", "1"),
    ):
        zoo.write(name, folder / name / version)
    with InferenceServer(models=folder) as running:
        yield running


def curl(url: str, *arguments: str) -> tuple[int, bytes]:
    """Status and body, as curl sees them."""
    command = ["curl", "--silent", "--max-time", "30", "--write-out", "\n%{http_code}", *arguments, url]
    said = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    body, _, status = said.rpartition(b"\n")
    return int(status), body


def test_the_document_has_commands() -> None:
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize(("command", "status", "answer"), COMMANDS, ids=range(len(COMMANDS)))
def test_what_the_document_shows_is_what_happens(
    server: InferenceServer, command: str, status: str, answer: str
) -> None:
    words = shlex.split(command.replace("\\\n", " "))[1:]
    url = words.pop().replace("http://localhost:8501", server.url)
    assert curl(url, *words) == (int(status or 200), answer.encode())


@pytest.mark.parametrize(
    ("path", "arguments", "status", "answer"),
    [
        pytest.param("/v1/models/half_plus_two/versions/2:predict", ["-d", '{"instances": [1.0]}'], 200,
                     {"predictions": [2.5]}, id="a version"),
        pytest.param("/v1/models/half_plus_two/versions/7:predict", ["-d", '{"instances": [1.0]}'], 404,
                     {"error": "Servable not found for request: Specific(half_plus_two, 7)"}, id="an unknown version"),
        pytest.param("/v1/models/half_plus_two/labels/x:predict", ["-d", '{"instances": [1.0]}'], 400,
                     {"error": "Unrecognized servable version label: x"}, id="an unknown label"),
        pytest.param("/v1/models/half_plus_two:regress",
                     ["-d", '{"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}]}'], 200,
                     {"results": [3.0]}, id="another signature"),
        pytest.param("/v1/models/half_plus_two:classify",
                     ["-d", '{"signature_name": "classify_x_to_y", "examples": [{"x": 20.0}]}'], 200,
                     {"results": [[["", 12.0]]]}, id="classify"),
        pytest.param("/v1/models/exported:predict",
                     ["-d", '{"signature_name": "serve", "inputs": {"left": [[0,0,0]], "right": [[0,0]]}}'], 200,
                     {"outputs": {"output_0": [[0.0] * 4], "output_1": [[0.0]]}}, id="exported by Keras"),
        pytest.param("/v1/models/half_plus_two%3Apredict", ["-d", '{"instances": [[1.0]]}'], 200,
                     {"predictions": [[2.5]]}, id="an escaped colon"),
        pytest.param("/v1/models/half_plus_two:predict", ["-d", "{"], 400,
                     {"error": "JSON Parse error: Missing a name for object member. at offset: 1"}, id="no JSON"),
        pytest.param("/v1/foo", ["-X", "POST"], 400, {"error": "Malformed request: POST /v1/foo"}, id="no route"),
        pytest.param("/v1/models/half", [], 404, {"error": "Could not find any versions of model half"},
                     id="status of an unknown model"),
    ],
)  # fmt: skip
def test_answers(server: InferenceServer, path: str, arguments: list[str], status: int, answer: object) -> None:
    given, body = curl(server.url + path, *arguments)
    assert (given, orjson.loads(body)) == (status, answer)


def test_the_metadata_names_every_signature(server: InferenceServer) -> None:
    _, body = curl(f"{server.url}/v1/models/half_plus_two/metadata")
    answer = orjson.loads(body)
    assert answer["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "2"}
    assert set(answer["metadata"]["signature_def"]["signature_def"]) == {
        "serving_default", "same", "classify_x_to_y", "regress_x_to_y", "regress_x2_to_y3"
    }  # fmt: skip


def test_the_list_of_models_has_their_states(server: InferenceServer) -> None:
    _, body = curl(f"{server.url}/v1/models")
    states = {
        one["name"]: [version["state"] for version in one["model_version_status"]]
        for one in orjson.loads(body)["models"]
    }
    assert states["half_plus_three"] == ["AVAILABLE"]
    assert states["half_plus_two"][0] == "AVAILABLE"
