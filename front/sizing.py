"""How many fronts, and how many threads for decoding in each, where the operator does not say.

Owns the reckoning from the cores that this process may use. Knows nothing of who else wants them.

A front is one thread of Python, and a small model's request costs it three times what it costs the worker. So:

- With 2 or 3 cores one front: it leaves a core to the worker and the clients. A second one gathers less into each
  message, so that a request costs more in both (measured on 2 cores, 64 clients: 113 instead of 86 us of processor
  time; 16 clients: 238 instead of 140), and holds 37 MB.
- From 4 on half of the cores, as a model in TensorFlow uses as many as there are.
- Never more than 4 for each worker: it then has as much to do as they.

Decoding releases the interpreter's lock for most of its time. Two threads at least, so that one picture of 25 Mpx does
not hold up the small ones for half a second; more where a front has more cores to itself, up to what its one
interpreter can feed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from front.settings import Settings

FRONTS_PER_WORKER = 4
DECODE_THREADS_MIN, DECODE_THREADS_MAX = 2, 8
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def fronts_of(settings: Settings, cores: int | None = None) -> int:
    """The number of HTTP processes; cores: those there are, unless given."""
    if settings.fronts is not None:
        return settings.fronts
    cores = usable_cores() if cores is None else cores
    return max(1, min(cores // 2, FRONTS_PER_WORKER * settings.workers))


def decode_threads_of(settings: Settings, cores: int | None = None) -> int:
    """The number of threads for pictures and large bodies in each front."""
    if settings.decode_threads is not None:
        return settings.decode_threads
    cores = usable_cores() if cores is None else cores
    return min(max(cores // fronts_of(settings, cores), DECODE_THREADS_MIN), DECODE_THREADS_MAX)


def usable_cores(quota: Path = _QUOTA) -> int:
    """The cores that this process may use: its affinity, and a container's limit (cgroup v2) rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # there is none, or it says max
        allowed_us, period_us = map(int, quota.read_text().split())
        cores = min(cores, max(-(-allowed_us // period_us), 1))
    return cores
