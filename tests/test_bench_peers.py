"""The bench's other servers: their entries and programs, a real program started, checked and ended as one of them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.system_tools import system_tool

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from benchmarks import peers, wrk
from benchmarks.beside import Limits, Ours, begin, compare, legs, measure
from benchmarks.peer import RunningPeer
from benchmarks.processes import ProgramError
from benchmarks.rounds import Options
from benchmarks.targets import Measurement
from peers.catalogue import PEERS, Peer

ROOT = Path(__file__).parent.parent
ROW = [0.5] * 10
FOLDER = ROOT / "scripts" / "peers"
# A server as small as can be: it answers the sum of a row, and starts a daemon in a session of its own.
PROGRAM = """\
import http.server, json, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        row = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["features"]
        body = json.dumps({"prediction": sum(row) + %s}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def peer(name: str = "tiny", wrong_by: int = 0) -> Peer:
    return Peer(name, (), ("-c", PROGRAM % wrong_by, "{port}"))


def running(one: Peer, folder: Path) -> RunningPeer:
    question = json.dumps(one.body(ROW)).encode()
    return RunningPeer(one, Path(sys.executable), folder, {}, [(question, sum(ROW))])


# -- the entries -------------------------------------------------------------------------------------------------------


def test_every_peer_of_the_acceptance_has_an_entry_and_a_program() -> None:
    assert [one.name for one in PEERS] == [
        *("fastapi", "mosec", "mlserver", "pytriton", "bentoml", "litserve", "ray", "service-streamer", "flask")
    ]
    programs = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "catalogue", "model"}
    assert programs == {one.name.replace("-", "_") for one in PEERS}


@pytest.mark.parametrize("one", PEERS, ids=lambda one: one.name)
def test_an_entry_starts_its_own_program_on_the_port_it_is_given(one: Peer) -> None:
    told = " ".join((*one.command, *(text for _, text in one.files)))
    assert "{port}" in told
    assert f"peers.{one.name.replace('-', '_')}" in told
    assert one.packages


@pytest.mark.parametrize("one", PEERS, ids=lambda one: one.name)
def test_a_body_is_json_that_holds_the_row(one: Peer) -> None:
    assert json.dumps(ROW)[1:-1] in json.dumps(one.body(ROW))
    assert one.picture is None or "anything" in json.dumps(one.picture("anything"))


@pytest.mark.parametrize(
    ("name", "answer"),
    [("fastapi", {"prediction": 2.5}), ("bentoml", [2.5]), ("mlserver", {"outputs": [{"data": [2.5]}]})],
)
def test_an_answer_is_read_as_a_number(name: str, answer: Any) -> None:
    (one,) = peers.chosen([name])
    assert one.answer(answer) == 2.5


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_program_says_what_it_is_and_takes_the_model_from_the_bench(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    if path.stem not in {"__init__", "catalogue", "model", "flask"}:
        imported = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert "peers.model" in imported


def test_a_name_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        ProgramError, match=r"no peer is called nginx; there are fastapi, mosec, .*flask, gunicorn, granian"
    ):
        peers.chosen(["mosec", "nginx"])


# -- a peer that runs --------------------------------------------------------------------------------------------------


def test_a_peer_is_up_when_it_answers_right_and_all_of_it_ends(tmp_path: Path) -> None:
    system_tool("wrk")
    bodies = wrk.Bodies.write(tmp_path / "bodies", [json.dumps({"features": ROW}).encode()], "application/json")
    with running(peer(), tmp_path / "home") as one:
        assert one.seconds_to_ready > 0
        started = [psutil.Process(pid) for pid in one.pids()]
        assert len(started) == 2, "the daemon has left its session, and is found"
        found = one.load(2, 1, bodies)
    assert found.errors == 0
    assert found.requests_per_s > 0
    assert found.cpu_ms_per_request > 0
    assert not [one for one in started if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_a_peer_that_answers_wrong_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"tiny answers 6\.0 for 5\.0"), running(peer(wrong_by=1), tmp_path):
        pass


def test_a_peer_that_ends_is_quoted(tmp_path: Path) -> None:
    ends = replace(peer(), command=("-c", "raise SystemExit('nothing installed')"))
    with pytest.raises(ProgramError, match=r"(?s)tiny ended:.*nothing installed"), running(ends, tmp_path):
        pass


# -- pairs -------------------------------------------------------------------------------------------------------------


def measured(rate: float) -> Measurement:
    return Measurement(rate, 1.0, 2.0, 0.1)


