"""The batching matrix: what each setting reached in each cell, and whether that is as good as the best fixed setting.

Pure: knows nothing of how anything is measured.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report import interval

OURS = "ours"
GOODPUT, P99 = "goodput", "p99_ms"
# So much worse is noise whatever the interval says: a share of all requests, and a share of the best p99.
GOODPUT_SLACK, P99_SLACK = 0.01, 0.05


@dataclass(frozen=True)
class Seen:
    """One leg. goodput: answers within the deadline, of all requests that were due."""

    goodput: float
    p99_ms: float


@dataclass(frozen=True)
class Cell:
    """One model, load (of capacity) and arrival process; each setting's legs, in pairs by round."""

    model: str
    load: float
    arrivals: str
    legs: dict[str, list[Seen]]

    @property
    def name(self) -> str:
        """For a table."""
        return f"{self.model}, {self.load:g}, {self.arrivals}"

    def values(self, setting: str, figure: str) -> list[float]:
        """A figure of all rounds."""
        return [getattr(one, figure) for one in self.legs[setting]]

    def median(self, setting: str, figure: str) -> float:
        """The one that counts."""
        return statistics.median(self.values(setting, figure))

    def best(self, figure: str) -> str:
        """The fixed setting with the best median."""
        fixed = [setting for setting in self.legs if setting != OURS]
        pick = max if figure == GOODPUT else min
        return pick(fixed, key=lambda setting: self.median(setting, figure))

    def is_as_good(self, setting: str, figure: str) -> bool:
        """Whether it is within noise of the best fixed setting.

        It is where the 95 % interval of the difference, round by round, reaches the best, or the median is hardly
        worse. With too few rounds for an interval, their range stands for it.
        """
        best = self.best(figure)
        pairs = zip(self.values(setting, figure), self.values(best, figure), strict=True)
        worse = [theirs - mine if figure == GOODPUT else mine - theirs for mine, theirs in pairs]
        slack = GOODPUT_SLACK if figure == GOODPUT else P99_SLACK * self.median(best, figure)
        least = (interval(worse) or (min(worse), max(worse)))[0]
        return least <= 0 or statistics.median(worse) <= slack

    def is_as_good_in_both(self, setting: str) -> bool:
        """Goodput and p99."""
        return self.is_as_good(setting, GOODPUT) and self.is_as_good(setting, P99)

    def to_json(self) -> dict[str, Any]:
        """Medians and verdicts of each setting, and the best fixed ones."""
        return {
            "model": self.model,
            "load": self.load,
            "arrivals": self.arrivals,
            "best": {figure: self.best(figure) for figure in (GOODPUT, P99)},
            "settings": {
                setting: {
                    figure: {
                        "median": self.median(setting, figure),
                        "values": self.values(setting, figure),
                        "within_noise": self.is_as_good(setting, figure),
                    }
                    for figure in (GOODPUT, P99)
                }
                for setting in self.legs
            },
        }


def good_in(cells: Sequence[Cell]) -> Counter[str]:
    """In how many cells each setting is as good as the best fixed one."""
    return Counter({setting: sum(cell.is_as_good_in_both(setting) for cell in cells) for setting in cells[0].legs})


def tables(cells: Sequence[Cell]) -> list[list[list[str]]]:
    """Cell by cell, and setting by setting."""
    heading = ["model, load, arrivals", "goodput %", "best fixed", "", "p99 ms", "best fixed", "", "within noise"]
    rows = [heading]
    for cell in cells:
        best, quickest = cell.best(GOODPUT), cell.best(P99)
        rows.append(
            [
                cell.name,
                _told(cell.values(OURS, GOODPUT), 100),
                _told(cell.values(best, GOODPUT), 100),
                best,
                _told(cell.values(OURS, P99), 1),
                _told(cell.values(quickest, P99), 1),
                quickest,
                "yes" if cell.is_as_good_in_both(OURS) else "NO",
            ]
        )
    counts = good_in(cells)
    of_all = [["setting", f"of {len(cells)} cells, within noise of the best fixed setting"]]
    return [rows, [*of_all, *([setting, str(count)] for setting, count in counts.most_common())]]


def _told(values: Sequence[float], factor: float) -> str:
    low, high = interval(values) or (min(values), max(values))
    return f"{statistics.median(values) * factor:.1f} ({low * factor:.1f} to {high * factor:.1f})"
