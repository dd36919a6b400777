"""Which workers are stuck: in a model call, or so that their loop turns no more. Reads vital signs and judges.

Kills nobody: that is the supervisor's. The signs need no word from the worker, so one that was stopped, or that loops
in native code and never lets go of the interpreter, is found as well.

Time is what the watchdog itself has lived, tick by tick, and one tick counts for little more than its period: when the
whole machine or the supervisor was frozen, everybody's signs are old, and nobody is to blame. The wall clock is not
asked at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from batching.child import STOPPED, Child, Stage, doing
from batching.vitals import Seen

PERIOD_S = 0.1
# What one tick counts for at the most: a busy machine delays ticks a little, and that much is no freeze.
TICK_MAX_S = 2 * PERIOD_S
# Loading, warming up and until the first beat: a large model from a slow disk takes minutes.
START_LIMIT_S = 600.0
# Nobody knows how long loading takes, but a stopped process does not load.
STOPPED_LIMIT_S = 5.0
# A loop beats four times a second, and on a busy machine late; its limit is the batch's and so much more.
LOOP_MORE_S = 0.3
LOOP_LIMIT_MIN_S = 0.5


@dataclass
class _Watch:
    """One worker's last signs, and when (in lived seconds) each was new."""

    stage: Stage
    stage_since: float
    beat: int = 0
    beat_since: float = 0.0
    busy: int = 0
    busy_since: float = 0.0
    stopped_since: float | None = None


class Watchdog:
    """`look` is one tick."""

    def __init__(self, vitals: Callable[[int], Seen], clock: Callable[[], float] = time.monotonic) -> None:
        self._vitals = vitals
        self._clock = clock
        self._ticked = clock()
        self._lived = 0.0
        self._watches: dict[int, _Watch] = {}

    def look(self, workers: Iterable[Child]) -> list[tuple[Child, str]]:
        """Each stuck worker, with what it was doing in words."""
        now = self._clock()
        self._lived += min(now - self._ticked, TICK_MAX_S)
        self._ticked = now
        watches, stuck = {}, []
        for child in workers:
            watch = self._watches.get(child.id)
            if watch is None or watch.stage is Stage.LOADING is not child.stage:
                watch = _Watch(child.stage, self._lived)
            watches[child.id] = watch
            if watch.stage is Stage.LOADING:
                if doing(child.process.pid) != STOPPED:
                    watch.stopped_since = None
                elif watch.stopped_since is None:
                    watch.stopped_since = self._lived
            self._observe(watch, self._vitals(child.slot), int(child.started * 1e9))
            trouble = self._trouble(watch, child.limit_s)
            if trouble is not None:
                stuck.append((child, f"{trouble}; its process is {doing(child.process.pid)}"))
        self._watches = watches
        return stuck

    def _observe(self, watch: _Watch, signs: Seen, started: int) -> None:
        """Signs older than the process are those of the place's last owner."""
        beat = signs.beat if signs.beat >= started else 0
        busy = signs.busy_since if signs.busy_since >= started else 0
        if beat != watch.beat:
            watch.beat, watch.beat_since = beat, self._lived
        if busy != watch.busy:
            watch.busy, watch.busy_since = busy, self._lived

    def _trouble(self, watch: _Watch, limit_s: float) -> str | None:
        if watch.stage is Stage.LOADING or not watch.beat:
            if watch.stopped_since is not None and (age := self._lived - watch.stopped_since) > STOPPED_LIMIT_S:
                return f"it has been stopped for {age:.0f} s before it was ready"
            age = self._lived - watch.stage_since
            return f"it has been starting for {age:.0f} s" if age > START_LIMIT_S else None
        if watch.busy and (age := self._lived - watch.busy_since) > limit_s:
            return f"a model call has taken {age:.1f} s, where {limit_s:.1f} s is the limit"
        if (age := self._lived - watch.beat_since) > max(limit_s, LOOP_LIMIT_MIN_S) + LOOP_MORE_S:
            return f"its loop has not turned for {age:.1f} s"
        return None
