"""`inference_server.py status`: what a running server does just now.

Owns the two readings a second apart, the exit codes, and that a server whose /status is not for us is asked for /ready.
What is said of the readings is commands.status_page's affair.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from commands import asking, exits, status_page, terminal
from commands.parsing import NO_SETTINGS, Parser
from commands.parsing import parser as parser_of

ANSWER_S = 5.0
BETWEEN_S = 1.0
REFUSED = (401, 403, 404)


def parser() -> Parser:
    """What it takes."""
    made = parser_of(
        "status",
        "Show what a running server does: models, workers, queues, rates and latencies over the last second, the log's "
        "state, and why it is degraded. Without a key that GET /status asks for, what GET /ready says to everybody. 1 "
        "where it is not ready or degraded.",
        (
            "status",
            "status --url http://127.0.0.1:9000 --key-file admin.key",
            "status --watch",
            "status --json | jq .degraded",
        ),
        codes=(exits.OK, exits.WRONG, exits.USAGE, exits.NOBODY, exits.INTERRUPTED),
        settings=NO_SETTINGS,
    )
    asking.add_server(made)
    made.add_argument("--watch", action="store_true", help="again each second, until Ctrl-C")
    made.add_argument(
        "--json", action="store_true", help="print the server's own answer, with --watch one on each line"
    )
    return made


def main(arguments: Sequence[str]) -> int:
    """Show it; the exit code, with --watch that of the last look."""
    given = asking.checked(parser(), arguments)
    code = exits.OK
    try:
        key = asking.key_of(given.key_file)
        before = _read(given.url, key) if given.watch or not given.json else None
        while True:
            if before is not None:
                time.sleep(BETWEEN_S)
            now = _read(given.url, key)
            code = exits.OK if status_page.is_well(now) else exits.WRONG
            if given.json:
                terminal.say_json(now, in_lines=given.watch)
            else:
                status_page.show(now, before, clear=given.watch)
            if not given.watch:
                return code
            before = now
    except terminal.Complaint as error:
        terminal.complain(str(error))
        return error.code
    except BrokenPipeError:
        terminal.forget_stdout()
        return code
    except KeyboardInterrupt:
        return code if given.watch else exits.INTERRUPTED


def _read(url: str, key: str | None) -> dict[str, Any]:
    """What GET /status says, or GET /ready where that is not for us. Raises terminal.Complaint."""
    answer = asking.send(f"{url}/status", key, ANSWER_S)
    if answer.status in REFUSED:
        said = asking.read_json(answer).get("message")
        answer = asking.send(f"{url}/ready", key, ANSWER_S)
        ready = asking.read_json(answer)
        if "ok" not in ready or "workers" not in ready:
            raise terminal.Complaint(str(said or "what answers there is not this server"))
        return ready
    told = asking.read_json(answer)
    if answer.status != 200 or "models" not in told:
        raise terminal.Complaint(str(told.get("message") or "what answers there is not this server"))
    return told
