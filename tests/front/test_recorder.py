"""What of a request is logged: through the application and a real worker, with a journal that keeps records here."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from PIL import Image
from webtest import TestApp

from batching.blocking import BlockingClient
from batching.control import ControlChannel
from front.catalog import cataloguer
from front.settings import Settings
from inference_server import create_app
from prediction_log.journal import Journal
from prediction_log.record import Kind, Record, decode
from prediction_log.rows import expand, feedback
from tests.fakes import POISON
from tests.harness import SOON_S, Supervised, supervised

TestApp.__test__ = False

MODELS: list[dict[str, Any]] = [
    {"name": "double"},
    {"name": "ten", "size": 10},
    {"name": "pair", "size": 2, "narrow": {"fields": ["age", "income"]}},
    {"name": "secret", "size": 2, "narrow": {"fields": ["age", "income"], "log": {"omit": ["income"]}}},
    {"name": "silent", "narrow": {"log": {"capture": "none"}}},
    {"name": "unlogged", "narrow": {"log": {"sample": 0}}},
    {"name": "any_length", "shape": [None]},
    {"name": "poison", "kind": "poison"},
    {"name": "slow", "seconds": 0.3},
    {"name": "picture", "shape": [4, 4, 1], "kind": "scores", "classes": 3, "narrow": {
        "image": {"input": "x", "width": 4, "height": 4, "colour": "grey", "scale": 1.0},
        "labels": ["dark", "dim", "grey"],
    }},
]  # fmt: skip


class Kept:
    """A spool in memory, which can be full."""

    capacity = 1 << 20

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.full = False

    def append(self, payload: bytes) -> bool:
        if not self.full:
            self.payloads.append(payload)
        return not self.full

    def close(self) -> None:
        """Nothing to close."""

    def records(self) -> list[Record]:
        return [decode(payload) for payload in self.payloads]

    def rows(self) -> list[dict[str, Any]]:
        """All rows, with features and outputs parsed."""
        rows = [json.loads(row) for record in self.records() for row in expand(record)]
        for row in rows:
            row["features"] = json.loads(row["features"])
            row["outputs"] = row["outputs"] and json.loads(row["outputs"])
        return rows

    def row(self) -> dict[str, Any]:
        """The only row."""
        (row,) = self.rows()
        return row


class Logged:
    """The application with its log: `kept`, and what was counted."""

    def __init__(self, app: Any, kept: Kept, client: BlockingClient) -> None:
        self.post, self.post_json = app.post, app.post_json
        self.kept = kept
        self.client = client

    def counted(self, name: str, *labels: str) -> float:
        return self.client.counters.read().get((name, labels), [0.0])[0]


@pytest.fixture(scope="module")
def server() -> Iterator[Supervised]:
    with supervised(MODELS) as running:
        yield running


@pytest.fixture
def logged(server: Supervised) -> Iterator[Callable[..., Logged]]:
    with ExitStack() as stack:

        def make(**settings: Any) -> Logged:
            chosen = Settings(**settings)
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(os.path.join(server.folder, "socket"))
            client = stack.enter_context(closing(BlockingClient(ControlChannel(sock), cataloguer(None))))
            assert client.wait_until(lambda catalog: catalog.serial > 0, SOON_S)
            kept = Kept()
            written = client.slot.counter("inference_log_rows_written_total")
            dropped = client.slot.counter("inference_log_rows_dropped_total")
            app = TestApp(create_app(chosen, client, Journal(kept, written.add, dropped.add)))
            return Logged(app, kept, client)

        yield make


def png(level: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (8, 8), level).save(out, "PNG")
    return out.getvalue()


def test_an_answer_is_one_row_with_all_that_is_known_of_it(logged: Callable[..., Logged]) -> None:
    app = logged()
    answer = app.post_json("/predict/double?version=1", {"features": [1.5]}, headers={"X-Request-Id": "order-42"})
    row = app.kept.row()
    assert {key: row[key] for key in ("request_id", "model", "version", "dialect", "endpoint", "status", "error")} == {
        "request_id": "order-42", "model": "double", "version": "1", "dialect": "native",
        "endpoint": "/predict/{model}", "status": 200, "error": None,
    }  # fmt: skip
    assert (row["features"], row["outputs"], row["prediction"]) == ([1.5], answer.json["prediction"], 3.0)
    assert (row["row_number"], row["batch_size"], row["sampling"], row["truncated"]) == (0, 1, 1.0, False)
    assert row["batch_id"] > 2**32
    assert 0 <= row["compute_ms"] <= row["total_ms"]
    assert app.counted("inference_log_rows_written_total") >= 1


@pytest.mark.parametrize(
    ("model", "body", "features"),
    [
        ("ten", {"features": [1.0] * 10}, [[1.0] * 10]),
        ("ten", {"x": [1.0] * 10}, [[1.0] * 10]),
        ("ten", {"instances": [[1.0] * 10, [2.0] * 10]}, [[1.0] * 10, [2.0] * 10]),
        ("ten", {"instances": [{"features": [3.0] * 10}]}, [[3.0] * 10]),
        ("pair", {"age": 1, "income": 2}, [{"age": 1, "income": 2}]),
        ("pair", {"instances": [{"age": 1, "income": 2}, {"age": 3, "income": 4}]},
         [{"age": 1, "income": 2}, {"age": 3, "income": 4}]),
    ],
    ids=str,
)  # fmt: skip
def test_every_form_of_a_request_is_one_row_for_each_instance(
    logged: Callable[..., Logged], model: str, body: dict[str, Any], features: list[Any]
) -> None:
    app = logged()
    answer = app.post_json(f"/predict/{model}", body).json
    rows = app.kept.rows()
    assert [row["features"] for row in rows] == features
    assert [row["outputs"] for row in rows] == answer.get("predictions", [answer.get("prediction")])
    assert [row["row_number"] for row in rows] == list(range(len(features)))
    assert len({row["record_id"] for row in rows}) == 1


def test_what_is_logged_can_be_asked_again_as_an_instance(logged: Callable[..., Logged]) -> None:
    app = logged()
    for model, body in (("ten", {"x": [1.0] * 10}), ("pair", {"age": 1, "income": 2}), ("double", {"features": [4]})):
        app.kept.payloads.clear()
        app.post_json(f"/predict/{model}", body)
        row = app.kept.row()
        again = app.post_json(f"/predict/{model}", {"instances": [row["features"]]}).json
        assert again["predictions"] == [row["outputs"]]


def test_rows_of_different_shapes_keep_the_batch_each_was_in(logged: Callable[..., Logged]) -> None:
    app = logged()
    app.post_json("/predict/any_length", {"instances": [[1], [1, 2], [3]]})
    (record,) = app.kept.records()
    assert record.item_of_row == (0, 1, 0)
    batches = [row["batch_id"] for row in app.kept.rows()]
    assert batches[0] == batches[2] != batches[1]


def test_a_picture_is_kept_as_its_digest_and_its_class(logged: Callable[..., Logged]) -> None:
    app = logged()
    picture = png(1)
    app.post("/classify", picture)
    row = app.kept.row()
    assert row["features"] == {
        "sha256": hashlib.sha256(picture).hexdigest(),
        "bytes": len(picture),
        "shape": [4, 4, 1],
    }
    assert (row["top_label"], row["top_score"], row["endpoint"]) == ("dim", 1.0, "/classify")


def test_a_picture_is_kept_whole_where_capture_is_full(logged: Callable[..., Logged]) -> None:
    app = logged(prediction_log_capture="full")
    first, second = png(1), png(2)
    encoded = [{"image": base64.b64encode(one).decode()} for one in (first, second)]
    app.post_json("/classify", {"instances": encoded})
    assert [row["features"] for row in app.kept.rows()] == encoded
    assert [row["top_label"] for row in app.kept.rows()] == ["dim", "grey"]


def test_a_failed_request_is_logged_with_its_code(logged: Callable[..., Logged]) -> None:
    app = logged()
    app.post_json("/predict/poison", {"features": [POISON]}, status=500)
    app.post_json("/predict/slow", {"features": [1]}, headers={"X-Request-Timeout-Ms": "50"}, status=504)
    told = [(row["model"], row["status"], row["error"], row["outputs"]) for row in app.kept.rows()]
    assert told == [("poison", 500, "PREDICT_FAILED", None), ("slow", 504, "TIMEOUT", None)]
    assert app.kept.rows()[0]["features"] == {"features": [POISON]}
    assert {row["sampling"] for row in app.kept.rows()} == {1.0}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_of_refusals_a_share_is_logged_and_the_rest_counted(logged: Callable[..., Logged], share: float) -> None:
    app = logged(prediction_log_refusal_sample=share)
    before = app.counted("inference_log_rows_left_out_total", "400")
    app.post_json("/predict/double", {"features": "x"}, status=400)
    app.post("/predict/double", b"not json", status=400)
    app.post_json("/predict/double", {"features": [1]}, headers={"X-Request-Timeout-Ms": "0"}, status=400)
    app.post_json("/predict/nobody", {"features": 1}, status=404)  # no model that is known
    assert app.counted("inference_log_rows_left_out_total", "400") - before == (0 if share else 3)
    assert [(row["error"], row["features"]) for row in app.kept.rows()] == (
        [("BAD_INPUT", {"features": "x"}), ("BAD_INPUT", "not json"), ("BAD_INPUT", None)] if share else []
    )


@pytest.mark.parametrize(
    ("route", "body"), [("/classify", png(1)[:-20]), ("/predict/double", b"\xff")], ids=["picture", "bytes"]
)
def test_a_refused_body_that_is_no_text_is_kept_as_its_digest(
    logged: Callable[..., Logged], route: str, body: bytes
) -> None:
    app = logged(prediction_log_refusal_sample=1.0)
    app.post(route, body, status=400)
    assert app.kept.row()["features"] == {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}


def test_what_is_refused_unread_by_its_size_is_logged_without_its_body(logged: Callable[..., Logged]) -> None:
    app = logged(prediction_log_refusal_sample=1.0, max_json_bytes=1000)
    app.post("/predict/double", b"x" * 1001, status=413)
    row = app.kept.row()
    assert (row["status"], row["error"], row["features"]) == (413, "TOO_LARGE", None)


@pytest.mark.parametrize(
    "body",
    [
        {"age": 41, "income": 98765},
        {"features": [41, 98765]},
        {"instances": [[41, 98765]]},
        {"instances": [{"age": 41, "income": 98765}]},
        {"instances": [{"features": [41, 98765]}]},
    ],
    ids=str,
)
def test_an_omitted_field_is_nowhere_in_the_record(logged: Callable[..., Logged], body: dict[str, Any]) -> None:
    app = logged()
    app.post_json("/predict/secret", body)
    (row,) = app.kept.rows()
    assert row["features"] in ({"age": 41, "income": None}, [41, None])
    # The answer of this fake holds the doubled input, so only the input's own digits are looked for.
    assert b"98765" not in app.kept.payloads[0]


def test_a_refused_body_with_an_omitted_field_is_not_kept(logged: Callable[..., Logged]) -> None:
    app = logged(prediction_log_refusal_sample=1.0)
    app.post_json("/predict/secret", {"age": "x", "income": 98765}, status=400)
    assert b"98765" not in app.kept.payloads[0]


def test_capture_none_keeps_neither_inputs_nor_outputs(logged: Callable[..., Logged]) -> None:
    app = logged()
    app.post_json("/predict/silent", {"features": [1.5]})
    row = app.kept.row()
    assert (row["features"], row["outputs"], row["prediction"], row["status"]) == (None, None, None, 200)


def test_capture_hash_keeps_a_digest_of_the_body(logged: Callable[..., Logged]) -> None:
    app = logged(prediction_log_capture="hash")
    response = app.post("/predict/double", b'{"features": [1.5]}')
    row = app.kept.row()
    digest = hashlib.sha256(b'{"features": [1.5]}').hexdigest()
    assert row["features"] == {"sha256": digest, "bytes": 19, "shape": [[1, 1]]}
    assert (row["outputs"], row["truncated"]) == (response.json["prediction"], False)


def test_a_model_with_sample_0_leaves_no_trace(logged: Callable[..., Logged]) -> None:
    app = logged(prediction_log_refusal_sample=1.0)
    app.post_json("/predict/unlogged", {"features": [1.5]})
    app.post_json("/predict/unlogged", {"features": "x"}, status=400)
    assert app.kept.payloads == []


def test_a_sample_says_which_share_each_row_stands_for(logged: Callable[..., Logged]) -> None:
    app = logged(prediction_log_sample=0.5)
    before = app.counted("inference_log_rows_left_out_total", "200")
    for _ in range(60):
        app.post_json("/predict/double", {"features": [1.5]})
    left_out = app.counted("inference_log_rows_left_out_total", "200") - before
    assert len(app.kept.payloads) + left_out == 60
    assert 0 < left_out < 60  # but for one chance in 2**59
    assert {row["sampling"] for row in app.kept.rows()} == {0.5}


@pytest.mark.parametrize("rows", [1, 4000])
def test_beyond_the_limit_a_digest_stands_for_the_body_and_a_length_for_the_answer(
    logged: Callable[..., Logged], rows: int
) -> None:
    app = logged(prediction_log_value_bytes=8)
    body = json.dumps({"instances": [[0.123456789] * 10] * rows}).encode()
    answer = app.post("/predict/ten", body)
    kept = app.kept.rows()
    assert len(kept) == rows
    digest = {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body), "shape": [[rows, 10]]}
    assert all(row["features"] == digest and row["truncated"] for row in kept)
    assert kept[0]["outputs"] == {"bytes": len(answer.body)}


def test_an_answer_goes_out_though_the_spool_is_full_and_the_loss_is_counted(logged: Callable[..., Logged]) -> None:
    app = logged()
    app.kept.full = True
    before = app.counted("inference_log_rows_dropped_total")
    app.post_json("/predict/ten", {"instances": [[1.0] * 10] * 3})
    assert app.counted("inference_log_rows_dropped_total") - before == 3


def test_no_answer_goes_out_unlogged_where_the_log_is_required(logged: Callable[..., Logged]) -> None:
    app = logged(prediction_log_required=True)
    app.kept.full = True
    refusal = app.post_json("/predict/double", {"features": [1.5]}, status=503)
    assert (refusal.json["error"], refusal.headers["Retry-After"]) == ("NOT_READY", "1")
    assert "prediction log" in refusal.json["message"]
    app.kept.full = False
    app.post_json("/predict/double", {"features": [1.5]})


def test_feedback_is_a_record_of_its_own(logged: Callable[..., Logged]) -> None:
    app = logged()
    id_ = app.post_json("/predict/double", {"features": [1.5]}).headers["X-Request-Id"]
    answer = app.post_json("/feedback", {"request_id": id_, "label": "seven", "row": 0})
    assert answer.json == {"ok": True, "request_id": id_, "row": 0}
    _, record = app.kept.records()
    assert record.kind == Kind.FEEDBACK
    told = json.loads(feedback(record))
    assert (told["request_id"], told["row_number"], told["label"]) == (id_, 0, "seven")


def test_feedback_that_cannot_be_kept_is_not_confirmed(logged: Callable[..., Logged]) -> None:
    app = logged()
    app.kept.full = True
    assert app.post_json("/feedback", {"request_id": "a", "label": 1}, status=503).json["error"] == "NOT_READY"
    app.post_json("/feedback", {"label": 1}, status=400)
