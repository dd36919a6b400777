"""Workers killed at random under load: what their clients see of it."""

from __future__ import annotations

import base64
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from models.repository import find
from tests.faults.base import back_to_base, faulty_server, until_ready
from tests.faults.conftest import Say
from tests.faults.connection import Ask, Asked, posted
from tests.faults.load import Load, assert_logged_once, assert_promises, quantile, statuses, warm_up
from tests.faults.logs import assert_quiet

KILLS, DIGITS_KILLS = 200, 12
CLIENTS = 16
SEED = 4
# An image is decoded first; TensorFlow's start beside it takes most of both cores for seconds.
DIGITS_TIMEOUT_S = 10.0


@pytest.mark.timeout(400)
def test_kills_of_ready_workers_cost_no_request(figure: Say, tmp_path: Path) -> None:
    """Each as soon as two are ready: the other one and the next one have all the requests."""
    rng = random.Random(SEED)
    model = {"name": "double", "seconds": 0.03}
    with faulty_server([model], workers=2, prediction_log_dir=str(tmp_path)) as server:
        until_ready(server, 2)
        with back_to_base(server), Load(server.url, CLIENTS) as load:
            load.until(100)
            begun = time.monotonic()
            for kill in range(KILLS):
                workers = server.children("worker")
                server.kill(rng.choice(workers))
                until_ready(server, 3 + kill)
            seconds = time.monotonic() - begun
            load.until(load.answered + 100)
            asked = load.finish()
            until_ready(server, 2 + KILLS)
        quiet = assert_quiet(server.log, seconds)
    latest = assert_promises(asked)
    unheard = assert_logged_once(tmp_path, asked)
    figure(
        3,
        "200 kills: >= 99.9 % 200, the rest 503, none late",
        f"{KILLS} kills in {seconds:.0f} s: {said(asked)}, latest {latest:.2f} s after its deadline; "
        f"log rows exactly once, {unheard} unheard; {quiet}",
    )
    assert_barely_felt(asked)


@pytest.mark.timeout(600)
def test_kills_of_tensorflow_s_workers_cost_no_request_with_a_stand_by(
    figure: Say, demo_models: Path, held_out_digits: list[tuple[bytes, int]]
) -> None:
    """Each as soon as the stand-by is warm."""
    first: dict[bytes, int] = {}

    def digit(order: int) -> Ask:
        png, _ = held_out_digits[order % len(held_out_digits)]
        body = json.dumps({"image": base64.b64encode(png).decode()}).encode()

        def same(told: Any) -> bool:
            """It is not always right, but each digit gets the answer that it got at first."""
            return bool(first.setdefault(png, told["predicted_class"]) == told["predicted_class"])

        return posted("/classify", body, "digit", same, DIGITS_TIMEOUT_S)

    models = [one.to_json() for one in find(str(demo_models / "digits"), None)]
    settings: dict[str, Any] = {"standby": 1, "predict_timeout_ms": DIGITS_TIMEOUT_S * 1e3}
    rng = random.Random(SEED)
    with faulty_server(models, **settings) as server:
        until_ready(server, 2)
        warm_up(server.url, digit)
        with back_to_base(server), Load(server.url, CLIENTS, make=digit, pause_s=0.3) as load:
            begun = time.monotonic()
            for kill in range(DIGITS_KILLS):
                load.until(load.answered + 50)
                server.kill(rng.choice(server.children("worker")))
                until_ready(server, 3 + kill)
            seconds = time.monotonic() - begun
            load.until(load.answered + 100)
            asked = load.finish()
    latest = assert_promises(asked)
    figure(
        3,
        "12 kills of digits with a stand-by: >= 99.9 % 200, the rest 503, none late",
        f"{DIGITS_KILLS} kills in {seconds:.0f} s: {said(asked)}, latest {latest:.2f} s after its deadline",
    )
    assert_barely_felt(asked)


def said(asked: list[Asked]) -> str:
    """The answers in words."""
    share = 100 * sum(one.status == 200 for one in asked) / len(asked)
    seconds = [one.seconds for one in asked]
    refusals = dict(Counter(one.code for one in asked if one.code))
    return f"{dict(statuses(asked))} ({share:.2f} % 200) {refusals or ''}, p99 {quantile(seconds, 0.99) * 1e3:.0f} ms"


def assert_barely_felt(asked: list[Asked]) -> None:
    """At least 99.9 % got their answer, and the others may come again."""
    counts = statuses(asked)
    sys.stdout.write(f"{counts}\n")
    assert counts["200"] >= 0.999 * len(asked)
    assert set(counts) <= {"200", "503", "idle"}
