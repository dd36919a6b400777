"""What of the prediction log a server runs: where its spool lies and who owns it, who ships it, what is deleted.

Knows nothing of records or SQL.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from batching.counters import Slot
from front.settings import Settings
from prediction_log.keeper import keep

log = logging.getLogger("inference.log")

Chore = tuple[float, Callable[[Slot], None]]
FOLDER_DEFAULT = "inference_logs"
OWNER = "server.lock"
KEEP_PERIOD_S = 5.0
DAY_S = 86_400.0


def folder_of(settings: Settings) -> Path | None:
    """Where the spool lies; None where there is no prediction log."""
    if settings.prediction_log_dir is None and settings.database_url is None:
        return None
    return Path(settings.prediction_log_dir or FOLDER_DEFAULT).resolve()


def spool_plan(settings: Settings) -> dict[str, Any]:
    """The prediction log's parts of a Plan. The database's address goes to the shipper and nowhere else."""
    folder = folder_of(settings)
    if folder is None:
        return {}
    # Without a shipper the log is kept within its limit by deleting the oldest, not by refusing the newest.
    max_bytes = settings.prediction_log_max_bytes if settings.database_url else None
    spool = {"folder": str(folder), "max_bytes": max_bytes, "sync": settings.prediction_log_sync}
    if settings.database_url is None:
        return {"spool": spool}
    shipper = {
        "folder": str(folder),
        "database_url": settings.database_url,
        "keep_days": settings.prediction_log_keep_days,
    }
    return {"spool": spool, "services": {"shipper": shipper}}


@contextlib.contextmanager
def owned_spool(settings: Settings) -> Iterator[list[Chore]]:
    """Claim the folder; yields what is to be done with it from time to time.

    Raises ValueError where another server has it. A folder that cannot be made does not keep the server from serving:
    the fronts try again, and GET /ready says so.
    """
    folder = folder_of(settings)
    if folder is None:
        yield []
        return
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_lock(folder))
        except OSError as error:
            log.warning("the prediction log's folder cannot be used: %s", error.strerror)
        yield [] if settings.database_url else [(KEEP_PERIOD_S, _keeping(folder, settings))]


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises ValueError where another server does, OSError where there can be no file."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(folder / OWNER, "a+", opener=_private) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"the prediction log's folder {folder} belongs to a running server (process {file.read(20).strip()}): "
                "give this one another by PREDICTION_LOG_DIR"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _keeping(folder: Path, settings: Settings) -> Callable[[Slot], None]:
    """For a log without a database: keep it within its limits, and count what it takes."""
    max_age_s = settings.prediction_log_keep_days and settings.prediction_log_keep_days * DAY_S

    def tidy(slot: Slot) -> None:
        with contextlib.suppress(OSError):  # a folder that has gone is the fronts' to report
            keep(folder, settings.prediction_log_max_bytes, max_age_s)
            kept = sum(entry.stat().st_size for entry in os.scandir(folder) if entry.name.endswith(".log"))
            slot.gauge("inference_log_spool_bytes").set(kept)

    return tidy
