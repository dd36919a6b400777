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
) -> Item:
    return Item(sender, next(_ids), rows, layout, bytes(size), arrived, deadline)


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
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 40), st.sampled_from([b"a", b"b", b"c"]), st.floats(0, 10)),
        st.tuples(st.just("take"), st.integers(1, 32), st.just(b""), st.floats(0, 10)),
        st.tuples(st.just("withdraw"), st.integers(0, 2), st.just(b""), st.just(0.0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_each_item_leaves_once_and_the_sums_are_right(
    steps: list[tuple[str, int, bytes, float]],
) -> None:
    queue = ModelQueue(200, 4000)
    senders = [object(), object(), object()]
    waiting: dict[int, Item] = {}
    for step, number, layout, at in steps:
        if step == "push":
            one = item(number, layout, arrived=at, deadline=at + 3, sender=senders[number % 3], size=number * 4)
            try:
                queue.push(one)
            except QueueFull:
                assert queue.rows + number > 200 or queue.bytes + number * 4 > 4000
            else:
                waiting[one.id] = one
        elif step == "take" and waiting:
            batch, late = queue.take(number, at)
            assert len({one.layout for one in batch + late}) == 1
            assert sum(one.rows for one in batch) <= number or len(batch) == 1
            assert all(one.deadline <= at for one in late)
            assert all(one.deadline > at for one in batch)
            for one in batch + late:
                del waiting[one.id]
        elif step == "withdraw":
            for one in queue.withdraw(senders[number]):
                assert one.sender is senders[number]
                del waiting[one.id]
        assert queue.rows == sum(one.rows for one in waiting.values())
        assert queue.bytes == sum(len(one.payload) for one in waiting.values())
        assert (queue.oldest_arrival() is None) == (not waiting)
