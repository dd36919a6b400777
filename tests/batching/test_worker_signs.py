"""What a worker tells of itself without being asked: signs of life, batches that begin, models that fall ill."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from batching import worker as worker_module
from batching.batch import Served
from batching.control import ControlChannel
from batching.counters import Counters
from batching.errors import Failure
from batching.transport import PART_BYTES
from batching.worker import Worker
from tests.batching.direct import QUICK, SLOW, column, failure, worker
from tests.batching.test_batch import served
from tests.harness import SOON_S, Gate, wait_until

# -- vital signs -----------------------------------------------------------------------------------------------------


def test_its_loop_beats_while_nothing_happens_and_while_the_model_computes(a_gate: Gate) -> None:
    with worker(a_gate.model(**SLOW)) as process:

        def beats() -> bool:
            before = process.vitals().beat
            return wait_until(lambda: process.vitals().beat > before, SOON_S, "a beat")

        assert beats()
        assert process.vitals().busy_since == 0
        peer = process.link()
        peer.send(0, column(0))
        call = a_gate.next_call()
        assert 0 < process.vitals().busy_since <= time.monotonic_ns()
        assert beats()
        call.let_go()
        peer.answer(0)
        wait_until(lambda: process.vitals().busy_since == 0, SOON_S, "the end of the call")


def test_it_tells_since_when_the_oldest_item_waits_and_when_a_model_last_answered(a_gate: Gate) -> None:
    with worker(a_gate.model(**SLOW)) as process:
        peer = process.link()
        peer.send(0, column(0))
        call = a_gate.next_call()
        assert (process.vitals().oldest, process.vitals().proved) == (0, 0)
        peer.send(1, column(1), age_s=1.0)
        oldest = wait_until(lambda: process.vitals().oldest, SOON_S, "an item that waits")
        assert time.monotonic_ns() - oldest > 1e9
        call.let_go()
        a_gate.next_call().let_go()
        peer.answer(1)
        wait_until(lambda: process.vitals().oldest == 0, SOON_S, "nothing waits")
        assert process.vitals().proved > oldest


def test_the_limit_of_a_batch_is_the_operators_or_follows_from_warm_up() -> None:
    with worker({"name": "m", "cost": 0.5}, batch_limit_ms=None, predict_timeout_ms=2000.0) as process:
        assert process.report["batch_limit_s"] == 5.0
    with worker({"name": "m", "cost": 0.01}, batch_limit_ms=None, predict_timeout_ms=2000.0) as process:
        assert process.report["batch_limit_s"] == 2.0
    with worker({"name": "m", "cost": 0.5}, batch_limit_ms=750.0) as process:
        assert process.report["batch_limit_s"] == 0.75


# -- batches that begin ----------------------------------------------------------------------------------------------


def test_fronts_are_told_which_of_their_items_go_into_a_slow_batch_before_it_runs(a_gate: Gate) -> None:
    with worker(a_gate.model(**SLOW)) as process:
        one, other = process.link(), process.link()
        one.send(1, column(1))
        first = a_gate.next_call()
        one.send(2, column(2))
        other.send(3, column(3))
        wait_until(lambda: process.vitals().oldest, SOON_S, "an item that waits")
        first.let_go()
        second = a_gate.next_call()
        assert sorted(second.values) == [2.0, 3.0]
        wait_until(lambda: len(one.told()) == 2, SOON_S, "both batches are told")
        wait_until(other.told, SOON_S, "the second batch is told")
        assert (one.started, other.started) == ([(1,), (2,)], [(3,)])


def test_quick_batches_are_not_announced() -> None:
    with worker({"name": "m", **QUICK}) as process:
        peer = process.link()
        peer.send(1, column(1))
        assert peer.values(1) == [2.0]
        assert peer.started == []


# -- a model that falls ill ------------------------------------------------------------------------------------------


def test_a_model_that_nobody_asks_is_asked_by_its_worker_which_tells_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Counters
) -> None:
    monkeypatch.setattr(worker_module, "CANARY_S", 0.01)
    sick = tmp_path / "sick"
    one: Served = served({1: 0.001})
    one.model.canary = _failing_while(sick)  # type: ignore[method-assign]
    ours, theirs = (ControlChannel(sock) for sock in socket.socketpair())
    looping = Worker([one], theirs, shared.slot(1))

    def proved() -> int:
        looping.turn()
        return shared.vitals(1).proved

    def told() -> list[str | None]:
        looping.turn()
        theirs.flush()
        return [message["text"] for message, _ in ours.receive()]

    try:
        assert wait_until(proved, SOON_S, "an answer to a row of its own")
        sick.touch()
        assert wait_until(told, SOON_S, "it says that the model fails") == ["does not answer a row of its own: m"]
        sick.unlink()
        assert wait_until(told, SOON_S, "it says that all is well") == [None]
    finally:
        looping.close()
        theirs.close()
        ours.close()


def _failing_while(path: Path) -> Callable[[], None]:
    def canary() -> None:
        if path.exists():
            raise RuntimeError("sick")

    return canary


# -- out of service --------------------------------------------------------------------------------------------------


def test_taken_out_of_service_it_ends_when_every_front_has_let_go(a_gate: Gate) -> None:
    with worker(a_gate.model(**SLOW)) as process:
        one, other = process.link(), process.link()
        one.send(1, column(1))
        held = a_gate.next_call()
        process.control.send({"type": "retire"})
        other.connection.close()
        one.send(2, column(2))  # sent before this front had heard of it
        held.let_go()
        a_gate.open()
        assert (one.values(1), one.values(2)) == ([2.0], [4.0])
        assert process.process.poll() is None
        one.connection.close()
        assert process.process.wait(SOON_S) == 0


# -- large items -----------------------------------------------------------------------------------------------------


def test_a_large_item_shares_the_model_with_small_ones(a_gate: Gate) -> None:
    with worker(a_gate.model(**SLOW), batch_max_size=4) as process:
        large, small = process.link(), process.link()
        large.send(1, column(*range(12)))
        first = a_gate.next_call()
        assert first.values == [0.0, 1.0, 2.0, 3.0]
        small.send(2, column(100))
        wait_until(lambda: process.vitals().oldest, SOON_S, "an item that waits")
        first.let_go()
        second = a_gate.next_call()
        assert 100.0 in second.values
        a_gate.open()  # the next slice may run in the loop by now: what is quick is soon known to be
        assert small.values(2) == [200.0]
        assert large.values(1) == [2.0 * value for value in range(12)]


def test_a_large_item_of_which_one_slice_fails_fails_as_a_whole_and_once() -> None:
    with worker({"name": "m", "kind": "poison", **QUICK}, batch_max_size=4) as process:
        peer = process.link()
        peer.send(1, column(*range(6), 666, *range(6)))
        peer.send(2, column(1))
        assert failure(peer.answer(1)) == Failure.MODEL_ERROR
        assert peer.values(2) == [2.0]


def test_a_large_item_withdrawn_while_one_of_its_slices_computes_goes_no_further(a_gate: Gate) -> None:
    with worker(a_gate.model(**SLOW), batch_max_size=4) as process:
        peer = process.link()
        peer.send(1, column(*range(12)))
        first = a_gate.next_call()
        peer.cancel(1)
        peer.send(2, column(100))
        wait_until(lambda: process.vitals().oldest, SOON_S, "the item behind the withdrawal")
        first.let_go()
        assert failure(peer.answer(1)) == Failure.CANCELLED
        assert a_gate.next_call().values == [100.0]


def test_an_item_withdrawn_before_it_had_come_whole_is_not_computed() -> None:
    with worker({"name": "m", **QUICK}) as process:
        peer = process.link()
        rows = column(*[1.0] * (8 * PART_BYTES))
        peer.enqueue(1, rows)
        peer.connection.flush()  # as much as the socket takes
        peer.cancel(1)  # overtakes the parts
        assert failure(peer.answer(1)) == Failure.CANCELLED
        assert process.counted("inference_rows_total", "m", "1") == 0
