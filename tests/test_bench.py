"""scripts/bench, run for real but briefly. What it measures is asserted, never how fast that was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.system_tools import system_tool

ROOT = Path(__file__).parent.parent

MAKE_MODEL = """\
import sys, keras
keras.Sequential([keras.Input((10,)), keras.layers.Dense(4), keras.layers.Dense(1)]).save(sys.argv[1])
"""


def bench(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "bench.py", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str | Path, **environment: str) -> tuple[int, str, str]:
    """To the end: (exit code, stdout, stderr)."""
    with bench(*arguments, **environment) as process:
        out, err = process.communicate()
        return process.returncode, out, err


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.keras"
    subprocess.run([sys.executable, "-c", MAKE_MODEL, path], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def quick(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What a quick run gave: (JSON, stdout)."""
    system_tool("wrk")
    path = tmp_path_factory.mktemp("bench") / "quick.json"
    code, out, err = run("--quick", "--model", small_model, "--json", path)
    assert code == 0, err
    return json.loads(path.read_text()), out


def test_every_leg_is_measured_without_an_error(quick: tuple[dict[str, Any], str]) -> None:
    result, _ = quick
    legs = {(leg["name"], leg["concurrency"]): leg["median"] for leg in result["legs"]}
    served = (
        *("server, POST /predict", "waitress + Bottle, constant"),
        *("our loop + Bottle, constant", "server, GET /health"),
    )
    assert legs.keys() == {(name, c) for name in served for c in (1, 16, 64)} | {
        (f"bare model, {rows} rows a call", None) for rows in (1, 16, 64)
    }
    assert result["errors"] == 0
    for median in legs.values():
        assert median["requests_per_s"] > 0
        assert 0 < median["p50_ms"] <= median["p99_ms"]


def test_batches_are_those_that_the_server_counted(quick: tuple[dict[str, Any], str]) -> None:
    batches = {(leg["name"], leg["concurrency"]): leg["median"].get("mean_batch") for leg in quick[0]["legs"]}
    assert batches["server, POST /predict", 1] == 1
    assert 1 < batches["server, POST /predict", 64] <= 64
    assert batches["server, GET /health", 64] is None
    assert batches["bare model, 16 rows a call", None] == 16


def test_every_process_of_the_server_is_weighed(quick: tuple[dict[str, Any], str]) -> None:
    roles = quick[0]["processes"]
    counts = {role: one["processes"] for role, one in roles.items()}
    fronts = quick[0]["facts"]["fronts, of the server and of the loop with a constant"]
    assert counts == {"supervisor": 1, "front": fronts, "worker": 1, "all": 2 + fronts}
    for one in roles.values():
        assert 0 < one["pss_mb"] <= one["rss_mb"]
        assert 0 <= one["idle_cpu_percent"] < 100


def test_processor_time_is_told_by_role(quick: tuple[dict[str, Any], str]) -> None:
    (leg,) = (one for one in quick[0]["legs"] if (one["name"], one["concurrency"]) == ("server, POST /predict", 64))
    (measured,) = leg["rounds"]
    assert measured["cpu_ms_by_role"].keys() == {"supervisor", "front", "worker"}
    assert sum(measured["cpu_ms_by_role"].values()) == pytest.approx(measured["cpu_ms_per_request"])


def test_each_target_of_the_acceptance_has_its_line(quick: tuple[dict[str, Any], str]) -> None:
    result, out = quick
    limits = {one["what"]: (one["limit"], one["at_least"]) for one in result["comparisons"] if one["limit"] is not None}
    assert limits == {
        "server / waitress constant, requests/s at c=16": (1.5, True),
        "server / waitress constant, requests/s at c=64": (1.5, True),
        "server / our loop with a constant, requests/s at c=16": (0.85, True),
        "server / our loop with a constant, requests/s at c=64": (0.85, True),
        "server - waitress constant, p50 at c=1": (0.5, False),
        "idle server, CPU of one core": (1.0, False),
        "a front, PSS": (80.0, False),
    }
    for what in limits:
        assert f"\n{what}: " in out
    assert "shares the cores" in out


