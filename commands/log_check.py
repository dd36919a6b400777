"""`log check`: whether the prediction log of a server started now would work; each line says what to do where not."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from commands import exits, terminal
from commands.spool import OWNER
from front.settings import Settings
from prediction_log.database import Store
from prediction_log.sqlstate import StoreError

CLOCK_S = 2.0  # what clocks may differ by before times in the table mislead
_ADVICE = {
    "08": "see that the database runs and that its host and port in DATABASE_URL are right",
    "28": "mend user and password in DATABASE_URL; @, : and / in a password are written %40, %3A, %2F",
    "3D": "create the database, or name another in DATABASE_URL",
    "42501": "grant the user CREATE on the schema, or let another make the tables and grant INSERT, SELECT and DELETE",
}


class Line(NamedTuple):
    """One thing that was looked at. todo: what to do about it, empty where it is well."""

    name: str
    ok: bool
    text: str
    todo: str = ""


def check(folder: Path, settings: Settings, *, create: bool, as_json: bool) -> int:
    """Print a line for each; 1 where one failed."""
    lines = [*_folder(folder, settings), *_database(settings.database_url, create=create)]
    if as_json:
        terminal.say_json({"ok": all(line.ok for line in lines), "checks": [line._asdict() for line in lines]})
    else:
        page = terminal.Page()
        rows = [
            ["ok" if line.ok else "failed", line.name, f"{line.text}: {line.todo}" if line.todo else line.text]
            for line in lines
        ]
        page.rows(rows, ["green" if line.ok else "bold red" for line in lines])
    return exits.OK if all(line.ok for line in lines) else exits.WRONG


# ---------------------------------------------------------------------------------------------- the folder


def _folder(folder: Path, settings: Settings) -> Iterator[Line]:
    yield Line("settings", ok=True, text=_purpose(settings))
    place = folder
    while not place.exists():
        place = place.parent
    if place != folder:
        name, text = "folder", f"{folder} is not there yet, a server makes it"
    else:
        name, text = "folder", f"{folder}"
    problem = _write_problem(place, is_spool=place == folder)
    if problem:
        yield Line(name, ok=False, text=f"{place}: {problem}", todo="give the server's user a folder it may write to")
        return
    yield Line(name, ok=True, text=text)
    yield _room(place, folder, settings)
    yield _owner(folder)


def _purpose(settings: Settings) -> str:
    if settings.database_url is None:
        return "the folder itself is the log: DATABASE_URL is not set"
    return "the folder is a spool on the way to the database"


def _write_problem(place: Path, *, is_spool: bool) -> str | None:
    """Why nothing can be written there. Only in a spool of ours is it tried, by a file that is gone at once."""
    try:
        if is_spool:
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(b"x")
        elif not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            return "it may not be written to"
    except OSError as error:
        return (error.strerror or "it cannot be written to").lower()
    return None


def _room(place: Path, folder: Path, settings: Settings) -> Line:
    disk = os.statvfs(place)
    free = disk.f_bavail * disk.f_frsize
    limit = settings.prediction_log_max_bytes
    used = sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()) if folder.is_dir() else 0
    text = f"{terminal.size(free)} free; the spool holds {terminal.size(used)} and may hold {terminal.size(limit)}"
    if free < limit - used:
        return Line("room", ok=False, text=text, todo="make room on the disk, or lower PREDICTION_LOG_MAX_BYTES")
    return Line("room", ok=True, text=text)


def _owner(folder: Path) -> Line:
    """Who has the folder: found by claiming it for a moment, together with whoever else only looks."""
    try:
        with (folder / OWNER).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = file.read(20).strip()
                text = f"a running server has it (process {pid}); another one needs a folder of its own"
                return Line("owner", ok=True, text=text)
    except FileNotFoundError:
        pass
    return Line("owner", ok=True, text="no running server owns the folder")


# ---------------------------------------------------------------------------------------------- the database


def _database(url: str | None, *, create: bool) -> Iterator[Line]:
    if url is None:
        yield Line("database", ok=True, text="none: DATABASE_URL is not set")
        return
    try:
        store = Store(url)
    except ValueError as error:
        yield Line("database", ok=False, text=str(error), todo="mend DATABASE_URL")
        return
    try:
        yield from _reached(store, create=create)
    finally:
        store.close()


def _reached(store: Store, *, create: bool) -> Iterator[Line]:
    started = time.monotonic()
    try:
        now = store.now()
    except StoreError as error:
        yield Line("database", ok=False, text=str(error), todo=_advice(error))
        return
    elapsed_s = time.monotonic() - started
    yield Line("database", ok=True, text=f"answered in {elapsed_s * 1000:.0f} ms")
    yield _tables(store, create=create)
    yield _clock(now, elapsed_s)


def _tables(store: Store, *, create: bool) -> Line:
    try:
        if create:
            store.prepare()
        is_ready = store.is_prepared()
        if not is_ready:
            text = "the tables are missing, or of an older release"
            return Line("tables", ok=False, text=text, todo="a server makes them, and so does log check --create")
        counts = store.counts()
    except StoreError as error:
        return Line("tables", ok=False, text=str(error), todo=_advice(error))
    about = "about " if counts.estimated else ""
    rows, labels = terminal.number(counts.predictions, "row"), terminal.number(counts.feedback, "label")
    return Line("tables", ok=True, text=f"at this release's version, with {about}{rows} and {labels}")


def _clock(now: datetime, elapsed_s: float) -> Line:
    """The answer was on its way for a part of `elapsed_s`; rows carry this machine's time."""
    ahead_s = (datetime.now(UTC) - now).total_seconds()
    doubt_s = elapsed_s + CLOCK_S
    if -doubt_s <= ahead_s <= doubt_s:
        return Line("clock", ok=True, text="agrees with the database's")
    word = "ahead of" if ahead_s > 0 else "behind"
    text = f"this machine's is {terminal.span(abs(ahead_s))} {word} the database's"
    return Line("clock", ok=False, text=text, todo="rows carry this machine's time; synchronise the clocks")


def _advice(error: StoreError) -> str:
    """The longest known beginning of a SQLSTATE, else what its kind means."""
    for end in range(len(error.sqlstate), 1, -1):
        if error.sqlstate[:end] in _ADVICE:
            return _ADVICE[error.sqlstate[:end]]
    if error.kind == "retry":
        return "see that the database runs and is reached from here; a server keeps its rows meanwhile"
    return "the database's log says more"
