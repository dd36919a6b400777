"""Workers that live and do nothing: stopped, or looping in native code. The watchdog replaces them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.fakes import POISON
from tests.faults.asking import Reply, counted, post, predict, trouble_of
from tests.faults.base import back_to_base, faulty_server, until_ready
from tests.faults.conftest import Say
from tests.faults.health import Health
from tests.faults.load import Load, assert_promises, quantile, statuses
from tests.harness import SOON_S, wait_until

DEATHS = "inference_worker_deaths_total"
BATCH_LIMIT_MS, TIMEOUT_MS = 1000, 4000
SETTINGS: dict[str, Any] = {"standby": 1, "batch_limit_ms": BATCH_LIMIT_MS, "predict_timeout_ms": TIMEOUT_MS}
# Rows of 400,000 numbers are 1.6 MB on their way to a worker, and 1.6 MB of JSON.
WIDE, WIDE_ROWS = 400_000, 4


def test_a_stopped_worker_is_replaced_and_holds_up_nobody(figure: Say) -> None:
    """With megabytes on their way to it: a send that blocks would stop the front with it."""
    wide = {"name": "wide", "size": WIDE}
    body = json.dumps({"features": [1] * WIDE}).encode()
    with (
        faulty_server([{"name": "pid", "kind": "pid"}, wide], **SETTINGS) as server,
        ThreadPoolExecutor(WIDE_ROWS) as pool,
    ):
        until_ready(server, 2)
        # Large bodies have threads, which are made for the first of them.
        first = [pool.submit(post, server.url, "/predict/wide", body) for _ in range(WIDE_ROWS)]
        assert {one.result(SOON_S).status for one in first} == {200}
        with back_to_base(server):
            deaths, health = counted(server.url, DEATHS), Health(server.url)
            worker = int(predict(server.url, 1.0, "pid").json["prediction"])
            stopped = time.monotonic()
            os.kill(worker, signal.SIGSTOP)
            with health.watched():
                asked = [pool.submit(post, server.url, "/predict/wide", body) for _ in range(WIDE_ROWS)]
                wait_until(lambda: counted(server.url, DEATHS) > deaths, SOON_S, "it is seen to be stuck")
                seen_s = time.monotonic() - stopped
                replies = [one.result(SOON_S) for one in asked]
            until_ready(server, 3)
    answers = Counter(reply.status for reply in replies)
    figure(
        6,
        "killed and replaced by the batch limit (1 s) + 0.5 s; 200 by retry or 504; loop lag <= 50 ms",
        f"after {seen_s:.2f} s; {dict(answers)} with {WIDE_ROWS * 1.6:.0f} MB in flight; {health}",
    )
    assert set(answers) <= {200, 504}
    assert not [reply.body[:200] for reply in replies if reply.status != 200 and trouble_of(*reply)]
    assert seen_s < BATCH_LIMIT_MS / 1e3 + 4.0
    assert quantile(health.seconds, 0.5) < 0.25


def test_an_input_that_loops_in_native_code_costs_its_worker_and_nobody_else(figure: Say) -> None:
    """A regular expression that backtracks for ever: the interpreter's lock is never let go."""
    model = {"name": "spins", "kind": "spins", "seconds": 0.01}
    with faulty_server([model], **SETTINGS, workers=2) as server:
        until_ready(server, 3)
        health, begun = Health(server.url), time.monotonic()
        with back_to_base(server), health.watched(), Load(server.url, 8) as load:
            load.until(20)
            reply: Reply = predict(server.url, POISON)
            seconds = time.monotonic() - begun
            load.until(load.answered + 100)
            asked = load.finish()
            deaths = counted(server.url, DEATHS)
    latest, others = assert_promises(asked), statuses(asked)
    figure(
        7,
        "as 6: its worker killed by the batch limit (1 s) + 0.5 s, others 200",
        f"{reply.status} {reply.json.get('error')} after {seconds:.2f} s and {deaths:.0f} deaths; "
        f"others {dict(others)}, latest {latest:.2f} s after its deadline; {health}",
    )
    assert not trouble_of(*reply)
    assert reply.status in (500, 504)
    assert deaths >= 1
    assert others["200"] >= 0.99 * len(asked)
    assert set(others) <= {"200", "503", "504"}