def test_the_result_names_the_machine(quick: tuple[dict[str, Any], str]) -> None:
    machine = quick[0]["machine"]
    assert machine.keys() >= {"date", "cpu", "cores", "kernel", "python", "tensorflow", "load_average"}
    assert machine["cores"] == len(os.sched_getaffinity(0))


@pytest.mark.timeout(300)  # makes MobileNetV2 the first time, and loads it twice
def test_pictures_are_classified_beside_a_loop_without_http(tmp_path: Path) -> None:
    system_tool("wrk")
    code, _, err = run("--images", "--quick", "--json", tmp_path / "images.json")
    assert code == 0, err
    result = json.loads((tmp_path / "images.json").read_text())
    names = {(leg["name"].split(", batches")[0], leg["concurrency"]) for leg in result["legs"]}
    assert names == {
        ("loop in one thread", None),
        ("loop with a decoding thread", None),
        ("server, POST /classify", 16),
        ("server, POST /classify", 64),
        ("small model", 4),
        ("small model, MobileNetV2 at c=16 beside", 4),
    }
    assert result["errors"] == 0
    assert [one["limit"] for one in result["comparisons"]] == [0.95, 0.95, 50.0, None]


@pytest.mark.timeout(300)  # six starts of TensorFlow
def test_stillness_is_measured_beside_a_process_with_nothing_but_the_model(small_model: Path, tmp_path: Path) -> None:
    system_tool("wrk")
    path = tmp_path / "idle.json"
    code, _, err = run("--idle", "--quick", "--model", small_model, "--json", path)
    assert code == 0, err
    result = json.loads(path.read_text())
    assert result["errors"] == 0
    assert [leg["name"] for leg in result["legs"]] == ["server", "server, 1,000 idle connections beside"]
    limits = {one["what"]: (one["limit"], one["at_least"]) for one in result["comparisons"] if one["limit"] is not None}
    assert limits == {
        "with / without 1,000 idle connections, requests/s at c=64": (0.8, True),
        "p99 / p50 at c=64": (3.0, False),
        "idle server, CPU of one core": (1.0, False),
        "ready - import tensorflow and load alone": (1.0, False),
        "server with FRONTS=2 - bare TensorFlow with the model, PSS": (150.0, False),
    }
    assert (tmp_path / "idle-throughput.svg").exists()


@pytest.mark.timeout(300)
def test_large_requests_are_measured_beside_a_bare_parse_and_small_ones_beside_them(
    small_model: Path, tmp_path: Path
) -> None:
    system_tool("wrk")
    path = tmp_path / "rows.json"
    code, out, err = run("--rows", "--quick", "--model", small_model, "--json", path)
    assert code == 0, err
    result = json.loads(path.read_text())
    assert result["errors"] == 0
    limits = {one["what"]: one["limit"] for one in result["comparisons"] if one["limit"] is not None}
    assert limits == {
        "time of 1,000 rows / orjson, an array and the call of 1,000 rows, p50": 2.0,
        "small request beside v2 json, the longest": 50.0,
        "small request beside v2 binary, the longest": 50.0,
    }
    assert "\nrows/s: " in out


@pytest.mark.timeout(600)  # three models, two servers each
def test_every_cell_of_the_batching_matrix_is_judged(small_model: Path, tmp_path: Path) -> None:
    system_tool("wrk")
    path = tmp_path / "batching.json"
    code, out, err = run("--batching", "--quick", "--model", small_model, "--json", path)
    assert code == 0, err
    result = json.loads(path.read_text())
    assert {(cell["model"], cell["load"], cell["arrivals"]) for cell in result["cells"]} == {
        (model, 0.9, process)
        for model in ("small", "fixed-cost-heavy", "row-heavy")
        for process in ("poisson", "bursty")
    }
    for cell in result["cells"]:
        assert cell["settings"].keys() == {"ours", "size 64, wait 30 ms"}
        assert cell["best"]["goodput"] != "ours"
        for figures in cell["settings"].values():
            assert 0 <= figures["goodput"]["median"] <= 1
    assert [one["limit"] for one in result["comparisons"]] == [6, 5, 0.5, 0.5]
    assert "\ndeadline, ms: 100" in out


