"""When requests are due, in seconds from the start: evenly, at random, or in bursts. The same seed, the same times."""

from __future__ import annotations

import random

EVEN, POISSON, BURSTY = "even", "poisson", "bursty"
# Bursts: so long at a higher rate, then as long at a lower one; the mean is what was asked for.
PHASE_S = 0.2
HIGH, LOW = 1.8, 0.2


def times(process: str, rate: float, seconds: float, seed: int = 0) -> list[float]:
    """All that are due within `seconds`, in order. Raises ValueError for a process that is none."""
    if process == EVEN:
        return [number / rate for number in range(int(rate * seconds))]
    if process == POISSON:
        return _poisson(random.Random(seed), rate, 0.0, seconds)  # noqa: S311 - arrivals, not secrets
    if process != BURSTY:
        raise ValueError(f"no arrivals are called {process}")
    random_ = random.Random(seed)  # noqa: S311
    found: list[float] = []
    phases = max(round(seconds / PHASE_S), 1)
    first = random_.randrange(2)
    for number in range(phases):
        factor = HIGH if (number + first) % 2 else LOW
        found += _poisson(random_, rate * factor, number * PHASE_S, min((number + 1) * PHASE_S, seconds))
    return found


def _poisson(random_: random.Random, rate: float, start: float, end: float) -> list[float]:
    found, at = [], start
    while (at := at + random_.expovariate(rate)) < end:
        found.append(at)
    return found
