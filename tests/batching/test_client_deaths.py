"""What becomes of a client's items when workers die, are taken out of service, or have too much to do."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from batching.errors import (
    Cancelled,
    ConnectionLost,
    DeadlineExceeded,
    Failure,
    ItemFailed,
    NoWorker,
    QueueFull,
)
from batching.suspects import digest_of
from batching.transport import ALONE, PART_BYTES, Kind, pack
from tests.batching.desk import FAR, TARGET, Desk
from tests.batching.direct import column
from tests.harness import SOON_S, gate, supervised, values, wait_until

# -- deaths -----------------------------------------------------------------------------------------------------------


def test_the_items_of_a_dead_worker_go_to_another_once(desk: Desk) -> None:
    desk.publish(1, 2)
    desk.submit(1)
    (dead, other) = sorted(desk.workers.values(), key=lambda worker: -len(worker.items))
    dead.die()
    desk.turn()
    desk.turn()
    (id,) = other.items
    other.answer(id)
    desk.turn()
    assert values(desk.outcomes[0]) == [2.0]
    assert desk.counters.read()["inference_retries_total", ()] == [1.0]


def test_the_items_of_a_dying_batch_are_tried_again_alone_and_blamed_only_if_they_kill_alone(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1, 2)
    desk.workers[1].start(*desk.workers[1].items)
    desk.workers[1].die()
    desk.turn()
    desk.publish(2, gone=[1])
    desk.turn()
    guilty, innocent = desk.workers[2].items
    assert [frame.code for frame in desk.workers[2].items.values()] == [ALONE, ALONE]
    desk.workers[2].start(guilty)
    desk.workers[2].die()
    desk.turn()
    desk.publish(3, gone=[2])
    desk.tell_death(2)
    assert list(desk.workers[3].items) == [innocent]
    desk.workers[3].answer(innocent)
    desk.turn()
    (failed, answered) = desk.outcomes[0]
    assert isinstance(failed, ItemFailed)
    assert failed.reason == "worker_crashed"
    assert values([answered]) == [4.0]
    (blame,) = desk.heard("blame")
    assert len(blame["digest"]) == 64


def test_a_worker_killed_from_outside_proves_nothing_against_its_item_until_it_comes_again(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1)
    for id in (1, 2, 3):
        kill_from_outside(desk, id)
    (outcome,) = desk.outcomes[0]
    assert isinstance(outcome, NoWorker)
    assert desk.heard("blame") == []
    desk.submit(1)
    kill_from_outside(desk, 4)
    (outcome,) = desk.outcomes[1]
    assert isinstance(outcome, ItemFailed)
    assert len(desk.heard("blame")) == 1


def kill_from_outside(desk: Desk, id: int) -> None:
    """A worker while it computes all it has; the next one takes its place."""
    desk.workers[id].start(*desk.workers[id].items)
    desk.workers[id].die()
    desk.turn()
    desk.publish(id + 1, gone=[id])
    desk.tell_death(id, from_outside=True)


def test_word_of_a_death_may_come_before_the_end_of_the_link(desk: Desk) -> None:
    desk.publish(1, 2)
    desk.submit(1)
    held = next(worker for worker in desk.workers.values() if worker.items)
    other = next(worker for worker in desk.workers.values() if worker is not held)
    held.start(*held.items)
    held.die()
    desk.turn()
    desk.turn()
    desk.submit(5)
    other.start(next(iter(other.items)))
    other.answer([*other.items][-1])
    other.die()
    desk.supervisor.send({"type": "death", "worker": other.id, "from_outside": False})
    desk.client.hear()
    assert values(desk.outcomes[0]) == [10.0]
    (outcome,) = desk.outcomes[1]
    assert isinstance(outcome, ItemFailed)


def test_a_suspect_whose_link_alone_had_ended_goes_on(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1)
    desk.workers[1].start(*desk.workers[1].items)
    desk.workers[1].die()
    desk.turn()
    desk.publish(2, gone=[1])
    desk.turn()
    desk.workers[2].start(*desk.workers[2].items)
    desk.workers[2].die()
    desk.turn()
    desk.publish(2)  # the same worker, linked anew
    desk.turn()
    desk.workers[2].answer(*desk.workers[2].items)
    desk.turn()
    assert values(desk.outcomes[0]) == [2.0]


def test_what_was_not_in_the_dying_batch_is_tried_again_among_others(desk: Desk) -> None:
    desk.publish(1, 2)
    desk.submit(1, 2, 3)
    held = next(worker for worker in desk.workers.values() if worker.items)
    first, second, third = held.items
    held.start(second)
    held.die()
    desk.turn()
    desk.turn()
    other = next(worker for worker in desk.workers.values() if worker is not held)
    assert {id: frame.code for id, frame in other.items.items()} == {first: 0, second: ALONE, third: 0}


def test_a_suspect_that_had_not_started_is_not_blamed_for_the_next_death(desk: Desk) -> None:
    desk.publish(1, 2, 3)
    desk.submit(1)
    for _ in range(2):
        holder = next(worker for worker in desk.workers.values() if worker.items)
        holder.items.clear()
        holder.die()
        desk.turn()
        desk.turn()
    (last,) = [worker for worker in desk.workers.values() if worker.items]
    (id,) = last.items
    last.answer(id)
    desk.turn()
    assert values(desk.outcomes[0]) == [2.0]
    assert desk.heard("blame") == []


def test_what_killed_a_worker_alone_is_refused_unseen_until_its_time_is_over(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(5)
    worker = desk.workers[1]
    (frame,) = worker.items.values()
    digest = digest_of("default 1", 0, frame.layout, frame.payload)
    far = time.monotonic() + 1000
    desk.publish(quarantine={digest: far})
    desk.submit(5, 6)
    assert len(worker.items) == 2
    worker.answer([*worker.items][-1])
    desk.turn()
    failed, answered = desk.outcomes[0]
    assert isinstance(failed, ItemFailed)
    assert failed.reason == "worker_crashed"
    assert values([answered]) == [12.0]
    desk.publish(quarantine={digest: time.monotonic()})
    desk.submit(5)
    assert len(worker.items) == 3


def test_an_item_given_up_while_it_computed_is_a_suspect_when_its_worker_dies(desk: Desk) -> None:
    """A model that loops for ever is stopped after the deadline: its input is alone next time, and then refused."""
    desk.publish(1, 2, 3)
    for _ in range(2):
        desk.submit(7, deadline=10.0)
        holder = next(worker for worker in desk.workers.values() if worker.items)
        (id,) = holder.items
        holder.start(id)
        desk.turn()
        desk.client.expire(10.0)
        holder.items.clear()
        holder.die()
        desk.turn()
        desk.tell_death(holder.id)
    assert len(desk.heard("blame")) == 1
    desk.submit(7)
    (outcome,) = desk.outcomes[-1]
    assert isinstance(outcome, ItemFailed)


def test_a_late_answer_clears_an_item_that_was_given_up(desk: Desk) -> None:
    desk.publish(1, 2)
    desk.submit(7, deadline=10.0)
    holder = next(worker for worker in desk.workers.values() if worker.items)
    (id,) = holder.items
    holder.start(id)
    desk.turn()
    desk.client.expire(10.0)
    holder.answer(id)
    desk.turn()
    holder.items.clear()
    holder.die()
    desk.turn()
    desk.submit(7)
    assert [frame.code for worker in desk.workers.values() for frame in worker.items.values()] == [0]


def test_without_another_worker_its_items_wait_for_the_next_snapshot_and_then_fail(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1)
    desk.workers[1].die()
    desk.turn()
    desk.submit(2)
    desk.publish()  # made before the death
    assert desk.outcomes == []
    desk.publish(gone=[1])
    assert [type(outcome) for outcomes in desk.outcomes for outcome in outcomes] == [NoWorker, NoWorker]
    with pytest.raises(NoWorker):
        desk.submit(3)


def test_a_worker_of_the_next_snapshot_takes_over_what_waits(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1)
    desk.workers[1].items.clear()
    desk.workers[1].die()
    desk.turn()
    desk.submit(2)
    desk.publish(2, gone=[1])
    desk.turn()
    for id in list(desk.workers[2].items):
        desk.workers[2].answer(id)
    desk.turn()
    assert [values(outcomes) for outcomes in desk.outcomes] == [[2.0], [4.0]]


def test_what_waits_for_a_snapshot_can_expire_and_be_withdrawn(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1, deadline=10.0)
    ticket = desk.submit(2)
    desk.workers[1].die()
    desk.turn()
    desk.client.expire(10.0)
    desk.client.withdraw(ticket)
    assert [type(outcome) for outcomes in desk.outcomes for outcome in outcomes] == [DeadlineExceeded, Cancelled]
    desk.publish(2, gone=[1])
    assert desk.workers[2].items == {}


def test_a_death_that_is_noticed_while_writing_fails_nobody_else(desk: Desk) -> None:
    """The items of the lost link were handed over in the middle of a walk over the links to write to."""
    desk.publish(1, 2)
    desk.workers[1].die()
    for value in range(6):
        desk.client.submit(TARGET, [(1, [column(value)])], FAR, desk.outcomes.append)
    desk.client.flush()
    desk.turn()
    desk.turn()
    for id in desk.workers[2].items:
        desk.workers[2].answer(id)
    desk.turn()
    assert sorted(value for outcomes in desk.outcomes for value in values(outcomes)) == [0, 2, 4, 6, 8, 10]


def test_what_a_worker_answered_before_it_died_counts(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1)
    worker = desk.workers[1]
    worker.answer(next(iter(worker.items)))
    worker.die()
    desk.client.submit(TARGET, [(1, [column(2)])], FAR, desk.outcomes.append)
    desk.client.flush()  # meets the death before the answer
    desk.turn()
    assert values(desk.outcomes[0]) == [2.0]
    desk.publish(gone=[1])
    assert [type(outcome) for outcome in desk.outcomes[1]] == [NoWorker]


def test_a_large_item_can_be_tried_again(desk: Desk) -> None:
    desk.publish(1)
    rows = np.ones((2 * PART_BYTES, 1), np.float32)
    desk.client.submit(TARGET, [(len(rows), [rows])], FAR, desk.outcomes.append)
    desk.client.flush()
    desk.publish(2)
    desk.workers[1].die()
    other = desk.workers[2]
    wait_until(lambda: desk.after_turn(other.items), SOON_S, "the item")
    assert [frame.payload for frame in other.items.values()] == [rows.tobytes()]


def test_a_worker_that_speaks_nonsense_is_as_good_as_dead(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1)
    desk.workers[1].connection.socket.send(b"nonsense" * 20)
    desk.turn()
    desk.publish(gone=[1])
    assert [type(outcome) for outcome in desk.outcomes[0]] == [NoWorker]


# -- workers taken out of service --------------------------------------------------------------------------------------


def test_a_retired_worker_gets_nothing_more_and_its_link_ends_when_it_has_answered(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1)
    desk.publish(2, gone=[1])
    desk.submit(2)
    old, new = desk.workers[1], desk.workers[2]
    assert (len(old.items), len(new.items)) == (1, 1)
    old.answer(*old.items)
    desk.turn()
    assert values(desk.outcomes[0]) == [2.0]
    with pytest.raises(ConnectionLost):
        old.read()
    assert desk.heard("unlinked") == []


def test_a_retired_worker_that_dies_with_an_item_hands_it_over(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1)
    desk.publish(2, gone=[1])
    desk.workers[1].die()
    desk.turn()
    desk.turn()
    desk.workers[2].answer(*desk.workers[2].items)
    desk.turn()
    assert values(desk.outcomes[0]) == [2.0]


# -- the worker's word on its queue ----------------------------------------------------------------------------------


def test_a_request_that_would_wait_beyond_its_deadline_is_refused_with_the_wait(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1)
    worker = desk.workers[1]
    worker.say(pack(Kind.FAILED, next(iter(worker.items)), code=Failure.QUEUE_FULL, wait_us=5_000_000))
    desk.turn()
    (full,) = desk.outcomes[0]
    assert isinstance(full, QueueFull)
    assert full.wait_s == 5.0
    with pytest.raises(QueueFull) as refused:
        desk.submit(2, deadline=time.monotonic() + 4)
    assert 4 < refused.value.wait_s <= 5
    desk.submit(3, deadline=time.monotonic() + 6)
    assert len(worker.items) == 2


# -- real workers -----------------------------------------------------------------------------------------------------


def test_with_two_workers_a_death_in_the_middle_of_a_batch_fails_nothing() -> None:
    with gate() as a_gate, supervised([a_gate.model()], workers=2) as server, ThreadPoolExecutor() as pool:
        wait_until(lambda: len(server.client.view["workers"]) == 2, SOON_S, "both workers")
        before = server.client.view["workers"]
        waiting = pool.submit(server.call, "gated", [1.0])
        first = a_gate.next_call()
        server.kill(first.pid)
        second = a_gate.next_call()
        assert second.pid != first.pid
        assert second.values == [1.0]
        second.let_go()
        assert values(waiting.result()) == [2.0]
        assert server.client.counters.read()["inference_retries_total", ()] == [1.0]
        server.until_replaced(before)


def test_with_one_worker_a_death_in_the_middle_of_a_batch_is_told_at_once() -> None:
    with gate() as a_gate, supervised([a_gate.model()]) as server, ThreadPoolExecutor() as pool:
        waiting = pool.submit(server.call, "gated", [1.0])
        before = server.client.view["workers"]
        server.kill(a_gate.next_call().pid)
        (outcome,) = waiting.result(2.0)  # its deadline is further away
        assert isinstance(outcome, NoWorker)
        a_gate.open()
        server.until_replaced(before)
        assert values(server.call("gated", [3.0])) == [6.0]
