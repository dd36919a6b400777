"""A report's JSON as pictures: bars with their ranges, in panels. Plain SVG, written here, so that nothing need be
installed for it. Knows the JSON of benchmarks.report and benchmarks.cells, and nothing of how it came about.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

OURS = ("ours", "server", "small model")  # how names of ours begin
LABEL, BARS, VALUE, GAP = 230, 250, 90, 24  # pixels across
ROW, TITLE, MARGIN = 18, 26, 16  # pixels down
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.title{font-weight:600}.value{font-size:11px;fill:#555}"
    ".ours{fill:#1f6fb4}.other{fill:#b9c4cf}.best{fill:#7fa650}.range{stroke:#333;stroke-width:1}"
)


@dataclass(frozen=True)
class Bar:
    """One figure with its range. kind: a class of STYLE."""

    label: str
    value: float
    low: float
    high: float
    kind: str


@dataclass(frozen=True)
class Panel:
    """Bars that have one scale, and its title."""

    title: str
    bars: Sequence[Bar]


def draw(result: dict[str, Any], stem: Path) -> list[Path]:
    """Write the pictures of a report beside it, as STEM-NAME.svg; which."""
    pictures = {
        "throughput": legs(result, "requests_per_s", "requests/s"),
        "latency": legs(result, "p99_ms", "p99, ms"),
        "cpu": legs(result, "cpu_ms_per_request", "CPU ms a request"),
        "goodput": cells(result, "goodput", "goodput, %", 100),
        "p99": cells(result, "p99_ms", "p99, ms", 1),
    }
    made = []
    for name, (panels, columns) in pictures.items():
        if panels:
            path = stem.with_name(f"{stem.name}-{name}.svg")
            path.write_text(svg(f"{result['title']}: {name}", panels, columns))
            made.append(path)
    return made


def legs(result: dict[str, Any], column: str, unit: str) -> tuple[list[Panel], int]:
    """A panel for each concurrency that more than one leg has."""
    by_concurrency: dict[int, list[Bar]] = {}
    for leg in result["legs"]:
        if leg["concurrency"] is not None and column in leg["median"]:
            kind = "ours" if leg["name"].startswith(OURS) else "other"
            low, high = leg["range"][column]
            bar = Bar(leg["name"], leg["median"][column], low, high, kind)
            by_concurrency.setdefault(leg["concurrency"], []).append(bar)
    found = [Panel(f"{unit} at c={c}", bars) for c, bars in sorted(by_concurrency.items()) if len(bars) > 1]
    return found, max(len(found), 1)


def cells(result: dict[str, Any], figure: str, unit: str, factor: float) -> tuple[list[Panel], int]:
    """A panel for each cell of the batching matrix, a row of them for each model."""
    found, columns = [], 1
    for cell in result.get("cells", []):
        bars = []
        for setting, figures in cell["settings"].items():
            values = [value * factor for value in figures[figure]["values"]]
            kind = "ours" if setting == "ours" else "best" if setting == cell["best"][figure] else "other"
            bars.append(Bar(setting, statistics.median(values), min(values), max(values), kind))
        found.append(Panel(f"{unit}: {cell['model']}, {cell['load']:g}, {cell['arrivals']}", bars))
        columns = sum(one["model"] == cell["model"] for one in result["cells"])
    return found, columns


def svg(title: str, panels: Sequence[Panel], columns: int) -> str:
    """The panels in rows of so many."""
    across, down = LABEL + BARS + VALUE + GAP, TITLE + max(len(one.bars) for one in panels) * ROW + MARGIN
    width, height = across * min(columns, len(panels)) + MARGIN, down * -(-len(panels) // columns) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f'<title>{escape(title)}</title><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, panel in enumerate(panels):
        x, y = MARGIN + number % columns * across, MARGIN + number // columns * down
        parts.append(f'<text class="title" x="{x}" y="{y + 12}">{escape(panel.title)}</text>')
        most = max((bar.high for bar in panel.bars), default=0) or 1.0
        for row, bar in enumerate(panel.bars):
            parts += drawn(bar, x, y + TITLE + row * ROW, BARS / most)
    return "\n".join([*parts, "</svg>", ""])


def drawn(bar: Bar, x: int, y: int, scale: float) -> list[str]:
    """One bar: label, length, range, figure."""
    left, middle, end = x + LABEL, y + ROW / 2 - 2, x + LABEL + max(bar.value, bar.high) * scale
    figure = f"{bar.value:,.0f}" if bar.value >= 100 else f"{bar.value:.3g}"
    return [
        f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{bar.kind}" x="{left}" y="{y}" width="{bar.value * scale:.1f}" height="{ROW - 5}" rx="2"/>',
        f'<path class="range" d="M{left + bar.low * scale:.1f} {middle}H{left + bar.high * scale:.1f}"/>',
        f'<text class="value" x="{end + 6:.1f}" y="{y + 11}">{figure}</text>',
    ]
