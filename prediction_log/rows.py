"""A record of the spool as rows of the tables: each row a JSON object, as bytes, whose keys are the table's columns.

Owns what a row says of its request, its features and its answer. Knows nothing of spools or of SQL.

1. A record always gives the rows it claims. Where a body is no JSON, or has another shape than the subject says, the
   first row holds its text as a JSON string and the others hold null: nothing that a client sent is thrown away.
2. Numbers keep their digits. NaN and the infinities, which TensorFlow Serving's dialect takes and gives, become the
   strings "NaN", "Infinity" and "-Infinity", as in protobuf's JSON: JSON has no others.
3. A row can be stored: text columns hold no NUL and no lone surrogate, and what is JSON is escaped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from prediction_log.record import Captured, Record, Timing

_NO_TIMING = b'"batch_id":null,"batch_size":null,"queue_ms":null,"compute_ms":null'
_NO_ANSWER = b'"outputs":null,"prediction":null,"top_label":null,"top_score":null'
_NULL = b'"null"'  # JSON text in a JSON string
_DIGITS_ALIKE = bytes.maketrans(b"123456789", b"000000000")
_LONG_RUN = b"0" * 19
# A member of an enumeration costs more to look up than all that is done with it here.
_NOTHING, _BODY, _SHARED = int(Captured.NOTHING), int(Captured.BODY), int(Captured.SHARED)
# What an answer says of itself rather than of a row.
_ENVELOPE = {"ok", "model_version"}


class _Subject(NamedTuple):
    """columns: what the subject says of every row, as members. rows, value: where a body's rows are."""

    columns: bytes
    rows: str | None
    value: str | None


def expand(record: Record) -> list[bytes]:
    """The rows of `inference_logs` that a record of a prediction stands for: `record.rows`, in order.

    Raises ValueError for a subject that is no JSON object.
    """
    subject = _subject(record.subject)
    shared = _members(
        {
            "record_id": _uuid(record.key),
            "created_at": _time(record.created_us),
            "request_id": _text(record.request_id),
            "status": record.status,
            "error": _text(record.code) or None,
            "total_ms": record.total_us / 1000,
            "sampling": record.fraction,
            "truncated": record.truncated,
            "traceparent": record.traceparent or None,
        }
    )
    parts = zip(_timings(record), _features(record, subject), _answers(record), strict=True)
    return [
        b'{"row_number":%d,%b,"features":%b,%b,%b,%b}' % (number, timing, features, answer, subject.columns, shared)
        for number, (timing, features, answer) in enumerate(parts)
    ]


def feedback(record: Record) -> bytes:
    """The row of `inference_feedback` that a record of feedback stands for.

    A label that is a JSON string is stored as its text, any other as JSON. Raises ValueError for what is no feedback.
    """
    try:
        told = _loads(record.features)
        row, label = told["row"], told["label"]
        text = label if isinstance(label, str) else _dumps(label).decode()
    except (KeyError, TypeError, RecursionError):
        raise ValueError("this is no feedback") from None
    return _dumps(
        {
            "record_id": _uuid(record.key),
            "created_at": _time(record.created_us),
            "request_id": _text(record.request_id),
            "row_number": row,
            "label": _text(text),
        }
    )


# ---------------------------------------------------------------------------------------------- what all rows share


def _uuid(key: bytes) -> str:
    digits = key.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _time(created_us: int) -> str:
    seconds, microseconds = divmod(created_us, 1_000_000)
    return f"{_second(seconds)}.{microseconds:06d}+00:00"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@lru_cache(maxsize=1024)
def _subject(data: bytes) -> _Subject:
    subject = orjson.loads(data)
    if type(subject) is not dict:
        raise ValueError("a record's subject is no JSON object")
    columns = {
        name: None if subject.get(name) is None else _text(str(subject[name]))
        for name in ("model", "version", "dialect", "endpoint")
    }
    return _Subject(_members(columns), subject.get("rows"), subject.get("value"))


def _timings(record: Record) -> list[bytes]:
    if not record.items:
        return [_NO_TIMING] * record.rows
    if len(record.items) == 1:
        return [_timing(record.items[0])] * record.rows
    timings = [_timing(item) for item in record.items]
    return [timings[index] for index in record.item_of_row]


def _timing(item: Timing) -> bytes:
    queue_us, compute_us, batch_rows, batch_id = item
    return _members(
        {
            "batch_id": batch_id,
            "batch_size": batch_rows,
            "queue_ms": queue_us / 1000,
            "compute_ms": compute_us / 1000,
        }
    )


