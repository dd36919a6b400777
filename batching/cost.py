"""What batches of one model cost: what warm-up measured, corrected by what real batches take.

Owns the learning and what follows from it: how long a batch will take, which size is worth aiming at, whether padding
pays. Knows no clock, no queue and no model.

1. The sizes are the powers of two up to the limit, and the limit. Between two of them the cost is a straight line
   times what was seen to lie between; it never falls as rows grow.
2. All sizes together go slower or faster than they did at warm-up (the drift, the median of the last few batches): a
   single freeze changes nothing, and three quick batches of any size end what a slow phase has taught about all.
3. One size against the others (the shape) is learned slowly, from many batches, and half the way at a time; so the
   drift does not get into it.
4. A size that was never measured is a guess until a few batches have run; nothing is refused on guesses alone (`sure`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from math import inf, sqrt
from typing import NamedTuple

# What a row of a model that could not be warmed up is thought to take.
COLD_S = 0.01
# The least a batch can take; divides safely.
LEAST_S = 1e-6
# Batches whose times say how a model goes now.
RECENT = 5
# Batches of one size that correct what was measured for it, and that replace a guess.
ENOUGH = 16
FEW = 3
# After so many corrections of a size (about 1,000 batches), what lies below it is tried unpadded again.
FORGOTTEN = 64
# A larger size is run instead only where it is cheaper by so much; measurements are off by a tenth or two.
CLEARLY = 1.25
# Rows/s may be so much below the best for the sake of a smaller batch.
TOLERANCE = 0.05
# What a batch costs the worker beside the call.
AROUND_S = 0.00005
# Where the largest that was measured is the best, one so much larger is tried; and so many rows while nothing is known.
REACH, COLD_ROWS = 2, 64
PLANS_MAX = 4096


class Plan(NamedTuple):
    """A number of rows: its cost but for the drift (as it is, and before it was bounded by its neighbours'), the place
    of its size or the next larger one, whether it is that size, and how many rows to run for it.
    """

    seconds: float
    straight_s: float
    place: int
    exact: bool
    padded: int


class Cost:
    """One model's. measured: rows -> seconds, from warm-up, may be empty. limit: rows in one call at the most."""

    def __init__(self, measured: Mapping[int, float], limit: int) -> None:
        self.limit = limit
        powers = {1 << power for power in range(limit.bit_length())}
        self._sizes = sorted(size for size in powers | {limit} | set(measured) if size <= limit)
        places = {size: place for place, size in enumerate(self._sizes)}
        self._known = {places[size]: max(seconds, LEAST_S) for size, seconds in measured.items() if size in places}
        count = len(self._sizes)
        self._own: list[list[float]] = [[] for _ in range(count)]
        self._inner: list[list[float]] = [[] for _ in range(count)]
        self._above_line: list[float | None] = [None] * count  # what lies below a size, over the straight line
        self._age = [0] * count
        self._drift = 1.0
        self._ratios: deque[float] = deque([1.0], maxlen=RECENT)
        # What is tried when the batch to aim at is chosen: rows, the place of its size or the next larger one, and how
        # much of the way there from the one below. Some 70, each time that a cost is corrected.
        self._tried = [
            (rows, *self._place(rows)) for rows in sorted({*range(1, limit + 1, max(limit // 64, 1)), *places})
        ]
        self._shape()

        self._best: int = min(limit, COLD_ROWS)

    @property
    def sure(self) -> bool:
        """Whether anything was measured at all."""
        return bool(self._known)

    def expected_s(self, rows: int) -> float:
        """Seconds that a batch of so many rows will take."""
        plan = self._plans.get(rows) or self._plan(rows)
        return plan.seconds * self._drift

    def padded(self, rows: int) -> int:
        """How many rows to run for `rows`: themselves, unless a larger measured size is clearly cheaper."""
        plan = self._plans.get(rows) or self._plan(rows)
        return plan.padded

    def learn(self, rows: int, seconds: float) -> None:
        """A real batch of so many rows (padding counted) took so long."""
        plan = self._plans.get(rows) or self._plan(rows)
        drift, ratios, place = self._drift, self._ratios, plan.place
        ratio = max(seconds, 1e-9) / plan.seconds
        if place not in self._known:  # against a guess: that says nothing of the drift
            own = self._own[place]
            own.append(ratio * self._at[place] / drift)
            if len(own) >= FEW:
                self._known[place] = max(_median(own), LEAST_S)
                own.clear()
                self._shape()
            return
        ratios.append(ratio)
        self._drift = sorted(ratios)[len(ratios) // 2]
        if plan.exact:
            own = self._own[place]
            own.append(ratio / drift)
            if len(own) >= ENOUGH:
                self._correct(place)
        else:
            inner = self._inner[place]
            inner.append(max(seconds, 1e-9) / plan.straight_s / drift)
            if len(inner) >= ENOUGH:
                self._above_line[place] = (self._above_line[place] or 1.0) * sqrt(_median(inner))
                inner.clear()
                self._shape()

    def best_rows(self, budget_s: float) -> int:
        """The batch to aim at when many wait and each has `budget_s` from arrival to answer.

        Of batches of k rows in l(k) seconds, k / l(k) rows/s are done; but of those that arrive at the model's best
        rate R while one runs, only what came within budget_s - l(k) of its end can still be answered by the next. So
        the best k makes min(k, R (budget_s - l(k))) / l(k) greatest. (Where k = R l(k) that is the known bound 2 l(k)
        <= budget_s; a model with a large fixed cost would lose most of its rate to that bound.)
        """
        room = budget_s / self._drift
        if not self._room[0] <= room < self._room[1]:
            self._choose_best(room)
        return self._best

    def _choose_best(self, room: float) -> None:
        if not self._known:
            self._best, self._room = min(self.limit, COLD_ROWS), (0.0, inf)
            return
        at, above_line, known = self._at, self._above_line, self._sizes[max(self._known)]
        seconds: dict[int, float] = {}
        for rows, place, part in self._tried:
            if rows > known:
                break
            high = at[place]
            if part < 1.0:
                low = at[place - 1]
                straight = (low + (high - low) * part) * (above_line[place] or 1.0)
                high = min(max(straight, low), high)
            seconds[rows] = high + AROUND_S
        rates = {rows: rows / cost for rows, cost in seconds.items()}
        top = max(rates.values())
        good = {rows: min(rows, top * (room - cost)) / cost for rows, cost in seconds.items()}
        best = max(good, key=lambda rows: (good[rows], rows))
        # Of the sizes, a smaller one is better where rates are about equal: it takes less memory, and all hear sooner.
        enough = (1 - TOLERANCE) * good[best]
        least = min((size for size in self._sizes if rates.get(size, 0.0) >= (1 - TOLERANCE) * top), default=best)
        if least == known:  # more seems to pay: try it
            least = min(self.limit, REACH * known)
            seconds[least] = self._plan(least).seconds
        needed = seconds[least] + least / top
        if room >= needed or good[best] <= 0:  # the time left does not bind, or nothing can be done in time anyway
            self._best = least
            self._room = (needed, inf) if room >= needed else (0.0, min(seconds.values()))
        else:
            free = [rows for rows in rates if rates[rows] == good[rows] >= enough]
            self._best = max(free, default=best)
            self._room = (room * 0.95, min(room * 1.05, needed))

    def _plan(self, rows: int) -> Plan:
        sizes, at = self._sizes, self._at
        if rows >= self.limit:
            seconds = at[-1] * rows / self.limit
            plan = Plan(seconds, seconds, len(sizes) - 1, True, rows)
        else:
            place, part = self._place(rows)
            if part == 1.0:
                plan = Plan(at[place], at[place], place, True, rows)
            else:
                low, high = at[place - 1], at[place]
                above = self._above_line[place]
                straight = (low + (high - low) * part) * (above or 1.0)
                pays = above is not None and straight > high * CLEARLY
                padded = sizes[place] if pays else rows
                plan = Plan(min(max(straight, low), high), straight, place, False, padded)
        if len(self._plans) >= PLANS_MAX:
            self._plans.clear()
        self._plans[rows] = plan
        return plan

    def _place(self, rows: int) -> tuple[int, float]:
        """The place of its size or the next larger one, and how much of the way there from the one below."""
        sizes = self._sizes
        place = bisect_left(sizes, rows)
        if place == 0 or sizes[place] == rows:  # nothing is less than one row
            return place, 1.0
        return place, (rows - sizes[place - 1]) / (sizes[place] - sizes[place - 1])

    def _correct(self, place: int) -> None:
        """Half the way on a logarithmic scale: two sizes that are each other's drift then meet instead of swinging."""
        own = self._own[place]
        self._known[place] = max(self._known[place] * sqrt(_median(own)), LEAST_S)
        own.clear()
        self._age[place] += 1
        if self._age[place] >= FORGOTTEN:
            self._age[place] = 0
            self._above_line[place] = None
        self._shape()

    def _shape(self) -> None:
        """What each size costs: what is known, and guesses on the straight line through the two nearest."""
        sizes, known = self._sizes, sorted(self._known)
        at = [0.0] * len(sizes)
        for place, size in enumerate(sizes):
            if place in self._known:
                at[place] = self._known[place]
            elif not known:
                at[place] = COLD_S * size
            elif place < known[0]:
                at[place] = self._known[known[0]]
            elif len(known) == 1:
                at[place] = self._known[known[0]] * size / sizes[known[0]]
            else:
                next_ = min(bisect_left(known, place), len(known) - 1)
                low, high = known[next_ - 1], known[next_]
                slope = max(self._known[high] - self._known[low], 0.0) / (sizes[high] - sizes[low])
                at[place] = self._known[low] + slope * (size - sizes[low])
        # Measurements err upwards, when something else had the processor: so what a larger batch took bounds a smaller.
        for place in reversed(range(len(at) - 1)):
            at[place] = min(at[place], at[place + 1])
        self._at = at
        self._plans: dict[int, Plan] = {}
        self._room = (inf, 0.0)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
