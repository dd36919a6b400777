"""A running server asked over HTTP: its address, the key, and what came of it. Knows nothing of what is asked."""

from __future__ import annotations

import argparse
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from commands import exits, terminal

URL = "http://127.0.0.1:8080"


class Answer(NamedTuple):
    """What the server said, a refusal included."""

    status: int
    body: bytes


def add_server(parser: argparse.ArgumentParser, default: str | None = URL) -> None:
    """The options that say where the server is."""
    shown = "" if default is None else f" (default {default})"
    parser.add_argument("--url", metavar="URL", default=default, help=f"the server{shown}")
    parser.add_argument("--key-file", metavar="FILE", type=Path, help="a file whose first line is the key to send")


def checked(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command's words, with a URL that can be asked and ends without a slash. Ends the process otherwise."""
    given = parser.parse_args(list(arguments))
    if given.url is not None:
        if not given.url.startswith(("http://", "https://")):
            parser.error("--url must begin with http:// or https://")
        given.url = given.url.rstrip("/")
    return given


def key_of(file: Path | None) -> str | None:
    """The key in a file. Raises terminal.Complaint."""
    if file is None:
        return None
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise terminal.Complaint(f"{file} cannot be read: {reason}", exits.USAGE) from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise terminal.Complaint(f"there is no key in {file}", exits.USAGE)
    return keys[0]


def send(
    url: str, key: str | None, limit_s: float, body: bytes | None = None, content_type: str = "application/json"
) -> Answer:
    """GET, or POST where there is a body. Raises terminal.Complaint where nobody answers."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    if body is not None:
        headers["Content-Type"] = content_type
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - `checked` has seen to it
    try:
        with urllib.request.urlopen(request, timeout=limit_s) as response:  # noqa: S310 - as above
            return Answer(response.status, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read())
    except TimeoutError:
        raise terminal.Complaint(f"no answer from {url} within {limit_s:.0f} s", exits.NOBODY) from None
    except urllib.error.URLError as error:
        raise terminal.Complaint(f"nobody answers at {url}: {_why(error.reason)}", exits.NOBODY) from None
    except OSError as error:
        raise terminal.Complaint(f"nobody answers at {url}: {_why(error)}", exits.NOBODY) from None
    except Exception as error:  # noqa: BLE001 - http.client's, whose names are not for this package
        raise terminal.Complaint(f"{url} cannot be asked: {type(error).__name__}") from None


def read_json(answer: Answer) -> dict[str, Any]:
    """The answer's object. Raises terminal.Complaint where it is none."""
    try:
        read = json.loads(answer.body)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise terminal.Complaint("what answers there is not this server")
    return read


def _why(reason: object) -> str:
    return (reason.strerror if isinstance(reason, OSError) else None) or str(reason)
