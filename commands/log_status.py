"""`log status`: what waits in the spool, what was delivered, what was set aside and why. Looks, and changes nothing."""

from __future__ import annotations

import heapq
import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from commands import exits, terminal
from commands.log_records import Damage, Reading, segments
from front.settings import Settings
from prediction_log.aside import DEAD
from prediction_log.segment import UNFINISHED, parse_name
from prediction_log.sqlstate import StoreError
from prediction_log.status import read_status

DATABASE_S = 2.0
NEWEST = 3  # of each kind that was set aside


def status(folder: Path, settings: Settings, *, as_json: bool) -> int:
    """Print it; 1 where something was set aside, or is not delivered for a reason that somebody must see to."""
    database = _Database(settings.database_url)
    told: dict[str, Any] = {
        "folder": str(folder),
        "waiting": waiting(folder),
        "delivered": _delivered(folder),
        "set_aside": set_aside(folder),
        "database": database.counts(),
    }
    if as_json:
        terminal.say_json(told)
    else:
        _show(told)
    is_well = not told["set_aside"] and not told["delivered"]["failing"] and "error" not in (told["database"] or {})
    return exits.OK if is_well else exits.WRONG


def waiting(folder: Path) -> dict[str, Any]:
    """What nobody has taken to a database. bytes: of the files; oldest_s: age of the oldest record in seconds."""
    damage = Damage()
    records = rows = size = files = 0
    oldest_us: int | None = None
    writers: dict[str, bool] = {}
    for path in segments(folder):
        name = parse_name(path.name)
        try:
            reading = Reading(path, damage, waiting=True)
        except FileNotFoundError:  # shipped in the meantime
            continue
        try:
            start = reading.at
            lives = not reading.reader.ended()
            if name:
                writers[name.writer] = writers.get(name.writer, False) or lives
            for record in reading.heads():
                records += 1
                rows += record.rows
                oldest_us = record.created_us if oldest_us is None else min(oldest_us, record.created_us)
            files += reading.at > start
            size += reading.at - start
        finally:
            reading.close()
    return {
        "segments": files,
        "bytes": size,
        "records": records,
        "rows": rows,
        "damaged_records": damage.records,
        "oldest_s": None if oldest_us is None else max(time.time() - oldest_us / 1e6, 0.0),
        "writers_alive": sum(writers.values()),
        "writers_gone": len(writers) - sum(writers.values()),
    }


def set_aside(folder: Path) -> list[dict[str, Any]]:
    """What lies in dead/, by reason: how many, their bytes, and the newest few files, the newest first."""
    found: dict[tuple[str, str, str], list[tuple[float, int, str]]] = {}
    for path in _visible(folder / DEAD):
        try:
            told = path.stat()
            found.setdefault(_reason(path), []).append((told.st_mtime, told.st_size, path.name))
        except FileNotFoundError:  # somebody tidies up
            continue
    return [
        {
            "kind": kind,
            "sqlstate": sqlstate or None,
            "reason": reason,
            "count": len(files),
            "bytes": sum(size for _, size, _ in files),
            "newest": [{"file": name, "at": _iso(at)} for at, _, name in heapq.nlargest(NEWEST, files)],
        }
        for (kind, sqlstate, reason), files in sorted(found.items())
    ]


def _visible(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".") and path.suffix != UNFINISHED]
    except FileNotFoundError:
        return []


def _reason(path: Path) -> tuple[str, str, str]:
    """What a file in dead/ is, the database's code, and why it is there."""
    if path.suffix == ".json":
        try:
            told = json.loads(path.read_bytes())
            return "row", str(told["sqlstate"]), str(told["error"])
        except (ValueError, KeyError, TypeError):
            return "row", "", "its file is damaged"
    if path.suffix == ".record":
        return "record", "", "it is whole and yet no record of the prediction log"
    return "record", "", "its bytes were damaged in the spool"


