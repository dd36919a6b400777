"""What was measured, as text, Markdown and JSON. Owns medians, ranges, targets and the tables.

Knows nothing of how anything is measured.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.targets import Measurement, Usage

COLUMNS = (
    "requests_per_s", "p50_ms", "p99_ms", "cpu_ms_per_request", "mean_batch", "errors", "others_cpu_percent",
)  # fmt: skip
HEADINGS = ("what", "c", "{}/s", "p50 ms", "p99 ms", "CPU ms/{}", "mean batch", "errors")


@dataclass(frozen=True)
class Leg:
    """One thing measured in one way, once a round. concurrency: connections, each with one request under way.

    is_ours: its errors are ours to answer for.
    """

    name: str
    concurrency: int | None
    rounds: Sequence[Measurement]
    is_ours: bool = True

    def values(self, column: str) -> list[float]:
        """One column of all rounds; empty where it does not apply."""
        return [value for one in self.rounds if (value := getattr(one, column)) is not None]

    def to_json(self) -> dict[str, Any]:
        """The rounds with the median and range of each column."""
        columns = {column: self.values(column) for column in COLUMNS}
        return {
            "name": self.name,
            "concurrency": self.concurrency,
            "median": {column: statistics.median(values) for column, values in columns.items() if values},
            "range": {column: [min(values), max(values)] for column, values in columns.items() if values},
            "rounds": [asdict(one) for one in self.rounds],
        }


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Where the median lies, with a confidence of 95 % or more and whatever the distribution; None for fewer than 6.

    A value is as likely above the true median as below it, so a coin says how many may lie on one side of it by chance.
    """
    ordered, beyond = sorted(values), 0
    tail = 0.5 ** len(ordered)  # the chance that so many values are beyond it, or fewer
    while tail <= 0.025:
        beyond += 1
        tail += math.comb(len(ordered), beyond) * 0.5 ** len(ordered)
    return (ordered[beyond - 1], ordered[-beyond]) if beyond else None


@dataclass(frozen=True)
class Comparison:
    """A figure that has a target, once for each round; its median counts. `limit` None: for information only.

    confidence: say where the median lies, rather than the lowest and the highest.
    """

    what: str
    values: Sequence[float]
    unit: str
    limit: float | None = None
    at_least: bool = False
    confidence: bool = False

    @property
    def is_met(self) -> bool | None:
        """None without a target."""
        if self.limit is None:
            return None
        value = statistics.median(self.values)
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        text = f"{self.what}: {_short(statistics.median(self.values))}{self.unit}"
        if self.confidence and (ends := interval(self.values)):
            text += f" (95 % interval {_short(ends[0])} to {_short(ends[1])})"
        elif len(self.values) > 1:
            text += f" ({_short(min(self.values))} to {_short(max(self.values))})"
        if self.limit is None:
            return text
        bound = "at least" if self.at_least else "at most"
        return f"{text}, target {bound} {self.limit:,g}{self.unit}: {'met' if self.is_met else 'MISSED'}"

    def to_json(self) -> dict[str, Any]:
        """As the fields, with median, the interval around it, and verdict."""
        median = statistics.median(self.values)
        return {**asdict(self), "median": median, "interval": interval(self.values), "met": self.is_met}


@dataclass
class Report:
    """Everything of one run. `unit`: what one request is. facts: figures with no table of their own, by name.

    tables: further ones, heading first. data: what goes into the JSON alone.
    """

    title: str
    unit: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    legs: list[Leg] = field(default_factory=list)
    usage: dict[str, Usage] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def errors(self) -> int:
        """Requests without their answer, of all legs that are ours."""
        return sum(one.errors for leg in self.legs if leg.is_ours for one in leg.rounds)

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "title": self.title,
            "machine": self.machine,
            "settings": self.settings,
            "errors": self.errors,
            "legs": [leg.to_json() for leg in self.legs],
            "processes": {role: asdict(usage) for role, usage in self.usage.items()},
            "facts": self.facts,
            "comparisons": [one.to_json() for one in self.comparisons],
            "notes": self.notes,
            **self.data,
        }

    def to_text(self) -> str:
        """For a terminal."""
        tables = "\n\n".join(_aligned(rows) for rows in self._tables())
        return f"{self.title}\n{self._about()}\n\n{tables}\n\n{_lines('', self._remarks())}"

    def to_markdown(self) -> str:
        """For the README."""
        tables = "\n\n".join(_markdown(rows) for rows in self._tables())
        return f"{self._about()}\n\n{tables}\n\n{_lines('- ', self._remarks())}"

    def _about(self) -> str:
        machine, settings = self.machine, self.settings
        return (
            f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}, "
            f"TensorFlow {machine['tensorflow']}, {machine['date'][:10]}; load average before: "
            f"{machine['load_average']}. Medians of {settings['rounds']} interleaved rounds of {settings['seconds']} s "
            "a leg (lowest to highest in brackets). The load generator shares the cores with what it loads."
        )

    def _remarks(self) -> list[str]:
        facts = [f"{name.replace('_', ' ')}: {value}" for name, value in self.facts.items()]
        divided = [_divided(leg) for leg in self.legs if leg.rounds[0].cpu_ms_by_role]
        others = [value for leg in self.legs for value in leg.values("others_cpu_percent")]
        remarks = [*map(str, self.comparisons), *facts, *divided, *self.notes]
        if others:
            remarks.append(
                f"other processes' share of the cores: {statistics.median(others):.0f} % in the median leg, "
                f"{max(others):.0f} % in the worst"
            )
        return remarks

    def _tables(self) -> list[list[list[str]]]:
        legs = [[heading.format(self.unit) for heading in HEADINGS], *map(_row, self.legs)]
        usage = [
            [role, str(one.processes), f"{one.pss_mb:.0f}", f"{one.rss_mb:.0f}", f"{one.idle_cpu_percent:.1f}"]
            for role, one in self.usage.items()
        ]
        heading = ["server, after the load", "processes", "PSS MB", "RSS MB", "idle CPU %"]
        return [table for table in (legs, [heading, *usage], *self.tables) if len(table) > 1]


def _short(value: float) -> str:
    """Two places, none where there are thousands."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


def _row(leg: Leg) -> list[str]:
    def median(column: str, places: int) -> str:
        values = leg.values(column)
        return f"{statistics.median(values):,.{places}f}" if values else "-"

    rates = leg.values("requests_per_s")
    places = 0 if min(rates) >= 1000 else 1  # four digits are enough of any figure
    spread = f" ({min(rates):,.{places}f} to {max(rates):,.{places}f})" if len(rates) > 1 else ""
    return [
        leg.name,
        "-" if leg.concurrency is None else str(leg.concurrency),
        median("requests_per_s", places) + spread,
        median("p50_ms", 2),
        median("p99_ms", 2),
        median("cpu_ms_per_request", 3),
        median("mean_batch", 1),
        str(sum(one.errors for one in leg.rounds)),
    ]


def _divided(leg: Leg) -> str:
    roles = leg.rounds[0].cpu_ms_by_role
    medians = {role: statistics.median(one.cpu_ms_by_role.get(role, 0.0) for one in leg.rounds) for role in roles}
    parts = ", ".join(f"{role} {value:.3f}" for role, value in medians.items())
    at = "" if leg.concurrency is None else f", c={leg.concurrency}"
    return f"CPU ms by role, {leg.name}{at}: {parts}"


def _aligned(rows: list[list[str]]) -> str:
    """The first column to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [
            text.rjust(width) if place else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _markdown(rows: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def _lines(start: str, remarks: Sequence[str]) -> str:
    return "\n".join(f"{start}{remark}" for remark in remarks)
