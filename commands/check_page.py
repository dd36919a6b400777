"""What `check` says of a version, for people: what it takes, what it refuses, how fast it is. Owns the words alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from commands import terminal
from models.calibration_search import Finding

_SHOWN_CHARACTERS = 300


def show(page: terminal.Page, one: dict[str, Any]) -> None:
    """One version, as `check --json` has it."""
    title = f"{one['name']} version {one['version']}"
    if "contract" not in one:
        page.heading(f"{title} cannot be served: {one['reason']}")
        return
    page.heading(f"{title} can be served; it was loaded in {one['seconds_to_load']} s")
    contract = one["contract"]
    for what in ("inputs", "outputs"):
        page.heading(what.capitalize())
        page.rows([(each["name"], each["dtype"], _shape(each["shape"])) for each in contract[what]])
    page.heading(f"A body for POST /predict/{one['name']}")
    page.rows([(_shown(one["sample"]) if one["sample"] is not None else "too long to show; pictures go to /classify",)])
    if one["examples"]:
        page.rows([(f"{terminal.number(one['examples'], 'example')} of its contract answered as promised",)])
    page.heading("What a body must satisfy (JSON Schema)")
    page.rows([(line,) for line in _schema_lines(one["json_schema"])])
    if one["refused"]:
        page.heading("Refused")
        page.rows([(_shown(each["body"]), each["message"]) for each in one["refused"]])
    _show_batches(page, one)
    _show_calibration(page, one)
    if one["reason"] is not None:
        page.heading(f"It was not calibrated: {one['reason']}")


def _show_batches(page: terminal.Page, one: dict[str, Any]) -> None:
    page.heading("Batches")
    if not one["batch_seconds"]:
        page.rows([("it takes no rows that we can think of, so it is served cold",)])
        return
    lines = [("rows", "ms a call", "rows/s", "")]
    best = max(int(rows) / seconds for rows, seconds in one["batch_seconds"].items())
    for rows, seconds in one["batch_seconds"].items():
        rate = int(rows) / seconds
        lines.append((str(rows), f"{seconds * 1000:.3f}", f"{rate:,.0f}", terminal.share_bar(rate / best)))
    page.rows(lines)


def _show_calibration(page: terminal.Page, one: dict[str, Any]) -> None:
    found = one.get("calibration")
    if found is None:
        page.heading("Not calibrated: check --calibrate measures what makes it faster here")
        return
    page.heading(f"Calibrated {found['measured_at']}")
    for finding in one.get("candidates", ()):
        page.rows([_words_of(Finding(**finding))])
    sizes = ", ".join(map(str, found["sizes"]))
    page.rows(
        [
            ("call", f"XLA for batches of {sizes}" if sizes else "plain"),
            ("threads", "TensorFlow's choice" if found["threads"] is None else str(found["threads"])),
            ("gain", f"{found['gain']:.2f} times the rows/s, at batches of {found['best_rows']}"),
            ("two at once", "not measured" if found["two_at_once"] is None else f"{found['two_at_once']:.2f} times"),
        ]
    )


def _words_of(finding: Finding) -> tuple[str, str, str]:
    ratios = ", ".join(f"{ratio:.2f} at {rows}" for rows, ratio in finding.ratios.items())
    return finding.name, "taken" if finding.chosen else f"not taken: {finding.fault or 'another is quicker'}", ratios


def _shape(sizes: Sequence[int | None]) -> str:
    return "x".join("any" if size is None else str(size) for size in sizes) or "one value"


def _schema_lines(schema: dict[str, Any]) -> list[str]:
    """Each form of a body on a line of its own, as far as lines should be long."""
    about = {key: value for key, value in schema.items() if key != "anyOf"}
    return [_shown(about), *map(_shown, schema.get("anyOf", ()))]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
