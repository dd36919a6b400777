"""A record gives the rows it claims, each a JSON object of the table's columns, whatever bytes it holds."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prediction_log.record import Captured, Encoder, Kind, Record, Timing, decode
from prediction_log.rows import expand, feedback
from prediction_log.table import FEEDBACK, PREDICTIONS

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
KEYS = st.sampled_from([None, "instances", "features", "x"])
SUBJECT = st.fixed_dictionaries(
    {"model": st.text(max_size=5), "version": st.text(max_size=3), "rows": KEYS, "value": KEYS}
)
BODIES = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())
TEXT_COLUMNS = ("request_id", "model", "version", "dialect", "endpoint", "error", "top_label")


def record(kind: Kind = Kind.PREDICTION, request_id: str = "r-1", **told: Any) -> Record:
    """A record as a front makes it; a dict as subject is written as JSON."""
    subject = {"model": "m", "version": "2", "dialect": "native", "endpoint": "/predict", **told.pop("subject", {})}
    return decode(Encoder().encode(kind, request_id, subject=orjson.dumps(subject), **told))


def sent(body: bytes, count: int = 1, **subject: str | None) -> list[str]:
    """The features of a request's rows, of a body kept as it came."""
    one = record(rows=count, subject=subject, features_are=Captured.BODY, features=body)
    return [row["features"] for row in shown(one)]


def answered(body: bytes, rows: int = 1) -> list[dict[str, Any]]:
    """The rows of a request, of an answer kept as it went."""
    return shown(record(status=200, rows=rows, outputs_are=Captured.BODY, outputs=body))


def shown(one: Record) -> list[dict[str, Any]]:
    """The rows of a record, with every column that should be there and no other."""
    found = [orjson.loads(row) for row in expand(one)]
    assert len(found) == one.rows
    for number, row in enumerate(found):
        assert row.keys() == PREDICTIONS.keys()
        assert row["row_number"] == number
        json.loads(row["features"], parse_constant=pytest.fail)
        if row["outputs"] is not None:
            json.loads(row["outputs"], parse_constant=pytest.fail)
        for column in TEXT_COLUMNS:
            assert "\0" not in (row[column] or "")
    return found


@given(
    rows=st.integers(1, 5),
    subject=SUBJECT,
    features_are=st.sampled_from(Captured),
    features=BODIES,
    outputs_are=st.sampled_from(Captured),
    outputs=BODIES,
    request_id=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=10),
    code=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=10),
)
def test_any_record_gives_its_rows(request_id: str, **told: Any) -> None:
    shown(record(request_id=request_id, status=500, **told))


@given(JSON)
def test_a_value_that_was_sent_is_the_value_that_is_kept(value: Any) -> None:
    (features,) = sent(json.dumps({"x": value}).encode(), value="x")
    assert json.loads(features) == value


@given(JSON)
def test_a_value_that_was_answered_is_the_value_that_is_kept(value: Any) -> None:
    (row,) = answered(json.dumps({"ok": True, "prediction": value}).encode())
    assert json.loads(row["outputs"]) == value


