"""What the commands say: tables and JSON on stdout, progress and complaints on stderr; colour on a terminal only.

Knows nothing of what is said.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from commands.exits import WRONG

# What is over sooner needs no bar.
QUIET_S = 1.0
LINE_EVERY_S = 10.0


class Complaint(Exception):
    """Why a command cannot do its work, in one line for the operator. code: the exit code."""

    def __init__(self, text: str, code: int = WRONG) -> None:
        super().__init__(text)
        self.code = code


def say_json(value: Any, *, in_lines: bool = False) -> None:
    """A value for machines, in one piece; in_lines: one of several, on a line of its own."""
    print(json.dumps(value, indent=None if in_lines else 2, ensure_ascii=False), flush=in_lines)


def complain(text: str) -> None:
    """One line on stderr, whatever characters are in it."""
    print(f"inference_server: {' '.join(text.split())}", file=sys.stderr, flush=True)


class Page:
    """Lines and aligned columns on stdout."""

    def __init__(self) -> None:
        self._console = Console(markup=False, highlight=False, emoji=False)

    def heading(self, text: str) -> None:
        self._print(Text(text, style="bold"))

    def clear(self) -> None:
        """Begin at the top of a terminal; nothing where there is none."""
        if self._console.is_terminal:
            self._console.clear()

    def rows(self, rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> None:
        """Aligned columns, indented; `styles` colours the first column, row by row."""
        if not rows:
            return
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for index, row in enumerate(rows):
            cells = [Text(cell.ljust(width)) for cell, width in zip(row, widths, strict=True)]
            cells[0].stylize(styles[index] if styles else "")
            line = Text("  ") + Text("  ").join(cells)
            line.rstrip()
            self._print(line)

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)  # a pipe has no edge at which to fold, a terminal folds by itself


class Bar:
    """A progress bar on stderr, if that is a terminal and the work takes over a second."""

    def __init__(self) -> None:
        self._show_at = time.monotonic() + QUIET_S
        self._progress: Progress | None = None
        self._is_terminal = sys.stderr.isatty()

    def done(self, amount: float, words: str, total: float | None) -> None:
        """So much of the total is done; `words` say what."""
        if not self._is_terminal or time.monotonic() < self._show_at:
            return
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._progress.add_task(words)
            self._progress.start()
        self._progress.update(self._task, completed=amount, total=total, description=words)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()


@contextmanager
def waiting(words: str) -> Iterator[None]:
    """Something turns on stderr, if that is a terminal, while the block takes over a second."""
    if not sys.stderr.isatty():
        yield
        return
    status = Console(stderr=True).status(Text(words))
    shown = threading.Timer(QUIET_S, status.start)
    shown.start()
    try:
        yield
    finally:
        shown.cancel()
        shown.join()
        status.stop()


def share_bar(share: float, width: int = 30) -> str:
    """A bar for a value between 0 and 1."""
    return "█" * round(max(0.0, min(share, 1.0)) * width)


class Steady:
    """A line on stderr every ten seconds, where that is no terminal."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._say_at = self._begin + LINE_EVERY_S

    def done(self, amount: float, words: str, total: float | None) -> None:
        """As Bar.done."""
        now = time.monotonic()
        if now < self._say_at:
            return
        self._say_at = now + LINE_EVERY_S
        share = f", {amount / total:.0%}" if total else ""
        complain(f"{words}{share} after {span(now - self._begin)}")

    def close(self) -> None:
        """Nothing is left of it."""


@contextmanager
def progress() -> Iterator[Bar | Steady]:
    """How far a long work has come, for the length of the block: a bar, or lines for a log."""
    made = Bar() if sys.stderr.isatty() else Steady()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def bar() -> Iterator[Bar]:
    """A bar for the length of the block."""
    made = Bar()
    try:
        yield made
    finally:
        made.close()


def forget_stdout() -> None:
    """After a closed pipe: lest the interpreter complains when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def span(seconds: float) -> str:
    """A length of time for people."""
    for limit, unit, length in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def number(count: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
