"""The words of `inference_server.py log`: verbs, options, an example of each. Settings come from elsewhere."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from commands.parsing import PROGRAM, Formatter, Parser
from commands.parsing import parser as parser_of

SETTINGS = "Settings come from the environment: DATABASE_URL, PREDICTION_LOG_DIR."
_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
TOLERANCE = 1e-5  # what the server itself promises between rows that were batched differently


def parser() -> Parser:
    """The verbs and their options."""
    made = parser_of(
        "log",
        "The prediction log from the outside, beside a running server or without one.",
        ("log status", "log tail -n 100 --model dummy", "log replay --since 1h --model dummy --against new.keras"),
        settings=SETTINGS,
        usage=f"{PROGRAM} log VERB …",
    )
    verbs = made.add_subparsers(dest="verb", required=True, metavar="VERB")
    common = Parser(add_help=False)
    common.add_argument("--dir", type=Path, metavar="FOLDER", help="the spool's folder (default: PREDICTION_LOG_DIR)")
    common.add_argument("--json", action="store_true", help="print JSON")

    def verb(name: str, does: str, example: str) -> argparse.ArgumentParser:
        like = parser_of(f"log {name}", f"{does[0].upper()}{does[1:]}.", (example,), settings=SETTINGS)
        return verbs.add_parser(
            name,
            parents=[common],
            help=does,
            prog=like.prog,
            description=like.description,
            epilog=like.epilog,
            formatter_class=Formatter,
        )

    verb("status", "what waits, what was delivered, what was set aside and why", "log status --json")
    tail = verb(
        "tail",
        "the spool's rows as JSON Lines, in the order of time",
        "log tail -n 100 --model dummy | jq .status",
    )
    tail.add_argument("-n", type=_whole, default=10, metavar="ROWS", dest="rows", help="how many rows (default 10)")
    tail.add_argument("--follow", "-f", action="store_true", help="go on with what comes, until Ctrl-C")
    tail.add_argument("--model", metavar="NAME", help="rows of this model only")
    ship = verb(
        "ship",
        "take the spool into the database, as the shipper of a server does",
        "log ship --dir inference_logs",
    )
    ship.add_argument("--follow", action="store_true", help="go on with what comes, until SIGTERM or Ctrl-C")
    check = verb("check", "whether the log would work, and what to do where not", "log check --create")
    check.add_argument("--create", action="store_true", help="make or migrate the tables where needed")
    replay = verb(
        "replay",
        "run logged inputs through another version and compare its answers with the logged ones",
        "log replay --since 1h --model dummy --against models/new.keras",
    )
    replay.add_argument("--since", type=_time, required=True, metavar="TIME", help="30m, 1h, 7d, or an ISO time (UTC)")
    replay.add_argument("--model", required=True, metavar="NAME", help="the model's name in the log")
    replay.add_argument(
        "--against", required=True, metavar="VERSION|PATH", help="a version from MODEL_DIR or MODEL_PATH, or a path"
    )
    replay.add_argument("--version", metavar="V", help="rows that this version answered only")
    replay.add_argument("--limit", type=_whole, metavar="ROWS", help="at most so many rows, the oldest (default: all)")
    replay.add_argument(
        "--tolerance",
        type=_tolerance,
        default=TOLERANCE,
        metavar="T",
        help=f"answers agree within T + T * abs(logged) (default {TOLERANCE:g})",
    )
    return made


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:18]) > 0 and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number above 0")
    return int(text)


def _tolerance(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number from 0 on")
    return number


def _time(text: str) -> datetime:
    """So long ago, or a point in time; UTC where that names no zone."""
    if span := _SPAN.fullmatch(text):
        return datetime.now(UTC) - timedelta(seconds=int(span[1]) * _SECONDS[span[2]])
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is neither like 30m, 1h or 7d nor an ISO time") from None
