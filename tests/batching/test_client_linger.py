"""A change of models as a client lives it: requests of the old generation, links that linger, and coming back."""

from __future__ import annotations

import time
from typing import Any

import pytest

from batching.client import Target
from batching.errors import ConnectionLost, NoWorker
from tests.batching.desk import TARGET, Desk, FakeWorker
from tests.harness import values

NEWER = Target("default", 2, 0)
OVER_S = 3.0  # the desk's client lingers for two


@pytest.fixture
def changed(desk: Desk) -> Desk:
    """Worker 1 of the first generation has just been taken out of service for worker 2 of the second."""
    desk.publish(1)
    desk.publish(2, gone=[1], generation=2)
    return desk


def is_linked(worker: FakeWorker) -> bool:
    try:
        worker.read()
    except ConnectionLost:
        return False
    return True


def last_answered(desk: Desk, worker: int) -> list[float]:
    """What comes of the last item, when this worker, and no other one, has it."""
    desk.workers[worker].answer([*desk.workers[worker].items][-1])
    desk.turn()
    return values(desk.outcomes[-1])


def test_a_request_of_the_old_generation_goes_to_the_old_worker_and_one_of_the_new_to_the_new(changed: Desk) -> None:
    changed.submit(3)
    assert last_answered(changed, 1) == [6.0]
    changed.submit(4, target=NEWER)
    assert last_answered(changed, 2) == [8.0]
    assert [len(changed.workers[id].items) for id in (1, 2)] == [1, 1]


def test_after_its_time_the_link_is_closed_and_the_request_refused(changed: Desk) -> None:
    assert is_linked(changed.workers[1])
    changed.client.expire(time.monotonic() + OVER_S)
    assert not is_linked(changed.workers[1])
    assert is_linked(changed.workers[2])
    with pytest.raises(NoWorker):
        changed.submit(3)


def test_the_loop_is_told_when_to_look_again(changed: Desk) -> None:
    now = time.monotonic()
    assert now < changed.client.expire(now) <= now + 2.0
    assert changed.client.expire(now + OVER_S) == float("inf")


def test_what_is_in_flight_when_its_time_is_over_is_answered_first(changed: Desk) -> None:
    changed.submit(3)
    changed.client.expire(time.monotonic() + OVER_S)
    assert is_linked(changed.workers[1])
    link = next(link for link in changed.client._links.values() if link.id == 1)
    link.until = 0.0
    assert last_answered(changed, 1) == [6.0]
    assert not is_linked(changed.workers[1])


def test_one_that_another_of_its_generation_replaces_does_not_linger(desk: Desk) -> None:
    desk.publish(1)
    desk.publish(2, gone=[1])
    assert not is_linked(desk.workers[1])
    desk.submit(3)
    assert last_answered(desk, 2) == [6.0]


def test_one_that_serves_is_preferred_to_one_of_its_generation_that_does_not(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(1)
    desk.publish(2, gone=[1])  # the first still has something to answer
    desk.submit(2)
    assert [len(desk.workers[id].items) for id in (1, 2)] == [1, 1]
    assert last_answered(desk, 1) == [2.0]
    assert not is_linked(desk.workers[1])


def test_what_a_lingering_worker_held_goes_to_another_of_its_generation(desk: Desk) -> None:
    desk.publish(1, 2)
    desk.publish(3, gone=[1, 2], generation=2)
    desk.submit(3)
    (held,) = [id for id in (1, 2) if desk.workers[id].items]
    desk.workers[held].die()
    desk.turn()
    desk.turn()
    assert last_answered(desk, 3 - held) == [6.0]
    assert desk.workers[3].items == {}


def test_when_the_last_of_the_old_generation_dies_its_items_fail_and_the_new_one_serves(changed: Desk) -> None:
    changed.submit(3)
    changed.workers[1].die()
    changed.turn()
    (outcome,) = changed.outcomes[-1]
    assert isinstance(outcome, NoWorker)
    changed.submit(4, target=NEWER)
    assert last_answered(changed, 2) == [8.0]


def test_an_item_that_waits_for_another_worker_of_its_generation_is_not_given_to_the_next_one(desk: Desk) -> None:
    desk.publish(1)
    desk.submit(3)
    desk.workers[1].die()
    desk.turn()
    desk.publish(2, gone=[1], generation=2)
    (outcome,) = desk.outcomes[-1]
    assert isinstance(outcome, NoWorker)
    assert desk.workers[2].items == {}


@pytest.mark.parametrize("lingers", [True, False], ids=["before its link is closed", "after"])
def test_a_worker_that_serves_again_is_linked_for_good(changed: Desk, *, lingers: bool) -> None:
    first = changed.workers[1]
    if not lingers:
        changed.client.expire(time.monotonic() + OVER_S)
    changed.publish(1, gone=[2])
    again, other = (first, changed.workers[1]) if lingers else (changed.workers[1], first)
    assert is_linked(again)
    assert not is_linked(other)
    other.die()
    changed.workers[1] = again
    changed.client.expire(time.monotonic() + OVER_S)
    assert is_linked(again)
    changed.submit(3)
    assert last_answered(changed, 1) == [6.0]


def test_a_blamed_input_may_be_tried_by_another_generation(desk: Desk) -> None:
    digests = []
    for target in (TARGET, NEWER):
        desk.publish(target.generation, gone=[*desk.known], generation=target.generation)
        digests.append(desk.client._in_flight[desk.submit(3, target=target).first].digest())
    assert digests[0] != digests[1]


# -- what is asked of the supervisor -----------------------------------------------------------------------------------


def test_who_asks_for_a_change_hears_once_what_came_of_it(desk: Desk) -> None:
    answers: list[dict[str, Any]] = []
    desk.client.administer("load", "m", answers.append)
    desk.client.administer("rollback", None, answers.append)
    first, second = desk.heard("admin")
    assert (first["action"], first["model"], second["action"], second["model"]) == ("load", "m", "rollback", None)
    for asked, ok in ((second, True), (first, False)):
        desk.supervisor.send({"type": "admin_done", "id": asked["id"], "ok": ok, "reason": None, "models": []})
    desk.turn()
    assert answers == [{"ok": ok, "reason": None, "models": []} for ok in (True, False)]


def test_when_the_supervisor_goes_whoever_waits_or_asks_hears_so(desk: Desk) -> None:
    answers: list[dict[str, Any]] = []
    desk.client.administer("load", "m", answers.append)
    desk.supervisor.close()
    desk.turn()
    desk.client.administer("load", "m", answers.append)
    assert answers == [{"ok": False, "reason": "the supervisor has gone", "models": []}] * 2
    assert desk.lost
