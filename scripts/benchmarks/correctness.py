"""Whether every answer belongs to its request: many clients at once, each request with its own input and its own id."""

from __future__ import annotations

import http.client
import json
import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import machine
from benchmarks.rounds import Options
from benchmarks.targets import ModelLoop, Server, server_settings

CLIENTS, REQUESTS, QUICK_REQUESTS = 64, 10_000, 640
TIMEOUT_S = 30
TOLERANCE = 1e-5  # absolute and relative: rows batched differently differ in the last bits

EQUAL, DIFFERENT, FAILED, WRONG_ID = "equal", "different", "failed", "with another's id"


def run(model: Path, options: Options) -> dict[str, Any]:
    """Ask the server, ask the model alone, compare; a JSON-safe account. `passed` is whether all were equal."""
    count = QUICK_REQUESTS if options.quick else REQUESTS
    with ModelLoop(model) as loop:
        (size,) = loop.contract["inputs"][0]["shape"]
        inputs = different_rows(count, size)
        alone = [answer[0] for answer in loop.answers(inputs)]
    options.say(f"{count:,} requests of {CLIENTS} clients")
    with Server(model) as server:
        calls_before, rows_before = server.batches()
        with ThreadPoolExecutor(CLIENTS) as clients:
            shares = clients.map(lambda at: ask(server.url, inputs, range(at, count, CLIENTS)), range(CLIENTS))
            answers = {number: answer for share in shares for number, answer in share.items()}
        calls, rows = server.batches()
    counts = Counter(judge(answers.get(number, FAILED), expected) for number, expected in enumerate(alone))
    return {
        "title": "Every answer belongs to its request",
        "machine": machine.describe(),
        "settings": {"clients": CLIENTS, "requests": count, "model": model.name, "server": server_settings()},
        "counts": {verdict: counts[verdict] for verdict in (EQUAL, DIFFERENT, FAILED, WRONG_ID)},
        "mean_batch": (rows - rows_before) / max(calls - calls_before, 1),
        "passed": counts[EQUAL] == count,
    }


def different_rows(count: int, size: int) -> list[list[float]]:
    """Rows of normal noise; no two have the same sum, so that hardly two have the same answer."""
    random_ = random.Random(0)  # noqa: S311 - numbers to add up, not secrets
    return [[random_.gauss(0, 1) for _ in range(size)] for _ in range(count)]


def ask(url: str, inputs: Sequence[Sequence[float]], numbers: Sequence[int]) -> dict[int, float | str]:
    """One client: its requests one after the other on one connection. An answer, FAILED or WRONG_ID for each number."""
    answers: dict[int, float | str] = {}
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_S)
    for number in numbers:
        body, request_id = json.dumps({"features": inputs[number]}), f"request-{number}"
        try:
            connection.request("POST", "/predict", body, {"X-Request-Id": request_id})
            with connection.getresponse() as response:
                content = response.read()
                answers[number] = FAILED if response.status != http.client.OK else json.loads(content)["prediction"]
                if response.headers["X-Request-Id"] != request_id:
                    answers[number] = WRONG_ID
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            answers[number] = FAILED
            connection.close()  # the next request opens it again
    connection.close()
    return answers


def judge(answer: float | str, alone: float) -> str:
    """What became of one request, given what the model answers to its input alone."""
    if isinstance(answer, str):
        return answer
    return EQUAL if abs(answer - alone) <= TOLERANCE + TOLERANCE * abs(alone) else DIFFERENT


def to_text(account: dict[str, Any]) -> str:
    """For a terminal."""
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in account["counts"].items())
    settings = account["settings"]
    return (
        f"{account['title']}: {'yes' if account['passed'] else 'NO'}\n"
        f"{settings['requests']:,} requests of {settings['clients']} clients: {counts}; "
        f"mean batch {account['mean_batch']:.1f}"
    )