@given(st.lists(st.integers() | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
def test_numbers_keep_all_their_digits(numbers: list[float]) -> None:
    body = json.dumps({"instances": [{"x": number} for number in numbers]}).encode()
    assert [json.loads(text) for text in sent(body, len(numbers), rows="instances", value="x")] == numbers


def test_what_the_request_and_its_answer_share_is_in_each_row() -> None:
    one = record(
        status=200,
        rows=2,
        total_us=1_234_567,
        fraction=0.25,
        truncated=True,
        items=(Timing(1500, 250, 16, 7),),
        features_are=Captured.ROWS,
        features=b"[[1,2],[3,4]]",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    for row in shown(one):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", row.pop("created_at"))
        assert row.pop("record_id").replace("-", "") == one.key.hex()
        del row["features"], row["row_number"]
        assert row == {
            "request_id": "r-1",
            "model": "m",
            "version": "2",
            "dialect": "native",
            "endpoint": "/predict",
            "status": 200,
            "error": None,
            "outputs": None,
            "prediction": None,
            "top_label": None,
            "top_score": None,
            "batch_id": 7,
            "batch_size": 16,
            "queue_ms": 1.5,
            "compute_ms": 0.25,
            "total_ms": 1234.567,
            "sampling": 0.25,
            "truncated": True,
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        }


def test_a_time_keeps_its_microseconds() -> None:
    (row,) = shown(record()._replace(created_us=1_800_000_000_000_042))
    assert row["created_at"] == "2027-01-15T08:00:00.000042+00:00"


def test_a_row_has_the_timing_of_its_own_item() -> None:
    items = (Timing(1000, 2000, 3, 10), Timing(4000, 5000, 6, 11))
    rows = shown(record(rows=3, items=items, item_of_row=(1, 0, 1)))
    assert [row["batch_id"] for row in rows] == [11, 10, 11]
    assert [row["queue_ms"] for row in rows] == [4.0, 1.0, 4.0]


def test_a_failed_request_has_its_code_and_no_timing() -> None:
    (row,) = shown(record(status=503, code="OVERLOADED"))
    assert (row["status"], row["error"], row["features"], row["outputs"]) == (503, "OVERLOADED", "null", None)
    assert [row[name] for name in ("batch_id", "batch_size", "queue_ms", "compute_ms")] == [None] * 4


# ---------------------------------------------------------------------------------------------- features


@pytest.mark.parametrize(
    ("body", "rows", "value", "expected"),
    [
        (b'{"features": [1, 2.50]}', None, "features", ["[1,2.5]"]),
        (b'{"a": 1, "b": "x"}', None, None, ['{"a":1,"b":"x"}']),
        (b'{"instances": [[1], [2]]}', "instances", None, ["[1]", "[2]"]),
        (b'{"instances": [{"x": 1}, {"x": null}]}', "instances", "x", ["1", "null"]),
        (b'{"instances": [NaN, -Infinity]}', "instances", None, ['"NaN"', '"-Infinity"']),
        (b'{"x": 12345678901234567890123}', None, "x", ["12345678901234567890123"]),
        (b'{"x": -9223372036854775809}', None, "x", ["-9223372036854775809"]),
        (b'{"x": 0.1000000000000000055511151231257827}', None, "x", ["0.1"]),
        (rb'{"x": "\ud800"}', None, "x", [r'"\ud800"']),
        (rb'{"x": "\u0000"}', None, "x", [r'"\u0000"']),
        (b'{"x": ' + b"[" * 400 + b"]" * 400 + b"}", None, "x", ["[" * 400 + "]" * 400]),
    ],
    ids=["value", "body", "rows", "values", "nan", "25 digits", "64 bits", "fraction", "surrogate", "nul", "deep"],
)
def test_features_are_found_in_a_body(body: bytes, rows: str | None, value: str | None, expected: list[str]) -> None:
    subject = {"rows": rows, "value": value}
    assert sent(body, len(expected), **subject) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b"\xff\x00",
        b'{"instances": [1, 2]}',
        b'{"instances": [1, 2, 3',
        b'{"instances": 5}',
        b'{"instances": {"0": 1, "1": 2, "2": 3}}',
        b'{"instances": "abc"}',
        b"[1, 2, 3]",
        b'{"instances": [1e999, 1, 1]}',
        b'{"instances": [1, 2, ' + b"9" * 5000 + b"]}",
        b'{"instances": [1, 2, ' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
    ],
    ids=["nothing", "text", "bytes", "fewer", "cut", "number", "object", "string", "list", "1e999", "digits", "deep"],
)
def test_of_any_other_body_the_first_row_keeps_the_text(body: bytes) -> None:
    first, *others = sent(body, 3, rows="instances")
    assert json.loads(first) == body.decode(errors="replace")
    assert others == ["null", "null"]


@pytest.mark.parametrize("body", [b"[1, 2]", b'"x"', b"{}", b'{"instances": [1]}', b'{"instances": ["x"]}'])
def test_a_row_without_its_value_is_a_body_of_another_shape(body: bytes) -> None:
    assert sent(body, rows="instances", value="x") == [json.dumps(body.decode())]


def test_a_value_for_each_row_or_for_all() -> None:
    each = shown(record(rows=2, features_are=Captured.ROWS, features=b'[{"a":1},null]'))
    both = shown(record(rows=2, features_are=Captured.SHARED, features=b'{"sha256":"0a"}'))
    assert [row["features"] for row in each] == ['{"a":1}', "null"]
    assert [row["features"] for row in both] == ['{"sha256":"0a"}'] * 2


# ---------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize(
    ("answer", "outputs", "predictions"),
    [
        (b'{"ok":true,"prediction":1.5,"model_version":"1"}', ["1.5"], [1.5]),
        (b'{"ok":true,"prediction":3,"model_version":"1"}', ["3"], [3.0]),
        (b'{"ok":true,"prediction":[[2.5]],"model_version":"1"}', ["[[2.5]]"], [2.5]),
        (b'{"ok":true,"prediction":true,"model_version":"1"}', ["true"], [None]),
        (b'{"ok":true,"prediction":null,"model_version":"1"}', ["null"], [None]),
        (b'{"ok":true,"prediction":[],"model_version":"1"}', ["[]"], [None]),
        (b'{"ok":true,"prediction":[1,2],"model_version":"1"}', ["[1,2]"], [None]),
        (b'{"prediction":' + b"9" * 400 + b"}", ["9" * 400], [None]),
        (b'{"ok":true,"predictions":[1.5,[2.5]],"model_version":"1"}', ["1.5", "[2.5]"], [1.5, 2.5]),
        (b'{"predictions":[NaN,1.0]}', ['"NaN"', "1.0"], [None, 1.0]),
        (b'{"predictions":{"a":[1,2],"b":[[3],[4]]}}', ['{"a":1,"b":[3]}', '{"a":2,"b":[4]}'], [None, None]),
    ],
    ids=["one", "int", "nested", "true", "null", "empty", "two", "huge", "rows", "nan", "columns"],
)
def test_the_answer_of_each_row(answer: bytes, outputs: list[str], predictions: list[float | None]) -> None:
    rows = answered(answer, len(outputs))
    assert [row["outputs"] for row in rows] == outputs
    assert [row["prediction"] for row in rows] == predictions
    assert all(row["prediction"] is None or math.isfinite(row["prediction"]) for row in rows)