def _delivered(folder: Path) -> dict[str, Any]:
    """What shippers have said. failing: since its last success the last one has met an error."""
    told = read_status(folder)
    error, success = told["last_error"], told["last_success"]
    failing = error is not None and (success is None or error["at"] > success)
    return {
        **{name: told[name] for name in ("shipped_rows", "quarantined_rows", "damaged_records", "pid")},
        "updated": _iso(told["updated"]),
        "last_success": _iso(success),
        "last_error": error and {**error, "at": _iso(error["at"])},
        "failing": failing,
    }


class _Database:
    """The tables' counts, asked for in a thread that is waited for no longer than DATABASE_S."""

    def __init__(self, url: str | None) -> None:
        self._answer: dict[str, Any] | None = None
        self._give_up_at = time.monotonic() + DATABASE_S
        self._thread: threading.Thread | None = None
        if url is not None:
            self._thread = threading.Thread(target=self._ask, args=[url], daemon=True)
            self._thread.start()

    def counts(self) -> dict[str, Any] | None:
        """None without a database; {"error"} where it has not answered."""
        if self._thread is None:
            return None
        self._thread.join(max(self._give_up_at - time.monotonic(), 0))
        return self._answer or {"error": f"the database did not answer within {DATABASE_S:.0f} s"}

    def _ask(self, url: str) -> None:
        from prediction_log.database import Store

        try:
            store = Store(url)
            try:
                counts = store.counts()
            finally:
                store.close()
        except (ValueError, StoreError) as error:
            self._answer = {"error": str(error)}
            return
        self._answer = {
            **counts._asdict(),
            "oldest": counts.oldest and counts.oldest.isoformat(),
            "newest": counts.newest and counts.newest.isoformat(),
        }


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


# ---------------------------------------------------------------------------------------------- for people


def _show(told: dict[str, Any]) -> None:
    page = terminal.Page()
    waits, delivered, aside, database = (told[key] for key in ("waiting", "delivered", "set_aside", "database"))
    page.heading(f"{'kept' if database is None else 'waiting'} in {told['folder']}")
    age = "" if waits["oldest_s"] is None else f", the oldest for {terminal.span(waits['oldest_s'])}"
    in_files = f"{terminal.size(waits['bytes'])} in {terminal.number(waits['segments'], 'segment')}{age}"
    page.rows(
        [
            [terminal.number(waits["rows"], "row"), f"{terminal.number(waits['records'], 'record')}, {in_files}"],
            ["writers", f"{waits['writers_alive']} alive, {waits['writers_gone']} gone"],
        ]
        + ([["damaged", terminal.number(waits["damaged_records"], "record")]] if waits["damaged_records"] else []),
    )
    page.heading("delivered by shippers of this folder")
    if delivered["pid"] is None:
        page.rows([["nothing", "no shipper has run here"]])
    else:
        last = f"the last time at {delivered['last_success'] or 'never'}, by process {delivered['pid']}"
        page.rows([[terminal.number(delivered["shipped_rows"], "row"), last]])
    if delivered["last_error"]:
        error = delivered["last_error"]
        words = "is failing" if delivered["failing"] else "last error"
        page.rows([[words, f"{error['text']}, at {error['at']}"]], ["red" if delivered["failing"] else ""])
    page.heading("set aside in dead/")
    rows, styles = [], []
    for one in aside:
        rows.append([terminal.number(one["count"], one["kind"]), one["reason"]])
        rows += [["", f"{file['file']}, at {file['at']}"] for file in one["newest"]]
        styles += ["red"] + [""] * len(one["newest"])
    page.rows(rows or [["nothing"]], styles)
    page.heading("in the database")
    if database is None:
        page.rows([["unknown", "DATABASE_URL is not set"]])
    elif "error" in database:
        page.rows([["unknown", database["error"]]], ["red"])
    else:
        about = "about " if database["estimated"] else ""
        times = f"from {database['oldest']} to {database['newest']}" if database["oldest"] else ""
        rows = [[about + terminal.number(database["predictions"], "row"), times]]
        page.rows([*rows, [terminal.number(database["feedback"], "label"), ""]])
