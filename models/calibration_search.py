"""Which way to call a model is quickest here: every candidate against the plain call, in turns.

Owns the candidates and when one of them is better. Each runs in a process of its own (models.calibration_probe), the
plain call beside it in another one: they take turns, so that what else the machine does meets both alike.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

from models.calibration import PLAIN, XLA, Calibration
from models.calibration_probe import Lost, Probe

# Chosen where it does so many times the rows/s. Medians of rounds in turns are off by 3 to 5 % on a busy machine; and
# what is won has to be worth another thing to go wrong.
CLEARLY = 1.15
# What holds for all sizes may be so much slower for one of them, which is what measuring is off by.
ABOUT = 0.97
# Not worth another round when it is still so far behind at its best.
HOPELESS, HOPELESS_ROUNDS = 0.9, 2
ROUNDS = 5

Start = Callable[[int | None], Probe]


@dataclass
class Finding:
    """One candidate beside the plain call. ratios: rows -> how many times its rows/s. fault: why it is out."""

    name: str
    ratios: dict[int, float] = field(default_factory=dict)
    fault: str | None = None
    chosen: bool = False


@dataclass
class Found:
    """What came of it."""

    calibration: Calibration
    findings: list[Finding]


class Contest:
    """Two processes in turns. plain_s, rival_s: rows -> the seconds of a call in each round."""

    def __init__(self, plain: Probe, rival: Probe) -> None:
        self._plain = plain
        self._rival = rival
        self.plain_s: dict[int, list[float]] = {}
        self.rival_s: dict[int, list[float]] = {}

    def round(self, rows: int, number: int) -> None:
        """One more measurement of both, this one first or that one."""
        sides = [(self._plain, self.plain_s), (self._rival, self.rival_s)]
        for probe, seconds in sides if number % 2 else reversed(sides):
            seconds.setdefault(rows, []).append(probe.ask("time", rows=rows)["seconds"])

    def agrees(self, sizes: Sequence[int]) -> bool:
        """Whether both answer the same."""
        with tempfile.TemporaryDirectory() as folder:
            for rows in sizes:
                self._plain.ask("write_answers", rows=rows, folder=folder)
                if not self._rival.ask("compare_answers", rows=rows, folder=folder)["agrees"]:
                    return False
        return True

    def ratio(self, rows: int) -> float:
        """How many times the plain call's rows/s."""
        pairs = zip(self.plain_s[rows], self.rival_s[rows], strict=True)
        return _median([plain / max(rival, 1e-9) for plain, rival in pairs])

    def ratios(self) -> dict[int, float]:
        return {rows: self.ratio(rows) for rows in sorted(self.rival_s)}

    def is_clear(self, rows: int) -> bool:
        """Whether it is clearly quicker, in all rounds but one."""
        pairs = zip(self.plain_s[rows], self.rival_s[rows], strict=True)
        clear = [plain >= CLEARLY * rival for plain, rival in pairs]
        return len(clear) == ROUNDS and sum(clear) >= ROUNDS - 1


