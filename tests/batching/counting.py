"""What the tests of the counters share: one model's labels, and the file as another process sees it."""

from __future__ import annotations

from batching.counters import Counters
from batching.families import Series

M1 = {"model": "m", "version": "1"}


def m1(name: str) -> Series:
    return name, ("m", "1")


def attached(to: Counters) -> Counters:
    """As another process would see it. The descriptor stays the creator's."""
    return Counters.attach(to.fd)
