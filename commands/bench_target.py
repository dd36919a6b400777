"""What a load is made of: which model of a server is asked, with which bytes, and what the server says of itself.

Asks the server itself what its models take, in the dialect that is spoken; so another server's models are found, too.
"""

from __future__ import annotations

import base64
import io
import json
import math
import random
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from commands import asking, exits, terminal
from models.image_headers import sniff

NATIVE, TFS, V2 = "native", "tfs", "v2"
DIALECTS = (NATIVE, TFS, V2)
# A first answer may take as long as a model that was never called before.
ANSWER_S = 60.0
JSON = "application/json"
# So many different bodies are sent in turn, where they are made here: no answer can come from a cache.
BODIES, BODIES_BYTES_MAX = 16, 8 << 20


@dataclass(frozen=True)
class Target:
    """Where to send what. requests: whole ones. rows: in each. what: the body, in words."""

    url: str
    dialect: str
    model: str
    family: int
    address: tuple[Any, ...]
    path: str
    requests: Sequence[bytes]
    rows: int
    what: str


class Server:
    """A server that is there. url: without a slash at its end. What asks it raises terminal.Complaint."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url.rstrip("/")
        self._key = key
        where = urlsplit(self.url)
        try:
            with socket.create_connection((where.hostname or "", where.port or 80), ANSWER_S) as sock:
                self.family, self.address = int(sock.family), tuple(sock.getpeername())
        except OSError as error:
            raise terminal.Complaint(f"nobody answers at {url}: {error.strerror or error}", exits.NOBODY) from None

    def ask(self, path: str, body: bytes | None = None, content_type: str = JSON) -> asking.Answer:
        """One answer, whatever its status."""
        return asking.send(self.url + path, self._key, ANSWER_S, body, content_type)

    def json(self, path: str, body: bytes | None = None) -> Any:
        """A good answer's value; None for any other."""
        status, text = self.ask(path, body)
        if status != 200:
            return None
        try:
            return json.loads(text)
        except ValueError:
            return None

    def stats(self, model: str) -> dict[str, Any]:
        """The statistics of the Open Inference Protocol's extension; empty where there are none. Raises nothing."""
        with suppress(terminal.Complaint):
            told = self.json(f"/v2/models/{quote(model)}/stats")
            return told if isinstance(told, dict) else {}
        return {}

    def request(self, path: str, body: bytes, content_type: str, deadline_ms: float | None) -> bytes:
        """A whole request, as it goes over the wire."""
        where = urlsplit(self.url)
        headers = {"Host": where.netloc.rpartition("@")[2], "Content-Type": content_type}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        if deadline_ms is not None:
            headers["X-Request-Timeout-Ms"] = f"{deadline_ms:g}"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {where.path}{path} HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


def find(
    server: Server,
    *,
    dialect: str,
    model: str | None,
    body: Path | None,
    rows: int | None,
    deadline_ms: float | None,
) -> Target:
    """What to ask, seen to be answered once. Raises terminal.Complaint."""
    name = model or _only_model(server, dialect)
    path = _path(dialect, name)
    content_type = JSON
    if body is not None:
        try:
            data = body.read_bytes()
        except OSError as error:
            raise terminal.Complaint(f"{body} cannot be read: {error.strerror}", exits.USAGE) from None
        content_type, count, what = _known(data, body, dialect)
        bodies = [data]
        if content_type != JSON:
            path = f"/classify/{quote(name)}"
    else:
        count = rows or 1
        bodies, is_picture = _made(server, dialect, name, count)
        what = f"a made {'picture' if is_picture else 'request'} of {len(bodies[0]):,} bytes"
        if is_picture:
            content_type, path = "image/png", f"/classify/{quote(name)}"
            if rows not in (None, 1):
                raise terminal.Complaint("a request with a picture has one row: leave out --rows", exits.USAGE)
    requests = [server.request(path, one, content_type, deadline_ms) for one in bodies]
    status, answer = server.ask(path, bodies[0], content_type)
    if not 200 <= status < 300:
        told = " ".join(answer.decode("utf-8", "replace").split())[:300]
        raise terminal.Complaint(f"{server.url}{path} answers {status}: {told}")
    return Target(server.url, dialect, name, server.family, server.address, path, requests, count, what)


def _path(dialect: str, model: str) -> str:
    quoted = quote(model, safe="")
    return {
        NATIVE: f"/predict/{quoted}",
        TFS: f"/v1/models/{quoted}:predict",
        V2: f"/v2/models/{quoted}/infer",
    }[dialect]


def _only_model(server: Server, dialect: str) -> str:
    """The server's default, or its only model. Raises terminal.Complaint, which names those there are."""
    listed = server.json("/v2/repository/index", b"{}") if dialect == V2 else server.json("/models")
    default = None
    with suppress(TypeError, KeyError, AttributeError):
        if isinstance(listed, dict):
            default, listed = listed.get("default"), listed["models"]
        names = sorted({str(one["name"]) for one in listed if one.get("state", "READY") == "READY"})
        if default is not None or len(names) == 1:
            return str(default) if default is not None else names[0]
        if names:
            raise terminal.Complaint(f"which model? name one with --model: {', '.join(names)}", exits.USAGE)
    raise terminal.Complaint(f"{server.url} names no model that is ready: name one with --model", exits.USAGE)


# -- bodies ------------------------------------------------------------------------------------------------------------


