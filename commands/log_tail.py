"""`log tail`: the local spool's last rows as JSON Lines, and with --follow what comes."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from pathlib import Path

import orjson

from commands import exits, terminal
from commands.log_records import Damage, Tail
from prediction_log.record import Record

# Records come by stores into mapped files, which wake nobody: whoever follows must look.
LOOK_S = 0.1


def tail(folder: Path, rows: int, model: str | None, *, follow: bool) -> int:
    """Print them. With `follow` until Ctrl-C, or until nobody reads any more; both are a good end.

    Raises terminal.Complaint where there is no such folder and nothing is to be followed.
    """
    if not follow and not folder.is_dir():
        raise terminal.Complaint(f"there is no folder {folder}")
    damage = Damage()
    end = Tail(folder, damage, _is_of(model))
    try:
        _write(end.last(rows))
        while follow and not _nobody_reads(LOOK_S):
            _write(end.new())
    except KeyboardInterrupt:
        pass
    finally:
        end.close()
    if damage.records:
        terminal.complain(f"{terminal.number(damage.records, 'record')} could not be read: damaged")
        return exits.WRONG
    return exits.OK


def _is_of(model: str | None) -> Callable[[Record], bool]:
    if model is None:
        return lambda record: True
    known: dict[bytes, bool] = {}

    def is_of(record: Record) -> bool:
        if record.subject not in known:
            known[record.subject] = bool(record.subject) and orjson.loads(record.subject).get("model") == model
        return known[record.subject]

    return is_of


def _write(rows: list[bytes]) -> None:
    if rows:
        sys.stdout.buffer.write(b"\n".join(rows) + b"\n")
        sys.stdout.buffer.flush()


def _nobody_reads(wait_s: float) -> bool:
    """Whether the other end of the pipe on stdout is closed, which poll reports unasked; else after that time."""
    poller = select.poll()
    poller.register(sys.stdout.fileno(), 0)
    return bool(poller.poll(wait_s * 1000))
