"""A logged answer beside another version's answer to the same row: do they agree, how far are they apart, does the best
class change. Owns what is equal. Knows nothing of logs, processes and terminals.

Answers are JSON values as `prediction_log.rows` writes them into `outputs`: of /predict a row's outputs, of /classify
the best classes with their scores, of /advanced_predict the outputs with their row dimension. The other version's come
from /predict.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import numpy as np

KEPT = 1000  # of the rows that changed, those that changed most


class Verdict(NamedTuple):
    """One row. difference: the largest absolute one; None where the answers differ in form rather than in numbers.
    classes: the best class then and now, where the answers are scores of classes.
    """

    agrees: bool
    difference: float | None
    classes: tuple[int, int] | None

    @property
    def flipped(self) -> bool:
        return self.classes is not None and self.classes[0] != self.classes[1]


class Change(NamedTuple):
    """A row whose answer is another one, and which request it was in."""

    request_id: str | None
    row_number: int
    created_at: str
    verdict: Verdict
    logged: Any
    replayed: Any


@dataclass
class Summary:
    """What came of all rows. form: rows whose answers differ in form; ranked: rows whose best class is known."""

    compared: int = 0
    agreeing: int = 0
    form: int = 0
    ranked: int = 0
    flips: int = 0
    largest: Change | None = None
    _changes: list[tuple[float, int, Change]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    def add(self, change: Change) -> None:
        """Count a row that was compared, whether or not it changed."""
        verdict = change.verdict
        self.compared += 1
        self.agreeing += verdict.agrees
        self.form += verdict.difference is None
        self.ranked += verdict.classes is not None
        self.flips += verdict.flipped
        known = self.largest.verdict.difference if self.largest else None
        if verdict.difference is not None and verdict.difference > (known or 0.0):
            self.largest = change
        if not verdict.agrees or verdict.flipped:
            far = float("inf") if verdict.difference is None else verdict.difference
            entry = (far, -next(self._numbers), change)  # of equal ones the first stays
            if len(self._changes) < KEPT:
                heapq.heappush(self._changes, entry)
            else:
                heapq.heappushpop(self._changes, entry)

    def changes(self) -> list[Change]:
        """The rows that changed, those that changed most first, at most KEPT."""
        return [change for _, _, change in sorted(self._changes, key=lambda entry: (-entry[0], -entry[1]))]


def compare(logged: Any, replayed: Any, tolerance: float, *, is_classifier: bool) -> Verdict:
    """Whether abs(replayed - logged) <= tolerance + tolerance * abs(logged) for all numbers, and the rest is the same.

    is_classifier: outputs are scores of classes; those that /classify gave are in any case.
    """
    if isinstance(logged, dict) and "predicted_class" in logged:
        return _ranked(logged, replayed, tolerance)
    try:
        difference, agrees = _differences(logged, replayed, tolerance)
    except _OtherFormError:
        return Verdict(agrees=False, difference=None, classes=None)
    then, now = (_best(_scores(answer)) if is_classifier else None for answer in (logged, replayed))
    return Verdict(agrees, difference, None if then is None or now is None else (then, now))


class _OtherFormError(Exception):
    """Answers that cannot be subtracted from each other."""


def _ranked(logged: dict[str, Any], replayed: Any, tolerance: float) -> Verdict:
    """An answer of /classify beside scores."""
    scores = _scores(replayed)
    best = _best(scores)
    if best is None:
        return Verdict(agrees=False, difference=None, classes=None)
    classes = (int(logged["predicted_class"]), best)
    top = logged.get("top", [])
    if any(entry["class"] >= len(scores) for entry in top):
        return Verdict(agrees=False, difference=None, classes=classes)
    then = [entry["score"] for entry in top]
    now = [scores[entry["class"]] for entry in top]
    difference, agrees = _differences(then, now, tolerance)
    return Verdict(agrees, difference, classes)


def _scores(outputs: Any) -> list[float]:
    """The score of each class; a lone one is the second class's probability. Empty for anything else."""
    bare = _bare(outputs)
    if isinstance(bare, int | float):
        return [1.0 - bare, bare]
    if isinstance(bare, list) and all(isinstance(score, int | float) for score in bare):
        return bare
    return []


def _best(scores: list[float]) -> int | None:
    return scores.index(max(scores)) if scores else None


def _differences(logged: Any, replayed: Any, tolerance: float) -> tuple[float, bool]:
    """The largest absolute difference, and whether everything agrees. Raises _OtherFormError."""
    then, now = _bare(logged), _bare(replayed)
    if isinstance(then, int | float) and isinstance(now, int | float):
        difference = abs(now - then)
        return float(difference), difference <= tolerance + tolerance * abs(then)
    if isinstance(then, dict) and isinstance(now, dict) and then.keys() == now.keys():
        return _worst([_differences(then[name], now[name], tolerance) for name in then])
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        fast = _arrays(then, now, tolerance)
        return fast or _worst([_differences(a, b, tolerance) for a, b in zip(then, now, strict=True)])
    if type(then) is type(now) and not isinstance(then, dict | list):  # strings, and null for what is no number
        return 0.0, then == now
    raise _OtherFormError


def _arrays(then: list[Any], now: list[Any], tolerance: float) -> tuple[float, bool] | None:
    """As `_differences`, for lists of numbers however deep; None for others."""
    try:
        a, b = np.array(then), np.array(now)
    except ValueError:  # ragged
        return None
    if a.dtype.kind not in "iufb" or b.dtype.kind not in "iufb" or a.shape != b.shape or not a.size:
        return None
    a, b = a.astype(float), b.astype(float)
    differences = np.abs(b - a)
    return float(differences.max()), bool((differences <= tolerance + tolerance * np.abs(a)).all())


def _worst(parts: list[tuple[float, bool]]) -> tuple[float, bool]:
    return max((difference for difference, _ in parts), default=0.0), all(agrees for _, agrees in parts)


def _bare(value: Any) -> Any:
    """Without dimensions of size 1 around it: routes differ in whether they show the row's."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value
