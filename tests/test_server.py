"""The whole server with real models: TensorFlow in its worker, HTTP in front, started as a user starts it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from batching.errors import StartupFailed
from commands import exits
from inference_server import InferenceServer
from models.errors import BadInput
from tests.harness import ROOT, SOON_S, listens, wait_until

SERVER = [sys.executable, str(ROOT / "inference_server.py")]
TEN = [0.1 * i for i in range(1, 11)]
START_S = 60.0  # TensorFlow's import on a busy machine


@pytest.fixture(scope="module")
def server(demo_models: Path) -> Iterator[InferenceServer]:
    with InferenceServer(models=demo_models, default_model="dummy") as running:
        yield running


def post(url: str, body: Any, **headers: str) -> tuple[int, Any]:
    """(status, JSON) of a POST; a body that is neither bytes nor text is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def near(a: Any, b: Any) -> bool:
    """Equal in numbers: |a - b| <= 1e-5 + 1e-5 |b|."""
    return bool(np.all(np.abs(np.asarray(a) - np.asarray(b)) <= 1e-5 + 1e-5 * np.abs(np.asarray(b))))


# -- the demo models ---------------------------------------------------------------------------------------------------


def test_the_dummy_model_answers_as_it_does_alone(server: InferenceServer, demo_models: Path) -> None:
    import keras

    (path,) = (demo_models / "dummy" / "1").glob("*.keras")
    alone = keras.saving.load_model(path, compile=False)
    rows = np.random.default_rng(1).normal(size=(32, 10)).astype(np.float32)
    expected = np.asarray(alone(rows))[:, 0]
    for row, value in zip(rows[:4], expected[:4], strict=True):
        status, body = post(f"{server.url}/predict", {"features": row.tolist()})
        assert (status, body["ok"], body["model_version"]) == (200, True, "1")
        assert near(body["prediction"], value)
    status, body = post(f"{server.url}/predict/dummy", {"instances": rows.tolist()})
    assert status == 200
    assert near(body["predictions"], expected)


def test_a_row_sent_alone_gives_the_same_bits_each_time(server: InferenceServer) -> None:
    assert len({post(f"{server.url}/predict", {"features": TEN})[1]["prediction"] for _ in range(5)}) == 1


def test_a_module_without_signatures_answers(server: InferenceServer, demo_models: Path) -> None:
    import tensorflow as tf

    alone = tf.saved_model.load(str(demo_models / "linear_regression" / "1"))
    expected = np.asarray(alone(np.array([[3.5]], np.float32))).ravel()[0]
    status, body = post(f"{server.url}/predict/linear_regression", {"feature": 3.5})
    assert status == 200
    assert near(body["prediction"], expected)


def test_the_advanced_route_answers_nested_and_names_a_missing_field(server: InferenceServer) -> None:
    status, body = post(f"{server.url}/advanced_predict", {"feature1": 1.0, "feature2": 2.0})
    assert (status, np.shape(body["prediction"])) == (200, (1, 1))
    status, body = post(f"{server.url}/advanced_predict", {"feature1": 1.0})
    assert (status, body["error"]) == (400, "BAD_INPUT")
    assert "feature2" in body["message"]


def test_a_real_digit_comes_back_right_however_it_is_sent(
    server: InferenceServer, held_out_digits: list[tuple[bytes, int]]
) -> None:
    png, digit = held_out_digits[0]
    text = base64.b64encode(png).decode()
    quoted = urllib.parse.quote(text).encode()
    multipart = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="d.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + png + b"\r\n--b--\r\n"
    )
    url = f"{server.url}/classify"
    answers = [
        post(url, png, Content_Type="image/png"),
        post(url, png),
        post(url, b"image=" + quoted),
        post(url, b"image=data:image/png;base64," + quoted),
        post(url, multipart, Content_Type="multipart/form-data; boundary=b"),
        post(url, {"image": text}),
        post(f"{url}/digits", {"image": text}),
    ]
    assert [status for status, _ in answers] == [200] * 7
    assert {(body["predicted_class"], body["label"]) for _, body in answers} == {(digit, str(digit))}
    assert len({json.dumps(body["top"]) for _, body in answers}) == 1


