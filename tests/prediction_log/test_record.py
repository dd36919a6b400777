"""Records come back as they were made, keys never repeat, and what is no record is refused."""

from __future__ import annotations

import struct
import time
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prediction_log.record import Captured, Encoder, Kind, Timing, decode

U32 = st.integers(0, 2**32 - 1)
TIMING = st.builds(Timing, U32, U32, U32, st.integers(0, 2**64 - 1))
HEX = "0123456789abcdef"
TRACEPARENT = st.just("") | st.builds(
    "00-{}-{}-{}".format, *(st.text(alphabet=HEX, min_size=size, max_size=size) for size in (32, 16, 2))
)
TEXT = st.text(max_size=40).filter(lambda text: text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text))


@st.composite
def fields(draw: st.DrawFn) -> dict[str, Any]:
    """Keywords of `Encoder.encode`."""
    rows = draw(st.integers(1, 40))
    items = tuple(draw(st.lists(TIMING, max_size=5)))
    several = len(items) > 1
    places = st.lists(st.integers(0, len(items) - 1), min_size=rows, max_size=rows) if several else st.just([])
    return {
        "subject": draw(st.binary(max_size=60)),
        "status": draw(st.integers(0, 2**16 - 1)),
        "code": draw(TEXT),
        "rows": rows,
        "total_us": draw(U32),
        "fraction": draw(st.floats(0, 1)),
        "truncated": draw(st.booleans()),
        "items": items,
        "item_of_row": tuple(draw(places)),
        "features_are": draw(st.sampled_from(Captured)),
        "features": draw(st.binary(max_size=300)),
        "outputs_are": draw(st.sampled_from(Captured)),
        "outputs": draw(st.binary(max_size=300)),
        "traceparent": draw(TRACEPARENT),
    }


@given(st.sampled_from(Kind), TEXT, fields())
def test_what_was_encoded_comes_back(kind: Kind, request_id: str, told: dict[str, Any]) -> None:
    before_us = time.time_ns() // 1000
    record = decode(Encoder().encode(kind, request_id, **told))
    assert {name: getattr(record, name) for name in told} == told
    assert (record.kind, record.request_id) == (kind, request_id)
    assert before_us <= record.created_us <= time.time_ns() // 1000


@given(
    *(TEXT, st.binary(max_size=60), st.integers(1, 99), st.integers(0, 2**33), TIMING, st.binary(), st.binary()),
    TRACEPARENT,
)
def test_the_short_way_to_encode_an_answer_says_the_same(
    request_id: str,
    subject: bytes,
    rows: int,
    total_us: int,
    timing: Timing,
    body: bytes,
    answer: bytes,
    traceparent: str,
) -> None:
    encoder = Encoder()
    short = decode(encoder.encode_answer(subject, request_id, rows, total_us, timing, body, answer, traceparent))
    long = decode(
        encoder.encode(
            Kind.PREDICTION,
            request_id,
            subject=subject,
            status=200,
            rows=rows,
            total_us=total_us,
            items=(timing,),
            features_are=Captured.BODY,
            features=body,
            outputs_are=Captured.BODY,
            outputs=answer,
            traceparent=traceparent,
        )
    )
    assert short.key != long.key
    assert short == long._replace(key=short.key, created_us=short.created_us)


OLD = {
    "an answer": (
        "010ac800020000002a809828176506000000000000000000ddccbbaa000000000000f03fdc05000001000d0003000000070000000b000000"
        "36010000fa0000000800000007000000000000007b226d6f64656c223a226d227d722d317b2278223a317d7b226f6b223a747275657d"
    ),
    "several items": (
        "010dc800020000002a809828176506000100000000000000ddccbbaa000000000000e03f09000000020002000300000005000000020000"
        "0001000000020000000300000004000000000000000500000006000000070000000800000000000000000001007b7d722d325b312c325d7b7d"
    ),
    "feedback": (
        "02020000010000002a809828176506000200000000000000ddccbbaa000000000000f03f00000000000000000300000013000000000000"
        "00722d337b22726f77223a302c226c6162656c223a377d"
    ),
}