# ---------------------------------------------------------------------------------------------- what each row has


def _each(
    kind: int, data: bytes, rows: int, split: Callable[[Any], Any], show: Callable[[Any], bytes], nothing: bytes
) -> list[bytes]:
    """What `show` makes of each row's part of `data`, `nothing` where there is none.

    split: a body's parts, one for each row; may raise KeyError or TypeError for a body of another shape.
    """
    if kind == _NOTHING:
        return [nothing] * rows
    try:
        value = _loads(data)
        if kind == _SHARED:
            return [show(value)] * rows
        values = split(value) if kind == _BODY else value
        if type(values) is list and len(values) == rows:
            return [show(value) for value in values]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return [show(data.decode(errors="replace"))] + [nothing] * (rows - 1)


def _features(record: Record, subject: _Subject) -> list[bytes]:
    """Each row's features: JSON text in a JSON string."""

    def split(body: Any) -> Any:
        return _sent(body, subject)

    return _each(record.features_are, record.features, record.rows, split, _nested, _NULL)


def _sent(body: Any, subject: _Subject) -> Any:
    """The values of a body's rows. Raises KeyError or TypeError for a body of another shape."""
    rows = [body] if subject.rows is None else body[subject.rows]
    return rows if subject.value is None else [row[subject.value] for row in rows]


def _answers(record: Record) -> list[bytes]:
    """Each row's columns about its answer."""

    def split(body: Any) -> Any:
        return _answered(body, record.rows)

    return _each(record.outputs_are, record.outputs, record.rows, split, _answer, _NO_ANSWER)


def _answered(body: Any, rows: int) -> Any:
    """The answers of a body's rows."""
    if type(body) is not dict:
        return None
    if "prediction" in body:
        return [body["prediction"]]
    values = body.get("predictions")
    if values is None:
        return [{key: value for key, value in body.items() if key not in _ENVELOPE}]
    if type(values) is dict and all(type(column) is list and len(column) == rows for column in values.values()):
        return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]  # outputs by name
    return values


def _answer(value: Any) -> bytes:
    if type(value) is float:  # much the most frequent
        text = orjson.dumps(value)
        return b'"outputs":"%b","prediction":%b,"top_label":null,"top_score":null' % (text, text)
    number, label, score = value, None, None
    while type(number) is list and len(number) == 1:
        number = number[0]
    if type(value) is dict and "predicted_class" in value:
        label, score = _top(value)
    return _members(
        {
            "outputs": _dumps(value).decode(),
            "prediction": _double(number),
            "top_label": label,
            "top_score": _double(score),
        }
    )


def _top(answer: dict[str, Any]) -> tuple[str | None, Any]:
    """Label and score of the best class."""
    label = answer.get("label")
    try:
        score = answer["top"][0]["score"]
    except (KeyError, IndexError, TypeError):
        score = None
    return None if label is None else _text(str(label)), score


# ---------------------------------------------------------------------------------------------- JSON


def _loads(data: bytes) -> Any:
    """Any JSON value, and NaN and the infinities as strings. Raises ValueError or RecursionError."""
    if not _has_long_integer(data):
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass  # the other parser takes NaN
    return json.loads(data.decode(), parse_constant=str, parse_float=_finite)


def _has_long_integer(data: bytes) -> bool:
    """Whether an integer may be beyond 64 bits (those have 19 digits or more): orjson makes floats of them.

    A run of digits is found fast once all digits are the same. After a decimal point it is a fraction.
    """
    alike = data.translate(_DIGITS_ALIKE)
    at = alike.find(_LONG_RUN)
    while at > 0 and alike[at - 1] == ord("."):
        at = alike.find(_LONG_RUN, at + len(_LONG_RUN))
    return at >= 0


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number beyond a double")
    return number


def _dumps(value: Any) -> bytes:
    """The inverse of `_loads`. Raises RecursionError."""
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer beyond 64 bits, a lone surrogate, more than 254 levels
        return json.dumps(value, separators=(",", ":")).encode()


def _nested(value: Any) -> bytes:
    """JSON text in a JSON string."""
    return orjson.dumps(_dumps(value).decode())


def _members(columns: dict[str, Any]) -> bytes:
    """Columns as members of a JSON object, without its braces."""
    return orjson.dumps(columns)[1:-1]


def _double(value: Any) -> float | None:
    """A number as a double, None for anything else and for what no double can hold."""
    if type(value) is not float and type(value) is not int:
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None


def _text(text: str) -> str:
    """What a text column can hold: without NUL; a pair of surrogates becomes its character, a lone one is replaced."""
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
