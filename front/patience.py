"""How long a connection may take over what it is in the middle of, and which one goes first when there are too many.

Owns three limits and two lists. Knows no bytes: a channel says what it begins, how much of it has moved, and that it
is done; `look_over` tells it when it has taken too long.

A connection is in at most one list. The idle ones lie in the order in which they fell idle, so the longest idle is
found without a search. Those in the middle of something are few, and looked over every quarter of a second; what is
done in one piece, as nearly every request and answer is, never gets there. So a connection that does nothing costs
nothing.

Checked against waitress 3.0.2: it has one limit, `channel_timeout`, which any byte renews (a byte a second holds a
connection for ever, 100 of them all), and it goes by time.time(): a clock set forward closes all connections at once.
Everything here is monotonic.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from enum import Enum
from typing import Protocol

LOOK_S = 0.25
# A connection without a request is kept for so long.
IDLE_S = 120.0
# What a body, or an answer being read, must make on average over each of its windows.
BYTES_PER_S_MIN = 1024
# A refused client is read on for so long, so that it can read why (see Channel.part).
LINGER_S = 2.0


class Stage(Enum):
    """What a connection can be in the middle of."""

    HEADER = "slow_header"
    BODY = "slow_body"
    ANSWER = "slow_reader"
    LINGER = "linger"


class Waiting(Protocol):
    """What is asked of a connection here."""

    idle_since: float
    held_bytes: int

    def give_up(self, reason: str, stage: Stage) -> None:
        """It has taken too long, or too much."""

    def handle_close(self) -> None: ...


class Progress:
    """Of one connection in one stage. `moved`: bytes since its window began."""

    __slots__ = ("began", "due", "moved", "moved_before", "stage")

    def __init__(self, stage: Stage, now: float, window_s: float) -> None:
        self.stage = stage
        self.began = now
        self.due = now + window_s
        self.moved = 0
        self.moved_before = 0

    def rate(self, now: float) -> float:
        """Bytes per second since it began."""
        return (self.moved_before + self.moved) / (now - self.began + LOOK_S)


class Patience:
    """The lists and the limits. held_bytes_max: what all that is half received or half sent may take in memory."""

    def __init__(self, *, header_s: float, body_s: float, held_bytes_max: int) -> None:
        self.idle: OrderedDict[Waiting, None] = OrderedDict()
        self.pending: dict[Waiting, Progress] = {}
        self._held_bytes_max = held_bytes_max
        self._window_s = {Stage.HEADER: header_s, Stage.BODY: body_s, Stage.ANSWER: body_s, Stage.LINGER: LINGER_S}
        self._look_at = 0.0

    def begin(self, channel: Waiting, stage: Stage) -> None:
        """It is in the middle of this now, whatever it was before."""
        self.idle.pop(channel, None)
        self.pending[channel] = Progress(stage, time.monotonic(), self._window_s[stage])

    def moved(self, channel: Waiting, amount: int) -> None:
        """So many bytes more of what it is in the middle of."""
        if (progress := self.pending.get(channel)) is not None:
            progress.moved += amount

    def rest(self, channel: Waiting) -> None:
        """It waits for a request from now on; whoever had one was forgotten when that was whole."""
        channel.idle_since = time.monotonic()
        self.pending.pop(channel, None)
        self.idle[channel] = None

    def forget(self, channel: Waiting) -> None:
        """It is closed."""
        self.idle.pop(channel, None)
        self.pending.pop(channel, None)

    def hurry(self) -> None:
        """The front ends: nobody lingers for long."""
        self._window_s[Stage.LINGER] = LOOK_S

    def spare(self) -> Waiting | None:
        """Whom to close for another: the longest idle, else the first of those that are slow; None if all work."""
        if self.idle:
            return next(iter(self.idle))
        return next(iter(self.pending), None)

    def look_over(self, now: float) -> None:
        """End what has taken too long; to be called often, and does something every quarter of a second."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        while self.idle and (oldest := next(iter(self.idle))).idle_since < now - IDLE_S:
            oldest.handle_close()
        for channel, progress in list(self.pending.items()):
            if now < progress.due:
                continue
            window_s = self._window_s[progress.stage]
            if progress.stage in (Stage.BODY, Stage.ANSWER) and progress.moved >= BYTES_PER_S_MIN * window_s:
                progress.due = now + window_s
                progress.moved_before += progress.moved
                progress.moved = 0
            else:
                channel.give_up(progress.stage.value, progress.stage)
        self._shed(now)

    def _shed(self, now: float) -> None:
        """Where all together hold too much, the slowest go."""
        held = sum(channel.held_bytes for channel in self.pending)
        if held <= self._held_bytes_max:
            return
        slowest = sorted(self.pending.items(), key=lambda one: one[1].rate(now))
        for channel, progress in slowest:
            held -= channel.held_bytes
            channel.give_up("memory", progress.stage)
            if held <= self._held_bytes_max:
                return