def test_real_digits_it_has_never_seen_are_recognised(
    server: InferenceServer, held_out_digits: list[tuple[bytes, int]]
) -> None:
    instances = [{"image": base64.b64encode(png).decode()} for png, _ in held_out_digits]
    status, body = post(f"{server.url}/classify", {"instances": instances})
    assert status == 200
    right = sum(
        answer["predicted_class"] == digit
        for answer, (_, digit) in zip(body["predictions"], held_out_digits, strict=True)
    )
    assert right / len(held_out_digits) >= 0.98


def test_every_sample_and_example_that_a_model_shows_is_accepted(server: InferenceServer) -> None:
    with urllib.request.urlopen(f"{server.url}/models", timeout=30) as response:
        models = json.load(response)["models"]
    assert {model["name"] for model in models} == {"digits", "dummy", "linear_regression", "two_features"}
    for model in models:
        assert post(f"{server.url}/predict/{model['name']}", model["sample"])[0] == 200
        assert server.url in model["curl"]


def test_every_answer_belongs_to_its_request(server: InferenceServer) -> None:
    """64 clients at once, each with inputs of its own."""
    host, port = server.url.removeprefix("http://").split(":")
    status, body = post(f"{server.url}/predict/linear_regression", {"instances": [{"feature": 0}, {"feature": 1}]})
    assert status == 200
    offset, slope = body["predictions"][0], body["predictions"][1] - body["predictions"][0]
    wrong: list[Any] = []

    def client(number: int) -> None:
        connection = HTTPConnection(host, int(port), timeout=30)
        for i in range(20):
            x = number * 20 + i
            connection.request("POST", "/predict/linear_regression", json.dumps({"feature": x}))
            answer = json.loads(connection.getresponse().read())
            if abs(answer.get("prediction", np.inf) - (offset + slope * x)) > 1e-3 * (1 + abs(slope * x)):
                wrong.append((x, answer))
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- embedding ---------------------------------------------------------------------------------------------------------


def test_predict_without_http_goes_through_the_same_checks(server: InferenceServer) -> None:
    _, body = post(f"{server.url}/predict", {"features": TEN})
    assert server.predict("dummy", {"features": TEN}) == body["prediction"]
    assert len(server.predict("dummy", {"instances": [TEN, TEN]})) == 2
    with pytest.raises(BadInput, match="expected 10"):
        server.predict("dummy", {"features": [1]})


SCRIPT = """
import sys
{imports}
sys.path.insert(0, {root!r})
from inference_server import InferenceServer
with InferenceServer(models={model!r}) as server:
    import json, urllib.request
    answer = json.load(urllib.request.urlopen(server.url + "/predict", json.dumps({{"features": [1.0] * 10}}).encode()))
    print(answer["ok"], server.predict("dummy", {{"features": [1.0] * 10}}) == answer["prediction"])
"""


@pytest.mark.parametrize("imports", ["", "import tensorflow as tf; tf.constant(1) + 1"], ids=["bare", "tensorflow"])
def test_a_script_without_a_main_guard_embeds_a_server(imports: str, demo_models: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(imports=imports, root=str(ROOT), model=str(demo_models / "dummy")))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.stdout.split() == ["True", "True"], done.stderr
    assert not [p for p in psutil.process_iter(["cmdline"]) if "--child" in (p.info["cmdline"] or ()) and p.ppid() == 1]


def test_a_model_that_cannot_be_served_fails_the_block_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "bad.keras").write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(StartupFailed, match="bad"), InferenceServer(models=tmp_path / "bad.keras"):
        pass


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["lazy", "preload"])
def test_gunicorn_attaches_to_workers_of_their_own(preload: list[str], demo_models: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    workers = subprocess.Popen(
        [*SERVER, "worker", "--socket", str(path), str(demo_models / "dummy")], stdout=subprocess.PIPE, text=True
    )
    assert workers.stdout
    port = free_port()
    gunicorn = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", *preload, "-w", "2", "--threads", "4", "-b", f"127.0.0.1:{port}"),
            *("--no-control-socket", "inference_server:wsgi()"),
        ],
        cwd=ROOT,
        env={**os.environ, "WORKER_SOCKET": str(path)},
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: listens(url), START_S, "gunicorn listens")
        assert workers.stdout.readline().startswith("workers at")
        assert workers.stdout.readline() == "ready\n"
        for _ in range(8):
            status, body = post(f"{url}/predict", {"features": TEN})
            assert (status, body["ok"]) == (200, True)
        assert post(f"{url}/predict", {"features": [1]})[0] == 400
    finally:
        gunicorn.terminate()
        gunicorn.wait(SOON_S)
        workers.terminate()
        assert workers.wait(SOON_S) == 0
        workers.stdout.close()
    assert not path.exists()


