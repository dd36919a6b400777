"""A worker's vital signs, in the control words of its slot of the counters' file: one store each, read by everybody.

They outlive the worker, cost it nanoseconds, and tell of a process that can say nothing any more. All are monotonic
nanoseconds, 0 where there is nothing to tell; one writer, and a reader sees the old value or the new one.
"""

from __future__ import annotations

import time
from typing import NamedTuple

# Indices of control words; the first two are the counters' own.
_BEAT, _BUSY, _OLDEST, _PROVED = 2, 3, 4, 5


class Seen(NamedTuple):
    """What a reader finds.

    beat: when the worker's loop last turned. busy_since: when the model call that runs now began. oldest: when the
    longest waiting item arrived. proved: when a model last answered, whoever had asked.
    """

    beat: int
    busy_since: int
    oldest: int
    proved: int


class Vitals:
    """The writer's end; `words` are the slot's control words."""

    __slots__ = ("_words",)

    def __init__(self, words: memoryview[int]) -> None:
        self._words = words
        for index in (_BUSY, _OLDEST, _PROVED):
            words[index] = 0
        self.beat()

    def beat(self) -> None:
        """The loop turns."""
        self._words[_BEAT] = time.monotonic_ns()

    def begin(self) -> None:
        """A model call begins."""
        self._words[_BUSY] = time.monotonic_ns()

    def end(self) -> None:
        """It has ended."""
        self._words[_BUSY] = 0

    def prove(self) -> None:
        """A model has answered as it should."""
        self._words[_PROVED] = time.monotonic_ns()

    def oldest(self, arrived: float | None) -> None:
        """The longest waiting item of all arrived at `arrived` (monotonic seconds); None when nothing waits."""
        self._words[_OLDEST] = 0 if arrived is None else int(arrived * 1e9)


def seen(words: memoryview[int]) -> Seen:
    """What a slot's control words say."""
    return Seen(words[_BEAT], words[_BUSY], words[_OLDEST], words[_PROVED])
