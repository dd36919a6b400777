"""One request at a time, and what any answer must look like: promises that hold whatever goes wrong.

Owns how an answer is judged. `Load` (tests.faults.load) asks many at once and judges by the same rules.
"""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any, NamedTuple

from front.refusals import STATUS
from models.dialects.native import ERROR_BYTES_MAX
from tests.harness import SOON_S

# What no answer may carry: paths of the file system, stack traces, names of classes.
LEAKS = re.compile(r"/(?:usr|home|root|tmp|etc|proc|var|opt)/|Traceback|File \"|numpy|tensorflow|keras|\w+Error\b")
ERROR_KEYS = {"ok", "error", "message", "request_id", "path", "expected", "sample", "reason"}
REASONS = {"model_error", "bad_output", "worker_crashed"}
# From the HTTP layer, beside the table's.
HTTP_STATUSES = {411, 505}
LINGER = struct.pack("ii", 1, 0)


class Reply(NamedTuple):
    """One answer: headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def address(url: str) -> tuple[str, int]:
    """Host and port of a server."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def post(url: str, path: str, value: Any, **headers: str) -> Reply:
    """The answer to a POST of bytes, or of anything else as JSON. Raises OSError or HTTPException."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return ask(url, "POST", path, body, **headers)


def get(url: str, path: str, **headers: str) -> Reply:
    """The answer to a GET."""
    return ask(url, "GET", path, None, **headers)


def predict(url: str, number: float, model: str = "", **headers: str) -> Reply:
    """The answer of a fake model to one number."""
    return post(url, f"/predict/{model}" if model else "/predict", {"features": [number]}, **headers)


def doubled(url: str, number: float, model: str = "") -> bool:
    """Whether the number comes back doubled."""
    reply = predict(url, number, model)
    return reply.status == 200 and reply.json["prediction"] == 2 * number


def counted(url: str, name: str, **labels: str) -> float:
    """A metric over all processes, summed over the labels that are not given."""
    found = 0.0
    for line in get(url, "/metrics").body.decode().splitlines():
        series, _, number = line.rpartition(" ")
        if series.partition("{")[0] == name and all(f'{key}="{text}"' in series for key, text in labels.items()):
            found += float(number)
    return found


def raw_predict(number: float, *, request_id: str = "", close: bool = False, more: str = "") -> bytes:
    """The bytes of a prediction's request. more: further header lines, each with its end."""
    return raw_post("/predict", b'{"features":[%d]}' % number, request_id=request_id, close=close, more=more)


def raw_post(path: str, body: bytes, *, request_id: str = "", close: bool = False, more: str = "") -> bytes:
    """The bytes of a POST."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n{more}"
    head += f"X-Request-Id: {request_id}\r\n" if request_id else ""
    head += "Connection: close\r\n" if close else ""
    return f"{head}\r\n".encode() + body


def connect(url: str) -> socket.socket:
    """A connection whose every wait has a limit."""
    return socket.create_connection(address(url), timeout=SOON_S)


def reset(sock: socket.socket) -> None:
    """Close by RST: whatever is under way is lost at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    sock.close()


def trouble_of(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """What is wrong with an answer of a native route; empty where it is as promised."""
    try:
        told = json.loads(body, parse_constant=_no_number)
    except ValueError:
        return f"{status}: no JSON: {body[:80]!r}"
    if not isinstance(told, dict) or told.get("ok") is not (status == 200):
        return f"{status}: ok is not as the status: {body[:80]!r}"
    return "" if status == 200 else _trouble_of_error(status, headers, body, told)


def _trouble_of_error(status: int, headers: Mapping[str, str], body: bytes, told: dict[str, Any]) -> str:
    code = told.get("error")
    if status not in HTTP_STATUSES and STATUS.get(str(code)) != status:
        return f"{status} with the code {code!r}"
    if not {"ok", "error", "message", "request_id"} <= told.keys() <= ERROR_KEYS:
        return f"{status}: keys {sorted(told)}"
    if len(body) > ERROR_BYTES_MAX:
        return f"{status}: {len(body)} bytes"
    if code == "PREDICT_FAILED" and told.get("reason") not in REASONS:
        return f"{status}: reason {told.get('reason')!r}"
    if leak := LEAKS.search(json.dumps(told)):
        return f"{status}: says {leak.group()!r}"
    if status == 503 and not headers.get("retry-after"):
        return "503 without Retry-After"
    return ""


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def ask(url: str, method: str, path: str, body: bytes | None, **named: str) -> Reply:
    """The answer to any request. named: headers, with underscores for dashes. Raises OSError or HTTPException."""
    connection = HTTPConnection(*address(url), timeout=SOON_S)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): text for name, text in named.items()})
        response = connection.getresponse()
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()
