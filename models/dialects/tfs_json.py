"""JSON as TensorFlow Serving has it: bare NaN, Infinity and -Infinity, both ways. Its words for what is no JSON.

Owns these tokens. A body without them is read by models.body, as strictly and as fast; one that has them by a slower
parser with the same bounds. Knows nothing of tensors' names or signatures.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import orjson

from models.body import loads as loads_strictly
from models.errors import BadInput
from models.tensors import Array, dumps
from models.wording import clip, quoted

_SHOWN_CHARS = 160
_TOKENS = (b"NaN", b"Infinity")
# Numbers that may lie beyond a double, which would become an infinity that nobody wrote.
_HUGE = re.compile(rb"[eE]\+?0*[1-9][0-9]{2}|[0-9]{300}")

# Python's words for a syntax error -> RapidJSON's, which clients of the original know.
_WORDS = {
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Expecting ',' delimiter": "Missing a comma or ] after an array element.",
    "Extra data": "The document root must not be followed by other values.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid control character at": "Invalid encoding in string.",
}


def loads(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises BadInput, and TooLarge for a bomb."""
    if not body.strip():
        raise BadInput("JSON Parse error: The document is empty")
    try:
        return loads_strictly(body)
    except BadInput as fault:
        if fault.path:  # a key that is given twice
            raise
    value = _tolerantly(body)
    if type(value) is not dict:
        raise BadInput(f"JSON Value: {shown(value)} Is not object", path="")
    return value


def _tolerantly(body: bytes) -> Any:
    """For what the strict reader refused, which is rare: nothing here need be fast, only bounded."""
    try:
        text = body.decode()
        if b"\\u" in body and not any(token in body for token in _TOKENS):
            orjson.loads(body)  # what is wrong may be a lone surrogate, which Python takes
        finite = _finite if _HUGE.search(body) else None
        return json.loads(text, object_pairs_hook=_unique, parse_float=finite)
    except UnicodeDecodeError as error:
        raise BadInput(f"JSON Parse error: Invalid encoding in string. at offset: {error.start}") from None
    except orjson.JSONDecodeError as error:
        raise BadInput(f"JSON Parse error: Invalid value. at offset: {error.pos}") from None
    except json.JSONDecodeError as error:
        offset = len(text[: error.pos].encode())
        raise BadInput(f"JSON Parse error: {_WORDS.get(error.msg, 'Invalid value.')} at offset: {offset}") from None
    except RecursionError:
        raise BadInput("JSON Parse error: lists and objects are nested too deep") from None
    except ValueError:  # an integer of thousands of digits
        raise BadInput("JSON Parse error: Number too big to be stored in double.") from None


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadInput(f"the key {quoted(twice)} is given twice", path="")
    return members


def shown(value: Any) -> str:
    """A value as a message shows it, cut short."""
    if type(value) is float and not math.isfinite(value):
        return token(value)
    if type(value) is list:  # what is cut off need not be written first
        value = value[:_SHOWN_CHARS]
    try:
        return clip(orjson.dumps(value).decode(), _SHOWN_CHARS)
    except (TypeError, ValueError):  # beyond 64 bits, too deep, or a lone surrogate
        return clip(str(value), _SHOWN_CHARS)


def token(number: float) -> str:
    """What stands for a number that JSON has no text for."""
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def writable(array: Array) -> Any:
    """What `dumps` writes for an array of numbers: itself, or, where it holds NaN or infinities, its finished text."""
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    if array.dtype.kind != "f" or (finite := np.isfinite(array)).all():
        return array
    # A number that is none becomes null, and nothing else does: so the tokens go where the nulls are, in order.
    pieces = dumps(array).split(b"null")
    tokens = [token(number).encode() for number in array[~finite].tolist()]
    return orjson.Fragment(b"".join(part for pair in zip(pieces, [*tokens, b""], strict=True) for part in pair))