@pytest.mark.parametrize(
    ("written", "request_id", "items", "features", "outputs"),
    [
        (OLD["an answer"], "r-1", (Timing(310, 250, 8, 7),), b'{"x":1}', b'{"ok":true}'),
        (OLD["several items"], "r-2", (Timing(1, 2, 3, 4), Timing(5, 6, 7, 8)), b"[1,2]", b"{}"),
        (OLD["feedback"], "r-3", (), b'{"row":0,"label":7}', b""),
    ],
    ids=list(OLD),
)
def test_what_the_release_before_wrote_is_read_and_has_no_trace(
    written: str, request_id: str, items: tuple[Timing, ...], features: bytes, outputs: bytes
) -> None:
    record = decode(bytes.fromhex(written))
    assert (record.request_id, record.items, record.features, record.outputs) == (request_id, items, features, outputs)
    assert record.created_us == 1_800_000_000_000_042
    assert record.traceparent == ""


def test_a_record_without_a_trace_has_the_bytes_that_the_release_before_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_800_000_000_000_042_000)
    monkeypatch.setattr("os.urandom", lambda size: bytes.fromhex("aabbccdd"))
    timing = (310, 250, 8, 7)
    made = Encoder().encode_answer(b'{"model":"m"}', "r-1", 2, 1500, timing, b'{"x":1}', b'{"ok":true}')
    assert made.hex() == OLD["an answer"]


def test_a_key_is_a_uuid_of_version_7_and_begins_with_the_time() -> None:
    record = decode(Encoder().encode(Kind.PREDICTION, "a"))
    key = uuid.UUID(bytes=record.key)
    assert (key.version, key.variant) == (7, uuid.RFC_4122)
    assert key.int >> 80 == record.created_us // 1000


def test_keys_of_one_process_are_unique_though_its_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [1_800_000_000, 1_800_000_000, 1_700_000_000] * 3000  # more than the 4096 numbers beside the time
    monkeypatch.setattr(time, "time_ns", iter([second * 10**9 for second in times]).__next__)
    encoder = Encoder()
    keys = {decode(encoder.encode(Kind.PREDICTION, "a")).key for _ in times}
    assert len(keys) == len(times)


def test_keys_of_two_processes_differ_at_the_same_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_800_000_000 * 10**9)
    assert len({decode(Encoder().encode(Kind.PREDICTION, "a")).key for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "told",
    [
        {"rows": -1},
        {"status": 2**16},
        {"subject": bytes(2**16)},
        {"code": "x" * 2**16},
        {"items": (Timing(-1, 0, 0, 0),)},
        {"items": (Timing(0, 0, 0, 0),) * 2**16, "item_of_row": (0,)},
    ],
    ids=["rows", "status", "subject", "code", "timing", "items"],
)
def test_what_does_not_fit_its_field_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(struct.error):
        Encoder().encode(Kind.PREDICTION, "a", **told)


def test_a_time_that_is_too_long_for_its_field_is_the_longest() -> None:
    assert decode(Encoder().encode(Kind.PREDICTION, "a", total_us=2**40)).total_us == 2**32 - 1


@given(fields(), st.data())
def test_a_part_of_a_record_is_no_record(told: dict[str, Any], data: st.DataObject) -> None:
    payload = Encoder().encode(Kind.PREDICTION, "a", **told)
    end = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(ValueError, match="no record"):
        decode(payload[:end])
    with pytest.raises(ValueError, match="no record"):
        decode(payload + b"x")


@given(st.binary(max_size=400))
def test_any_bytes_are_a_record_or_a_value_error(payload: bytes) -> None:
    try:
        record = decode(payload)
    except ValueError:
        return
    assert record.rows


def test_a_kind_that_is_not_known_is_refused() -> None:
    payload = Encoder().encode(9, "a")
    with pytest.raises(ValueError, match="no record"):
        decode(payload)


def test_a_row_in_an_item_that_is_not_there_is_refused() -> None:
    two = (Timing(0, 0, 0, 0),) * 2
    payload = Encoder().encode(Kind.PREDICTION, "a", rows=2, items=two, item_of_row=(0, 2))
    with pytest.raises(ValueError, match="no record"):
        decode(payload)
