"""`inference_server.py reload`: have a running server look at its models again, or go back to what served before.

Owns the words and exit codes; what a reload is, the server knows. It answers once it is decided.
"""

from __future__ import annotations

import argparse
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from commands import terminal

URL = "http://127.0.0.1:8080"
# Loading, warming and trying a large model takes minutes.
ANSWER_S = 600.0
NOBODY = 4


def main(arguments: Sequence[str]) -> int:
    """Ask, and say what came of it; the exit code."""
    given = _parse(arguments)
    try:
        answer = ask(given.url, given.model, "rollback" if given.rollback else "reload", _key(given.key_file))
    except terminal.Complaint as error:
        terminal.complain(str(error))
        return error.code
    for one in answer.get("models") or []:
        reason = f": {one['reason']}" if one.get("reason") else ""
        print(f"{one['name']} version {one['version']} {one['state']}{reason}", flush=True)
    if answer.get("ok") is not True:
        terminal.complain(str(answer.get("message") or answer.get("reason") or "the server refused and says no reason"))
        return terminal.WRONG
    return terminal.OK


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="inference_server.py reload",
        description="Have a running server look at its models again and load what has changed or failed, all while it "
        "serves. Ends once that is decided: 0 when everything wanted serves, 1 when something could not be loaded or "
        "the server refused, 4 when no server answers.",
    )
    parser.add_argument("model", nargs="?", help="one model; without it all of them")
    parser.add_argument("--url", metavar="URL", default=URL, help=f"the server (default {URL})")
    parser.add_argument("--key-file", metavar="FILE", type=Path, help="a file whose first line is the key to send")
    parser.add_argument("--rollback", action="store_true", help="go back to what served before the last change")
    given = parser.parse_args(list(arguments))
    if not given.url.startswith(("http://", "https://")):
        parser.error("--url must begin with http:// or https://")
    return given


def _key(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise terminal.Complaint(f"{file} cannot be read: {reason}", terminal.USAGE) from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise terminal.Complaint(f"there is no key in {file}", terminal.USAGE)
    return keys[0]


def ask(url: str, model: str | None, action: str, key: str | None) -> dict[str, Any]:
    """What the server answers, a refusal included. Raises terminal.Complaint where that is no answer."""
    body = json.dumps({"model": model, "action": action}).encode()
    headers = {"Content-Type": "application/json"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
    request = urllib.request.Request(f"{url.rstrip('/')}/reload", body, headers)  # noqa: S310 - checked by _parse
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as response:  # noqa: S310 - as above
            return _read(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return _read(error.read())
    except TimeoutError:
        raise terminal.Complaint(f"no answer from {url} within {ANSWER_S:.0f} s", NOBODY) from None
    except urllib.error.URLError as error:
        raise terminal.Complaint(f"nobody answers at {url}: {_why(error.reason)}", NOBODY) from None
    except OSError as error:
        raise terminal.Complaint(f"nobody answers at {url}: {_why(error)}", NOBODY) from None


def _why(reason: object) -> str:
    return (reason.strerror if isinstance(reason, OSError) else None) or str(reason)


def _read(text: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise terminal.Complaint("what answers there is not this server")
    return answer
