"""What the bench can measure, one line each: how often, how long, where the result goes."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rounds import Options, Say

IDLE_S, QUICK_IDLE_S, QUICK_LOOP_S = 5.0, 0.5, 0.2


@dataclass(frozen=True)
class Mode:
    """rounds, seconds: of a leg, where nothing else was asked for. Six rounds are the least that give an interval."""

    name: str
    rounds: int
    seconds: int
    quick_seconds: int = 1

    @property
    def file(self) -> str:
        """Where its result goes."""
        return "latest.json" if self.name == "small" else f"latest-{self.name}.json"

    def options(self, given: argparse.Namespace, scratch: Path, say: Say) -> Options:
        """What the command line makes of it."""
        seconds = given.seconds or (self.quick_seconds if given.quick else self.seconds)
        return Options(
            rounds=given.rounds or (1 if given.quick else self.rounds),
            seconds=seconds,
            loop_seconds=QUICK_LOOP_S if given.quick else seconds,
            idle_seconds=QUICK_IDLE_S if given.quick else IDLE_S,
            quick=given.quick,
            scratch=scratch,
            say=say,
        )


MODES = {
    mode.name: mode
    for mode in (
        Mode("small", 6, 3),
        # 64 pictures under way take a second: a leg has to be long enough for several batches.
        Mode("images", 6, 10, 4),
        Mode("peers", 6, 3),
        Mode("peers-images", 6, 8, 4),
        Mode("batching", 6, 1),
        Mode("idle", 6, 3),
        Mode("rows", 6, 3),
        Mode("tensors", 6, 3),
        # Ratios near 1 need many pairs, and short ones where the machine drifts within seconds.
        Mode("log", 20, 1),
        Mode("correctness", 1, 1),
        Mode("score", 5, 2),
    )
}
