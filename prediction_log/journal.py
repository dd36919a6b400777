"""What a front calls to remember an answer: encodes a record, appends it to the spool, counts its rows.

Owns that nothing here can fail a request. Knows neither where the spool's bytes go nor how counts are shown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from prediction_log.record import Captured, Encoder, Kind

log = logging.getLogger("inference.log")


class Appender(Protocol):
    """What is needed of a spool: False for a payload that was dropped; never raises."""

    @property
    def capacity(self) -> int: ...

    def append(self, payload: bytes) -> bool: ...

    def close(self) -> None: ...


class Journal:
    """The records of one process, into its spool. Threads may share it; nothing here raises.

    written, dropped: called with the number of rows, once for each call of a method here: one or the other.
    """

    def __init__(self, spool: Appender, written: Callable[[int], None], dropped: Callable[[int], None]) -> None:
        self._spool = spool
        self._written = written
        self._dropped = dropped
        self._encoder = Encoder()
        self._complained = False

    @property
    def capacity(self) -> int:
        """The longest record that fits, in bytes."""
        return self._spool.capacity

    def close(self) -> None:
        """The end: the spool is left as its reader wants it."""
        self._spool.close()

    def prediction(self, request_id: str, **fields: Any) -> bool:
        """Remember a request and its answer; the fields are those of `Encoder.encode`. False: it was dropped."""
        return self._append(Kind.PREDICTION, request_id, fields)

    def answer(
        self,
        subject: bytes,
        request_id: str,
        rows: int,
        total_us: int,
        timing: Sequence[int],
        body: bytes,
        answer: bytes,
        traceparent: str = "",
    ) -> bool:
        """Remember an answer of one item; the arguments are those of `Encoder.encode_answer`. False: it was dropped."""
        try:
            made = self._encoder.encode_answer(subject, request_id, rows, total_us, timing, body, answer, traceparent)
            if self._spool.append(made):
                self._written(rows)
                return True
        except Exception as error:  # noqa: BLE001 - an answer is worth more than its record
            self._complain(error)
        self._dropped(rows)
        return False

    def feedback(self, request_id: str, row: int, label_json: bytes) -> bool:
        """Remember what the right answer of a row would have been, any JSON value. False: it was dropped."""
        features = b'{"row":%d,"label":%b}' % (row, label_json)
        return self._append(Kind.FEEDBACK, request_id, {"features_are": Captured.BODY, "features": features})

    def _append(self, kind: Kind, request_id: str, fields: dict[str, Any]) -> bool:
        rows = fields.get("rows", 1)
        try:
            if self._spool.append(self._encoder.encode(kind, request_id, **fields)):
                self._written(rows)
                return True
        except Exception as error:  # noqa: BLE001 - as above
            self._complain(error)
        self._dropped(rows)
        return False

    def _complain(self, error: Exception) -> None:
        """Say it once: the counter says how often. Not what the error says, which may hold a client's data."""
        if not self._complained:
            self._complained = True
            log.error("a prediction could not be recorded, and others may follow: %s", type(error).__name__)