@pytest.mark.timeout(300)  # two servers and PostgreSQL
def test_the_prediction_logs_cost_is_measured_with_a_real_postgresql(small_model: Path, tmp_path: Path) -> None:
    system_tool("wrk")
    path = tmp_path / "log.json"
    code, out, err = run("--log", "--quick", "--model", small_model, "--json", path)
    assert code == 0, err
    result = json.loads(path.read_text())
    assert result["errors"] == 0
    servers = ("no log", "log", "no log, again", "log, PostgreSQL frozen")
    assert {(leg["name"], leg["concurrency"]) for leg in result["legs"]} == {
        *((name, c) for name in servers for c in (16, 64)),
        *((f"{name}, half load", None) for name in servers),
    }
    (leg,) = (one for one in result["legs"] if (one["name"], one["concurrency"]) == ("log", 64))
    assert leg["rounds"][0]["cpu_ms_by_role"].keys() == {"supervisor", "front", "worker", "shipper", "PostgreSQL"}
    assert [(one["limit"], one["at_least"]) for one in result["comparisons"] if one["limit"] is not None] == [
        *([(1.1, False)] * 6),
        (30_000, True),
    ]
    assert "\none append, µs: p50 " in out


def test_answers_are_compared_with_the_model_alone(small_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "correctness.json"
    code, out, err = run("--correctness", "--quick", "--model", small_model, "--json", path)
    assert (code, err.count("\n")) == (0, 1), err
    assert out.startswith("Every answer belongs to its request: yes\n")
    counts = json.loads(path.read_text())["counts"]
    assert counts == {"equal": 640, "different": 0, "failed": 0, "with another's id": 0}


def test_a_file_is_scored_beside_the_bare_function(small_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "score.json"
    code, out, err = run("--score", "--quick", "--model", small_model, "--json", path)
    assert code == 0, err
    assert out.startswith("A file through score: 50,000 rows of 10 numbers, all answered alike\n")
    told = json.loads(path.read_text())
    assert told["score"].keys() == {"npy", "csv", "jsonl"}
    for one in told["score"].values():
        assert one["peak_mb"] > 10
        assert min(one["rows_per_s"]) > 0


def test_without_wrk_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    code, out, err = run(PATH=str(tmp_path))
    assert (code, out) == (2, "")
    assert err == "bench: needs the load generator wrk on PATH (Debian: apt-get install wrk)\n"


@pytest.mark.parametrize(
    ("number", "said", "programs"),
    [
        (signal.SIGINT, "round 1 of 1: server, POST /predict, c=1", 3),
        (signal.SIGTERM, "constant server at c=1", 3),
    ],
)
def test_an_interrupted_run_leaves_nothing(
    small_model: Path, tmp_path: Path, number: int, said: str, programs: int
) -> None:
    system_tool("wrk")
    with bench("--quick", "--model", small_model, TMPDIR=str(tmp_path)) as process:
        assert process.stderr is not None
        assert any(said in line for line in process.stderr)
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= programs
        process.send_signal(number)
        process.communicate()
        assert process.returncode == 128 + number
    assert not [one for one in started if one.is_running()]
    assert list(tmp_path.iterdir()) == []


def test_the_script_sets_up_and_becomes_the_program() -> None:
    path = ROOT / "scripts" / "bench"
    assert os.access(path, os.X_OK)
    assert "\nset -euo pipefail\n" in path.read_text()
    assert path.read_text().rstrip().endswith('exec "$venv/bin/python" "$root/scripts/bench.py" "$@"')
