"""`log replay`: changes that are known beforehand, and nothing else, are found; what cannot be run again is counted."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from batching.errors import ItemFailed, NoWorker
from commands.comparison import KEPT, Change, Summary, Verdict, compare
from commands.log_records import Damage
from commands.replay import Runner
from commands.replay_report import Result
from commands.replay_rows import LoggedRow, chosen, from_folder
from inference_server import InferenceServer
from models.contract import Contract, Tensor
from models.errors import BadInput, TooLarge
from tests.commands.log_program import log, rows_so_far, writer
from tests.harness import SOON_S, wait_until

ROWS, BODY, CHANGED = 10_000, 100, 137
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
VECTOR = Contract("m", "2", (Tensor("x", "float32", (2,)),), (Tensor("y", "float32", (2,)),))

# A copy of the dummy model in which one hidden unit counts for more: inputs that leave it dark have the same answer.
CHANGE = """
import sys, keras, numpy
model = keras.models.load_model(sys.argv[1])
weights = model.get_weights()
numpy.savez(sys.argv[3], *weights)
weights[2][7] += 0.5
model.set_weights(weights)
model.save(sys.argv[2])
"""


# ---------------------------------------------------------------------------------------------- real models


class World(NamedTuple):
    """A log of real answers. changed: (request id, row) -> how far the changed model's answer is away."""

    url: str
    model: Path
    changed: dict[tuple[str, int], float]


@pytest.fixture(scope="module")
def world(demo_models: Path, tmp_path_factory: pytest.TempPathFactory, held_out_digits: Any) -> World:
    """10,000 rows that the dummy model answered and ten pictures, logged by a whole server."""
    folder = tmp_path_factory.mktemp("replay")
    command = [sys.executable, "-c", CHANGE, str(demo_models / "dummy" / "1" / "dummy.keras"), "dummy.keras", "old.npz"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=100)
    with np.load(folder / "old.npz") as arrays:
        kernel, bias = arrays["arr_0"], arrays["arr_1"]
    inputs, difference = _inputs(kernel, bias)
    url = f"sqlite:///{folder / 'log.db'}"
    with InferenceServer(
        models=demo_models,
        fronts=1,
        database_url=url,
        prediction_log_dir=str(folder / "spool"),
        prediction_log_capture="full",
    ) as server:
        for start in range(0, ROWS, BODY):
            body = {"instances": inputs[start : start + BODY].tolist()}
            _post(f"{server.url}/predict/dummy", body, f"body-{start // BODY}")
        for number, (picture, _) in enumerate(held_out_digits[:10]):
            _post(f"{server.url}/classify/digits", {"image": base64.b64encode(picture).decode()}, f"picture-{number}")
        wait_until(lambda: len(rows_so_far(url)) == ROWS + 10, SOON_S, "all rows are in the table")
    changed = {(f"body-{n // BODY}", n % BODY): float(difference[n]) for n in np.flatnonzero(difference).tolist()}
    assert len(changed) == CHANGED
    return World(url, folder / "dummy.keras", changed)


def _inputs(kernel: Any, bias: Any) -> tuple[Any, Any]:
    """Rows of which just CHANGED light the unit up, and then clearly; and what that changes in their answers."""
    rng = np.random.default_rng(11)
    many = rng.normal(size=(20 * ROWS, kernel.shape[0])).round(3)
    unit = (many @ kernel + bias)[:, 7]
    dark, bright = many[unit < -0.01], many[unit > 0.1]
    inputs = np.concatenate([bright[:CHANGED], dark[: ROWS - CHANGED]])
    rng.shuffle(inputs)
    assert len(inputs) == ROWS
    return inputs, 0.5 * np.maximum((inputs @ kernel + bias)[:, 7], 0)


def _post(url: str, body: Any, request_id: str) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"X-Request-Id": request_id})
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200


def test_a_changed_model_is_reported_by_exactly_the_rows_that_it_changes(world: World) -> None:
    words = ["replay", "--since", "1h", "--model", "dummy", "--against", str(world.model), "--json"]
    done = log(*words, url=world.url)
    assert done.code == 1, done
    told = done.json
    assert told["rows"] == {
        "read": ROWS, "compared": ROWS, "agreeing": ROWS - CHANGED, "changed": CHANGED, "other_form": 0, "failed": 0,
        "skipped": 0,
    }  # fmt: skip
    assert told["agreement"] == (ROWS - CHANGED) / ROWS
    found = {(change["request_id"], change["row_number"]): change["difference"] for change in told["changes"]}
    assert found.keys() == world.changed.keys()
    assert all(abs(found[key] - world.changed[key]) < 1e-4 for key in found)
    most = max(world.changed, key=lambda key: world.changed[key])
    assert (told["largest"]["request_id"], told["largest"]["row_number"]) == most
    assert told["logged_versions"] == {"1": ROWS}
    assert told["top1"] is None
    assert all(times["p50"] <= times["p95"] for times in told["latency_ms"].values())


