"""What a replay found, as JSON and as a table. Owns the words and the figures that are shown."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from commands import terminal
from commands.comparison import Change, Summary
from commands.replay_rows import LoggedRow
from models.contract import Contract

SHOWN = 5  # of the changes, in the table; JSON has more


class Failure(NamedTuple):
    """Why rows that were answered once are not any more. request_id: of the first."""

    code: str
    message: str


@dataclass
class Result:
    """What came of a replay. Times in milliseconds: of a row's batch divided by its rows, and as they were logged."""

    summary: Summary = field(default_factory=Summary)
    read: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    failed: dict[Failure, list[LoggedRow]] = field(default_factory=dict)
    replayed_ms: array[float] = field(default_factory=lambda: array("d"))
    logged_ms: array[float] = field(default_factory=lambda: array("d"))
    logged_row_ms: array[float] = field(default_factory=lambda: array("d"))


def to_json(
    result: Result, model: str, since: datetime, path: str, contract: Contract, tolerance: float
) -> dict[str, Any]:
    """All of it. Times in milliseconds; `same` is whether every row was answered, agrees and kept its best class."""
    summary = result.summary
    failed = sum(map(len, result.failed.values()))
    return {
        "same": bool(summary.compared) and summary.agreeing == summary.compared and not failed and not summary.flips,
        "model": model,
        "since": since.isoformat(),
        "logged_versions": dict(sorted(result.versions.items())),
        "against": {"name": contract.name, "version": contract.version, "path": path},
        "tolerance": tolerance,
        "rows": {
            "read": result.read,
            "compared": summary.compared,
            "agreeing": summary.agreeing,
            "changed": summary.compared - summary.agreeing,
            "other_form": summary.form,
            "failed": failed,
            "skipped": sum(result.skipped.values()),
        },
        "agreement": summary.agreeing / summary.compared if summary.compared else None,
        "largest": _change(summary.largest) if summary.largest else None,
        "top1": {"compared": summary.ranked, "flips": summary.flips} if summary.ranked else None,
        "skipped": [{"reason": reason, "rows": rows} for reason, rows in result.skipped.most_common()],
        "failed": [
            {
                "error": failure.code,
                "message": failure.message,
                "rows": len(rows),
                "first": {"request_id": rows[0].request_id, "row_number": rows[0].row_number},
            }
            for failure, rows in sorted(result.failed.items(), key=lambda item: -len(item[1]))
        ],
        "latency_ms": {
            "replayed_row": _quantiles(result.replayed_ms),
            "logged_row": _quantiles(result.logged_row_ms),
            "logged_wait_and_compute": _quantiles(result.logged_ms),
        },
        "changes": [_change(change) for change in summary.changes()],
    }


def _change(change: Change) -> dict[str, Any]:
    verdict = change.verdict
    classes = verdict.classes and {"logged": verdict.classes[0], "replayed": verdict.classes[1]}
    return {
        "request_id": change.request_id,
        "row_number": change.row_number,
        "created_at": change.created_at,
        "difference": verdict.difference,
        "top1": classes,
        "logged": change.logged,
        "replayed": change.replayed,
    }


def _quantiles(values: array[float]) -> dict[str, float] | None:
    """The smallest value that so many percent do not exceed."""
    if not values:
        return None
    ordered = sorted(values)
    return {f"p{percent}": ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 95)}


# ---------------------------------------------------------------------------------------------- for people


def show(told: dict[str, Any]) -> None:
    """The table."""
    page = terminal.Page()
    rows, against = told["rows"], told["against"]
    versions = ", ".join(f"{version} ({count:,})" for version, count in told["logged_versions"].items())
    page.heading(f"{told['model']} since {told['since']} against {against['name']} version {against['version']}")
    page.rows([["logged rows", f"{rows['read']:,}"], ["of versions", versions or "none"], ["path", against["path"]]])
    page.heading(f"answers, within {told['tolerance']:g} + {told['tolerance']:g} * abs(logged)")
    lines: list[list[str]] = [["compared", f"{rows['compared']:,}"]]
    styles = [""]
    if rows["compared"]:
        lines.append(["agreeing", f"{rows['agreeing']:,} ({told['agreement']:.2%})"])
        lines.append(["changed", f"{rows['changed']:,}, {rows['other_form']:,} of them in form"])
        lines.append(["largest difference", _words(told["largest"]) if told["largest"] else "0"])
        styles += ["", "red" if rows["changed"] else "", ""]
    if told["top1"]:
        flips = told["top1"]["flips"]
        lines.append(["top class flipped", f"{flips:,} of {told['top1']['compared']:,}"])
        styles.append("red" if flips else "")
    page.rows(lines, styles)
    for title, entries in (("skipped", _reasons(told)), ("failing now", _failures(told))):
        if entries:
            page.heading(title)
            page.rows(entries)
    if told["changes"]:
        page.heading("changed most")
        page.rows([[_where(change), _words(change)] for change in told["changes"][:SHOWN]])
    page.heading("milliseconds a row, p50 and p95")
    page.rows([[name, _times(told["latency_ms"][key])] for name, key in _TIMES])


_TIMES = (
    ("replayed: batch's time / its rows", "replayed_row"),
    ("logged: compute / rows of its batch", "logged_row"),
    ("logged: queue and compute", "logged_wait_and_compute"),
)


def _reasons(told: dict[str, Any]) -> list[list[str]]:
    return [[terminal.number(one["rows"], "row"), one["reason"]] for one in told["skipped"]]


def _failures(told: dict[str, Any]) -> list[list[str]]:
    return [
        [terminal.number(one["rows"], "row"), f"{one['error']}: {one['message']}", f"first {_where(one['first'])}"]
        for one in told["failed"]
    ]


def _where(place: dict[str, Any]) -> str:
    return f"request {place['request_id']} row {place['row_number']}"


def _words(change: dict[str, Any]) -> str:
    difference = "other form" if change["difference"] is None else f"{change['difference']:.6g}"
    classes = f", class {change['top1']['logged']} -> {change['top1']['replayed']}" if change["top1"] else ""
    return f"{difference}: {_short(change['logged'])} -> {_short(change['replayed'])}{classes} ({_where(change)})"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _times(quantiles: dict[str, float] | None) -> str:
    return "unknown" if quantiles is None else f"{quantiles['p50']:.3f}  {quantiles['p95']:.3f}"
