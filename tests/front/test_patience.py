"""Who is cut for taking too long, or to make room, on a clock that the test holds."""

from __future__ import annotations

import pytest

from front.patience import BYTES_PER_S_MIN, IDLE_S, LINGER_S, Patience, Stage


class Slow:
    """A connection that only remembers what was said to it."""

    def __init__(self, held_bytes: int = 0) -> None:
        self.idle_since = 0.0
        self.held_bytes = held_bytes
        self.ends: list[str] = []

    def give_up(self, reason: str, stage: Stage) -> None:
        self.ends.append(reason)

    def handle_close(self) -> None:
        self.ends.append("closed")
        self.patience.forget(self)

    patience: Patience


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as a list of one number that the test changes."""
    time = [1000.0]
    monkeypatch.setattr("front.patience.time.monotonic", lambda: time[0])
    return time


def patience(held_bytes_max: int = 1 << 30) -> Patience:
    return Patience(header_s=10.0, body_s=30.0, held_bytes_max=held_bytes_max)


def pass_time(made: Patience, now: list[float], seconds: float) -> None:
    now[0] += seconds
    made.look_over(now[0])


@pytest.mark.parametrize(
    ("stage", "seconds", "reason"),
    [
        (Stage.HEADER, 10.0, "slow_header"),
        (Stage.BODY, 30.0, "slow_body"),
        (Stage.ANSWER, 30.0, "slow_reader"),
        (Stage.LINGER, LINGER_S, "linger"),
    ],
)
def test_each_stage_has_its_limit(now: list[float], stage: Stage, seconds: float, reason: str) -> None:
    made, channel = patience(), Slow()
    made.begin(channel, stage)
    pass_time(made, now, seconds - 0.5)
    assert channel.ends == []
    pass_time(made, now, 0.5)
    assert channel.ends == [reason]


def test_bytes_renew_the_limit_of_a_body_while_there_are_enough_and_that_of_a_header_never(now: list[float]) -> None:
    made, body, header = patience(), Slow(), Slow()
    made.begin(body, Stage.BODY)
    made.begin(header, Stage.HEADER)
    for _ in range(3):
        made.moved(body, 30 * BYTES_PER_S_MIN)
        made.moved(header, 30 * BYTES_PER_S_MIN)
        pass_time(made, now, 30.0)
        assert body.ends == []
        assert "slow_header" in header.ends
    made.moved(body, 30 * BYTES_PER_S_MIN - 1)
    pass_time(made, now, 30.0)
    assert body.ends == ["slow_body"]


def test_an_idle_connection_is_closed_after_a_while_and_the_others_are_not_looked_at(now: list[float]) -> None:
    made, old, new = patience(), Slow(), Slow()
    for channel in (old, new):
        channel.patience = made
        made.rest(channel)
        now[0] += 1.0
    pass_time(made, now, IDLE_S - 1.5)
    assert (old.ends, new.ends) == (["closed"], [])


def test_the_longest_idle_goes_first_and_the_slow_only_when_nobody_is_idle(now: list[float]) -> None:
    made, first, second, slow = patience(), Slow(), Slow(), Slow()
    assert made.spare() is None
    for channel in (first, second, slow):
        made.rest(channel)
    made.begin(slow, Stage.HEADER)
    made.forget(first)  # a request, and its answer: it is now the one that fell idle last
    made.rest(first)
    for expected in (second, first, slow):
        assert made.spare() is expected
        made.forget(expected)
    assert made.spare() is None


def test_when_all_together_hold_too_much_the_slowest_go_until_they_do_not(now: list[float]) -> None:
    made = patience(held_bytes_max=250)
    channels = [Slow(100) for _ in range(4)]
    for moved, channel in enumerate(channels):
        made.begin(channel, Stage.ANSWER)
        made.moved(channel, 10_000 * (moved + 1))
    pass_time(made, now, 1.0)
    assert [channel.ends for channel in channels] == [["memory"], ["memory"], [], []]
