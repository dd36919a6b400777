"""Inputs that workers died of, by digest: which are refused unseen, and which may only run alone.

A worker that dies takes a whole batch with it, and any item of it may be the cause. So they are all run again, alone;
an item is to blame only if it was alone in the call that the next worker died of. Knows no processes and no frames.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from enum import Enum

from batching.transport import Payload

# How long an input that was given up while a worker died of something may only run alone, and how many are remembered.
SUSPECTED_S = 60.0
SUSPECTED_MAX = 1000


class Verdict(Enum):
    """What is known of an input."""

    CLEAR = 0
    ALONE = 1
    REFUSED = 2


class Suspects:
    """One client's knowledge. `refused` comes from the supervisor, so that all fronts refuse what one has found."""

    def __init__(self) -> None:
        self._refused: dict[str, float] = {}
        self._suspected: dict[str, float] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to compare an input with; nearly always not, and then no digest is made."""
        return bool(self._refused or self._suspected)

    def adopt(self, refused: Mapping[str, float]) -> None:
        """Digests that no worker shall see until then (monotonic seconds)."""
        self._refused = dict(refused)

    def refuse(self, digest: str, until: float) -> None:
        """This one is to blame."""
        self._refused[digest] = until

    def suspect(self, digest: str) -> None:
        """This one was in a batch that a worker died of, and nobody waits for its answer any more."""
        if len(self._suspected) < SUSPECTED_MAX:
            self._suspected[digest] = time.monotonic() + SUSPECTED_S

    def judge(self, digest: str, now: float) -> Verdict:
        """What to do with an input; forgets what is over."""
        for digests in (self._refused, self._suspected):
            for old in [one for one, until in digests.items() if until <= now]:
                del digests[old]
        if digest in self._refused:
            return Verdict.REFUSED
        return Verdict.ALONE if digest in self._suspected else Verdict.CLEAR


def digest_of(group: str, place: int, layout: bytes, payload: Payload) -> str:
    """One item's SHA-256 in hex: of the model it is for, its dtypes and shapes, and its values."""
    digest = hashlib.sha256(f"{group}\0{place}\0{len(layout)}\0".encode())
    digest.update(layout)
    digest.update(payload)
    return digest.hexdigest()