def free_port() -> int:
    """A port that was free a moment ago; for programs that cannot be given port 0 and asked."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- the command line --------------------------------------------------------------------------------------------------


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line to its end."""
    return subprocess.run(
        [*SERVER, *arguments], capture_output=True, text=True, timeout=100, env={**os.environ, **environment}
    )


def test_help_and_version_are_printed() -> None:
    assert "--batch-max-size" in run("serve", "--help").stdout
    assert re.fullmatch(r"inference-server \d+\.\d+\.\d+\n", run("--version").stdout)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--port", "x"], exits.USAGE, "PORT must be a number"),
        (["--batch-max-size", "0"], exits.USAGE, "BATCH_MAX_SIZE must be above 0"),
        (["--version-policy", "newest"], exits.USAGE, "a version policy is latest:N, all, or specific:1,3"),
        (["/nowhere/model.keras"], exits.NO_MODEL, "model.keras"),
        (["worker", "/nowhere"], exits.USAGE, "--socket"),
        (["--model-dir", "{empty}"], exits.NO_MODEL, ""),
    ],
)
def test_what_cannot_start_ends_with_its_own_code_and_one_line(
    arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    done = run(*[argument.format(empty=tmp_path) for argument in arguments])
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_without_any_model_the_script_that_makes_one_is_named(tmp_path: Path) -> None:
    done = run(str(tmp_path / "dummy_model.keras"))
    assert done.returncode == exits.NO_MODEL
    assert "scripts/create_dummy_model.py" in done.stderr


def test_a_taken_port_ends_with_its_own_code_and_one_line(demo_models: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run(str(demo_models / "dummy"), "--port", port)
    assert done.returncode == exits.NO_ADDRESS
    assert done.stderr.count("\n") == 1
    assert port in done.stderr


def test_a_corrupt_model_ends_with_its_own_code_and_names_model_and_reason(tmp_path: Path) -> None:
    (tmp_path / "bad.keras").write_bytes(b"PK\x03\x04 not a model")
    done = run(str(tmp_path / "bad.keras"), "--port", "0")
    assert done.returncode == exits.NO_MODEL
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("inference_server: model bad version 1 cannot be served: ")
    assert str(tmp_path) not in last


def test_sigkill_of_the_supervisor_leaves_no_process_and_no_port(demo_models: Path) -> None:
    with subprocess.Popen(
        [*SERVER, str(demo_models / "dummy"), "--port", "0", "--fronts", "2"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        url = process.stdout.readline().split()[-1]
        assert process.stdout.readline().startswith("ready after")
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == 3  # two fronts, one worker
        assert post(f"{url}/predict", {"features": TEN})[0] == 200
        process.kill()
        process.wait()
        # A dead leader is a zombie before its last thread has let go of the listening socket: both are waited for.
        wait_until(
            lambda: (
                not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
                and not listens(url)
            ),
            1.0,
            "no process and no port after 1 s",
        )


def test_a_worker_killed_with_sigkill_is_replaced(demo_models: Path) -> None:
    with InferenceServer(models=demo_models / "dummy") as server:
        assert post(f"{server.url}/predict", {"features": TEN})[0] == 200
        before = worker_of(server)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: worker_of(server, but=before), START_S, "another worker")
        wait_until(lambda: post(f"{server.url}/predict", {"features": TEN})[0] == 200, START_S, "an answer")


def worker_of(server: InferenceServer, but: int = 0) -> int:
    """The process id of the server's worker, 0 when there is none (or only `but`)."""
    for child in psutil.Process(server.pid).children():
        with suppress(psutil.Error):  # it may end while we look
            if "worker" in child.cmdline() and child.pid != but:
                return child.pid
    return 0
