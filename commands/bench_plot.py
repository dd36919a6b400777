"""Throughput and latency over load as a picture: plain SVG, written here, so that nothing need be installed for it.

Knows levels, and nothing of how they were measured. Light and dark, as whoever looks at it has chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from commands.bench_windows import Level

WIDTH, HEIGHT, GAP = 460, 300, 24  # of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 46  # within it, around the curves
LINES = ("50", "99")  # percentiles that are drawn
TICKS = 4
STYLE = (
    "svg{color-scheme:light dark}text{font:12px system-ui,sans-serif;fill:#333}.title{font-weight:600}"
    ".back{fill:#fff}.grid{stroke:#ddd}.curve{fill:none;stroke-width:2}.a{stroke:#1f6fb4;fill:#1f6fb4}"
    ".b{stroke:#c2571a;fill:#c2571a}.c{stroke:#7a7a7a;fill:#7a7a7a}.curve{fill:none}.loose{fill:#fff}"
    "text.a,text.b,text.c{stroke:none}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.back,.loose{fill:#16191d}.grid{stroke:#3a4048}"
    ".a{stroke:#5aa9ec;fill:#5aa9ec}.b{stroke:#f0955c;fill:#f0955c}.curve{fill:none}text.a,text.b,text.c{stroke:none}}"
)


def draw(title: str, levels: Sequence[Level]) -> str:
    """The picture. levels: at least one with an answer, see `can_draw`."""
    ascending = sorted((one for one in levels if one.answers), key=lambda one: one.load)
    is_rate = ascending[0].is_rate
    across = "requests/s asked for" if is_rate else "connections, each with one request under way"
    width, height = 2 * WIDTH + GAP, HEIGHT + 24
    size = f'width="{width}" height="{height}"'
    panels = [
        _panel(
            0,
            "answers a second",
            across,
            ascending,
            [("answered", "a", lambda one: one.requests_per_s)]
            + ([("asked for", "c", lambda one: one.load)] if is_rate else []),
        ),
        _panel(
            WIDTH + GAP,
            "latency, ms",
            across,
            ascending,
            [(f"p{share}", kind, _latency(share)) for share, kind in zip(LINES, ("a", "b"), strict=True)],
        ),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {height}" role="img">',
            f'<title>{escape(title)}</title><style>{STYLE}</style><rect class="back" width="100%" height="100%"/>',
            f'<text class="title" x="12" y="18">{escape(title)}</text>',
            *(line for panel in panels for line in panel),
            "</svg>",
            "",
        ]
    )


def can_draw(levels: Sequence[Level]) -> bool:
    """Whether there is anything to be seen."""
    return any(one.answers for one in levels)


def _latency(share: str) -> Callable[[Level], float]:
    return lambda one: one.percentiles_ms[share]


def _panel(
    x: int,
    title: str,
    across: str,
    levels: Sequence[Level],
    curves: Sequence[tuple[str, str, Callable[[Level], float]]],
) -> list[str]:
    """Loads stand in even steps, whatever lies between them; hollow points were not stable."""
    left, right, top, bottom = x + LEFT, x + WIDTH - RIGHT, 24 + TOP, 24 + HEIGHT - BOTTOM
    most = _round_up(max(of(one) for one in levels for _, _, of in curves))
    step = (right - left) / max(len(levels) - 1, 1)

    def place(number: int, value: float) -> tuple[float, float]:
        return left + number * step, bottom - value / most * (bottom - top)

    parts = [f'<text class="title" x="{left}" y="{top - 12}">{escape(title)}</text>']
    for tick in range(TICKS + 1):
        value = most * tick / TICKS
        _, y = place(0, value)
        parts += [
            f'<path class="grid" d="M{left} {y:.1f}H{right}"/>',
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:,.5g}</text>',
        ]
    for number, one in enumerate(levels):
        at, _ = place(number, 0)
        parts.append(f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{one.load:,g}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 36}" text-anchor="middle">{escape(across)}</text>')
    for number, (name, kind, of) in enumerate(curves):
        points = [place(at, of(one)) for at, one in enumerate(levels)]
        line = "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
        parts.append(f'<path class="curve {kind}" d="M{line}"/>')
        for (px, py), one in zip(points, levels, strict=True):
            loose = "" if one.is_stable else " loose"
            tip = f"{name}: {of(one):,.4g} at {one.load:,g}" + ("" if one.is_stable else ", not stable")
            parts.append(
                f'<circle class="{kind}{loose}" cx="{px:.1f}" cy="{py:.1f}" r="4"><title>{escape(tip)}</title></circle>'
            )
        label = right - 90 * (len(curves) - 1 - number)
        parts.append(f'<text class="{kind}" x="{label}" y="{top - 12}" text-anchor="end">{escape(name)}</text>')
    return parts


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 8 times a power of ten: ticks shall be plain numbers."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 4, 5, 8, 10) if value <= power * step * (1 + 1e-9))
