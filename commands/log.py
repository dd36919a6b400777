"""`inference_server.py log …`: the prediction log from the outside, beside a running server or without one.

Owns which verb runs and how a failure ends: one line on stderr, no stack, no secret. Each verb has a module.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from commands import exits, terminal
from commands.log_arguments import parser
from commands.spool import folder_of
from front.settings import Settings
from prediction_log.sqlstate import StoreError

__all__ = ["main", "parser"]

if TYPE_CHECKING:
    from commands.replay import Start


def main(arguments: Sequence[str], start: Start) -> int:
    """Run a verb; the exit code. start: makes the server that a replay runs in, an InferenceServer."""
    given = parser().parse_args(list(arguments))
    try:
        settings = Settings.from_environment()
        if given.dir is not None:
            settings = replace(settings, prediction_log_dir=str(given.dir))
        code = _run(given, settings, start)
        sys.stdout.flush()
        return code
    except ValueError as error:
        return _failed(str(error), exits.USAGE)
    except (terminal.Complaint, StoreError) as error:
        return _failed(str(error), error.code if isinstance(error, terminal.Complaint) else exits.WRONG)
    except BrokenPipeError:  # `| head` has seen enough
        terminal.forget_stdout()
        return exits.OK
    except OSError as error:
        return _failed(f"{error.filename or 'the log'}: {error.strerror}", exits.WRONG)
    except KeyboardInterrupt:
        return 130


def _run(given: argparse.Namespace, settings: Settings, start: Start) -> int:
    if given.verb == "replay":
        from commands.replay import replay

        return replay(
            settings,
            folder_of(settings),
            start,
            model=given.model,
            since=given.since,
            against=given.against,
            version=given.version,
            limit=given.limit,
            tolerance=given.tolerance,
            as_json=given.json,
        )
    folder = _folder(settings)
    if given.verb == "status":
        from commands.log_status import status

        return status(folder, settings, as_json=given.json)
    if given.verb == "tail":
        from commands.log_tail import tail

        return tail(folder, given.rows, given.model, follow=given.follow)
    if given.verb == "ship":
        from commands.log_ship import ship

        return ship(folder, settings, follow=given.follow, as_json=given.json)
    from commands.log_check import check

    return check(folder, settings, create=given.create, as_json=given.json)


def _folder(settings: Settings) -> Path:
    folder = folder_of(settings)
    if folder is None:
        raise terminal.Complaint(
            "there is no prediction log: set PREDICTION_LOG_DIR or DATABASE_URL, or say --dir", exits.USAGE
        )
    return folder


def _failed(text: str, code: int) -> int:
    terminal.complain(text)
    return code
