"""What of a request goes into the prediction log: which ones, how much of their inputs and outputs, under what subject.

Owns sampling, privacy and limits. Knows nothing of the log's files: a journal takes what is decided here, and nothing
here can fail, hold up or change an answer.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from batching.client import Answer, Outcome
from batching.counters import Slot
from front import captured
from front.captured import Features
from front.catalog import Entry
from front.settings import Settings
from models.contract import Contract
from models.dialects import native
from models.dialects.dialect import Request
from models.forms import ROWS
from models.schema import Compiled
from prediction_log.journal import Journal
from prediction_log.record import Captured
from prediction_log.spool import Spool

log = logging.getLogger("inference.log")

_RECORD_HEAD_BYTES = 4096  # more than everything in a record beside features and outputs


class Way(NamedTuple):
    """How the answers of one model version through one endpoint are logged. compiled: as of which contract.

    whole: all of them, inputs and outputs as they came and go, up to that many bytes each; 0 where each must be looked
    at.
    """

    compiled: Compiled | None
    subject: bytes
    whole: int


class Recorder:
    """The log of one application. Threads may share it.

    required: an answer that could not be logged must not leave.
    """

    def __init__(self, settings: Settings, journal: Journal, slot: Slot) -> None:
        self.journal = journal
        self.required = settings.prediction_log_required
        self._capture = settings.prediction_log_capture
        self._sample = settings.prediction_log_sample
        self._refusal_sample = settings.prediction_log_refusal_sample
        self._value_bytes = settings.prediction_log_value_bytes
        self._half = max((journal.capacity - _RECORD_HEAD_BYTES) // 2, 0)
        self._slot = slot
        self._ways: dict[tuple[str, str, str, bool, str | None], Way] = {}

    def features(
        self,
        entry: Entry,
        dialect: str,
        request_id: str,
        request: Request | None,
        body: bytes,
        traceparent: str = "",
    ) -> Features:
        """What is kept of a request's inputs; may take long where a large body must be hashed.

        request: None where the body was not understood.
        """
        try:
            return self._features(entry, dialect, request, body)
        except Exception:  # a log must not fail what it logs
            about = {"traceparent": traceparent}
            log.exception("request %s: its inputs could not be captured", request_id, extra=about)
            return Features(Captured.NOTHING)

    def answered(
        self,
        entry: Entry,
        endpoint: str,
        dialect: str,
        request_id: str,
        request: Request,
        features: Features | None,
        body: bytes,
        outcomes: Sequence[Outcome],
        answer: bytes,
        total_s: float,
        traceparent: str = "",
    ) -> bool:
        """Log an answer before it leaves; False when it could not be. `features`: None to capture them now."""
        way = self._way(entry, endpoint, dialect, request.value_key, many=request.many)
        # What a batch said of each item beside its outputs: microseconds queued and computed, its rows and number.
        items = tuple([one[1:] for one in outcomes if isinstance(one, Answer)])
        if len(body) <= way.whole and len(answer) <= way.whole and len(items) == 1 and features is None:
            total_us = int(total_s * 1e6)
            return self.journal.answer(
                way.subject, request_id, request.count, total_us, items[0], body, answer, traceparent
            )
        contract = entry.contract
        fraction = self._fraction_of(contract)
        if fraction < 1 and random.random() >= fraction:  # noqa: S311 - a sample, no secret
            self._leave_out(200, request.count)
            return True
        kind, value, truncated = features or self.features(entry, dialect, request_id, request, body, traceparent)
        outputs_are = Captured.BODY
        capture = self._capture_of(contract)
        if dialect != native.NAME and capture != "none":
            outputs_are, answer = self._outputs(entry, request, outcomes, answer, self._limit(capture, request.count))
        if len(answer) > self._limit(capture, request.count):
            outputs_are, answer, truncated = Captured.SHARED, b'{"bytes":%d}' % len(answer), True
        elif capture == "none":
            outputs_are, answer = Captured.NOTHING, b""
        return self.journal.prediction(
            request_id,
            subject=way.subject,
            status=200,
            rows=request.count,
            total_us=int(total_s * 1e6),
            fraction=fraction,
            truncated=truncated,
            items=items,
            item_of_row=captured.item_of_row(request) if len(items) > 1 else (),
            features_are=kind,
            features=value,
            outputs_are=outputs_are,
            outputs=answer,
            traceparent=traceparent,
        )

    def failed(
        self,
        entry: Entry,
        endpoint: str,
        dialect: str,
        request_id: str,
        status: int,
        code: str,
        total_s: float,
        *,
        body: bytes = b"",
        features: Features | None = None,
        traceparent: str = "",
    ) -> bool:
        """Log a request that failed: all failures, but of what was refused (4xx, 503) only the sampled share."""
        sample = entry.contract.log.sample if entry.contract else None
        fraction = self._refusal_sample if status < 500 or status == 503 else 1.0
        if sample == 0 or (fraction < 1 and random.random() >= fraction):  # noqa: S311 - as above
            self._leave_out(status, 1)
            return True
        kind, value, truncated = features or self.features(entry, dialect, request_id, None, body, traceparent)
        return self.journal.prediction(
            request_id,
            subject=self._way(entry, endpoint, dialect, None, many=False).subject,
            status=status,
            code=code,
            total_us=int(total_s * 1e6),
            fraction=fraction,
            truncated=truncated,
            features_are=kind,
            features=value,
            traceparent=traceparent,
        )

    def keeps_outputs(self, entry: Entry) -> bool:
        """Whether what a model answers may be kept at all."""
        return self._capture_of(entry.contract) != "none" and self._fraction_of(entry.contract) > 0

    def _leave_out(self, status: int, rows: int) -> None:
        self._slot.counter("inference_log_rows_left_out_total", status=status).add(rows)

    def _outputs(
        self, entry: Entry, request: Request, outcomes: Sequence[Outcome], answer: bytes, limit: int
    ) -> tuple[Captured, bytes]:
        """The rows of an answer whose body is not in the log's own form."""
        values = [one.outputs for one in outcomes if isinstance(one, Answer)]
        if captured.size_of(values) > limit:
            return Captured.SHARED, b'{"bytes":%d}' % len(answer)
        tensors = entry.compiled_for(request.signature).contract.outputs
        return Captured.ROWS, captured.outputs(tensors, request, values)

    def _way(self, entry: Entry, endpoint: str, dialect: str, value_key: str | None, *, many: bool) -> Way:
        """Made once for each contract."""
        key = (entry.name, entry.version, endpoint, many, value_key)
        way = self._ways.get(key)
        if way is not None and way.compiled is entry.compiled:
            return way
        told = {"model": entry.name, "version": entry.version, "dialect": dialect, "endpoint": endpoint}
        subject = orjson.dumps({**told, "rows": ROWS if many else None, "value": value_key})
        contract = entry.contract
        plain = (
            contract is not None
            and dialect == native.NAME
            and not contract.log.omit
            and self._capture_of(contract) in ("auto", "full")
            and self._fraction_of(contract) == 1
        )
        way = self._ways[key] = Way(entry.compiled, subject, min(self._value_bytes, self._half) if plain else 0)
        return way

    def _fraction_of(self, contract: Contract | None) -> float:
        return self._sample if contract is None or contract.log.sample is None else contract.log.sample

    def _capture_of(self, contract: Contract | None) -> str:
        return self._capture if contract is None or contract.log.capture is None else contract.log.capture

    def _limit(self, capture: str, rows: int) -> int:
        return self._half if capture == "full" else min(self._value_bytes * rows, self._half)

    def _features(self, entry: Entry, dialect: str, request: Request | None, body: bytes) -> Features:
        contract = entry.contract
        capture = self._capture_of(contract)
        if capture == "none" or not body or (contract is None and request is None):
            return Features(Captured.NOTHING)
        rows = request.count if request else 1
        limit = self._limit(capture, rows)
        if request and request.pictures:
            return captured.pictures(request, limit if capture == "full" else 0)
        if dialect != native.NAME:
            return self._foreign(entry, request, body, capture, limit)
        if contract is not None and contract.log.omit:
            # Of a body that was not understood nobody knows where in it the omitted fields are.
            if request is None or capture == "hash":
                return Features(Captured.NOTHING)
            kept = captured.without(contract, request, body)
            return (
                Features(Captured.ROWS, kept) if len(kept) <= limit else captured.digest(kept, request, truncated=True)
            )
        if request is None and (
            not captured.is_text(body) or (contract is not None and contract.image and capture == "auto")
        ):
            return captured.digest(body, None, truncated=False)  # a picture, perhaps; in any case nothing to read
        if capture == "hash" or len(body) > limit:
            return captured.digest(body, request, truncated=capture != "hash")
        return Features(Captured.BODY, body)

    def _foreign(self, entry: Entry, request: Request | None, body: bytes, capture: str, limit: int) -> Features:
        """Of a dialect whose bodies the log does not read: the rows that were understood, else a digest."""
        contract = entry.contract
        if request is None or contract is None:
            return (
                Features(Captured.NOTHING)
                if contract and contract.log.omit
                else captured.digest(body, None, truncated=False)
            )
        tensors = entry.compiled_for(request.signature).contract.inputs
        is_long = captured.size_of([item.arrays for item in request.items]) > limit
        if capture == "hash" or is_long:
            return (
                Features(Captured.NOTHING) if contract.log.omit else captured.digest(body, request, truncated=is_long)
            )
        return Features(Captured.ROWS, captured.inputs(contract, tensors, request))


def open_journal(
    spool: dict[str, Any] | None, slot: Slot, on_condition: Callable[[str | None], None]
) -> Journal | None:
    """This process's journal, as the supervisor's first message says; None where there is no prediction log.

    on_condition: hears, in another thread, why rows are being dropped, and None when they no longer are.
    """
    if spool is None:
        return None
    written = slot.counter("inference_log_rows_written_total")
    dropped = slot.counter("inference_log_rows_dropped_total")

    def tell(text: str | None) -> None:
        on_condition(None if text is None else f"answers are not logged: {text}")

    made = Spool(Path(spool["folder"]), max_bytes=spool["max_bytes"], sync=spool["sync"], on_condition=tell)
    return Journal(made, written.add, dropped.add)
