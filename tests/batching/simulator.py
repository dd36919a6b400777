"""A worker in simulated time: the real Schedule, and the policies of others, on the same arrivals and the same costs.

`python -m tests.batching.simulator` prints the table of goodput (answers within the deadline over all arrivals), the
median wait of those, and how busy the model was.

Left out: what the fronts and the sockets cost, and more workers than one.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median
from typing import NamedTuple, Protocol

from batching.cost import Cost
from batching.errors import Failure, QueueFull
from batching.queue import Item, ModelQueue
from batching.schedule import Line, Schedule

BATCH_MAX = 32
DEADLINE_S = 0.1
NOISE = 0.1
PHASE_S = 0.2


@dataclass(frozen=True)
class Model:
    """A model whose batch of k rows takes fixed_s + k * row_s."""

    name: str
    fixed_s: float
    row_s: float
    limit: int = BATCH_MAX

    def seconds(self, rows: int) -> float:
        return self.fixed_s + rows * self.row_s

    @property
    def rate(self) -> float:
        """Rows/s at best."""
        return self.limit / self.seconds(self.limit)


A = Model("A", 0.010, 0.0005)
B = Model("B", 0.002, 0.003)


@dataclass(slots=True, eq=False)
class Request:
    """One request, and what came of it: answered at that time, or given up (then `answered` is infinite)."""

    at: float
    deadline: float
    model: int = 0
    rows: int = 1
    answered: float = inf
    refused: float = inf
    failure: Failure | None = None
    left: int = 0  # rows that have not run

    @property
    def good(self) -> bool:
        return self.answered <= self.deadline


class Batch(NamedTuple):
    """What a policy wants to run now. rows: as many as the model computes, padding counted."""

    requests: list[Request]
    model: int
    rows: int


class Policy(Protocol):
    """What decides. `next` says what to run, or when to ask again (infinite: only when something comes)."""

    def arrive(self, request: Request, now: float, busy_until: float | None) -> None: ...

    def next(self, now: float) -> Batch | float: ...

    def expected_s(self, batch: Batch) -> float: ...

    def ran(self, batch: Batch, seconds: float, now: float) -> None: ...


class Ours:
    """The real Schedule, as the worker drives it: an item of more rows than the best batch goes in slice by slice."""

    def __init__(self, models: Sequence[Model], rng: random.Random, max_wait_s: float = 0.0) -> None:
        self.schedule = Schedule()
        self.lines = []
        for place, model in enumerate(models):
            sizes = {1 << power for power in range(model.limit.bit_length())} | {model.limit}
            # Warm-up takes the least of some calls.
            measured = {size: min(noisy(model.seconds(size), rng) for _ in range(3)) for size in sizes}
            queue = ModelQueue(8192, 1 << 28)
            self.lines.append(Line(place, queue, Cost(measured, model.limit), max_wait_s))
        self._items: list[Item] = []

    def arrive(self, request: Request, now: float, busy_until: float | None) -> None:
        line = self.lines[request.model]
        request.left = request.rows
        try:
            self.schedule.offer(line, self._slice(request, line), now, busy_until)
        except QueueFull:
            request.refused = now
            request.failure = Failure.QUEUE_FULL

    def next(self, now: float) -> Batch | float:
        work = self.schedule.next(now)
        for line, item, failure in work.dropped:
            assert line.owner == item.sender.model
            item.sender.refused = now
            item.sender.failure = failure
        if work.line is None or not work.items:
            return work.until
        self._items = work.items
        return Batch([item.sender for item in work.items], work.line.owner, sum(item.rows for item in work.items))

    def expected_s(self, batch: Batch) -> float:
        return self.lines[batch.model].cost.expected_s(batch.rows)

    def ran(self, batch: Batch, seconds: float, now: float) -> None:
        line = self.lines[batch.model]
        self.schedule.ran(line, batch.rows, seconds)
        for item in self._items:
            item.sender.left -= item.rows
            if item.sender.left:
                self.schedule.put_back(line, self._slice(item.sender, line))
            else:
                item.sender.answered = now

    @staticmethod
    def _slice(request: Request, line: Line) -> Item:
        return Item(request, 0, min(request.left, line.best), b"", b"", request.at, request.deadline)


class Timer:
    """What most do: run when the batch is full or its oldest has waited so long. One model.

    drops: what has expired is not run. sizes: batches are padded up to the next of these, where given.
    """

    def __init__(self, model: Model, wait_s: float, *, drops: bool = False, sizes: Sequence[int] = ()) -> None:
        self._model = model
        self._wait_s = wait_s
        self._drops = drops
        self._sizes = sizes
        self._waiting: deque[Request] = deque()

    def arrive(self, request: Request, now: float, busy_until: float | None) -> None:
        self._waiting.append(request)

    def next(self, now: float) -> Batch | float:
        waiting = self._waiting
        while self._drops and waiting and waiting[0].deadline <= now:
            waiting.popleft()
        if not waiting:
            return inf
        close_at = waiting[0].at + self._wait_s
        if len(waiting) < self._model.limit and now < close_at:
            return close_at
        batch = [waiting.popleft() for _ in range(min(len(waiting), self._model.limit))]
        rows = next((size for size in self._sizes if size >= len(batch)), len(batch))
        return Batch(batch, 0, rows)

    def expected_s(self, batch: Batch) -> float:
        return self._model.seconds(batch.rows)

    def ran(self, batch: Batch, seconds: float, now: float) -> None:
        for request in batch.requests:
            request.answered = now


class Cork(Timer):
    """BentoML's dispatcher, told the true cost and the true deadline: it holds back while a tick costs less than the
    wait that is usual, and cancels heads while the whole line would not be done in time.
    """

    TICK_S = 0.001
    DECAY = 0.95

    def __init__(self, model: Model, deadline_s: float) -> None:
        super().__init__(model, 0.0)
        self._deadline_s = deadline_s
        self._waits: deque[float] = deque([0.0], maxlen=50)

    def next(self, now: float) -> Batch | float:
        waiting, model = self._waiting, self._model
        while waiting:
            count, oldest_s = len(waiting), now - waiting[0].at
            if count > 1 and oldest_s + model.seconds(count) >= self._deadline_s:
                waiting.popleft()
                continue
            newest_s = now - waiting[-1].at
            usual_s = sum(self._waits) / len(self._waits)
            if count < model.limit and count * (newest_s + self.TICK_S + model.row_s) <= usual_s * self.DECAY:
                return now + self.TICK_S
            self._waits.append(oldest_s)
            return super().next(now)
        return inf


def noisy(seconds: float, rng: random.Random) -> float:
    """About so much: log-normal, 10 %."""
    return seconds * rng.lognormvariate(0.0, NOISE)


def simulate(policy: Policy, arrivals: Sequence[Request], models: Sequence[Model], rng: random.Random) -> float:
    """Run it to the end; what came of each request is in it. Returns the seconds that the models computed."""
    now, place, busy_s = 0.0, 0, 0.0
    while True:
        if place < len(arrivals) and arrivals[place].at <= now:
            policy.arrive(arrivals[place], now, None)
            place += 1
            continue
        todo = policy.next(now)
        if isinstance(todo, float):
            now = min(todo, arrivals[place].at if place < len(arrivals) else inf)
            if now == inf:
                return busy_s
            continue
        seconds = noisy(models[todo.model].seconds(todo.rows), rng)
        busy_until, end = now + policy.expected_s(todo), now + seconds
        while place < len(arrivals) and arrivals[place].at <= end:
            policy.arrive(arrivals[place], arrivals[place].at, busy_until)
            place += 1
        busy_s += seconds
        now = end
        policy.ran(todo, seconds, now)


def poisson(rate: float, count: int, rng: random.Random) -> list[float]:
    """Times of arrival."""
    now, times = 0.0, []
    for _ in range(count):
        now += rng.expovariate(rate)
        times.append(now)
    return times


def bursty(rate: float, count: int, rng: random.Random) -> list[float]:
    """1.8 and 0.2 times the rate in turns, for 0.2 s in the mean."""
    now, on, until = 0.0, True, rng.expovariate(1 / PHASE_S)
    times: list[float] = []
    while len(times) < count:
        now += rng.expovariate(rate * (1.8 if on else 0.2))
        if now > until:  # arrivals have no memory, so the next phase begins where this one ended
            now, on = until, not on
            until = now + rng.expovariate(1 / PHASE_S)
        else:
            times.append(now)
    return times


PATTERNS: dict[str, Callable[[float, int, random.Random], list[float]]] = {"Poisson": poisson, "bursty": bursty}
POWERS = tuple(1 << power for power in range(6))
POLICIES: dict[str, Callable[[Model, random.Random], Policy]] = {
    "no wait, no deadline, unbounded": lambda model, rng: Timer(model, 0.0),
    "no wait, padded to powers of two": lambda model, rng: Timer(model, 0.0, sizes=POWERS),
    "no wait, expired dropped": lambda model, rng: Timer(model, 0.0, drops=True),
    "5 ms wait, expired dropped": lambda model, rng: Timer(model, 0.005, drops=True),
    "10 ms wait, expired dropped": lambda model, rng: Timer(model, 0.010, drops=True),
    "30 ms wait, expired dropped": lambda model, rng: Timer(model, 0.030, drops=True),
    "cork, told cost and deadline": lambda model, rng: Cork(model, DEADLINE_S),
    "this server": lambda model, rng: Ours([model], rng),
}
LOADS = (0.5, 0.9, 1.3)


class Result(NamedTuple):
    """goodput and busy as fractions; p50_s of what was answered in time, and of how soon the refused were told."""

    goodput: float
    p50_s: float
    busy: float
    told_s: float


def trial(
    make: Callable[[Model, random.Random], Policy], model: Model, pattern: str, load: float, *, count: int, seed: int
) -> Result:
    """One policy, one model, one pattern: the same arrivals for every policy with the same seed."""
    times = PATTERNS[pattern](load * model.rate, count, random.Random(seed))
    requests = [Request(at, at + DEADLINE_S) for at in times]
    rng = random.Random(seed + 1)
    busy_s = simulate(make(model, rng), requests, [model], rng)
    return result(requests, busy_s)


def result(requests: Sequence[Request], busy_s: float) -> Result:
    """The figures of one run."""
    good = [one.answered - one.at for one in requests if one.good]
    told = [one.refused - one.at for one in requests if one.refused < inf]
    ended = max([one.at for one in requests] + [one.answered for one in requests if one.answered < inf])
    return Result(
        len(good) / len(requests),
        median(good) if good else inf,
        busy_s / ended,
        median(told) if told else 0.0,
    )


def table(count: int, seeds: Sequence[int]) -> str:
    """Markdown: the median of the seeds for each policy, model, pattern and load."""
    lines = []
    for load in LOADS:
        lines += [
            "",
            f"Load {load}: goodput % / p50 ms / model busy %",
            "",
            "| policy | A Poisson | A bursty | B Poisson | B bursty |",
            "|---|---|---|---|---|",
        ]
        for name, make in POLICIES.items():
            cells = []
            for model in (A, B):
                for pattern in PATTERNS:
                    runs = [trial(make, model, pattern, load, count=count, seed=seed) for seed in seeds]
                    goodput, p50_s, busy, _ = (median(figures) for figures in zip(*runs, strict=True))
                    cells.append(f"{goodput:.1%} / {p50_s * 1000:.0f} / {busy:.0%}".replace("%", ""))
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines[1:])


if __name__ == "__main__":
    sys.stdout.write(table(count=20_000, seeds=(1, 2, 3)) + "\n")
