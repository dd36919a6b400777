"""`inference_server.py predict`: one request to a model, with a body, a picture, an array or a few rows.

Owns what a file is as a request. It is answered by a server over HTTP, a running one or one for this moment, so it says
just what a client would hear.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from batching.errors import StartupFailed
from commands import asking, exits, terminal
from commands.embedding import OPTIONS, newest
from commands.parsing import Parser
from commands.parsing import parser as parser_of
from models.contract import Contract
from models.image_headers import sniff

ANSWER_S = 120.0
BODY_BYTES_MAX = 64 << 20
NUMPY = b"\x93NUMPY"


class Asked(NamedTuple):
    """A file as a request: what is asked, and the body."""

    action: str
    body: bytes
    content_type: str = "application/json"


def parser() -> Parser:
    """What it takes."""
    made = parser_of(
        "predict",
        "Send one request to a model and print the answer as the server says it. The model is loaded for this request, "
        "or with --url it is one that a running server has.",
        (
            "predict model.keras body.json",
            "predict models/saved/digits seven.png",
            "predict model.keras - < body.json",
            "predict digits seven.png --url http://127.0.0.1:8080 --key-file keys",
        ),
        codes=tuple(exits.EXIT_CODES),
    )
    made.add_argument("model", metavar="MODEL", help="a model's file or folder; with --url its name there")
    made.add_argument(
        "file",
        metavar="FILE",
        help="a JSON body, a picture (PNG, JPEG, …) for a classifier, .npy (rows first), .csv (with a header), .jsonl "
        "(a row on each line), or - for stdin, where what it is shows by its beginning",
    )
    asking.add_server(made, None)
    made.add_argument("--version", metavar="V", help="with --url: this version, not the one that serves")
    made.add_argument("--json", action="store_true", help="JSON on a terminal, too")
    return made


def main(arguments: Sequence[str], server: Callable[..., Any]) -> int:
    """Ask, and print what came of it; the exit code. server: InferenceServer."""
    made = parser()
    given = asking.checked(made, arguments)
    if given.url is None and (given.key_file is not None or given.version is not None):
        made.error("--key-file and --version are for a running server: they need --url")
    try:
        key = asking.key_of(given.key_file)
        data = _read(given.file)
        table = Path(given.file) if given.file.endswith(".csv") else None
        asked = Asked("predict", b"") if table else request_of(given.file, data)
        name, running = _place(given.model, given.url, server)
        name = quote(name, safe="")
        version = "" if given.version is None else f"?version={quote(given.version, safe='')}"
        with running as url:
            if table is not None:
                asked = Asked("predict", _of_csv(table, _contract(f"{url}/models/{name}{version}", key)))
            answer = asking.send(f"{url}/{asked.action}/{name}{version}", key, ANSWER_S, asked.body, asked.content_type)
        told = asking.read_json(answer)
    except terminal.Complaint as error:
        terminal.complain(str(error))
        return error.code
    except StartupFailed as error:
        terminal.complain(error.reason)
        return exits.NO_MODEL
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    if answer.status != 200:
        _refused(told)
        return exits.WRONG
    if sys.stdout.isatty() and not given.json and asked.action == "classify":
        _show_classes(told)
    else:
        sys.stdout.buffer.write(answer.body.rstrip() + b"\n")
        sys.stdout.flush()
    return exits.OK


def _place(model: str, url: str | None, server: Callable[..., Any]) -> tuple[str, AbstractContextManager[str]]:
    """The model's name, and where it is asked."""
    if url is not None:
        return model, nullcontext(url)
    return newest(model).name, _Own(server(model, **{**OPTIONS, "max_json_bytes": BODY_BYTES_MAX}))


def _contract(url: str, key: str | None) -> Contract:
    """Of a model, as its server describes it. Raises terminal.Complaint."""
    told = asking.read_json(asking.send(url, key, ANSWER_S))
    if "contract" not in told:
        raise terminal.Complaint(str(told.get("message") or told.get("reason") or "the model is not ready"))
    return Contract.from_json(told["contract"])


