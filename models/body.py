"""The JSON text of a request's body -> a value, strictly.

Owns what is JSON here and what is not: UTF-8 only, no NaN, no infinities, no lone surrogates, no key twice, no bombs.
Knows nothing of models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson

from models.errors import BadInput, TooLarge
from models.wording import Parts, found, pointer, quoted

# A list costs the parser about 0.3 us however little it holds: 6 MB of "[]," took 0.57 s (measured). This many take
# at most 0.08 s, and are still 200 pictures of 28 x 28 x 1 or 100,000 rows of one value in one body.
MAX_CONTAINERS = 200_000
# A key that is new costs it as much as two lists: 7.6 MB of them took 0.34 s, in which no other thread can run.
MAX_KEYS = 300_000
# Where a key is given twice is found by a slower parse (0.2 to 0.4 s for 8 MB); a longer body is refused without it.
_MAX_LOCATED_BYTES = 1 << 20


def loads(body: bytes) -> dict[str, Any]:
    """The JSON object in a body, strictly: UTF-8, no NaN or infinities, no lone surrogates, no key twice.

    Raises:
        BadInput: it is not JSON (path None), not an object (path ""), or holds a key twice (path of the key).
        TooLarge: more than MAX_CONTAINERS lists and objects, or MAX_KEYS keys.
    """
    if len(body) > MAX_CONTAINERS and (count := body.count(b"[") + body.count(b"{")) > MAX_CONTAINERS:
        raise TooLarge(f"the body holds {count} lists and objects, at most {MAX_CONTAINERS}: send fewer rows at once")
    colons = body.count(b":")
    if colons > MAX_KEYS and (count := body.translate(None, b" \t\r\n").count(b'":')) > MAX_KEYS:
        raise TooLarge(f"the body holds {count} keys, at most {MAX_KEYS}: send fewer rows at once")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _syntax_fault(body, error) from None
    if type(value) is not dict:
        message = f"the body must be a JSON object, got {found(value)}"
        raise BadInput(message, path="", expected="a JSON object")
    if colons != len(value):
        _refuse_duplicates(body, value, colons)
    return value


def _syntax_fault(body: bytes, error: orjson.JSONDecodeError) -> BadInput:
    """Why and where a body is not JSON, in our words: orjson's error carries the whole body."""
    if problem := _encoding_problem(body):
        return BadInput(f"the body {problem}", expected="a JSON object in UTF-8")
    rest = body.decode()[error.pos :]
    problem, expected = f"is not valid JSON: {error.msg}", "a JSON object"
    if rest.startswith(("NaN", "Infinity", "-Infinity")) or "infinity" in error.msg:
        problem, expected = "holds NaN, an infinity or a number that no double can hold", "finite numbers"
    elif "surrogate" in error.msg:
        problem, expected = "holds a lone surrogate", "whole Unicode characters"
    elif "depth" in error.msg:
        problem, expected = "is nested too deep", "at most 1024 levels of lists and objects"
    return BadInput(f"the body {problem}: line {error.lineno}, column {error.colno}", expected=expected)


def _encoding_problem(body: bytes) -> str | None:
    if not body.strip():
        return "is empty"
    if body.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in body[:4]:
        return "is UTF-16 or UTF-32: encode it as UTF-8"
    if body.startswith(b"\xef\xbb\xbf"):
        return "begins with a byte order mark: leave it out"
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8: bad byte at offset {error.start}"
    return None


def _refuse_duplicates(body: bytes, value: dict[str, Any], colons: int) -> None:
    """Raise if a key was given twice.

    Each key brings one colon, and a repeated one leaves no trace in the parsed value: so a body holds a key twice if
    it has more colons than its value has when written again. Those that it wrote as an escape are counted with them.
    """
    if _count_keys_in_rows(value) == colons:
        return
    try:
        again = orjson.dumps(value).count(b":")
    except orjson.JSONEncodeError:
        deepest = "at most 254 levels of lists and objects"
        raise BadInput("the body is nested too deep", path="", expected=deepest) from None
    escapes = body.replace(rb"\\", b"")
    if again == colons + escapes.count(rb"\u003a") + escapes.count(rb"\u003A"):
        return
    parts: Parts = ()
    if len(body) <= _MAX_LOCATED_BYTES:
        parts = next(_twice(json.loads(body, object_pairs_hook=_keep_twice)))
    what = f"the key {quoted(str(parts[-1]))} is given twice" if parts else "a key is given twice"
    raise BadInput(what, path=pointer(parts), expected="every key once")


def _count_keys_in_rows(value: dict[str, Any]) -> int:
    """The keys of the body and of lists of plain objects in it: all there are in most bodies, never more."""
    total = len(value)
    for member in value.values():
        if type(member) is list and set(map(type, member)) == {dict}:
            total += sum(map(len, member))
    return total


class _Twice(dict[str, Any]):
    """An object with a key given twice, `key`."""

    key: str


def _keep_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    twice: str | None = None
    for key, value in pairs:
        if key in seen and twice is None:
            twice = key
        seen[key] = value
    if twice is None:
        return seen
    marked = _Twice(seen)
    marked.key = twice
    return marked


def _twice(value: Any) -> Iterator[Parts]:
    """The paths of keys given twice, in document order."""
    waiting: list[tuple[Parts, Any]] = [((), value)]
    while waiting:
        parts, node = waiting.pop()
        if isinstance(node, _Twice):
            yield (*parts, node.key)
        if isinstance(node, dict):
            waiting.extend(((*parts, key), member) for key, member in reversed(node.items()))
        elif isinstance(node, list):
            waiting.extend(((*parts, index), member) for index, member in reversed(list(enumerate(node))))