def search(
    start: Start,
    sizes: Sequence[int],
    *,
    threads: int | None,
    cores: int,
    budget_s: float,
    say: Callable[[str], None],
) -> Found:
    """Measure. start: a process with so many threads. threads: the operator's word, then no others are tried.

    Raises Lost where the plain call itself cannot be measured.
    """
    findings: list[Finding] = []
    with ExitStack() as held:
        plain = held.enter_context(start(threads))
        warm = {int(rows): one for rows, one in plain.ask("warm", sizes=sizes, budget_s=budget_s)["seconds"].items()}
        if not warm:
            raise Lost("it takes no rows that we can think of, so nothing can be measured")
        measured = sorted(warm)
        threads_gain: dict[int, float] = {}
        for count in _other_threads(cores) if threads is None else ():
            say(f"{count} of {cores} threads")
            finding = _try_threads(start, count, plain, measured)
            findings.append(finding)
            best = max(finding.ratios.values(), default=0.0)
            if finding.fault is None and best > max(threads_gain.values(), default=0.0):
                threads_gain, threads = finding.ratios, count
        if threads_gain:
            next(one for one in findings if one.name == _named(threads)).chosen = True
            held.pop_all().close()
            plain = held.enter_context(start(threads))
            plain.ask("warm", sizes=measured, budget_s=budget_s)
        say("XLA")
        finding, contest, compile_s = _try_xla(start, threads, plain, measured)
        findings.append(finding)
        fast = () if finding.fault is not None else tuple(filter(contest.is_clear, finding.ratios))
        finding.chosen = bool(fast)
        plain_s = {rows: min(contest.plain_s[rows]) for rows in contest.plain_s}
        plain_s |= {rows: plain.ask("time", rows=rows)["seconds"] for rows in measured if rows not in plain_s}
        chosen_s = plain_s | {rows: min(contest.rival_s[rows]) for rows in fast}
        best_rows = max(chosen_s, key=lambda rows: rows / chosen_s[rows])
        say("two batches at once")
        pair = plain.ask("pair", rows=best_rows)["gain"]
    gain = threads_gain.get(best_rows, 1.0) * (finding.ratios[best_rows] if best_rows in fast else 1.0)
    calibration = Calibration(
        call=XLA if fast else PLAIN,
        sizes=fast,
        threads=threads,
        gain=gain,
        compile_s={rows: compile_s[rows] for rows in fast},
        plain_s=dict(sorted(plain_s.items())),
        chosen_s=dict(sorted(chosen_s.items())),
        best_rows=best_rows,
        two_at_once=pair,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return Found(calibration, findings)


def _other_threads(cores: int) -> list[int]:
    """Fewer than TensorFlow takes by itself."""
    return [1 << power for power in range(cores.bit_length()) if 1 << power < cores]


def _named(threads: int | None) -> str:
    return f"{threads} threads" if threads != 1 else "1 thread"


def _try_threads(start: Start, count: int, plain: Probe, sizes: Sequence[int]) -> Finding:
    """It holds for the whole process, so no size may be slower."""
    finding = Finding(_named(count))
    try:
        with start(count) as rival:
            rival.ask("warm", sizes=list(sizes), budget_s=0.0)
            contest = Contest(plain, rival)
            for number in range(ROUNDS):
                for rows in sizes:
                    contest.round(rows, number)
                finding.ratios = contest.ratios()
                if number + 1 == HOPELESS_ROUNDS and max(finding.ratios.values()) < HOPELESS:
                    break
            if min(finding.ratios.values()) < ABOUT:
                finding.fault = "it is slower for some sizes"
            elif not any(contest.is_clear(rows) for rows in sizes):
                finding.fault = "it is not clearly quicker"
            elif not contest.agrees(sizes):
                finding.fault = "it answers otherwise"
    except Lost as error:
        finding.fault = str(error)
    return finding


def _try_xla(
    start: Start, threads: int | None, plain: Probe, sizes: Sequence[int]
) -> tuple[Finding, Contest, dict[int, float]]:
    """Each size by itself: those that are no quicker are called plainly. The largest and the smallest come first."""
    finding = Finding("XLA")
    compile_s: dict[int, float] = {}
    with ExitStack() as held:
        contest = Contest(plain, plain)
        try:
            rival = held.enter_context(start(threads))
            contest = Contest(plain, rival)
            hopeless = 0
            for rows in sorted(sizes, key=lambda rows: (rows not in (sizes[0], sizes[-1]), rows)):
                compiled = rival.ask("compile", rows=rows)
                if "fault" in compiled:
                    finding.fault = compiled["fault"]
                    break
                compile_s[rows] = compiled["seconds"]
                for number in range(ROUNDS):
                    contest.round(rows, number)
                    if number + 1 == HOPELESS_ROUNDS and contest.ratio(rows) < HOPELESS:
                        break
                hopeless += contest.ratio(rows) < HOPELESS
                if hopeless == len(compile_s) == 2:  # neither end is any good, and compiling takes long
                    break
            finding.ratios = contest.ratios()
            good = list(filter(contest.is_clear, finding.ratios))
            if finding.fault is None and not good:
                finding.fault = "it is not clearly quicker for any size"
            elif finding.fault is None and not contest.agrees(good):
                finding.fault = "it answers otherwise"
        except Lost as error:
            finding.fault = str(error)
    return finding, contest, compile_s


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
