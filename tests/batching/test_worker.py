"""A worker at work, in a real process that the test speaks to itself. How it starts and ends: test_worker_life.py."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import pytest

from batching.errors import Failure
from batching.transport import PART_BYTES
from tests.batching.direct import QUICK, SLOW, both_ways, column, ended, failure, worker
from tests.fakes import POISON
from tests.harness import SOON_S, Gate, wait_until

# -- answers --------------------------------------------------------------------------------------------------------


@both_ways
def test_each_item_gets_its_own_answer(cost: dict[str, Any]) -> None:
    with worker({"name": "m", **cost}) as process:
        peers = [process.link(), process.link()]
        for id in range(200):
            peers[id % 2].send(id, column(id))
        assert [peers[id % 2].values(id) for id in range(200)] == [[2.0 * id] for id in range(200)]


def test_a_batch_of_several_fronts_and_sizes_is_answered_to_each(a_gate: Gate) -> None:
    with worker(a_gate.model()) as process:
        peers = [process.link(), process.link()]
        peers[0].send(0, column(0))
        held = a_gate.next_call()
        for id in range(1, 9):
            peers[id % 2].send(id, column(*range(id)))
        held.let_go()
        a_gate.next_call().let_go()
        for id in range(1, 9):
            assert peers[id % 2].values(id) == [2.0 * value for value in range(id)]
        assert {frame.batch_rows for peer in peers for id, frame in peer.answers.items() if id} == {36}


def test_quick_batches_run_in_the_loop_and_slow_ones_in_the_thread() -> None:
    with worker(
        {"name": "quick", "kind": "main_thread", **QUICK}, {"name": "slow", "kind": "main_thread", **SLOW}
    ) as process:
        peer = process.link()
        peer.send(1, column(0), model=0)
        peer.send(2, column(0), model=1)
        assert (peer.values(1), peer.values(2)) == ([1.0], [0.0])


def test_a_model_that_turns_slow_leaves_the_loop() -> None:
    with worker({"name": "m", "kind": "main_thread", "cost": 1e-5, "seconds": 0.02}) as process:
        peer = process.link()
        in_the_loop = []
        for id in range(4):
            peer.send(id, column(0))
            in_the_loop += peer.values(id)
        assert in_the_loop[0] == 1.0
        assert in_the_loop[-1] == 0.0


@both_ways
def test_what_waits_while_the_model_computes_becomes_one_batch(cost: dict[str, Any], a_gate: Gate) -> None:
    with worker(a_gate.model(**cost)) as process:
        peer = process.link()
        peer.send(0, column(0))
        first = a_gate.next_call()
        for id in range(1, 21):
            peer.send(id, column(id))
        first.let_go()
        second = a_gate.next_call()
        assert second.values == list(range(1, 21))
        second.let_go()
        frames = [peer.answer(id) for id in range(1, 21)]
        assert {frame.batch_rows for frame in frames} == {20}
        assert len({frame.batch for frame in frames}) == 1
        assert all(frame.queue_us > 0 for frame in frames)
        assert process.counted("inference_rows_total", "gated", "1") == 21
        assert process.counted("inference_batches_total", "gated", "1") == 2


def test_a_batch_has_no_more_rows_than_allowed(a_gate: Gate) -> None:
    with worker(a_gate.model(max_rows=8), batch_max_size=16) as process:
        peer = process.link()
        peer.send(0, column(0))
        held = a_gate.next_call()
        for id in range(1, 21):
            peer.send(id, column(id))
        for size in (1, 8, 8, 4):
            assert len(held.values) == size
            held.let_go()
            held = a_gate.next_call() if size != 4 else held
        assert peer.values(20) == [40.0]


def test_one_batch_never_mixes_layouts(a_gate: Gate) -> None:
    with worker(a_gate.model()) as process:
        peer = process.link()
        peer.send(0, column(0))
        held = a_gate.next_call()
        peer.send(1, column(1))
        peer.send(2, np.array([[2, 2]], np.float32))
        peer.send(3, column(3))
        peer.send(4, np.array([[4]], np.float64))
        for expected in ([1, 3], [2, 2], [4]):
            held.let_go()
            held = a_gate.next_call()
            assert held.values == expected
        held.let_go()
        assert [peer.values(id) for id in (1, 2, 3, 4)] == [[2.0], [4.0, 4.0], [6.0], [8.0]]


def test_an_item_larger_than_a_batch_goes_through_in_several_calls() -> None:
    with worker({"name": "m", "kind": "calls"}, batch_max_size=4) as process:
        peer = process.link()
        peer.send(1, column(*range(10)))
        assert peer.values(1) == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]


def test_a_large_item_and_a_large_answer_travel_whole() -> None:
    with worker({"name": "m"}) as process:
        peer = process.link()
        rows = np.random.default_rng(1).random((3 * PART_BYTES, 1), np.float32)
        peer.send(1, rows)
        assert peer.values(1) == (rows * 2).ravel().tolist()


@both_ways
def test_an_item_without_rows_is_answered(cost: dict[str, Any]) -> None:
    with worker({"name": "m", **cost}) as process:
        peer = process.link()
        peer.send(1, column())
        assert peer.values(1) == []


def test_a_batch_waits_for_more_when_told_to() -> None:
    with worker({"name": "m"}, batch_max_wait_ms=60_000, batch_max_size=3) as process:
        peer = process.link()
        for id in range(3):
            peer.send(id, column(id))
        assert {peer.answer(id).batch_rows for id in range(3)} == {3}


def test_a_batch_waits_no_longer_than_told() -> None:
    with worker({"name": "m"}, batch_max_wait_ms=50) as process:
        peer = process.link()
        peer.send(1, column(1))
        assert peer.answer(1).queue_us >= 50_000


# -- failures ---------------------------------------------------------------------------------------------------------


@both_ways
def test_one_poisoned_item_fails_alone(cost: dict[str, Any], a_gate: Gate) -> None:
    with worker({"name": "m", "kind": "poison", **cost}) as process:
        peer = process.link()
        for id in range(32):
            peer.send(id, column(POISON if id == 7 else id))
        assert failure(peer.answer(7)) == Failure.MODEL_ERROR
        assert [peer.values(id) for id in range(32) if id != 7] == [[2.0 * id] for id in range(32) if id != 7]
        assert process.counted("inference_items_failed_total", "m", "1", "model_error") == 1


@both_ways
@pytest.mark.parametrize(
    ("kind", "expected"),
    [("wrong_length", Failure.BAD_OUTPUT), ("complex", Failure.BAD_OUTPUT), ("exits", Failure.MODEL_ERROR)],
)
def test_a_model_that_fails_every_time_keeps_its_worker(kind: str, expected: Failure, cost: dict[str, Any]) -> None:
    with worker({"name": "bad", "kind": kind, **cost}, {"name": "good"}) as process:
        peer = process.link()
        for id in (1, 2):
            peer.send(id, column(id))
            assert failure(peer.answer(id)) == expected
        peer.send(3, column(3), model=1)
        assert peer.values(3) == [6.0]


def test_a_model_that_is_not_there_is_refused() -> None:
    with worker({"name": "m"}) as process:
        peer = process.link()
        peer.send(1, column(1), model=9)
        assert failure(peer.answer(1)) == Failure.UNKNOWN_MODEL


def test_a_full_queue_refuses_at_once(a_gate: Gate) -> None:
    with worker(a_gate.model(), queue_rows=3) as process:
        peer = process.link()
        peer.send(0, column(0))
        held = a_gate.next_call()
        for id in range(1, 6):
            peer.send(id, column(id))
        assert [failure(peer.answer(id)) for id in (4, 5)] == [Failure.QUEUE_FULL] * 2
        held.let_go()
        a_gate.open()
        assert [peer.values(id) for id in (1, 2, 3)] == [[2.0], [4.0], [6.0]]


def test_late_items_never_reach_the_model(a_gate: Gate) -> None:
    with worker(a_gate.model()) as process:
        peer = process.link()
        peer.send(0, column(0))
        held = a_gate.next_call()
        peer.send(1, column(1), timeout_s=0.05)
        peer.send(2, column(2))
        late_at = time.monotonic() + 0.05
        wait_until(lambda: time.monotonic() > late_at, SOON_S, "the deadline")
        held.let_go()
        assert a_gate.next_call().values == [2.0]
        a_gate.open()
        assert failure(peer.answer(1)) == Failure.DEADLINE
        assert peer.values(2) == [4.0]


def test_withdrawn_items_never_reach_the_model(a_gate: Gate) -> None:
    with worker(a_gate.model()) as process:
        peer = process.link()
        peer.send(0, column(0))
        held = a_gate.next_call()
        for id in (1, 2, 3):
            peer.send(id, column(id))
        peer.cancel(2)
        assert failure(peer.answer(2)) == Failure.CANCELLED  # at once, while the model still computes
        held.let_go()
        assert a_gate.next_call().values == [1.0, 3.0]


def test_what_computes_already_is_answered_although_withdrawn(a_gate: Gate) -> None:
    with worker(a_gate.model()) as process:
        peer = process.link()
        peer.send(1, column(1))
        held = a_gate.next_call()
        peer.cancel(1)
        held.let_go()
        assert peer.values(1) == [2.0]


def test_thousands_of_withdrawals_do_not_hold_up_the_loop(a_gate: Gate) -> None:
    """When the deadlines of a long queue pass, its front withdraws all of it: one by one that once took 10 s."""
    with worker(a_gate.model(), {"name": "quick"}) as process:
        peer, other = process.link(), process.link()
        peer.send(0, column(0))
        held = a_gate.next_call()
        for id in range(1, 8001):
            peer.send(id, column(id))
        started = time.monotonic()
        for id in range(8000, 0, -1):
            peer.cancel(id)
        assert failure(peer.answer(1)) == Failure.CANCELLED
        assert time.monotonic() - started < 5.0
        held.let_go()
        other.send(1, column(1), model=1)
        assert other.values(1) == [2.0]


def test_items_of_a_front_that_is_gone_never_reach_the_model(a_gate: Gate) -> None:
    with worker(a_gate.model()) as process:
        peer, gone = process.link(), process.link()
        peer.send(0, column(0))
        held = a_gate.next_call()
        gone.send(1, column(1))
        peer.send(2, column(2))
        gone.connection.close()
        wait_until(
            lambda: process.counted("inference_items_failed_total", "gated", "1", "cancelled") == 1, SOON_S, "drop"
        )
        held.let_go()
        assert a_gate.next_call().values == [2.0]


def test_answers_to_a_front_that_is_gone_harm_nobody(a_gate: Gate) -> None:
    with worker(a_gate.model()) as process:
        peer, gone = process.link(), process.link()
        gone.send(0, column(0))
        held = a_gate.next_call()
        peer.send(1, column(1))
        gone.connection.close()
        held.let_go()
        a_gate.open()
        assert peer.values(1) == [2.0]


def test_a_front_that_sends_no_frames_loses_its_link_alone() -> None:
    with worker({"name": "m"}) as process:
        good, bad = process.link(), process.link()
        bad.connection.socket.send(b"GET / HTTP/1.1\r\n" * 10)
        assert ended(bad)
        good.send(1, column(1))
        assert good.values(1) == [2.0]


def test_a_front_that_reads_nothing_holds_up_nobody() -> None:
    with worker({"name": "wide", "kind": "large", "columns": 100_000}, {"name": "m"}) as process:
        lazy, other = process.link(), process.link()
        for id in range(20):
            lazy.send(id, column(id))
        other.send(1, column(1), model=1)
        assert other.values(1) == [2.0]
        assert all(lazy.values(id)[::99_999] == [id, id] for id in range(20))


def test_a_front_that_pauses_is_read_no_further_and_gets_all_its_answers_when_it_goes_on() -> None:
    """304 MB of answers wait for a front that takes none: it may be busy, and is asked for no more until it reads."""
    with worker({"name": "huge", "kind": "large", "columns": 2_000_000, **SLOW}) as process:
        lazy, other = process.link(), process.link()
        for id in range(38):
            lazy.send(id, column(id))
        answered = partial(process.counted, "inference_rows_total", "huge", "1")
        wait_until(lambda: answered() == 38, SOON_S, "all is computed")
        lazy.send(38, column(38))
        other.send(1, column(1))
        assert len(other.answer(1).payload) == 8_000_000
        assert answered() == 39, "what the paused front has sent since is not read"
        assert {len(lazy.answer(id).payload) for id in range(39)} == {8_000_000}


def test_a_front_that_never_reads_costs_a_bounded_amount_of_memory() -> None:
    """Answers beyond 1 GiB of unsent ones are given up, with a word to the front."""
    with worker({"name": "huge", "kind": "large", "columns": 8_000_000, **SLOW}) as process:
        peer = process.link()
        for id in range(40):
            peer.send(id, column(id))
        computed = partial(process.counted, "inference_rows_total", "huge", "1")
        wait_until(lambda: computed() == 40, SOON_S, "all is computed")
        assert failure(peer.answer(39)) == Failure.QUEUE_FULL
