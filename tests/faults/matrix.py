"""What the fault matrix was measured to be: one line for each figure, written by the test run itself.

Owns the table. Knows nothing of faults; which rows belong to it is said here, and a full run shows those without one.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ROWS = {
    1: "worker kill -9, idle",
    2: "worker kill -9 in a batch",
    3: "random kills under 16 clients",
    4: "worker aborts on one input",
    5: "model cannot be loaded at respawn",
    6: "worker SIGSTOP",
    7: "model loops for ever holding the GIL",
    8: "worker runs out of memory",
    9: "worker leaks",
    10: "supervisor kill -9",
    11: "supervisor and its helpers kill -9 together",
    12: "Ctrl-C or SIGTERM to the whole group",
    13: "1 poison item in a batch of 32",
    14: "8 and 32 poison items of 32",
    15: "NaN, wrong count, wrong type from the model",
    16: "10 times the load",
    17: "deadline passes in the queue",
    18: "client gone before batching",
    19: "client gone while computing",
    20: "1,000 slow-header connections",
    21: "slow body, slow reader",
    22: "10,000 idle connections",
    23: "file descriptors run out",
    24: "1,100 connections",
    25: "body over the limit",
    26: "endless chunk line, trailer, extension",
    27: "Content-Length lies",
    28: "random time-outs and 30 % bad bodies",
    29: "JSON bombs",
    30: "image bombs",
    41: "SIGTERM under load",
    42: "SIGTERM with a stuck worker, without database, twice",
    43: "reload under load",
    44: "the clock steps",
    45: "read-only root, no temporary folder, no /dev/shm",
}


class Figure(NamedTuple):
    """What one test measured, beside its goal. test: its node id."""

    row: int
    goal: str
    measured: str
    test: str


class Matrix:
    """All figures of a run, and which of its tests have failed."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self.failed: set[str] = set()

    def markdown(self, *, whole: bool) -> str:
        """The table. whole: every row was to be measured, so that those without a figure are missing."""
        lines = ["| row | fault | goal | measured | passed |", "|---|---|---|---|---|"]
        for row in sorted(ROWS.keys() | {figure.row for figure in self.figures}):
            figures = [figure for figure in self.figures if figure.row == row]
            fault = ROWS.get(row, "")
            for one in figures:
                passed = "no" if one.test in self.failed else "yes"
                lines.append(f"| {row} | {fault} | {_cell(one.goal)} | {_cell(one.measured)} | {passed} |")
            if whole and not figures:
                lines.append(f"| {row} | {fault} | | missing | no |")
        return "\n".join(lines) + "\n"

    def write(self, path: Path, *, whole: bool) -> str:
        """The table, also in a file."""
        text = self.markdown(whole=whole)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
