"""What a caller says of an answer afterwards: which request, which row, what would have been right.

Owns the body of POST /feedback. Whether there was such a request is for whoever reads the table to see.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from front.refusals import REQUEST_ID
from models.body import loads
from models.errors import BadInput
from models.wording import found, quoted

LABEL_BYTES_MAX = 1024
FEEDBACK_BYTES_MAX = 16 * 1024  # room for a label that is all escapes; parsed in the front's loop
ROW_MAX = 2**31 - 1


class Feedback(NamedTuple):
    """request_id: of the answer's X-Request-Id. row: from 0. label: JSON of a string, a number, true or false."""

    request_id: str
    row: int
    label: bytes


def parse_feedback(body: bytes) -> Feedback:
    """{"request_id": "...", "label": ..., "row": 0}; the row may be left out. Raises BadInput."""
    value = loads(body)
    unknown = value.keys() - {"request_id", "label", "row"}
    if unknown:
        raise BadInput(f"unknown key {quoted(min(unknown))}", path="", expected="request_id, label and perhaps row")
    request_id = value.get("request_id")
    if not isinstance(request_id, str) or not REQUEST_ID(request_id):
        raise _bad("/request_id", request_id, "the X-Request-Id of an answer")
    row = value.get("row", 0)
    if type(row) is float and row.is_integer():  # as JSON Schema has it: 3.0 is a whole number
        row = int(row)
    if type(row) is not int or not 0 <= row <= ROW_MAX:
        raise _bad("/row", row, "the number of a row of that answer, counted from 0")
    label = value.get("label")
    encoded = orjson.dumps(label)
    if type(label) not in (str, int, float, bool) or len(encoded) > LABEL_BYTES_MAX:
        raise _bad("/label", label, f"a string, a number, true or false, of at most {LABEL_BYTES_MAX} bytes")
    return Feedback(request_id, row, encoded)


def _bad(path: str, value: Any, expected: str) -> BadInput:
    return BadInput(f"{path[1:]} must be {expected}, got {found(value)}", path=path, expected=expected)