class Fixed(Ours):
    """Ours, without a server."""

    def __init__(self) -> None:
        pass

    def load(self, connections: int, seconds: int) -> Measurement:
        return measured(200)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(2, 1, 0.1, 0.1, quick=True, scratch=tmp_path, say=lambda text: None)


def test_each_round_starts_a_peer_anew_and_one_that_fails_is_named(options: Options, tmp_path: Path) -> None:
    system_tool("wrk")
    report = begin("Title", "request", "model", {}, options)
    neighbours = [
        peers.Installed(one, Path(sys.executable), [one.body(ROW)], [sum(ROW)], {}, tmp_path)
        for one in (peer(), peer("wrong", wrong_by=1))
    ]
    measure(Fixed(), neighbours, [1, 2], options, report)
    assert [(leg.name, leg.concurrency, len(leg.rounds)) for leg in report.legs] == [
        *(("ours", c, 2) for c in (1, 2)),
        *(("tiny", c, 2) for c in (1, 2)),
    ]
    assert "wrong FAILED: wrong answers 6.0 for 5.0" in report.notes
    assert [one.what for one in report.comparisons if one.limit is not None] == [
        "ours / tiny, requests/s at c=1",
        "ours / tiny, requests/s at c=2",
    ]


@pytest.mark.parametrize(
    ("limits", "figure", "verdict"),
    [
        (Limits(rate_min=1.0), "requests/s at c=1", True),
        (Limits(rate_min=3.0), "requests/s at c=1", False),
        (Limits(p99_max=1.0), "p99 at c=1", True),
        (Limits(p50_max=0.9), "p50 at c=1", False),
        (Limits(cpu_max=1.0), "CPU a request at c=1", True),
    ],
    ids=str,
)
def test_ours_is_judged_pair_by_pair(limits: Limits, figure: str, verdict: bool, tmp_path: Path) -> None:
    neighbour = peers.Installed(peer(), Path(sys.executable), [], [], {}, tmp_path)
    neighbour.limits = limits
    pairs = {("tiny", 1): [(measured(200), measured(100)), (measured(100), measured(50))]}
    (judged,) = (one for one in compare(neighbour, pairs, [1]) if one.limit is not None)
    assert judged.what == f"ours / tiny, {figure}"
    assert judged.is_met is verdict


def test_nothing_is_divided_by_no_answer(tmp_path: Path) -> None:
    neighbour = peers.Installed(peer(), Path(sys.executable), [], [], {}, tmp_path)
    none = measured(0)
    some = compare(neighbour, {("tiny", 1): [(measured(200), none), (measured(200), measured(100))]}, [1])
    assert {one.what: list(one.values) for one in some}["ours / tiny, requests/s at c=1"] == [2.0]
    assert compare(neighbour, {("tiny", 1): [(measured(200), none)]}, [1]) == []


def test_what_others_leave_unanswered_is_not_our_failure(options: Options) -> None:
    report = begin("Title", "request", "model", {}, options)
    report.legs = legs({("tiny", 1): [(measured(200), replace(measured(100), errors=7))]}, [1])
    assert report.errors == 0
    assert report.to_json()["legs"][1]["rounds"][0]["errors"] == 7


# -- the command line --------------------------------------------------------------------------------------------------


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "bench.py"), *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=110
    )


def test_peers_that_are_not_installed_are_named_in_one_line_and_left_out(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_PEERS", str(tmp_path))
    interpreter = tmp_path / "mosec" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.touch()
    report = begin("Title", "request", "model", {}, options)
    found = peers.installed(peers.chosen(["ray", "mosec", "flask"]), report, options)
    assert [one.name for one in found] == ["mosec"]
    assert report.notes == ["not installed, and left out: ray, flask (scripts/bench --install-peers ray flask)"]


def test_without_any_peer_one_line_says_how_to_get_them(tmp_path: Path) -> None:
    system_tool("wrk")
    ended = bench("--peers", "ray", "mosec", "--quick", BENCH_PEERS=str(tmp_path))
    assert ended.returncode == 2
    said = "not installed, and left out: ray, mosec (scripts/bench --install-peers ray mosec)"
    assert ended.stderr.splitlines() == [f"bench: {said}"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--peers", "nginx"], "no peer is called nginx"),
        (["--idle", "--images"], "--images goes alone or with --peers"),
        (["--idle", "--rows"], "not allowed with"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_told(arguments: list[str], said: str) -> None:
    system_tool("wrk")
    ended = bench(*arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