def test_pictures_that_were_kept_whole_agree_with_the_version_that_answered_them(
    world: World, demo_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["replay", "--since", "1h", "--model", "digits", "--against", "1"]
    monkeypatch.setenv("MODEL_DIR", str(demo_models))
    done = log(*words, url=world.url)
    assert done.code == 0, done
    assert "10 (100.00%)" in done.out
    assert "0 of 10" in done.out


# ---------------------------------------------------------------------------------------------- batches


class Doubling:
    """A server whose model doubles; `refuse` is called with the instances of each body, and may raise."""

    def __init__(self, refuse: Any = lambda instances: None, contract: Contract = VECTOR) -> None:
        self.bodies: list[list[Any]] = []
        self._refuse = refuse
        self._contract = contract

    def predict(self, model: str, body: dict[str, Any], version: str | None = None) -> Any:
        assert (model, version) == ("m", "2")
        self.bodies.append(body["instances"])
        self._refuse(body["instances"])
        return [[2 * x for x in (row.values() if isinstance(row, dict) else row)] for row in body["instances"]]

    def contract(self, model: str, version: str | None = None) -> Contract:
        return self._contract


def row(number: int, features: Any, **more: Any) -> LoggedRow:
    if "outputs" not in more:
        values = features.values() if isinstance(features, dict) else features
        more["outputs"] = json.dumps([2 * x for x in values])
    made = LoggedRow(MIDNIGHT, f"r{number}", 0, "1", json.dumps(features), "", truncated=False, queue_ms=1.0,
                     compute_ms=2.0, batch_size=4)  # fmt: skip
    return made._replace(**more)


def run(server: Doubling, rows: list[LoggedRow]) -> Result:
    return Runner(server, server.contract("m"), 1e-5).run(iter(rows))


def test_rows_go_in_batches() -> None:
    server = Doubling()
    result = run(server, [row(n, [n, 1]) for n in range(600)])
    assert [len(body) for body in server.bodies] == [256, 256, 88]
    assert result.summary.agreeing == 600
    assert (next(iter(result.logged_ms)), next(iter(result.logged_row_ms))) == (3.0, 0.5)


def test_rows_of_different_forms_never_share_a_body() -> None:
    server = Doubling()
    features: list[Any] = [[1, 2], [3, 4], {"a": 1, "b": 2}, {"a": 3, "b": 4}, {"c": 1, "d": 2}, [5, 6]]
    assert run(server, [row(n, one) for n, one in enumerate(features)]).summary.agreeing == 6
    assert [len(body) for body in server.bodies] == [2, 2, 1, 1]


def test_a_row_that_is_refused_costs_itself_alone() -> None:
    def refuse(instances: list[Any]) -> None:
        if [7, 1] in instances:
            raise BadInput("/features/0 must be at most 6")
        if [9, 1] in instances:
            raise ItemFailed("model_error")

    result = run(Doubling(refuse), [row(n, [n, 1]) for n in range(20)])
    assert result.summary.agreeing == 18
    failed = {(why.code, why.message): [one.request_id for one in rows] for why, rows in result.failed.items()}
    assert failed == {("BAD_INPUT", "/features/0 must be at most 6"): ["r7"], ("PREDICT_FAILED", "model_error"): ["r9"]}


def test_a_body_that_is_too_large_is_halved() -> None:
    def refuse(instances: list[Any]) -> None:
        if len(instances) > 10:
            raise TooLarge("at most 10 rows")

    server = Doubling(refuse)
    assert run(server, [row(n, [n, 1]) for n in range(40)]).summary.agreeing == 40
    assert [len(body) for body in server.bodies] == [40, 20, 10, 10, 20, 10, 10]


def test_a_worker_that_is_being_replaced_is_waited_for() -> None:
    left = iter([NoWorker("starting"), NoWorker("starting")])

    def refuse(instances: list[Any]) -> None:
        for error in left:
            raise error

    assert run(Doubling(refuse), [row(1, [1, 1])]).summary.agreeing == 1


@pytest.mark.parametrize(
    ("logged", "reason"),
    [
        (row(1, None, outputs="1"), "its input was not kept"),
        (row(1, {"sha256": "ab", "bytes": 5, "shape": [2]}, outputs="1"), "only a digest of its input was kept"),
        (row(1, [1, None], outputs="1"), "a field of its input is never written"),
        (row(1, {"a": None, "b": 1}, outputs="1"), "a field of its input is never written"),
        (row(1, [1, 2], truncated=True), "it was longer than the log keeps"),
        (row(1, [1, 2], outputs=None), "its answer was not kept"),
        (row(1, [1, 2])._replace(features="{"), "it was logged as text that is no JSON"),
    ],
    ids=["none", "digest", "omitted in a vector", "omitted by name", "cut", "no answer", "no JSON"],
)
def test_what_cannot_be_run_again_is_counted_with_its_reason(logged: LoggedRow, reason: str) -> None:
    result = run(Doubling(), [logged, row(2, [1, 2])])
    assert dict(result.skipped) == {reason: 1}
    assert (result.read, result.summary.agreeing) == (2, 1)


def test_the_rows_of_a_local_log_are_chosen_by_model_time_and_version(tmp_path: Path) -> None:
    with writer(tmp_path) as made:
        made.predict(1, model="other")
        for value in range(5):
            made.predict(value, rows=2)
        made.feedback("r1")
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    rows = list(from_folder(tmp_path, "dummy", hour_ago, Damage()))
    assert [(one.request_id, one.row_number) for one in rows] == [(f"r{n // 2}", n % 2) for n in range(10)]
    assert list(from_folder(tmp_path, "dummy", datetime.now(UTC), Damage())) == []
    assert [one.request_id for one in chosen(iter(rows), "1", 3)] == ["r0", "r0", "r1"]
    assert list(chosen(iter(rows), "2", None)) == []


@pytest.mark.parametrize(
    ("against", "code", "words"),
    [
        ("7", 2, "has no version 7"),
        ("nowhere.keras", 1, "nowhere.keras is missing"),
        ("{models}", 2, "holds several models"),
    ],
)
def test_a_version_that_is_not_there_is_refused_in_one_line(
    against: str, code: int, words: str, demo_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    against = against.replace("{models}", str(demo_models))
    monkeypatch.setenv("MODEL_DIR", str(demo_models))
    done = log("replay", "--since", "1h", "--model", "mine", "--against", against, folder=tmp_path)
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert words in done.err


# ---------------------------------------------------------------------------------------------- what is equal


@pytest.mark.parametrize(
    ("logged", "replayed", "agrees", "difference"),
    [
        (1.0, 1.0 + 1.9e-5, True, 1.9e-5),
        (1.0, 1.0 + 2.1e-5, False, 2.1e-5),
        (1e6, 1e6 + 9, True, 9.0),
        ([[1.0]], 1.0, True, 0.0),
        ([[1.0, 2.0]], [1.0, 2.5], False, 0.5),
        ({"a": 1.0, "b": [1.0, 2.0]}, {"a": 1.0, "b": [1.0, 5.0]}, False, 3.0),
        ({"a": 1.0}, {"b": 1.0}, False, None),
        ([1.0, 2.0], [1.0, 2.0, 3.0], False, None),
        ([[1.0, 2.0], [3.0]], [[1.0, 2.0], [4.0]], False, 1.0),
        ([None, 1.0], [None, 1.0], True, 0.0),
        ([None, 1.0], [1.0, 1.0], False, None),
        ("cat", "cat", True, 0.0),
        ("cat", "dog", False, 0.0),
        (True, False, False, 1.0),
        (3, 3, True, 0.0),
    ],
)
def test_answers_are_compared_in_numbers(logged: Any, replayed: Any, agrees: bool, difference: float | None) -> None:
    verdict = compare(logged, replayed, 1e-5, is_classifier=False)
    assert verdict.agrees is agrees
    assert verdict.difference == (None if difference is None else pytest.approx(difference, rel=1e-6))
    assert verdict.classes is None


def classified(*ranked: tuple[int, float]) -> dict[str, Any]:
    """An answer of /classify."""
    top = [{"class": number, "label": str(number), "score": score} for number, score in ranked]
    return {"predicted_class": top[0]["class"], "label": top[0]["label"], "top": top}


@pytest.mark.parametrize(
    ("logged", "replayed", "verdict"),
    [
        ([0.1, 0.9], [0.1, 0.9], Verdict(agrees=True, difference=0.0, classes=(1, 1))),
        ([0.25, 0.75], [0.75, 0.25], Verdict(agrees=False, difference=0.5, classes=(1, 0))),
        (0.25, 0.75, Verdict(agrees=False, difference=0.5, classes=(0, 1))),
        (classified((2, 0.5), (0, 0.25)), [0.25, 0.25, 0.5], Verdict(agrees=True, difference=0.0, classes=(2, 2))),
        (classified((2, 0.5), (0, 0.25)), [0.75, 0.25, 0.5], Verdict(agrees=False, difference=0.5, classes=(2, 0))),
        (classified((1, 0.75), (0, 0.25)), 0.75, Verdict(agrees=True, difference=0.0, classes=(1, 1))),
        (classified((2, 0.5)), [0.5, 0.5], Verdict(agrees=False, difference=None, classes=(2, 0))),
        (classified((2, 0.5)), {"a": 1.0}, Verdict(agrees=False, difference=None, classes=None)),
    ],
)
def test_a_classifiers_best_class_is_compared(logged: Any, replayed: Any, verdict: Verdict) -> None:
    assert compare(logged, replayed, 1e-5, is_classifier=True) == verdict


def test_the_changes_that_are_kept_are_the_largest_and_of_equal_ones_the_first() -> None:
    def changes() -> Iterator[Change]:
        for number in range(3 * KEPT):
            verdict = Verdict(agrees=False, difference=float(number % 3), classes=None)
            yield Change(f"r{number}", 0, "", verdict, 0, 1)

    summary = Summary()
    for change in changes():
        summary.add(change)
    kept = [change.request_id for change in summary.changes()]
    assert kept == [f"r{number}" for number in range(2, 3 * KEPT, 3)]
    assert summary.largest
    assert summary.largest.request_id == "r2"