class _Own(AbstractContextManager[str]):
    """The address of a server that is there for the block."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def __enter__(self) -> str:
        with terminal.waiting("loading the model"):
            url: str = self._server.__enter__().url
        return url

    def __exit__(self, *fault: object) -> None:
        self._server.__exit__(*fault)


def _read(file: str) -> bytes:
    try:
        data = sys.stdin.buffer.read(BODY_BYTES_MAX + 1) if file == "-" else _limited(Path(file))
    except OSError as error:
        raise terminal.Complaint(f"{file} cannot be read: {error.strerror}", exits.USAGE) from None
    if len(data) > BODY_BYTES_MAX:
        most = terminal.size(BODY_BYTES_MAX)
        raise terminal.Complaint(f"{file} has over {most}, more than a request may; see score", exits.USAGE)
    return data


def _limited(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(BODY_BYTES_MAX + 1)


# ---------------------------------------------------------------------------------------------- files -> requests


def request_of(name: str, data: bytes) -> Asked:
    """A file's bytes as a request, by its beginning or its name's ending, but for .csv. Raises terminal.Complaint."""
    if (picture := sniff(data)) is not None:
        return Asked("classify", data, f"image/{picture.lower()}")
    if data.startswith(NUMPY):
        return Asked("predict", _of_array(name, data))
    if name.endswith(".jsonl"):
        return Asked("predict", _of_lines(name, data))
    action = "classify" if _is_encoded_picture(data) else "predict"
    return Asked(action, data)


def _is_encoded_picture(data: bytes) -> bool:
    """Whether it is a body with a picture in base64, which is for a classifier."""
    try:
        body = json.loads(data)
    except ValueError:
        return False
    rows = body.get("instances") if isinstance(body, dict) else None
    first = rows[0] if isinstance(rows, list) and rows else body
    return isinstance(first, dict) and isinstance(first.get("image"), str)


def _of_array(name: str, data: bytes) -> bytes:
    import numpy as np

    from models.tensors import dumps

    try:
        array = np.load(io.BytesIO(data))
    except ValueError as error:
        raise terminal.Complaint(f"{name} cannot be read: {error}") from None
    if not array.ndim or array.dtype.kind not in "bfiu":
        raise terminal.Complaint(f"{name} must be an array of numbers whose first axis are the rows")
    return dumps({"instances": np.ascontiguousarray(array)})


def _of_csv(path: Path, contract: Contract) -> bytes:
    """Rows whose columns are found by their names, as `score` does."""
    from commands.score_source import Csv

    source = Csv(path, contract)
    rows: list[Any] = []
    try:
        for block in source.blocks(0, 1, BODY_BYTES_MAX):
            rows += [_row(json.loads(source.body(block, place))) for place in range(block.rows)]
    except (ValueError, csv.Error) as error:
        raise terminal.Complaint(f"{path}: row {len(rows) + 1}: {error}") from None
    return json.dumps({"instances": rows}).encode()


def _row(body: Any) -> Any:
    """A row of many, of the body that a request for it alone would have."""
    return body["features"] if isinstance(body, dict) and body.keys() == {"features"} else body


def _of_lines(name: str, data: bytes) -> bytes:
    """Each line is one of the rows: its value, or the body that a request for it alone would have."""
    rows = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            raise terminal.Complaint(f"{name}: line {number} is no JSON") from None
        if row is not None:
            rows.append(_row(row))
    return json.dumps({"instances": rows}).encode()


# ---------------------------------------------------------------------------------------------- words


def _refused(told: dict[str, Any]) -> None:
    """Why, in the server's words; then where, what it expected, and what would do."""
    terminal.complain(str(told.get("message") or told.get("error") or "the server refused and says no reason"))
    for name, value in (("at", told.get("path")), ("expected", told.get("expected"))):
        if value:
            print(f"  {name}: {value}", file=sys.stderr)
    if told.get("sample") is not None:
        print(f"  sample: {json.dumps(told['sample'], ensure_ascii=False)}", file=sys.stderr)


def _show_classes(told: dict[str, Any]) -> None:
    page = terminal.Page()
    predictions = told.get("predictions")
    for number, one in enumerate([told] if predictions is None else predictions):
        page.heading(f"{one['label']}" if predictions is None else f"{number}: {one['label']}")
        page.rows([(each["label"], f"{each['score']:.4f}", terminal.share_bar(each["score"])) for each in one["top"]])
