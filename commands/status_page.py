"""What GET /status or GET /ready says, as a page: the state as it is, and what went on between two readings.

Owns the words. Counts only grow, so what went on is the later less the earlier; a server that began anew in between has
counted since then. Knows no server.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from commands import terminal

Reading = dict[str, Any]
_STYLES = {"READY": "green", "LOADING": "yellow", "FAILED": "red"}
_LOG_WORDS = {"dropped": "dropped", "quarantined": "set aside", "damaged": "damaged"}


def is_well(now: Reading) -> bool:
    """Whether it takes traffic, and nothing is wrong."""
    return bool(now.get("ready", now.get("ok"))) and not now.get("degraded")


def show(now: Reading, before: Reading | None, *, clear: bool = False) -> None:
    """Print it. clear: over what was there, on a terminal."""
    page = terminal.Page()
    if clear:
        page.clear()
    ready = bool(now.get("ready", now.get("ok")))
    page.heading(("ready" if ready else "not ready") + (", degraded" if ready and now["degraded"] else ""))
    page.rows([(sentence,) for sentence in now["degraded"]])
    page.heading("Models")
    versions = now["models"]
    rows = [(one["state"], f"{one['name']} version {one['version']}", one.get("reason") or "") for one in versions]
    page.rows(rows, [_STYLES.get(one["state"], "") for one in versions])
    if "bounds" in now:
        _show_traffic(page, now, before if before is not None and "bounds" in before else None)
    page.heading("Workers")
    page.rows([_worker(one) for one in now["workers"]])
    if "bounds" in now:
        _show_rest(page, now)
    else:
        page.heading("More is for who has the admin key: --key-file")


def _show_traffic(page: terminal.Page, now: Reading, before: Reading | None) -> None:
    since = 0.0 if before is None else now["now"] - before["now"]
    page.heading(f"The last {since:.1f} s" if since else "Since it started")
    lines = [("model", "answers/s", "failed/s", "p50 ms", "p99 ms", "batch rows", "queued rows")]
    earlier = {(one["name"], one["version"]): one for one in (before or {}).get("models", ())}
    for one in now["models"]:
        was = earlier.get((one["name"], one["version"]))
        answered, failed, batches = (_grown(one, was, name) for name in ("answered", "failed", "batch_rows"))
        lines.append(
            (
                f"{one['name']} {one['version']}",
                _rate(sum(answered["counts"]), since),
                _rate(sum(failed["counts"]), since),
                _milliseconds(answered["counts"], now["bounds"]["seconds"], 0.5),
                _milliseconds(answered["counts"], now["bounds"]["seconds"], 0.99),
                f"{batches['sum'] / sum(batches['counts']):.1f}" if sum(batches["counts"]) else "-",
                str(one["queued_rows"]),
            )
        )
    page.rows(lines)


def _grown(one: dict[str, Any], was: dict[str, Any] | None, name: str) -> dict[str, Any]:
    """A histogram without what was in it before."""
    later: dict[str, Any] = one[name]
    if was is None or sum(was[name]["counts"]) > sum(later["counts"]):
        return later
    counts = [new - old for new, old in zip(later["counts"], was[name]["counts"], strict=True)]
    return {"sum": later["sum"] - was[name]["sum"], "counts": counts}


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f}" if seconds else f"{count:,}"


def quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> tuple[float, bool] | None:
    """(a value that so many are not above, whether that is sure), from a histogram; None where there is nothing in it.

    Within a bucket values are taken to lie evenly. What is above the last bound may be anything from there on.
    """
    total = sum(counts)
    if not total:
        return None
    wanted = share * total
    below = 0
    for index, upto in enumerate(accumulate(counts)):
        if upto >= wanted and counts[index]:
            if index >= len(bounds):
                return bounds[-1], False
            low = bounds[index - 1] if index else 0.0
            return low + (bounds[index] - low) * (wanted - below) / counts[index], True
        below = upto
    return bounds[-1], False


def _milliseconds(counts: Sequence[int], bounds: Sequence[float], share: float) -> str:
    found = quantile(counts, bounds, share)
    if found is None:
        return "-"
    value, is_sure = found
    return f"{value * 1000:.2f}" if is_sure else f"over {value * 1000:.0f}"


def _worker(one: dict[str, Any]) -> tuple[str, str, str, str]:
    computing, waits = one["computing_ms"], one["oldest_queued_ms"]
    return (
        "responds" if one["responding"] else "silent",
        f"group {one['group']}",
        "idle" if computing is None else f"computes for {computing} ms",
        "" if waits is None else f"the oldest waits for {waits} ms",
    )


def _show_rest(page: terminal.Page, now: Reading) -> None:
    fronts, memory = now["fronts"], now["memory_bytes"]
    page.heading("Processes")
    rows = [
        ("connections", f"{fronts['connections']:,}"),
        ("in flight", f"{fronts['in_flight']:,}"),
        ("memory", ", ".join(f"{kind} {terminal.size(size)}" for kind, size in sorted(memory.items())) or "-"),
    ]
    deaths = fronts["deaths"] + sum(sum(one["worker_deaths"].values()) for one in now["groups"])
    if deaths:
        rows.append(("deaths", f"{deaths:,} since it started"))
    page.rows(rows)
    page.heading("Prediction log")
    page.rows([(_log(now["log"]),)])


def _log(log: dict[str, Any] | None) -> str:
    if log is None:
        return "none"
    words = [f"{terminal.number(log['written'], 'row')} written"]
    if log["has_database"]:
        words.append(f"{log['shipped']:,} delivered")
    words += [f"{log[name]:,} {word}" for name, word in _LOG_WORDS.items() if log[name]]
    words.append(f"{terminal.size(log['waiting_bytes'])} on the disk")
    if log["oldest_s"]:
        words.append(f"the oldest waits for {terminal.span(log['oldest_s'])}")
    return ", ".join(words)
