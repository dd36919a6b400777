"""`inference_server.py reload`: have a running server look at its models again, or go back to what served before.

Owns the words and exit codes; what a reload is, the server knows. It answers once it is decided.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from commands import asking, exits, terminal
from commands.parsing import NO_SETTINGS, Parser
from commands.parsing import parser as parser_of

# Loading, warming and trying a large model takes minutes.
ANSWER_S = 600.0


def main(arguments: Sequence[str]) -> int:
    """Ask, and say what came of it; the exit code."""
    given = asking.checked(parser(), arguments)
    try:
        answer = ask(given.url, given.model, "rollback" if given.rollback else "reload", asking.key_of(given.key_file))
    except terminal.Complaint as error:
        terminal.complain(str(error))
        return error.code
    if given.json:
        terminal.say_json(answer)
    for one in [] if given.json else answer.get("models") or []:
        reason = f": {one['reason']}" if one.get("reason") else ""
        print(f"{one['name']} version {one['version']} {one['state']}{reason}", flush=True)
    if answer.get("ok") is not True:
        terminal.complain(str(answer.get("message") or answer.get("reason") or "the server refused and says no reason"))
        return exits.WRONG
    return exits.OK


def parser() -> Parser:
    """What it takes."""
    made = parser_of(
        "reload",
        "Have a running server look at its models again and load what has changed or failed, all while it serves. Ends "
        "once that is decided.",
        ("reload", "reload digits --url http://127.0.0.1:9000", "reload digits --rollback --key-file admin.key"),
        codes=(exits.OK, exits.WRONG, exits.USAGE, exits.NOBODY),
        settings=NO_SETTINGS,
    )
    made.add_argument("model", nargs="?", metavar="MODEL", help="one model; without it all of them")
    asking.add_server(made)
    made.add_argument("--rollback", action="store_true", help="go back to what served before the last change")
    made.add_argument("--json", action="store_true", help="print the server's answer")
    return made


def ask(url: str, model: str | None, action: str, key: str | None) -> dict[str, Any]:
    """What the server answers, a refusal included. Raises terminal.Complaint where that is no answer."""
    body = json.dumps({"model": model, "action": action}).encode()
    return asking.read_json(asking.send(f"{url}/reload", key, ANSWER_S, body))