def _known(data: bytes, file: Path, dialect: str) -> tuple[str, int, str]:
    """(content type, rows, in words) of a file's content."""
    what = f"{file.name}, {len(data):,} bytes"
    try:
        value = json.loads(data)
    except ValueError:
        picture = sniff(data)
        if picture is None or dialect != NATIVE:
            wanted = "JSON or a picture" if dialect == NATIVE else f"JSON, as --dialect {dialect} wants"
            raise terminal.Complaint(f"{file} is not {wanted}", exits.USAGE) from None
        return f"image/{picture.lower()}", 1, what
    rows: Any = 1
    with suppress(TypeError, KeyError, IndexError):
        rows = value["inputs"][0]["shape"][0] if dialect == V2 else len(value["instances"])
    return JSON, rows if isinstance(rows, int) else 1, what


def _made(server: Server, dialect: str, model: str, rows: int) -> tuple[list[bytes], bool]:
    """(bodies that the model takes, whether they are pictures)."""
    if dialect == NATIVE:
        return _made_native(server, model, rows)
    told = server.json(f"/v2/models/{quote(model)}" if dialect == V2 else f"/v1/models/{quote(model)}/metadata")
    try:
        inputs = _inputs_v2(told) if dialect == V2 else _inputs_tfs(told)
    except (TypeError, KeyError, ValueError, StopIteration):
        raise terminal.Complaint(
            f"{server.url} does not say what {model} takes: give a request with --body", exits.USAGE
        ) from None
    make = _body_v2 if dialect == V2 else _body_tfs
    first = make(inputs, rows, random.Random(0))  # noqa: S311 - numbers, not secrets
    count = max(min(BODIES, BODIES_BYTES_MAX // len(first)), 1)
    return [first, *(make(inputs, rows, random.Random(n)) for n in range(1, count))], False  # noqa: S311


def _made_native(server: Server, model: str, rows: int) -> tuple[list[bytes], bool]:
    told = server.json(f"/models/{quote(model)}")
    if not isinstance(told, dict) or "contract" not in told:
        raise terminal.Complaint(
            f"{server.url} does not describe a model {model}: is --dialect right? "
            "Without a description a request is given with --body",
            exits.USAGE,
        )
    image = told["contract"].get("image")
    if image is not None:
        return [_picture(image["width"], image["height"], image["colour"])], True
    if told["sample"] is None:
        raise terminal.Complaint(f"a sample for {model} would be too long: give a request with --body", exits.USAGE)
    one = told["sample"]
    return [json.dumps(one if rows == 1 else {"instances": [one] * rows}).encode()], False


def _picture(width: int, height: int, colour: str) -> bytes:
    """Something to look at, in the size that needs no scaling: soft shades, as in photographs, not noise."""
    from PIL import Image

    picture = Image.radial_gradient("L").resize((width, height))
    written = io.BytesIO()
    (picture if colour == "grey" else picture.convert("RGB")).save(written, "PNG")
    return written.getvalue()


Inputs = list[tuple[str, str, list[int]]]  # name, type, shape with -1 for what is open


def _inputs_v2(told: Any) -> Inputs:
    return [(one["name"], one["datatype"], [int(size) for size in one["shape"]]) for one in told["inputs"]]


def _inputs_tfs(told: Any) -> Inputs:
    signatures = told["metadata"]["signature_def"]["signature_def"]
    signature = signatures.get("serving_default") or next(iter(signatures.values()))
    return [
        (name, one["dtype"], [int(dim["size"]) for dim in one["tensor_shape"].get("dim", [])])
        for name, one in signature["inputs"].items()
    ]


def _values(kind: str, count: int, chance: random.Random) -> list[Any]:
    if kind in ("BYTES", "DT_STRING"):
        return ["text"] * count
    if kind in ("BOOL", "DT_BOOL"):
        return [chance.random() < 0.5 for _ in range(count)]
    if "INT" in kind:
        return [chance.randrange(2) for _ in range(count)]
    return [round(chance.random(), 6) for _ in range(count)]


def _of_row(shape: list[int]) -> list[int]:
    """Without the rows; what is open is 1."""
    return [1 if size < 0 else size for size in shape[1:]]


def _body_v2(inputs: Inputs, rows: int, chance: random.Random) -> bytes:
    tensors = []
    for name, kind, shape in inputs:
        # What is not open in front is no number of rows, or it is one that cannot be chosen.
        sizes = [shape[0] if rows == 1 and shape[:1] > [0] else rows, *_of_row(shape)]
        count = math.prod(sizes)
        tensors.append({"name": name, "datatype": kind, "shape": sizes, "data": _values(kind, count, chance)})
    return json.dumps({"inputs": tensors}).encode()


def _body_tfs(inputs: Inputs, rows: int, chance: random.Random) -> bytes:
    instances = []
    for _ in range(rows):
        values = {name: _nested(kind, _of_row(shape), chance) for name, kind, shape in inputs}
        instances.append(values if len(values) > 1 else next(iter(values.values())))
    return json.dumps({"instances": instances}).encode()


def _nested(kind: str, sizes: list[int], chance: random.Random) -> Any:
    if not sizes:
        return _values(kind, 1, chance)[0]
    if len(sizes) == 1:
        return _values(kind, sizes[0], chance)
    return [_nested(kind, sizes[1:], chance) for _ in range(sizes[0])]


def in_base64(requests: Sequence[bytes]) -> list[str]:
    """For a load generator's job."""
    return [base64.b64encode(one).decode() for one in requests]