CAT = {"predicted_class": 3, "label": "cat", "top": [{"class": 3, "label": "cat", "score": 0.75}]}


def test_the_best_class_of_a_single_picture() -> None:
    (row,) = answered(orjson.dumps({"ok": True, **CAT, "model_version": "1"}))
    assert json.loads(row["outputs"]) == CAT
    assert (row["prediction"], row["top_label"], row["top_score"]) == (None, "cat", 0.75)


def test_the_best_class_of_each_picture() -> None:
    dog = {"predicted_class": 1, "label": "d\0g", "top": []}
    rows = answered(orjson.dumps({"ok": True, "predictions": [CAT, dog], "model_version": "1"}), 2)
    assert [(row["top_label"], row["top_score"]) for row in rows] == [("cat", 0.75), ("d\ufffdg", None)]


def test_of_an_answer_for_other_rows_the_first_keeps_the_text() -> None:
    first, second = answered(b'{"predictions": [1, 2, 3]}', 2)
    assert json.loads(first["outputs"]) == '{"predictions": [1, 2, 3]}'
    assert (first["prediction"], second["outputs"]) == (None, None)


# ---------------------------------------------------------------------------------------------- text and feedback


def test_text_that_a_column_cannot_hold_is_replaced() -> None:
    answer = rb'{"predicted_class": 1, "label": "a\u0000\ud800b", "top": [], "x": 12345678901234567890}'
    one = record(
        request_id="a\0b",
        code="\0",
        subject={"model": "m\0", "endpoint": "/é"},
        outputs_are=Captured.BODY,
        outputs=answer,
    )
    (row,) = shown(one)
    assert [row[name] for name in ("request_id", "error", "model", "endpoint", "top_label")] == [
        "a\ufffdb",
        "\ufffd",
        "m\ufffd",
        "/é",
        "a\ufffd\ufffdb",
    ]


@pytest.mark.parametrize("subject", [b"", b"[]", b"{", b"\xff"])
def test_a_subject_that_is_no_object_is_an_error(subject: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        expand(record()._replace(subject=subject))


@pytest.mark.parametrize(
    ("label", "stored"),
    [(b'"cat"', "cat"), (b"3", "3"), (b"1.50", "1.5"), (b"true", "true"), (rb'"a\u0000"', "a\ufffd")],
)
def test_feedback_is_a_row(label: bytes, stored: str) -> None:
    one = record(Kind.FEEDBACK, features_are=Captured.BODY, features=b'{"row":4,"label":%b}' % label)
    row = orjson.loads(feedback(one))
    assert row.keys() == FEEDBACK.keys()
    assert row["record_id"].replace("-", "") == one.key.hex()
    assert (row["request_id"], row["row_number"], row["label"]) == ("r-1", 4, stored)


@pytest.mark.parametrize("features", [b"", b"{}", b"[]", b'{"row":1}', b"[" * 100_000])
def test_what_is_no_feedback_is_an_error(features: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        feedback(record(Kind.FEEDBACK, features=features))
