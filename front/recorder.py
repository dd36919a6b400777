"""What of a request goes into the prediction log: which ones, how much of their inputs and outputs, under what subject.

Owns sampling, privacy and limits. Knows nothing of the log's files: a journal takes what is decided here, and nothing
here can fail, hold up or change an answer.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from batching.client import Answer, Outcome
from batching.counters import Slot
from front.catalog import Entry
from front.settings import Settings
from models.contract import Contract
from models.dialects import native
from models.forms import ROWS
from models.schema import Compiled
from prediction_log.journal import Journal
from prediction_log.record import Captured
from prediction_log.spool import Spool

log = logging.getLogger("inference.log")

_RECORD_HEAD_BYTES = 4096  # more than everything in a record beside features and outputs


class Features(NamedTuple):
    """A request's inputs as the log keeps them. `truncated`: they were longer than the limit."""

    kind: Captured
    value: bytes = b""
    truncated: bool = False


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

    def features(self, entry: Entry, request: native.Request | None, body: bytes) -> Features:
        """What is kept of a request's inputs; may take long where a large body must be hashed.

        request: None where the body was not understood.
        """
        try:
            return self._features(entry, request, body)
        except Exception:  # a log must not fail what it logs
            log.exception("inputs could not be captured")
            return Features(Captured.NOTHING)

    def answered(
        self,
        entry: Entry,
        endpoint: str,
        request_id: str,
        request: native.Request,
        features: Features | None,
        body: bytes,
        outcomes: Sequence[Outcome],
        answer: bytes,
        total_s: float,
    ) -> bool:
        """Log an answer before it leaves; False when it could not be. `features`: None to capture them now."""
        way = self._way(entry, endpoint, request.value_key, many=request.many)
        # What a batch said of each item beside its outputs: microseconds queued and computed, its rows and number.
        items = tuple([one[1:] for one in outcomes if isinstance(one, Answer)])
        if len(body) <= way.whole and len(answer) <= way.whole and len(items) == 1 and features is None:
            total_us = int(total_s * 1e6)
            return self.journal.answer(way.subject, request_id, request.count, total_us, items[0], body, answer)
        contract = entry.contract
        fraction = self._fraction_of(contract)
        if fraction < 1 and random.random() >= fraction:  # noqa: S311 - a sample, no secret
            self._leave_out(200, request.count)
            return True
        kind, value, truncated = features or self.features(entry, request, body)
        outputs_are = Captured.BODY
        capture = self._capture_of(contract)
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
            item_of_row=_item_of_row(request) if len(items) > 1 else (),
            features_are=kind,
            features=value,
            outputs_are=outputs_are,
            outputs=answer,
        )

    def failed(
        self,
        entry: Entry,
        endpoint: str,
        request_id: str,
        status: int,
        code: str,
        total_s: float,
        *,
        body: bytes = b"",
        features: Features | None = None,
    ) -> bool:
        """Log a request that failed: all failures, but of what was refused (4xx, 503) only the sampled share."""
        sample = entry.contract.log.sample if entry.contract else None
        fraction = self._refusal_sample if status < 500 or status == 503 else 1.0
        if sample == 0 or (fraction < 1 and random.random() >= fraction):  # noqa: S311 - as above
            self._leave_out(status, 1)
            return True
        kind, value, truncated = features or self.features(entry, None, body)
        return self.journal.prediction(
            request_id,
            subject=self._way(entry, endpoint, None, many=False).subject,
            status=status,
            code=code,
            total_us=int(total_s * 1e6),
            fraction=fraction,
            truncated=truncated,
            features_are=kind,
            features=value,
        )

    def _leave_out(self, status: int, rows: int) -> None:
        self._slot.counter("inference_log_rows_left_out_total", status=status).add(rows)

    def _way(self, entry: Entry, endpoint: str, value_key: str | None, *, many: bool) -> Way:
        """Made once for each contract."""
        key = (entry.name, entry.version, endpoint, many, value_key)
        way = self._ways.get(key)
        if way is not None and way.compiled is entry.compiled:
            return way
        told = {"model": entry.name, "version": entry.version, "dialect": "native", "endpoint": endpoint}
        subject = orjson.dumps({**told, "rows": ROWS if many else None, "value": value_key})
        contract = entry.contract
        plain = (
            contract is not None
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

    def _features(self, entry: Entry, request: native.Request | None, body: bytes) -> Features:
        contract = entry.contract
        capture = self._capture_of(contract)
        if capture == "none" or not body or (contract is None and request is None):
            return Features(Captured.NOTHING)
        rows = request.count if request else 1
        limit = self._limit(capture, rows)
        if request and request.pictures:
            return _pictures(request, limit if capture == "full" else 0)
        if contract is not None and contract.log.omit:
            # Of a body that was not understood nobody knows where in it the omitted fields are.
            if request is None or capture == "hash":
                return Features(Captured.NOTHING)
            kept = _without(contract, request, body)
            return Features(Captured.ROWS, kept) if len(kept) <= limit else _digest(kept, request, truncated=True)
        if request is None and (not _is_text(body) or (contract is not None and contract.image and capture == "auto")):
            return _digest(body, None, truncated=False)  # a picture, perhaps; in any case nothing to read
        if capture == "hash" or len(body) > limit:
            return _digest(body, request, truncated=capture != "hash")
        return Features(Captured.BODY, body)


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


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _item_of_row(request: native.Request) -> tuple[int, ...]:
    """Which item each row of the request was in."""
    places = [0] * request.count
    for index, item in enumerate(request.items):
        for row in item.rows:
            places[row] = index
    return tuple(places)


def _digest(body: bytes, request: native.Request | None, *, truncated: bool) -> Features:
    """One value for all rows: which bytes they came in, and the shapes of the tensors in them."""
    value: dict[str, Any] = {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}
    if request is not None:
        value["shape"] = [list(array.shape) for array in request.items[0].arrays]
    return Features(Captured.SHARED, orjson.dumps(value), truncated)


def _pictures(request: native.Request, limit: int) -> Features:
    """Each picture by its digest, or itself where the limit allows."""
    if 0 < sum(map(len, request.pictures)) * 4 // 3 + 100 * request.count <= limit:
        whole = [{"image": base64.b64encode(picture).decode()} for picture in request.pictures]
        return Features(Captured.ROWS, orjson.dumps(whole))
    shape = list(request.items[0].arrays[0].shape[1:])
    digests = [
        {"sha256": hashlib.sha256(picture).hexdigest(), "bytes": len(picture), "shape": shape}
        for picture in request.pictures
    ]
    return Features(Captured.ROWS, orjson.dumps(digests), truncated=limit > 0)


def _without(contract: Contract, request: native.Request, body: bytes) -> bytes:
    """The rows as JSON with null for what must never be written, by name or by its place in a vector."""
    value = orjson.loads(body)
    rows = value[ROWS] if request.many else [value]
    if request.value_key is not None:
        rows = [row[request.value_key] for row in rows]
    omit = frozenset(contract.log.omit)
    hidden = [field.name in omit for field in contract.fields]

    def keep(row: Any) -> Any:
        if type(row) is dict:
            return {key: None if key in omit else inner for key, inner in row.items()}
        if type(row) is list and len(row) == len(hidden):
            return [None if hide else inner for hide, inner in zip(hidden, row, strict=True)]
        return None  # the row is the value of the omitted field or input itself

    return orjson.dumps([keep(row) for row in rows])
