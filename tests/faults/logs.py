"""What a server's log must be whatever happens: few lines of each kind, on one line each, and no secret in it."""

from __future__ import annotations

import json
import re
from collections import Counter

# What makes messages of one kind differ: numbers, ids, quoted text.
_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|[0-9a-f]{6,}|\d+(?:\.\d+)?")
LINES_PER_SECOND = 10


def assert_quiet(log: str, seconds: float, *, secrets: tuple[str, ...] = ()) -> str:
    """At most 10 lines per second of each kind, over the time that a fault lasted; the most frequent kind, in words.

    secrets: what must not be in it.
    """
    kinds = Counter(_kind(line) for line in log.splitlines())
    found = [secret for secret in secrets if secret in log]
    assert not found, f"the log tells {found}"
    kind, lines = kinds.most_common(1)[0] if kinds else ("", 0)
    allowed = LINES_PER_SECOND * max(seconds, 1.0)
    assert lines <= allowed, f"{lines} lines in {seconds:.1f} s of {kind!r}"
    return f"{lines / max(seconds, 1.0):.1f} log lines/s"


def _kind(line: str) -> str:
    """Who says it, and what but for what varies; a line that is none of ours is taken as it is."""
    try:
        told = json.loads(line)
        return f"{told['role']} {told['pid']} {told['logger']} {_VARYING.sub('#', told['message'])}"
    except (ValueError, KeyError, TypeError):
        return _VARYING.sub("#", line)
