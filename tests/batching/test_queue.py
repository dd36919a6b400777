"""One model's line: lanes, order, bounds, lateness and withdrawal."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batching.errors import QueueFull
from batching.queue import Item, ModelQueue

_ids = count(1)
NOBODY = object()


def item(
    rows: int = 1,
    layout: bytes = b"a",
    *,
    arrived: float = 0.0,
    deadline: float = 100.0,
    sender: object = NOBODY,
    size: int = 4,
    alone: bool = False,
    priority: int = 0,
) -> Item:
    return Item(sender, next(_ids), rows, layout, bytes(size), arrived, deadline, alone, priority)


def filled(*items: Item, max_rows: int = 1000, max_bytes: int = 100_000) -> ModelQueue:
    queue = ModelQueue(max_rows, max_bytes)
    for one in items:
        queue.push(one)
    return queue


def test_items_of_one_layout_leave_in_the_order_they_came() -> None:
    items = [item(arrived=arrived) for arrived in (1.0, 2.0, 3.0)]
    assert filled(*items).take(64, 5.0) == (items, [])


def test_items_of_different_layouts_never_share_a_batch() -> None:
    first, other, second = item(arrived=1.0), item(layout=b"b", arrived=2.0), item(arrived=3.0)
    queue = filled(first, other, second)
    assert queue.take(64, 5.0)[0] == [first, second]
    assert queue.take(64, 5.0)[0] == [other]


def test_the_lane_whose_head_has_waited_longest_goes_first() -> None:
    young, old = item(layout=b"a", arrived=2.0), item(layout=b"b", arrived=1.0)
    queue = filled(young, old)
    assert queue.oldest_arrival() == 1.0
    assert queue.take(64, 5.0)[0] == [old]


def test_the_most_urgent_go_first_whenever_they_came() -> None:
    usual, second, first, late = item(), item(priority=2), item(priority=1), item(priority=1, layout=b"b")
    queue = filled(usual, second, first, late)
    assert [queue.take(64, 5.0)[0] for _ in range(4)] == [[first], [late], [second], [usual]]
    assert not queue


def test_whoever_leaves_is_found_whatever_the_priority() -> None:
    gone, dropped, late = object(), item(priority=2, deadline=1.0), item(priority=3, deadline=9.0)
    queue = filled(item(priority=1, sender=gone), item(priority=1, sender=gone), dropped, late, item())
    assert len(queue.withdraw(gone)) == 2
    assert queue.expire(2.0) == [dropped]
    assert queue.take(64, 10.0) == ([], [late])
    assert queue.rows == 1


def test_a_batch_stops_before_the_item_that_would_not_fit() -> None:
    items = [item(3), item(3), item(3)]
    queue = filled(*items)
    assert queue.take(8, 5.0)[0] == items[:2]
    assert queue.rows == 3


def test_an_item_larger_than_a_batch_comes_alone() -> None:
    large, small = item(100), item(1)
    queue = filled(large, small)
    assert queue.take(64, 5.0)[0] == [large]
    assert queue.take(64, 5.0)[0] == [small]


def test_items_past_their_deadline_are_set_aside() -> None:
    late, on_time, late_too = item(deadline=5.0), item(deadline=6.0), item(deadline=1.0)
    assert filled(late, on_time, late_too).take(64, 5.0) == ([on_time], [late, late_too])


def test_late_items_take_no_room_in_the_batch() -> None:
    late, first, second = item(8, deadline=1.0), item(4), item(4)
    assert filled(late, first, second).take(8, 5.0) == ([first, second], [late])


@pytest.mark.parametrize(
    "one_too_many", [item(3), item(1, size=60)], ids=["more rows than there is room", "more bytes than there is room"]
)
def test_a_full_queue_refuses(one_too_many: Item) -> None:
    queue = filled(item(8, size=50), max_rows=10, max_bytes=100)
    with pytest.raises(QueueFull):
        queue.push(one_too_many)
    assert (queue.rows, queue.bytes) == (8, 50)


def test_an_empty_queue_takes_what_is_larger_than_its_bounds() -> None:
    assert filled(item(50, size=500), max_rows=10, max_bytes=100).rows == 50


def test_there_is_room_again_when_items_have_left() -> None:
    queue = filled(item(10), max_rows=10)
    queue.take(64, 5.0)
    queue.push(item(10))


def test_an_item_without_rows_waits_like_any_other() -> None:
    empty = item(0, size=0)
    queue = filled(empty)
    assert queue.oldest_arrival() == empty.arrived
    assert queue.take(64, 5.0)[0] == [empty]


def test_an_item_that_asks_to_be_alone_never_shares_a_batch() -> None:
    first, second, alone, third = item(), item(), item(alone=True), item()
    queue = filled(first, second, alone, third)
    assert [queue.take(64, 5.0)[0] for _ in range(3)] == [[first, second], [alone], [third]]


def test_what_has_expired_is_found_wherever_it_waits() -> None:
    """A client in a hurry behind others that are not, in its lane and in another."""
    patient, hurried, last = item(4), item(2, deadline=3.0), item(4)
    other, hurried_too = item(layout=b"b", arrived=1.0), item(layout=b"b", deadline=4.0)
    queue = filled(patient, hurried, last, other, hurried_too)
    assert queue.soonest() == 3.0
    assert queue.expire(2.9) == []
    assert queue.expire(4.0) == [hurried, hurried_too]
    assert (queue.rows, queue.bytes) == (9, 12)
    assert queue.soonest() == 100.0
    assert queue.take(64, 5.0) == ([patient, last], [])
    assert queue.take(64, 5.0) == ([other], [])
    assert not queue


def test_what_left_out_of_turn_leaves_nothing_behind() -> None:
    """However many hurry past their deadline behind one that waits, the line holds neither them nor their bytes."""
    queue = filled(item(deadline=1e6))
    for number in range(5000):
        queue.push(item(deadline=1.0 + number, size=100))
        assert len(queue.expire(1.5 + number)) == 1
    (lane,) = queue._lanes.values()
    assert len(lane.items) <= 2 * 64 + 2
    assert not any(one.payload for one in list(lane.items)[1:])
    assert (queue.rows, queue.bytes, len(queue._heap), len(queue._early)) == (1, 4, 0, 0)


def test_numbers_of_items_that_ran_in_time_do_not_pile_up() -> None:
    queue = ModelQueue(1000, 100_000)
    for _ in range(1000):
        queue.push(item())
        queue.push(item(deadline=50.0))
        queue.take(64, 5.0)
    assert len(queue._heap) <= 64 + 1
    assert not queue._early


def test_heads_are_dropped_while_a_batch_stays_behind_them() -> None:
    late = [item(2, deadline=6.0) for _ in range(4)]
    good = item(2, deadline=9.0)
    queue = filled(*late, good)
    assert queue.drop(7.0, keep_rows=4) == late[:3]
    assert queue.rows == 4
    assert queue.drop(7.0, keep_rows=4) == []


def test_a_slice_goes_in_behind_so_many_rows_and_is_never_refused() -> None:
    waiting = [item(2, arrived=5.0), item(2, arrived=6.0), item(2, arrived=7.0)]
    queue = filled(*waiting, max_rows=6)
    rest = item(30, arrived=1.0)
    queue.push(rest, behind_rows=4)
    assert queue.rows == 36
    assert [queue.take(4, 8.0)[0] for _ in range(3)] == [waiting[:2], [rest], waiting[2:]]


def test_a_slice_does_not_overtake_other_lanes_again_and_again() -> None:
    rest, other = item(30, arrived=1.0), item(layout=b"b", arrived=5.0)
    queue = filled(rest, other)
    assert queue.take(8, 6.0)[0] == [rest]
    queue.push(rest, behind_rows=8)
    assert queue.take(8, 6.0)[0] == [other]


def test_an_item_hidden_behind_a_patient_slice_is_still_set_aside_in_time() -> None:
    hurried = item(deadline=3.0)
    queue = filled(hurried)
    rest = item(2, deadline=50.0)
    queue.push(rest, behind_rows=0)
    assert queue.take(64, 4.0) == ([rest], [hurried])


def test_a_sender_withdraws_the_items_it_names() -> None:
    mine, others = object(), object()
    items = [item(2, sender=mine), item(2, sender=others), item(2, sender=mine), item(2, b"b", sender=mine)]
    queue = filled(*items)
    assert queue.withdraw(mine, {items[0].id, items[1].id, items[3].id}) == [items[0], items[3]]
    assert queue.rows == 4
    assert queue.take(64, 5.0)[0] == [items[1], items[2]]


def test_a_sender_that_is_gone_withdraws_all_it_had() -> None:
    mine, others = object(), object()
    items = [item(sender=mine), item(sender=others), item(layout=b"b", sender=mine)]
    queue = filled(*items)
    assert queue.withdraw(mine) == [items[0], items[2]]
    assert queue.take(64, 5.0)[0] == [items[1]]
    assert queue.oldest_arrival() is None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "push", "slice", "take", "withdraw", "expire", "drop"]),
        st.integers(0, 40),
        st.sampled_from([b"a", b"b", b"c"]),
        st.floats(0, 10),
    ),
    max_size=80,
)


@given(STEPS)
def test_whatever_happens_each_item_leaves_once_and_the_sums_are_right(
    steps: list[tuple[str, int, bytes, float]],
) -> None:
    queue = ModelQueue(200, 4000)
    senders = [object(), object(), object()]
    waiting: dict[int, Item] = {}
    for step, number, layout, at in steps:
        gone: list[Item] = []
        if step in {"push", "slice"}:
            sender = senders[number % 3]
            one = item(number, layout, arrived=at, deadline=at + 3, sender=sender, size=number * 4, alone=number == 7)
            try:
                queue.push(one, behind_rows=int(at) if step == "slice" else None)
            except QueueFull:
                assert step == "push"
                assert queue.rows + number > 200 or queue.bytes + number * 4 > 4000
            else:
                waiting[one.id] = one
        elif step == "take":
            batch, late = queue.take(number, at)
            assert len({one.layout for one in batch + late}) <= 1
            assert sum(one.rows for one in batch) <= number or len(batch) == 1
            assert len(batch) == 1 or not any(one.alone for one in batch)
            assert all(one.deadline <= at for one in late)
            assert all(one.deadline > at for one in batch)
            gone = batch + late
        elif step == "withdraw":
            gone = queue.withdraw(senders[number % 3])
            assert all(one.sender is senders[number % 3] for one in gone)
        elif step == "expire":
            gone = queue.expire(at)
            assert all(one.deadline <= at for one in gone)
            assert queue.soonest() > at
        elif waiting:
            gone = queue.drop(at, number)
            assert all(one.deadline < at for one in gone)
        for one in gone:
            del waiting[one.id]
        assert queue.rows == sum(one.rows for one in waiting.values())
        assert queue.bytes == sum(len(one.payload) for one in waiting.values())
        assert bool(queue) == bool(waiting)
        assert (queue.oldest_arrival() is None) == (not waiting)
        assert queue.soonest() <= min((one.items[0].deadline for one in queue._lanes.values()), default=float("inf"))
