"""Rows for the tables, as the shipper makes them, and what a store says when it fails."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from prediction_log.sqlstate import StoreError

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def record_id(number: int) -> str:
    """The key of a record."""
    return str(uuid.UUID(int=(0x7 << 76) | (2 << 62) | number))


def prediction(number: int, **more: Any) -> bytes:
    """A row of inference_logs; each a second later than the one before."""
    row = {
        "created_at": (NOON + timedelta(seconds=number)).isoformat(timespec="microseconds"),
        "features": json.dumps([number + 0.5] * 10),
        "prediction": number * 2.0,
        "record_id": record_id(number),
        "row_number": 0,
        "request_id": f"request-{number}",
        "model": "dummy",
        "version": "1",
        "dialect": "native",
        "endpoint": "/predict",
        "status": 200,
        "error": None,
        "outputs": f"[{number * 2.0}]",
        "top_label": None,
        "top_score": None,
        "batch_id": 7,
        "batch_size": 16,
        "queue_ms": 1.25,
        "compute_ms": 0.5,
        "total_ms": 2.0,
        "sampling": 1.0,
        "truncated": False,
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
    return json.dumps({**row, **more}).encode()


def predictions(*numbers: int) -> list[bytes]:
    """Their rows."""
    return [prediction(number) for number in numbers]


def feedback(number: int, label: str) -> bytes:
    """A row of inference_feedback."""
    row = {"created_at": NOON.isoformat(), "record_id": record_id(number), "request_id": "r", "row_number": 0}
    return json.dumps({**row, "label": label}).encode()


class Failure(NamedTuple):
    """What a call raised, and after how long."""

    error: StoreError
    seconds: float

    @property
    def said(self) -> tuple[str, str]:
        """Kind and SQLSTATE."""
        return self.error.kind, self.error.sqlstate


def failure(call: Callable[..., Any], *arguments: Any) -> Failure:
    """The StoreError that this call raises; nothing of the server's or the driver's own words hangs on to it."""
    began = time.monotonic()
    with pytest.raises(StoreError) as caught:
        call(*arguments)
    assert caught.value.__context__ is None
    return Failure(caught.value, time.monotonic() - began)
