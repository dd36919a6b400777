"""The body of POST /feedback: what is taken, and what a refusal points at."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from front.feedback import LABEL_BYTES_MAX, Feedback, parse_feedback
from models.errors import BadInput


@pytest.mark.parametrize("label", ["seven", 7, 7.5, True, "é"])
def test_a_label_is_kept_as_json(label: Any) -> None:
    parsed = parse_feedback(orjson.dumps({"request_id": "order-42", "label": label}))
    assert parsed == Feedback("order-42", 0, orjson.dumps(label))


def test_a_row_may_be_named() -> None:
    assert parse_feedback(b'{"request_id": "a", "row": 63, "label": "x"}').row == 63
    assert parse_feedback(b'{"request_id": "a", "row": 63.0, "label": "x"}').row == 63  # a whole number, too


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"label": 1}, "/request_id"),
        ({"request_id": 5, "label": 1}, "/request_id"),
        ({"request_id": "a b", "label": 1}, "/request_id"),
        ({"request_id": "a"}, "/label"),
        ({"request_id": "a", "label": [1]}, "/label"),
        ({"request_id": "a", "label": "x" * LABEL_BYTES_MAX}, "/label"),
        ({"request_id": "a", "label": 1, "row": -1}, "/row"),
        ({"request_id": "a", "label": 1, "row": True}, "/row"),
        ({"request_id": "a", "label": 1, "row": 0.5}, "/row"),
        ({"request_id": "a", "label": 1, "row": 2**31}, "/row"),
        ({"request_id": "a", "label": 1, "rows": 1}, ""),
    ],
    ids=str,
)
def test_what_is_wrong_is_pointed_at(body: dict[str, Any], path: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_feedback(orjson.dumps(body))
    assert caught.value.path == path
