"""Inputs at which the model raises: found by halving their batch, and nobody beside them is touched."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import HELD, POISON
from tests.faults.asking import Reply, counted, predict, trouble_of
from tests.faults.base import back_to_base, faulty_server
from tests.faults.conftest import Say
from tests.harness import SOON_S, gate, wait_until

BATCH = 32
CALL_S = 0.01
# Nobody is to be late here because a call was held.
PATIENT_MS = 20_000
BAD_OUTPUTS = ["nan", "wrong_length", "no_outputs", "complex", "objects"]


@pytest.mark.parametrize(("poison", "calls_goal"), [(1, 12), (8, 35), (32, 35)])
def test_poison_in_a_batch_is_found_exactly(figure: Say, tmp_path: Path, poison: int, calls_goal: int) -> None:
    seen = tmp_path / "seen"
    culprits = set(range(0, BATCH, BATCH // poison))
    numbers = [POISON if place in culprits else 1000.0 + place for place in range(BATCH)]
    with gate() as held:
        model = held.model("poison", kind="poison", seconds=CALL_S, seen=str(seen))
        settings: dict[str, Any] = {"batch_max_size": BATCH, "predict_timeout_ms": PATIENT_MS}
        with faulty_server([model], **settings) as server, ThreadPoolExecutor(BATCH + 1) as pool, back_to_base(server):
            worker = server.worker()
            holder = pool.submit(predict, server.url, HELD)
            call = held.next_call()
            asked = [pool.submit(predict, server.url, number) for number in numbers]
            wait_until(lambda: counted(server.url, "inference_in_flight") == BATCH + 1, SOON_S, "a batch is gathered")
            begun = time.monotonic()
            call.let_go()
            replies = [one.result(SOON_S) for one in asked]
            seconds = time.monotonic() - begun
            assert holder.result(SOON_S).json["prediction"] == 2 * HELD
            kept = server.worker() == worker
    calls = calls_with(seen, {POISON, *numbers})
    found = {place for place, reply in enumerate(replies) if reply.status != 200}
    singly = (BATCH + 2) * CALL_S
    figure(
        13 if poison == 1 else 14,
        f"{poison} of {BATCH}: exact culprits, <= {calls_goal} calls, <= {1.5 * singly:.2f} s, worker kept",
        f"{len(found & culprits)} of {poison} found, {len(found - culprits)} wronged, {len(calls)} calls, "
        f"{seconds:.2f} s, worker {'kept' if kept else 'lost'}",
    )
    assert found == culprits
    assert_answered(numbers, replies)
    assert len(calls[0]) == BATCH, "they were not in one batch"
    assert len(calls) <= calls_goal
    assert kept
    assert seconds < 1.5 * singly + 2.0


@pytest.mark.parametrize("kind", BAD_OUTPUTS)
def test_what_is_no_answer_is_never_sent(figure: Say, kind: str) -> None:
    with faulty_server([{"name": "bad", "kind": kind}]) as server, back_to_base(server):
        worker = server.worker()
        replies = [predict(server.url, number) for number in (1.0, 2.0, 3.0)]
        kept = server.worker() == worker
    told = replies[0].json
    figure(
        15,
        "500 PREDICT_FAILED bad_output, worker kept",
        f"{kind}: {replies[0].status} {told['error']} {told.get('reason')}, worker {'kept' if kept else 'lost'}",
    )
    for reply in replies:
        assert not trouble_of(*reply)
        assert (reply.status, reply.json["error"], reply.json["reason"]) == (500, "PREDICT_FAILED", "bad_output")
    assert kept


def calls_with(seen: Path, numbers: set[float]) -> list[list[float]]:
    """The model calls that had any of these numbers, in order."""
    calls: list[list[float]] = [json.loads(line) for line in seen.read_text().splitlines()]
    return [values for values in calls if numbers & set(values)]


def assert_answered(numbers: Sequence[float], replies: Sequence[Reply]) -> None:
    """Each that is no poison as it would have been alone, each poison with the model's failure."""
    for number, reply in zip(numbers, replies, strict=True):
        assert not trouble_of(*reply)
        if number == POISON:
            assert (reply.status, reply.json["reason"]) == (500, "model_error")
        else:
            assert reply.json["prediction"] == 2 * number
