"""How a caller's body is spoken of: JSON pointers, places in it, and what was found there, always cut short.

Owns the limit on how much of the caller's data a message repeats. Knows nothing of contracts or schemas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import orjson

Parts = tuple[str | int, ...]
Locate = Callable[[tuple[int, ...]], Parts]

# A fault names one key twice (message, path) and one value once: 2 * 64 + 40 stays below the promised 200 characters.
_KEY_CHARS = 64
_VALUE_CHARS = 40


def clip(text: str, limit: int) -> str:
    """The text in at most `limit` characters, with an ellipsis where it was cut and no control characters."""
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return shown if shown.isprintable() else "".join(c if c.isprintable() else "?" for c in shown)


def pointer(parts: Iterable[str | int]) -> str:
    """The RFC 6901 JSON pointer; a key longer than any of ours is cut, so the text stays short."""
    return "".join("/" + clip(str(part), _KEY_CHARS).replace("~", "~0").replace("/", "~1") for part in parts)


def quoted(key: str) -> str:
    """A key in double quotes, cut short."""
    return f'"{clip(key, _KEY_CHARS)}"'


def place(parts: Parts) -> str:
    """A place as the subject of a sentence: the body, a quoted top-level key, or a pointer."""
    if not parts:
        return "the body"
    return quoted(str(parts[0])) if len(parts) == 1 else pointer(parts)


def found(value: Any) -> str:
    """What stands there, in a few words: "the number 3", "a list of 9", "the string "abc…""."""
    if value is None or isinstance(value, bool):
        return literal(value)
    if isinstance(value, int | float):
        return f"the number {clip(literal(value), _VALUE_CHARS)}"
    if isinstance(value, str):
        return f'the string "{clip(value, _VALUE_CHARS)}"'
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "an object" if isinstance(value, dict) else "another kind of value"


def literal(value: Any) -> str:
    """A scalar as JSON text; what JSON cannot carry (NaN, infinities, integers beyond 64 bits) as Python writes it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return str(value)


def under(*parts: str | int) -> Locate:
    """A locator for a value that stands at `parts` itself: indices are simply appended."""
    return lambda indices: (*parts, *indices)


HERE = under()
