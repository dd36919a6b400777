"""What `bench` says: a table, where the knee is, what is to be doubted; the same for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from commands import terminal
from commands.bench_target import Target
from commands.bench_windows import (
    GENERATOR_BUSY,
    KNEE_SHARE,
    SHOWN_PERCENTILES,
    STABLE_WINDOWS,
    STAGES,
    Level,
    keeps_up,
    knee,
)

# A reason for failures that is shown; the rest is in the JSON.
KINDS_SHOWN = 5
# Delayed sends below it are the clock's own.
DELAYED_SHOWN = 0.01


def show(target: Target, levels: Sequence[Level], *, processes: int, window_s: float) -> None:
    """All of it, on stdout."""
    page = terminal.Page()
    page.heading(f"{target.model} at {target.url}{target.path}: {target.what}")
    if not levels:
        page.rows([("nothing was measured",)])
        return
    page.rows(_table(levels))
    split = _split_table(levels)
    if split:
        page.heading("In the server, mean of a request")
        page.rows(split)
    failures = sum((Counter(one.failures) for one in levels), Counter[str]())
    if failures:
        page.heading("What failed")
        page.rows([(f"{count:,}", kind) for kind, count in failures.most_common(KINDS_SHOWN)])
    page.heading(sentence(levels))
    for note in notes(levels, processes, window_s):
        page.rows([(note,)])


def _table(levels: Sequence[Level]) -> list[tuple[str, ...]]:
    is_rate = levels[0].is_rate
    shown = list(dict.fromkeys(share for one in levels for share in one.percentiles_ms))
    shown = sorted(shown or [str(share) for share in SHOWN_PERCENTILES], key=float)
    has_goodput = any(one.within is not None for one in levels)
    head = ["asked/s" if is_rate else "connections", "requests/s", "rows/s", *(["in time/s"] if has_goodput else [])]
    head += [*(f"p{share}" for share in shown), "max ms", "errors", "stable"]
    table = [head]
    for one in levels:
        goodput = one.goodput_per_s
        row = [f"{one.load:,g}", _figure(one.requests_per_s), _figure(one.rows_per_s)]
        row += [_figure(goodput or 0.0)] if has_goodput else []
        row += [_figure(one.percentiles_ms[share]) if share in one.percentiles_ms else "-" for share in shown]
        row += [_figure(one.max_ms) if one.answers else "-", f"{one.failed:,}", _stable(one)]
        table.append(row)
    return _right(table)


def _stable(one: Level) -> str:
    if not one.is_whole:
        return "interrupted"
    return "yes" if one.is_stable else f"NO, after {one.trials} windows"


def _split_table(levels: Sequence[Level]) -> list[tuple[str, ...]]:
    names = [name for name in STAGES if any(name in one.split for one in levels)]
    if not names:
        return []
    head = ["asked/s" if levels[0].is_rate else "connections", *(f"{name} ms" for name in names), "mean batch"]
    rows = [
        [
            f"{one.load:,g}",
            *(f"{one.split[name]:.3f}" if name in one.split else "-" for name in names),
            f"{one.split['batch']:.1f}" if "batch" in one.split else "-",
        ]
        for one in levels
    ]
    return _right([head, *rows])


def _right(table: list[list[str]]) -> list[tuple[str, ...]]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [tuple(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def sentence(levels: Sequence[Level]) -> str:
    """Where the knee is, in words."""
    measured = [one for one in levels if one.answers]
    if not measured:
        return "There was no good answer."
    ascending = sorted(measured, key=lambda one: one.load)
    found, last = knee(levels), ascending[-1]
    if last.is_rate:
        if found is None:
            return "It keeps up with none of these rates."
        missed = [one for one in ascending if one.load > found.load]
        more = f", not with {missed[0].load:,g}" if missed else "; try a higher rate to find its limit"
        return f"It keeps up with {found.load:,g} requests/s (p99 {_figure(found.percentiles_ms['99'])} ms){more}."
    if found is None or len(ascending) == 1:
        return f"{_figure(last.requests_per_s)} requests/s at {_connections(last)}."
    rate, p99 = _figure(found.requests_per_s), _figure(found.percentiles_ms["99"])
    if found is last:
        return f"Throughput still rises at {_connections(last)} ({rate} requests/s): try more to find the knee."
    return (
        f"The knee is at {_connections(found)}: {rate} requests/s, p99 {p99} ms. More of them only wait longer "
        f"(p99 {_figure(last.percentiles_ms['99'])} ms at {last.load:,g}), and bring less than "
        f"{1 / KNEE_SHARE - 1:.0%} more."
    )


def _connections(one: Level) -> str:
    return terminal.number(round(one.load), "connection")


def notes(levels: Sequence[Level], processes: int, window_s: float) -> list[str]:
    """What is to be doubted."""
    told = []
    loose = [one for one in levels if not one.is_stable and one.is_whole]
    if loose:
        told.append(
            f"not stable at {', '.join(f'{one.load:,g}' for one in loose)}: throughput or latency of the last "
            f"{STABLE_WINDOWS} windows differ by more than 10 %; a longer --window, or a calmer machine, may help"
        )
    busiest = max(one.busiest for one in levels)
    if busiest >= GENERATOR_BUSY:
        told.append(
            f"a process of the load generator used {busiest:.0%} of a core: figures may be its own limit "
            f"(--processes gives it more than {processes})"
        )
    for one in levels:
        if one.sent and one.delayed > one.sent * DELAYED_SHOWN:
            told.append(
                f"at {one.load:,g}/s {one.delayed / one.sent:.0%} of the requests left over 1 ms after they were due "
                f"(at most {_figure(one.late_max_ms)} ms); latencies count from when they were due"
            )
        if one.unsent:
            told.append(f"at {one.load:,g}/s {one.unsent:,} requests that were due could not leave at all")
        if not one.is_rate and one.opened:
            told.append(f"at {_connections(one)} the server closed {one.opened:,} of them, which were opened again")
        if one.failed_before:
            told.append(f"at {one.load:,g} {one.failed_before:,} requests failed before the windows that are shown")
    return told


def to_json(target: Target, levels: Sequence[Level], *, processes: int, window_s: float, cores: int) -> dict[str, Any]:
    """The same for machines."""
    found = knee(levels)
    return {
        "url": target.url,
        "path": target.path,
        "dialect": target.dialect,
        "model": target.model,
        "rows": target.rows,
        "body": target.what,
        "loop": "open" if levels and levels[0].is_rate else "closed",
        "window_s": window_s,
        "generator_processes": processes,
        "cores": cores,
        "levels": [
            {
                **asdict(one),
                "rows_per_s": one.rows_per_s,
                "failed": one.failed,
                "goodput_per_s": one.goodput_per_s,
                "keeps_up": keeps_up(one) if one.is_rate else None,
            }
            for one in levels
        ],
        "knee": None if found is None else found.load,
        "in_words": sentence(levels) if levels else "nothing was measured",
        "notes": notes(levels, processes, window_s) if levels else [],
    }
