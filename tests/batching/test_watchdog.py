"""Who is stuck and who is not, by vital signs and a clock of the test's own. Real ones: test_supervisor_stuck."""

from __future__ import annotations

import os
import signal
import subprocess
from types import SimpleNamespace
from typing import Any, cast

import pytest

from batching.child import STOPPED, Child, Stage, doing
from batching.vitals import Seen
from batching.watchdog import PERIOD_S, START_LIMIT_S, STOPPED_LIMIT_S, Watchdog
from tests.harness import SOON_S, wait_until

LIMIT_S = 2.0


class Ward:
    """One worker, and time. It beats as long as `beats` is true; `busy` is how long its model call has run, if any."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.beats, self.calls = True, False
        self.beat, self.busy = 0, 0
        own = SimpleNamespace(pid=os.getpid())
        self.child = SimpleNamespace(id=1, slot=2, stage=Stage.LOADING, started=self.now, limit_s=LIMIT_S, process=own)
        self.watchdog = Watchdog(self.vitals, lambda: self.now)

    def vitals(self, slot: int) -> Seen:
        assert slot == 2
        return Seen(self.beat, self.busy, 0, 0)

    def is_ready(self) -> None:
        self.child.stage = Stage.ACTIVE

    def pass_(self, seconds: float, tick_s: float = PERIOD_S) -> list[str]:
        """What the watchdog says in that time, up to the first word."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now += tick_s
            if self.beats:
                self.beat = int(self.now * 1e9)
            if self.calls and not self.busy:
                self.busy = int(self.now * 1e9)
            stuck = self.watchdog.look([cast("Child", self.child)])
            if stuck:
                return [what for _, what in stuck]
        return []


@pytest.fixture
def ward() -> Ward:
    made = Ward()
    made.is_ready()
    assert made.pass_(1.0) == []
    return made


def test_a_worker_that_beats_is_never_stuck(ward: Ward) -> None:
    assert ward.pass_(3600.0) == []


def test_a_call_that_takes_longer_than_the_limit_is_seen_within_half_a_second_though_the_loop_beats(ward: Ward) -> None:
    ward.calls, began = True, ward.now
    (what,) = ward.pass_(10.0)
    assert "a model call has taken" in what
    assert "running" in what  # the process of this test, which stands for the worker
    assert LIMIT_S < ward.now - began <= LIMIT_S + 0.5


def test_a_loop_that_does_not_turn_is_seen_within_half_a_second_over_the_limit(ward: Ward) -> None:
    ward.beats, stopped = False, ward.now
    (what,) = ward.pass_(10.0)
    assert "its loop has not turned" in what
    assert LIMIT_S < ward.now - stopped <= LIMIT_S + 0.5


def test_many_short_calls_are_no_long_one(ward: Ward) -> None:
    for _ in range(100):
        ward.calls = True
        assert ward.pass_(0.9 * LIMIT_S) == []
        ward.busy = 0
    assert ward.child.stage is Stage.ACTIVE


def test_after_an_hours_freeze_of_the_machine_nobody_is_stuck(ward: Ward) -> None:
    ward.calls = True
    assert ward.pass_(0.9) == []
    ward.beats, ward.now = False, ward.now + 3600.0  # all stand still, and the watchdog is the first to wake
    assert ward.pass_(PERIOD_S) == []
    ward.beats, ward.calls, ward.busy = True, False, 0
    assert ward.pass_(10.0) == []


def test_a_worker_that_does_not_wake_from_a_freeze_is_still_found(ward: Ward) -> None:
    ward.beats, ward.now = False, ward.now + 3600.0
    assert ward.pass_(LIMIT_S + 0.5)


def test_ticks_that_come_a_little_late_do_not_blind_it(ward: Ward) -> None:
    ward.beats, stopped = False, ward.now
    assert ward.pass_(10.0, tick_s=2 * PERIOD_S)
    assert ward.now - stopped <= LIMIT_S + 0.8


def test_while_it_loads_a_worker_may_take_minutes_and_not_for_ever() -> None:
    ward = Ward()
    ward.beats = False
    assert ward.pass_(START_LIMIT_S - 1.0, tick_s=0.2) == []
    (what,) = ward.pass_(2.0, tick_s=0.2)
    assert "it has been starting for 600 s" in what


def test_it_has_as_long_again_until_its_first_beat() -> None:
    ward = Ward()
    ward.beats = False
    assert ward.pass_(START_LIMIT_S - 1.0, tick_s=0.2) == []
    ward.is_ready()
    assert ward.pass_(START_LIMIT_S - 1.0, tick_s=0.2) == []
    assert ward.pass_(2.0, tick_s=0.2)


def test_signs_that_the_last_owner_of_its_place_left_are_not_its_own() -> None:
    ward = Ward()
    ward.beats, ward.beat, ward.busy = False, int((ward.now - 50) * 1e9), int((ward.now - 50) * 1e9)
    ward.is_ready()
    assert ward.pass_(60.0) == []


def test_a_limit_of_almost_nothing_does_not_kill_who_beats_a_little_late(ward: Ward) -> None:
    ward.child.limit_s = 0.01
    assert ward.pass_(60.0, tick_s=PERIOD_S) == []
    ward.beats = False
    assert ward.pass_(0.6) == []


def test_who_has_ended_is_forgotten(ward: Ward) -> None:
    ward.beats = False
    assert ward.pass_(1.0) == []
    assert ward.watchdog.look([]) == []
    assert ward.pass_(1.0) == []


def test_several_are_told_apart() -> None:
    beats = {2: 0, 3: 0}
    now = [1000.0]
    workers: list[Any] = [
        SimpleNamespace(
            id=slot,
            slot=slot,
            stage=Stage.ACTIVE,
            started=0.0,
            limit_s=LIMIT_S,
            process=SimpleNamespace(pid=os.getpid()),
        )
        for slot in beats
    ]
    watchdog = Watchdog(lambda slot: Seen(beats[slot], 0, 0, 0), lambda: now[0])
    stuck: list[int] = []
    while not stuck:
        now[0] += PERIOD_S
        beats[2] = int(now[0] * 1e9)
        beats[3] = int(1000.1e9)
        stuck = [child.id for child, _ in watchdog.look(workers)]
    assert stuck == [3]


def test_a_worker_stopped_while_it_loads_is_stuck_and_one_that_only_takes_long_is_not() -> None:
    ward = Ward()
    ward.beats = False
    assert ward.pass_(60.0, tick_s=0.2) == []
    with subprocess.Popen(["sleep", "100"]) as loading:
        try:
            loading.send_signal(signal.SIGSTOP)
            wait_until(lambda: doing(loading.pid) == STOPPED, SOON_S, "it is stopped")
            ward.child.process = loading
            assert ward.pass_(STOPPED_LIMIT_S - 0.5) == []
            (what,) = ward.pass_(1.0)
            assert "stopped" in what
        finally:
            loading.kill()
