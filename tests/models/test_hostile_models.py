"""Model files that would run somebody's code, or fetch something, were they loaded as they ask: all refused, unharmed.

Each is made by hand from a harmless model; the names are those of the holes in Keras that they once went through.
"""

from __future__ import annotations

import base64
import json
import marshal
import shutil
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.errors import LoadError
from models.repository import find
from tests.models.conftest import Load


def writes(path: Path) -> str:
    """Marshalled code of a Lambda that writes a file, as Keras saves it."""
    code = compile(f"lambda x: open({str(path)!r}, 'w')", "made", "eval").co_consts[0]
    return base64.b64encode(marshal.dumps(code)).decode()


def layer(class_name: str, module: str | None, registered: str | None = None, **config: Any) -> dict[str, Any]:
    return {
        "class_name": class_name,
        "module": module,
        "registered_name": registered,
        "config": {"name": "made", **config},
    }


def hostile(mark: Path, folder: Path, port: int) -> dict[str, dict[str, Any]]:
    """What stands in the place of a harmless layer; each would write `mark`, or connect to `port`."""
    touch = f"touch {mark}"
    code = {"class_name": "__lambda__", "config": {"code": writes(mark), "defaults": None, "closure": None}}
    url = f"http://127.0.0.1:{port}/"
    return {
        "CVE-2024-3660: a Lambda": layer("Lambda", "keras.layers", function=code, arguments={}),
        "a Lambda by its old form": layer("Lambda", None, function=[writes(mark), None, None], function_type="lambda"),
        "CVE-2025-1550: a function of os": layer("function", "os", "system", command=touch),
        "a class of subprocess": layer("Popen", "subprocess", None, args=["touch", str(mark)]),
        "exec": layer("exec", "builtins", "exec", source=f"open({str(mark)!r}, 'w')"),
        "CVE-2025-8747: a helper of Keras": layer(
            "function", "keras.utils", "get_file", fname=str(mark), origin=url, config="get_file"
        ),
        "CVE-2025-9906: the switch itself": layer(
            "function", "keras.config", "enable_unsafe_deserialization", config="enable_unsafe_deserialization"
        ),
        "an activation that is a function of os": layer(
            "Dense", "keras.layers", units=1, activation={"class_name": "function", "module": "os", "config": "system",
                                                          "registered_name": "system"},
        ),
        "CVE-2026-1462: a TFSMLayer": layer(
            "TFSMLayer", "keras.layers", filepath=str(folder), call_endpoint="serving_default"
        ),
        "a TFSMLayer from elsewhere": layer("TFSMLayer", "keras.layers", filepath=url, call_endpoint="serve"),
        "vocabulary from a file": layer("StringLookup", "keras.layers", vocabulary="/etc/passwd"),
        "vocabulary from elsewhere": layer("TextVectorization", "keras.layers", vocabulary=url),
        "a class of nobody": layer("Made", "made.by.hand", "made>Made"),
    }  # fmt: skip


NAMES = list(hostile(Path("/x"), Path("/x"), 1))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        yield listening


def assert_nobody_came(listener: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        listener.accept()


def with_layer(harmless: Path, made: Path, replaced: dict[str, Any]) -> None:
    """A copy of a .keras file whose last layer is another."""
    with zipfile.ZipFile(harmless) as source, zipfile.ZipFile(made, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                config = json.loads(data)
                layers = config["config"]["layers"]
                name_of_it = layers[-1]["config"]["name"]
                layers[-1] = {**layers[-1], **replaced, "config": {**replaced["config"], "name": name_of_it}}
                data = json.dumps(config).encode()
            target.writestr(name, data)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_would_run_code_is_refused_and_runs_none(
    name: str, load: Load, demo_models: Path, tmp_path: Path, listener: socket.socket
) -> None:
    mark, made = tmp_path / "mark", tmp_path / "made.keras"
    (dummy,) = (demo_models / "dummy").rglob("*.keras")
    saved = demo_models / "linear_regression" / "1"
    with_layer(dummy, made, hostile(mark, saved, listener.getsockname()[1])[name])
    with pytest.raises(LoadError) as caught:
        load(made)
    assert not mark.exists()
    assert_nobody_came(listener)
    assert "/" not in caught.value.reason
    assert "Error" not in caught.value.reason


def test_h5_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    """CVE-2025-9905: Keras once loaded Lambdas from there whatever it was told."""
    (tmp_path / "old.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (reference,) = find(model_dir=str(tmp_path))
    assert reference.refusal
    assert ".h5" in reference.refusal


def test_a_contract_fetches_nothing(load: Load, demo_models: Path, tmp_path: Path, listener: socket.socket) -> None:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/schema.json"
    (dummy,) = (demo_models / "dummy").rglob("*.keras")
    shutil.copy(dummy, tmp_path / "made.keras")
    for schema in ({"$ref": url}, {"allOf": [{"$ref": url}]}, {"$schema": url}, {"$id": url}, {"$dynamicRef": url}):
        with pytest.raises(LoadError, match="not offered"):
            load(tmp_path / "made.keras", {"fields": [{"name": f"f{n}", "schema": schema} for n in range(10)]})
    assert_nobody_came(listener)


def test_no_model_is_fetched_from_a_url(listener: socket.socket) -> None:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/model.keras"
    for place in (url, f"file://{url}", "gs://bucket/model", "hf://model"):
        with pytest.raises(LoadError):
            find(model_path=place)
        with pytest.raises(LoadError):
            find(model_dir=place)
    assert_nobody_came(listener)
