"""Clients that go before their answer comes: what is still queued for them is dropped, and nobody else notices."""

from __future__ import annotations

import json
import random
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.asking import connect, counted, doubled, predict, raw_predict, reset
from tests.faults.base import back_to_base, faulty_server
from tests.faults.conftest import Say
from tests.faults.connection import Ask, posted, prediction
from tests.faults.load import Load, assert_promises, logged, statuses
from tests.faults.logs import assert_quiet
from tests.harness import SOON_S, Gate, gate, wait_until

VANISHING = 200
# The limit of a request that waits while 200 clients come and go on a busy machine.
PATIENT_MS = 20_000
REQUESTS, BAD_SHARE, HURRIED_SHARE = 10_000, 0.3, 0.3
GONE = 499


@pytest.mark.parametrize("how", ["reset", "end of file"])
def test_what_vanished_clients_had_queued_never_reaches_the_model(figure: Say, tmp_path: Path, how: str) -> None:
    seen, spool = tmp_path / "seen", tmp_path / "spool"
    settings = {"prediction_log_dir": str(spool), "prediction_log_refusal_sample": 1.0}
    with gate() as held:
        model = held.model(seen=str(seen))
        with (
            faulty_server([model], predict_timeout_ms=PATIENT_MS, **settings) as server,  # type: ignore[arg-type]
            ThreadPoolExecutor(2) as pool,
            back_to_base(server),
        ):
            first = pool.submit(predict, server.url, 1.0)
            call = held.next_call()
            clients = []
            for number in range(VANISHING):
                clients.append(connect(server.url))
                clients[-1].sendall(raw_predict(1000.0 + number))
            wait_until(lambda: counted(server.url, "inference_in_flight") == VANISHING + 1, SOON_S, "all are queued")
            for client in clients:
                if how == "reset":
                    reset(client)
                else:
                    client.close()
            wait_until(lambda: counted(server.url, "inference_cancelled_total") >= VANISHING, SOON_S, "all are gone")
            last = pool.submit(predict, server.url, 2.0)
            call.let_go()
            held.open()
            assert first.result(SOON_S).json["prediction"] == 2.0
            assert last.result(SOON_S).json["prediction"] == 4.0
            wait_until(lambda: counted(server.url, "inference_in_flight") == 0, SOON_S, "nothing is left")
    computed = sum(number >= 1000 for number in computed_by(seen))
    rows = Counter(row["status"] for row in logged(spool))
    figure(
        18,
        ">= 99 % never reach the model, each with a row that says so",
        f"{how}: {VANISHING - computed} of {VANISHING} did not, {rows[GONE]} rows of status {GONE}",
    )
    assert computed <= VANISHING // 100
    assert rows[GONE] >= VANISHING - computed


@pytest.mark.parametrize("how", ["reset", "close", "half close"])
def test_a_client_that_goes_while_its_batch_computes_disturbs_nobody(figure: Say, how: str) -> None:
    with gate() as held:
        model = held.model()
        with faulty_server([model]) as server, ThreadPoolExecutor(2) as pool, back_to_base(server):
            answer = leave_while_computing(server.url, held, how)
            held.open()
            other = pool.submit(doubled, server.url, 5.0)
            assert other.result(SOON_S)
            worker = server.worker()
            log = server.log
    errors = [line for line in log.splitlines() if line.startswith(("ERROR", "CRITICAL", "Traceback"))]
    got = {b"": "no answer wanted"}.get(answer, answer.split(b"\r\n", 1)[0].decode())
    figure(19, "others untouched, no ERROR line, the answer is tried", f"{how}: {got}, {len(errors)} ERROR lines")
    assert worker
    assert errors == []
    if how == "half close":
        assert b'"prediction":14' in answer


def leave_while_computing(url: str, held: Gate, how: str) -> bytes:
    """What a client gets that leaves (or says that it will send no more) while the model has its input."""
    client = connect(url)
    with client:
        client.sendall(raw_predict(7.0))
        call = held.next_call()
        if how == "reset":
            reset(client)
        elif how == "close":
            client.close()
        else:
            client.shutdown(socket.SHUT_WR)
        # Until the front has had the time to notice: it answers others in between.
        for _ in range(5):
            assert counted(url, "inference_in_flight") <= 1
        call.let_go()
        if how != "half close":
            return b""
        got = b""
        while piece := client.recv(65536):
            got += piece
        return got


def test_random_time_outs_and_bad_bodies_leave_nothing_behind(figure: Say) -> None:
    """As mosec tests itself: 10,000 requests, a third of them bad, clients that give up at any moment."""
    rng = random.Random(28)

    def make(order: int) -> Ask:
        chance = rng.random()
        if chance < BAD_SHARE:
            return posted("/predict", rng.choice(BAD_BODIES), "bad", lambda told: False)
        if chance < BAD_SHARE + HURRIED_SHARE:
            return prediction(order, gives_up_s=rng.uniform(0, 0.05))
        if chance < BAD_SHARE + 2 * HURRIED_SHARE:
            timeout_ms = rng.randint(1, 100)
            return prediction(order, more=f"X-Request-Timeout-Ms: {timeout_ms}\r\n", timeout_s=timeout_ms / 1e3)
        return prediction(order)

    with faulty_server([{"name": "double", "seconds": 0.005}], fronts=2) as server:
        with Load(server.url, 32, make=make, limit=REQUESTS // 10) as load:
            load.join(60)  # what a process takes once and keeps
        begun = time.monotonic()
        with back_to_base(server, memory=True):
            with Load(server.url, 32, make=make, limit=REQUESTS) as load:
                asked = load.join(100)
            assert doubled(server.url, 3.0)
        seconds = time.monotonic() - begun
        quiet = assert_quiet(server.log, seconds)
    latest = assert_promises(asked, faults=("idle", "gone"))
    by_kind = {kind: dict(statuses([one for one in asked if one.kind == kind])) for kind in ("predict", "bad")}
    figure(
        28,
        "10,000 requests, then 200 and back to base",
        f"{len(asked)} in {seconds:.0f} s: {by_kind}, latest {latest:.2f} s after its deadline; {quiet}",
    )
    assert len(asked) == REQUESTS
    assert set(by_kind["bad"]) <= {"400", "413"}
    assert set(by_kind["predict"]) <= {"200", "503", "504", "gone", "idle"}


BAD_BODIES = (
    b"",
    b"{",
    b"[" * 500,
    b'{"features":"x"}',
    b'{"features":[1,2,3]}',
    b'{"features":[NaN]}',
    b'{"features":[1e999]}',
    b'{"features":[null]}',
    b'{"feature":[1]}',
    b'{"features":[1],"features":[2]}',
    b"\xff\xfe\x00",
    b'{"features":["\\ud800"]}',
    json.dumps({"instances": [1] * 3000}).encode(),
)


def computed_by(seen: Path) -> list[float]:
    """Everything that the model was called with."""
    return [number for line in seen.read_text().splitlines() for number in json.loads(line)]
