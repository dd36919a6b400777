"""`inference_server.py bench` as its users meet it: real servers with fake models, and what it says of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import psutil
import pytest
from PIL import Image

from batching.errors import StartupFailed
from commands import bench, exits
from tests.commands.odd_server import OK, odd_server
from tests.harness import ROOT, SOON_S, Server, _runs, fake_http_server, wait_until

KEY = "a-key-of-more-than-sixteen-characters"
BUSY = b'HTTP/1.1 503 Busy\r\nContent-Length: 22\r\n\r\n{"error":"OVERLOADED"}'
MODELS = [
    {"name": "double", "size": 3},
    {"name": "pictures", "kind": "scores", "shape": [8, 8, 1], "classes": 10,
     "narrow": {"image": {"width": 8, "height": 8, "colour": "grey"}}},
]  # fmt: skip
QUICK = ("--window", "0.1")


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    with fake_http_server(MODELS) as server:
        yield server


def run(*arguments: str | Path, server: Any = None) -> int:
    return bench.main([str(one) for one in arguments], server)


def written(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(path.read_text())
    return told


def counted(server: Server, model: str) -> int:
    """The answers that the server has counted for a model."""
    with urllib.request.urlopen(f"{server.url}/v2/models/{model}/stats", timeout=SOON_S) as answer:
        (stats,) = json.load(answer)["model_stats"]
    return int(stats["inference_count"])


def test_a_running_server_is_measured_from_load_to_load(
    served: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, plot = tmp_path / "out.json", tmp_path / "out.svg"
    before = counted(served, "double")
    code = run(
        served.url, "--model", "double", "--concurrency", "1:5:2", *QUICK, "--json", report, "--plot", plot
    )  # fmt: skip
    told = written(report)
    assert code == (exits.OK if any(one["is_stable"] for one in told["levels"]) else exits.WRONG)
    assert [one["load"] for one in told["levels"]] == [1, 3, 5]
    assert told["model"] == "double"
    assert told["path"] == "/predict/double"
    for one in told["levels"]:
        assert 3 <= one["trials"] <= 10
        assert one["failed"] == 0
        assert one["percentiles_ms"]["50"] <= one["percentiles_ms"]["99"] <= one["max_ms"]
        assert {"queue", "compute", "batch"} <= one["split"].keys()
    assert 0 < sum(one["answers"] for one in told["levels"]) <= counted(served, "double") - before
    shown = capsys.readouterr().out
    table = [line.split() for line in shown.splitlines() if re.match(r" +[135] ", line)]
    assert [line[0] for line in table[:3]] == ["1", "3", "5"]
    assert "queue ms" in shown
    assert told["in_words"] in shown
    assert ET.fromstring(plot.read_text()).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - our own


@pytest.mark.parametrize(
    ("dialect", "path"),
    [("native", "/predict/double"), ("tfs", "/v1/models/double:predict"), ("v2", "/v2/models/double/infer")],
)
def test_every_dialect_is_spoken_with_as_many_rows_as_asked(
    served: Server, tmp_path: Path, dialect: str, path: str
) -> None:
    report = tmp_path / "out.json"
    before = counted(served, "double")
    run(
        served.url, "--model", "double", "--dialect", dialect, "--rows", "7", "--concurrency", "2", *QUICK,
        "--json", report,
    )  # fmt: skip
    told = written(report)
    (one,) = told["levels"]
    assert told["path"] == path
    assert not one["failures"]
    assert one["rows_per_s"] == pytest.approx(7 * one["requests_per_s"])
    assert one["answers"] * 7 <= counted(served, "double") - before


def test_an_open_loop_counts_what_is_answered_in_time(served: Server, tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    run(
        served.url, "--model", "double", "--rate", "200,400", "--distribution", "constant", "--deadline-ms", "5000",
        *QUICK, "--json", report,
    )  # fmt: skip
    told = written(report)
    assert told["loop"] == "open"
    for one in told["levels"]:
        assert one["within"] == one["answers"]
        assert one["goodput_per_s"] == pytest.approx(one["requests_per_s"])
    assert written(report)["knee"] in (200, 400, None)


def test_a_picture_is_made_for_a_model_of_pictures_or_given(served: Server, tmp_path: Path) -> None:
    report, picture = tmp_path / "out.json", tmp_path / "some.jpg"
    Image.new("RGB", (20, 20), "red").save(picture)
    for more in ((), ("--body", picture)):
        run(served.url, "--model", "pictures", "--concurrency", "2", *QUICK, "--json", report, *more)
        told = written(report)
        assert told["path"] == "/classify/pictures"
        assert told["levels"][0]["answers"] > 0
        assert not told["levels"][0]["failures"]
    assert told["body"].startswith("some.jpg")


def test_a_body_of_json_is_sent_as_it_is_and_its_rows_are_counted(served: Server, tmp_path: Path) -> None:
    report, body = tmp_path / "out.json", tmp_path / "body.json"
    body.write_text('{"instances": [{"x": [1, 2, 3]}, {"x": [4, 5, 6]}]}')
    run(served.url, "--model", "double", "--body", body, "--concurrency", "1", *QUICK, "--json", report)
    assert written(report)["rows"] == 2
    assert written(report)["levels"][0]["answers"] > 0


def test_a_key_is_sent_with_every_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n")
    with fake_http_server([{"name": "double"}], api_key_file=str(keys)) as server:
        assert run(server.url, "--model", "double", *QUICK) == exits.USAGE  # nothing is told without a key
        capsys.readouterr()
        run(server.url, "--key-file", keys, "--concurrency", "1", *QUICK, "--json", "-")
    (one,) = json.loads(capsys.readouterr().out)["levels"]
    assert one["answers"] > 0
    assert not one["failures"]


def test_failures_are_told_by_reason_and_end_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = tmp_path / "body.json"
    body.write_text("{}")
    with odd_server(lambda number, body: (OK if number < 20 or number % 2 else BUSY, True)) as server:
        code = run(server.url, "--model", "any", "--body", body, "--concurrency", "2", *QUICK)
    assert code == exits.WRONG
    told = capsys.readouterr()
    assert "503 OVERLOADED" in told.out
    assert "What failed" in told.out
    assert re.fullmatch(r"inference_server: [\d,]+ requests failed\n", told.err)


def test_a_server_that_goes_between_two_loads_costs_nothing_that_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = tmp_path / "body.json"
    body.write_text("{}")
    with odd_server() as server:

        def answer(number: int, body: bytes) -> tuple[bytes, bool]:
            if number == 50:  # in the first load, which goes on over the connection that it has
                server.stop_listening()
            return OK, True

        server.answer = answer
        code = run(server.url, "--model", "any", "--body", body, "--concurrency", "1,2", *QUICK)
    told = capsys.readouterr()
    assert code == exits.NOBODY
    assert "at 2: connection refused" in told.err
    assert re.search(r"^ +1 ", told.out, re.MULTILINE)


def test_a_first_answer_that_is_a_refusal_is_told_in_its_own_words(
    served: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"x": ["a"]}')
    assert run(served.url, "--model", "double", "--body", body, *QUICK) == exits.WRONG
    told = capsys.readouterr().err
    assert "answers 400" in told
    assert "BAD_INPUT" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["http://127.0.0.1:1"], None),
        (["https://127.0.0.1:1"], "https is not spoken"),
        (["http://"], "no address of a server"),
        (["http://127.0.0.1:1x"], "no port"),
        (["no/such/model"], "there is no model no/such/model"),
        (["URL"], "there is no model URL"),
        (["http://x", "--concurrency", "0"], "whole number from 1"),
        (["http://x", "--concurrency", "9:3:2"], "from:to:step"),
        (["http://x", "--concurrency", "1:1000:1"], "at most 100"),
        (["http://x", "--rate", "5,-1"], "no number above 0"),
        (["http://x", "--rate", "nan"], "no number above 0"),
        (["http://x", "--rate", "5", "--concurrency", "1"], "not allowed with"),
        (["http://x", "--percentile", "100"], "below 100"),
        (["http://x", "--window", "0.001"], "0.05 to 600"),
        (["http://x", "--rows", "2", "--body", "f"], "--rows is for a sample"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_one_line_and_its_exit_code(
    arguments: list[str], words: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = run(*arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    told = capsys.readouterr().err
    assert code == (exits.NOBODY if words is None else exits.USAGE)
    assert (words or "nobody answers at") in told
    assert told.count("\n") == 1


def test_models_are_named_where_there_are_several(served: Server, capsys: pytest.CaptureFixture[str]) -> None:
    for dialect in ("native", "v2"):
        assert run(served.url, "--dialect", dialect) == exits.USAGE
        assert "--model: double, pictures" in capsys.readouterr().err


def test_who_speaks_no_http_is_told_apart_from_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            for _ in range(2):
                sock, _ = listener.accept()
                sock.sendall(b"220 mail.example ESMTP\r\n\r\n")
                sock.recv(1000)
                sock.close()

        thread = threading.Thread(target=talk)
        thread.start()
        assert run(f"http://127.0.0.1:{listener.getsockname()[1]}") == exits.WRONG
        thread.join()
    assert "cannot be asked" in capsys.readouterr().err


def test_a_model_on_disk_gets_a_server_that_keeps_to_itself(
    served: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[Any, dict[str, Any]]] = []

    @contextmanager
    def start(models: str, **settings: Any) -> Iterator[Server]:
        told.append((models, settings))
        yield served

    run(tmp_path, "--model", "double", "--concurrency", "1", *QUICK, "--json", "-", server=start)
    assert json.loads(capsys.readouterr().out)["levels"][0]["answers"] > 0
    ((models, settings),) = told
    assert models == str(tmp_path)
    assert settings["host"] == "127.0.0.1"
    assert {settings[name] for name in ("database_url", "prediction_log_dir", "api_key_file")} == {None}
    assert "predict_timeout_ms" not in settings

    @contextmanager
    def refuse(models: str, **settings: Any) -> Iterator[Server]:
        raise StartupFailed("no model here")
        yield served

    assert run(tmp_path, server=refuse) == exits.NO_MODEL
    assert "no model here" in capsys.readouterr().err


def test_a_real_model_is_measured_in_one_command(demo_models: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "inference_server.py"), "bench", str(demo_models / "digits"), "--concurrency", "2",
         *QUICK, "--json", "-"],
        capture_output=True, text=True, timeout=90, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode in (exits.OK, exits.WRONG), done.stderr  # a busy machine may not become stable
    told = json.loads(done.stdout)
    assert told["path"] == "/classify/digits"
    assert told["levels"][0]["answers"] > 0
    assert not told["levels"][0]["failures"]


def test_ctrl_c_tells_what_was_measured_so_far(served: Server, tmp_path: Path) -> None:
    before = counted(served, "double")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "inference_server.py"), "bench", served.url, "--model", "double",
         "--rate", "100,90", "--window", "0.4"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    # So much takes at least one window of 0.4 s, and both loads last longer.
    wait_until(lambda: counted(served, "double") - before > 100 or process.poll() is not None, SOON_S, "it runs")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=SOON_S)
    assert process.returncode == exits.INTERRUPTED, err
    assert "Traceback" not in err
    assert "interrupted" in err
    assert re.search(r"^ +100 ", out, re.MULTILINE)


def test_nothing_is_left_of_a_bench_that_was_killed(tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text("{}")
    with odd_server() as server:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "inference_server.py"), "bench", server.url, "--model", "any", "--body",
             str(body), "--rate", "50"],
            stdout=subprocess.DEVNULL, cwd=tmp_path,
        )  # fmt: skip
        wait_until(lambda: len(server.bodies) > 10, SOON_S, "it runs")
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.kill()
        process.wait()
        wait_until(lambda: not any(_runs(one) for one in children), SOON_S, "the generators are gone")
