"""Three models of ten numbers whose calls cost differently: next to nothing, mostly a fixed sum, mostly by the row.

Owns how they are made and how their cost is looked at. `python -m benchmarks.shapes KIND PATH` makes one.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.targets import SCRIPTS, ModelLoop

FIXED, BY_ROW = "fixed-cost-heavy", "row-heavy"
FEATURES = 10
SIZES = (1, 16, 64)
STEPS, UNITS = 300, 8  # one step after the other, each too small to be worth more than its start
SIDE, FILTERS = 48, 24  # pixels to compute for each row


@dataclass(frozen=True)
class Cost:
    """A call's milliseconds: `fixed` and `by_row` of the line through what was seen at 1 and 64 rows."""

    seen: dict[int, float]

    @property
    def by_row(self) -> float:
        """Each further row."""
        return (self.seen[64] - self.seen[1]) / 63

    @property
    def fixed(self) -> float:
        """What a call costs whatever is in it."""
        return self.seen[1] - self.by_row

    @property
    def by_row_share(self) -> float:
        """Of a call with 64 rows, what its rows cost."""
        return 64 * self.by_row / self.seen[64]

    def __str__(self) -> str:
        calls = ", ".join(f"{rows} rows {ms:.2f} ms" for rows, ms in self.seen.items())
        return f"{self.fixed:.2f} ms + {self.by_row:.3f} ms a row ({calls})"


def model(kind: str, cache: Path) -> Path:
    """The model in the cache; made where it is missing."""
    path = cache / f"{kind}.keras"
    if not path.exists():
        make = [sys.executable, "-m", "benchmarks.shapes", kind, str(path)]
        subprocess.run(make, cwd=SCRIPTS, check=True, capture_output=True)
    return path


def cost(path: Path, seconds: float) -> Cost:
    """What its calls take on this machine: the median of each size."""
    with ModelLoop(path) as loop:
        return Cost({rows: loop.calls(rows, seconds).p50_ms for rows in SIZES})


def make_model(kind: str, path: Path) -> None:
    """Random weights: what it answers does not matter. It appears whole or not at all."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    row = keras.Input((FEATURES,), name="features")
    if kind == FIXED:
        hidden = layers.GRU(UNITS)(layers.RepeatVector(STEPS)(row))
    else:
        image = layers.Reshape((SIDE, SIDE, FILTERS))(layers.Dense(SIDE * SIDE * FILTERS)(row))
        convolved = layers.Conv2D(FILTERS, 3, padding="same", activation="relu")(image)
        hidden = layers.GlobalAveragePooling2D()(convolved)
    made = keras.Model(row, layers.Dense(1)(hidden))
    unfinished = path.with_name(f".{path.name}")
    made.save(unfinished)
    unfinished.replace(path)


if __name__ == "__main__":
    make_model(sys.argv[1], Path(sys.argv[2]))
