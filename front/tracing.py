"""A request's place in somebody's trace: the header `traceparent` (W3C Trace Context, version 00).

Owns which ones are taken. We make no spans: it is passed on, so that a line of the log and a row of the prediction log
can be found by the trace that they belong to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# version, trace id, the caller's span, flags; ids of zeros alone are none.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch


def traceparent_of(environ: Mapping[str, Any]) -> str:
    """The one a request has come with; "" where there is none, or one that is malformed, as the standard demands."""
    given = environ.get("HTTP_TRACEPARENT")
    return given if given is not None and _TRACEPARENT(given) else ""
