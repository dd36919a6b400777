"""The front's end: every item gets exactly one outcome, whatever workers do. Most are the test's own, the last real."""

from __future__ import annotations

import gc
import time
import weakref

import numpy as np
import pytest

from batching import arrays
from batching.client import Answer, Outcome, Target
from batching.errors import Cancelled, DeadlineExceeded, Failure, ItemFailed, NoWorker, QueueFull
from batching.transport import PART_BYTES, Kind, pack, pack_answered
from tests.batching.desk import FAR, TARGET, Desk
from tests.batching.direct import column
from tests.harness import SOON_S, values, wait_until

# -- items and answers ----------------------------------------------------------------------------------------------


def test_outcomes_come_together_and_in_order_whatever_the_order_of_the_answers(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1, 2, 3)
    worker = desk.workers[1]
    first, second, third = worker.items
    worker.answer(third)
    worker.fail(first)
    desk.turn()
    assert desk.outcomes == []
    worker.answer(second)
    desk.turn()
    ((failed, *answered),) = desk.outcomes
    assert isinstance(failed, ItemFailed)
    assert failed.reason == "model_error"
    assert values(answered) == [4.0, 6.0]
    assert desk.client.in_flight == 0


def test_answers_that_come_together_go_to_whoever_asked(desk: Desk) -> None:
    desk.publish(1)
    for rows in ([1], [2, 3], [4]):
        tensor = column(*rows)
        desk.client.submit(TARGET, [(len(rows), [tensor])], FAR, desk.outcomes.append)
    late = desk.submit(5, deadline=time.monotonic() + 0.001)
    wait_until(lambda: desk.client.expire(time.monotonic()) == FAR, SOON_S, "the last is too late")
    desk.workers[1].answer_together(*desk.workers[1].items)
    desk.turn()
    (given_up,), *answered = desk.outcomes
    assert isinstance(given_up, DeadlineExceeded)
    assert late.first not in desk.client._in_flight
    assert [values(outcomes) for outcomes in answered] == [[2.0], [4.0, 6.0], [8.0]]
    assert desk.client.in_flight == 0


def test_answers_whose_bytes_do_not_fit_fail_all_of_them(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1, 2)
    ids = list(desk.workers[1].items)
    layout, _ = arrays.encode([column(1)])
    table = pack_answered([(id, 1, 0) for id in ids])
    desk.workers[1].say(pack(Kind.ANSWERS, 2, rows=2, layout=layout, payload=table + b"short"))
    desk.turn()
    assert [str(outcome) for outcome in desk.outcomes[0]] == ["bad_output", "bad_output"]


def test_what_was_asked_and_answered_needs_no_garbage_collector(desk: Desk) -> None:
    class Caller:
        def __init__(self) -> None:
            self.outcomes: list[Outcome] = []
            self.ticket = desk.client.submit(TARGET, [(1, [column(1)])], FAR, self.hear)

        def hear(self, outcomes: list[Outcome]) -> None:
            self.outcomes = outcomes

    desk.publish(1)
    gc.collect()
    gc.disable()
    try:
        caller = Caller()
        desk.turn()
        desk.workers[1].answer(*desk.workers[1].items)
        desk.turn()
        assert values(caller.outcomes) == [2.0]
        forgotten = weakref.ref(caller)
        del caller
        assert forgotten() is None
    finally:
        gc.enable()


def test_an_answer_brings_its_timings(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1)
    (id,) = desk.workers[1].items
    desk.workers[1].answer(id)
    desk.turn()
    (answer,) = desk.outcomes[0]
    assert isinstance(answer, Answer)
    assert (answer.queue_us, answer.batch_rows) == (5, 7)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Failure.MODEL_ERROR, ItemFailed),
        (Failure.BAD_OUTPUT, ItemFailed),
        (Failure.QUEUE_FULL, QueueFull),
        (Failure.DEADLINE, DeadlineExceeded),
        (Failure.CANCELLED, Cancelled),
        (Failure.UNKNOWN_MODEL, NoWorker),
    ],
)
def test_every_failure_has_its_error(desk: Desk, code: Failure, error: type[Exception]) -> None:
    desk.publish(1)
    desk.submit(1)
    (id,) = desk.workers[1].items
    desk.workers[1].fail(id, code)
    desk.turn()
    assert [type(outcome) for outcome in desk.outcomes[0]] == [error]


def test_items_go_where_least_is_in_flight(desk: Desk) -> None:
    desk.publish(1, 2)
    for value in range(10):
        desk.submit(value)
    assert [len(worker.items) for worker in desk.workers.values()] == [5, 5]


def test_a_large_item_travels_whole(desk: Desk) -> None:
    desk.publish(1)
    rows = np.zeros((PART_BYTES, 1), np.float32)
    desk.client.submit(TARGET, [(len(rows), [rows])], FAR, desk.outcomes.append)
    worker = desk.workers[1]
    wait_until(lambda: desk.after_turn(worker.items), SOON_S, "the item")
    assert [len(frame.payload) for frame in worker.items.values()] == [rows.nbytes]


