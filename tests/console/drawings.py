"""Thirty drawn digits, by three hands. Written down before any model was asked about them, and never changed since.

Owns the strokes. A hand is how somebody writes: its own shapes of the ten digits, a slant, a size, a place on the pad
and a proportion. Points are in a box of 1 by 1, (0, 0) being the top left corner of the digit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

Point = tuple[float, float]
Stroke = list[Point]
STEPS = 14  # points of an arc


class Hand(NamedTuple):
    """slant: by how much of its height the top is right of the bottom. height, width: of a digit, as shares of the pad.

    left, top: of the digit's box on the pad, as shares of it.
    """

    name: str
    slant: float
    height: float
    width: float
    left: float
    top: float
    digits: tuple[list[Stroke], ...]

    def strokes(self, digit: int) -> list[Stroke]:
        """A digit in shares of the pad's side."""

        def place(point: Point) -> Point:
            x, y = point
            lean = self.slant * (0.5 - y) * self.height
            return self.left + x * self.width + lean, self.top + y * self.height

        return [[place(point) for point in stroke] for stroke in self.digits[digit]]


def arc(x: float, y: float, across: float, down: float, begin: float, end: float) -> Stroke:
    """Points on an ellipse about (x, y), from one angle to another in degrees: 0 is right, 90 is down."""
    angles = (math.radians(begin + (end - begin) * step / STEPS) for step in range(STEPS + 1))
    return [(x + across * math.cos(angle), y + down * math.sin(angle)) for angle in angles]


# Large and upright, in the middle: school's shapes.
CAREFUL = Hand(
    "careful", 0.0, 0.68, 0.42, 0.29, 0.16,
    (
        [arc(0.5, 0.5, 0.48, 0.5, -90, -455)],
        [[(0.3, 0.18), (0.52, 0.0), (0.52, 1.0)]],
        [[*arc(0.5, 0.28, 0.45, 0.28, -170, 30), (0.45, 0.75), (0.04, 1.0), (0.98, 1.0)]],
        [[*arc(0.45, 0.25, 0.4, 0.25, -150, 80), *arc(0.45, 0.74, 0.48, 0.26, -80, 150)]],
        [[(0.62, 0.0), (0.02, 0.66), (0.98, 0.66)], [(0.7, 0.36), (0.7, 1.0)]],
        [[(0.88, 0.0), (0.18, 0.0), (0.12, 0.45), *arc(0.46, 0.69, 0.48, 0.3, -130, 140)]],
        [[(0.74, 0.0), (0.34, 0.3), (0.1, 0.62), *arc(0.48, 0.73, 0.4, 0.27, 180, -180)]],
        [[(0.02, 0.0), (0.96, 0.0), (0.62, 0.45), (0.38, 1.0)]],
        [[*arc(0.5, 0.24, 0.36, 0.24, 90, 450), *arc(0.5, 0.74, 0.45, 0.26, -90, 270)]],
        [[*arc(0.48, 0.28, 0.42, 0.28, 0, -360), (0.88, 0.6), (0.66, 1.0)]],
    ),
)  # fmt: skip

# Quick and leaning to the right, narrow, towards the upper left: a bar through the 7, an open 4, a straight 9.
QUICK = Hand(
    "quick", 0.26, 0.52, 0.27, 0.2, 0.1,
    (
        [[*arc(0.5, 0.5, 0.5, 0.5, -60, -400), (0.7, 0.04)]],
        [[(0.5, 0.0), (0.5, 0.5), (0.48, 1.0)]],
        [[(0.05, 0.3), *arc(0.48, 0.27, 0.44, 0.27, -150, 40), (0.3, 0.86), *arc(0.2, 0.93, 0.12, 0.07, -60, -300),
          (0.5, 0.94), (1.0, 0.98)]],
        [[(0.08, 0.08), (0.5, 0.0), (0.86, 0.16), (0.72, 0.38), (0.38, 0.46), (0.8, 0.56), (0.94, 0.78),
          (0.6, 0.98), (0.04, 0.92)]],
        [[(0.2, 0.0), (0.08, 0.52), (0.94, 0.54)], [(0.82, 0.12), (0.72, 1.0)]],
        [[(0.24, 0.04), (0.12, 0.46), (0.56, 0.4), (0.92, 0.6), (0.8, 0.88), (0.4, 1.0), (0.02, 0.92)],
         [(0.24, 0.04), (0.96, 0.02)]],
        [[(0.8, 0.0), (0.4, 0.26), (0.12, 0.6), (0.2, 0.92), (0.56, 1.0), (0.88, 0.82), (0.8, 0.58), (0.5, 0.52),
          (0.16, 0.7)]],
        [[(0.04, 0.08), (0.5, 0.04), (0.98, 0.02), (0.66, 0.5), (0.42, 1.0)], [(0.22, 0.5), (0.92, 0.46)]],
        [[(0.84, 0.14), (0.5, 0.0), (0.16, 0.16), (0.3, 0.4), (0.7, 0.58), (0.9, 0.8), (0.52, 1.0), (0.12, 0.84),
          (0.3, 0.6), (0.72, 0.38), (0.84, 0.14)]],
        [[(0.86, 0.1), (0.44, 0.0), (0.1, 0.22), (0.34, 0.48), (0.78, 0.36), (0.86, 0.1)], [(0.86, 0.1), (0.8, 1.0)]],
    ),
)  # fmt: skip

# Small, wide and leaning a little back, towards the lower right: a 1 with a foot, round bellies, a hooked 9.
BROAD = Hand(
    "broad", -0.12, 0.38, 0.32, 0.52, 0.52,
    (
        [[(0.42, 0.02), *arc(0.5, 0.5, 0.5, 0.48, -110, -440)]],
        [[(0.2, 0.24), (0.54, 0.0), (0.54, 1.0)], [(0.14, 1.0), (0.92, 1.0)]],
        [[*arc(0.48, 0.3, 0.46, 0.3, -160, 10), (0.82, 0.56), (0.5, 0.78), (0.0, 0.98), (0.5, 0.96), (1.0, 1.0)]],
        [[(0.04, 0.02), (0.9, 0.02), (0.46, 0.38), *arc(0.44, 0.69, 0.5, 0.31, -80, 160)]],
        [[(0.76, 1.0), (0.76, 0.0), (0.0, 0.7), (1.0, 0.7)]],
        [[(0.92, 0.02), (0.2, 0.02)], [(0.2, 0.02), (0.14, 0.42), *arc(0.46, 0.68, 0.5, 0.31, -120, 150)]],
        [[*arc(0.9, 0.6, 0.8, 0.6, -100, -180), *arc(0.52, 0.72, 0.42, 0.28, 180, -150)]],
        [[(0.0, 0.12), (0.04, 0.0), (0.98, 0.0), (0.7, 0.36), (0.52, 0.7), (0.46, 1.0)]],
        [arc(0.5, 0.25, 0.36, 0.25, -90, 270), arc(0.5, 0.74, 0.46, 0.26, -90, 270)],
        [[*arc(0.48, 0.3, 0.42, 0.3, -20, -380), (0.88, 0.7), *arc(0.5, 0.78, 0.38, 0.22, 0, 150)]],
    ),
)  # fmt: skip

HANDS = (CAREFUL, QUICK, BROAD)