def test_a_request_without_items_is_done_at_once(desk: Desk) -> None:
    desk.publish(1)
    desk.submit()
    assert desk.outcomes == [[]]


def test_what_cannot_be_encoded_leaves_no_half_request_behind(desk: Desk) -> None:
    desk.publish(1)
    items = [(1, [column(1)]), (1, [np.zeros((1, 1), np.complex64)])]
    with pytest.raises(KeyError):
        desk.client.submit(TARGET, items, FAR, desk.outcomes.append)
    desk.turn()
    assert (desk.client.in_flight, desk.workers[1].items, desk.outcomes) == (0, {}, [])


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [Target("other", 1, 0), Target("default", 2, 0)], ids=["group", "generation"])
def test_without_a_worker_that_holds_the_model_nothing_is_sent(desk: Desk, target: Target) -> None:
    with pytest.raises(NoWorker):
        desk.submit(1)
    desk.publish(1)
    with pytest.raises(NoWorker):
        desk.submit(1, target=target)


def test_more_rows_than_allowed_are_refused_until_some_are_answered() -> None:
    desk = Desk(max_rows=3)
    try:
        desk.publish(1)
        desk.submit(1, 2)
        with pytest.raises(QueueFull):
            desk.submit(3, 4)
        desk.submit(3)
        desk.workers[1].answer(next(iter(desk.workers[1].items)))
        desk.turn()
        desk.submit(4)
        assert desk.client.in_flight == 3
    finally:
        desk.end()


def test_an_idle_worker_takes_a_request_larger_than_the_bound() -> None:
    desk = Desk(max_rows=3)
    try:
        desk.publish(1)
        desk.submit(*range(10))
        assert len(desk.workers[1].items) == 10
    finally:
        desk.end()


def test_more_bytes_than_allowed_are_refused() -> None:
    desk = Desk(max_bytes=1000)
    try:
        desk.publish(1)
        rows = np.zeros((10 * PART_BYTES, 1), np.float32)
        desk.client.submit(TARGET, [(1, [rows])], FAR, desk.outcomes.append)
        with pytest.raises(QueueFull):
            desk.submit(1)
    finally:
        desk.end()


# -- deadlines and withdrawal -----------------------------------------------------------------------------------------


def test_what_is_late_is_given_up_and_withdrawn_and_its_answer_dropped(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1, deadline=10.0)
    desk.submit(2, deadline=20.0)
    assert desk.client.expire(9.9) == 10.0
    assert desk.outcomes == []
    assert desk.client.expire(10.0) == 20.0
    desk.turn()
    assert [type(outcome) for outcome in desk.outcomes[0]] == [DeadlineExceeded]
    worker = desk.workers[1]
    late, on_time = worker.items
    assert worker.cancelled == [late]
    worker.answer(late)
    worker.answer(on_time)
    desk.turn()
    assert values(desk.outcomes[1]) == [4.0]
    assert len(desk.outcomes) == 2
    assert desk.client.expire(30.0) == FAR


def test_a_request_withdrawn_is_still_answered_once(desk: Desk) -> None:
    desk.publish(1)
    ticket = desk.submit(1, 2)
    first, second = desk.workers[1].items
    desk.workers[1].answer(first)
    desk.turn()
    desk.client.withdraw(ticket)
    desk.turn()
    assert desk.workers[1].cancelled == [second]
    desk.workers[1].fail(second, Failure.CANCELLED)
    desk.turn()
    assert [type(outcome) for outcome in desk.outcomes[0]] == [Answer, Cancelled]
    desk.client.withdraw(ticket)
    desk.turn()
    assert desk.workers[1].cancelled == [second]


# -- the supervisor ---------------------------------------------------------------------------------------------------


def test_a_snapshot_becomes_the_view_and_is_acknowledged(desk: Desk) -> None:
    assert desk.client.view["serial"] == 0
    desk.publish(1)
    assert desk.client.view["serial"] == 1
    assert desk.supervisor.receive() == [({"type": "acknowledged", "serial": 1}, [])]


def test_other_messages_are_passed_on(desk: Desk) -> None:
    desk.supervisor.send({"type": "drain", "timeout_s": 1.0})
    desk.turn()
    assert desk.messages == [{"type": "drain", "timeout_s": 1.0}]


def test_the_end_of_the_supervisor_is_told(desk: Desk) -> None:
    desk.supervisor.close()
    desk.turn()
    assert desk.lost


def test_closing_ends_what_is_in_flight() -> None:
    desk = Desk()
    desk.publish(1, 2)
    desk.submit(1)
    desk.end()
    assert [type(outcome) for outcome in desk.outcomes[0]] == [NoWorker]
