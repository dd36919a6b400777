"""What is chosen, from made-up figures: clearly quicker, never slower, the same answers. Processes that misbehave."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Self

import pytest

from models.calibration import PLAIN, XLA
from models.calibration_probe import Lost, Probe
from models.calibration_search import Found, search

SIZES = [1, 2, 4, 8]
# Seconds of a call by rows and threads (None: TensorFlow's choice), plainly and by XLA.
Figures = Callable[[int, int | None], float]


class Model:
    """Probes of a model with these figures; `asked` counts what they were told to do."""

    def __init__(self, plain: Figures, xla: Figures, **faults: Any) -> None:
        self.plain = plain
        self.xla = xla
        self.faults = faults
        self.asked: list[str] = []

    def start(self, threads: int | None) -> Any:
        return Fake(self, threads)


class Fake:
    """A probe without a process."""

    def __init__(self, model: Model, threads: int | None) -> None:
        self.model = model
        self.threads = threads
        self.compiled: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        model = self.model
        model.asked.append(do)
        if (do, self.threads) == model.faults.get("dies"):
            raise Lost("its process died (signal 11)")
        match do:
            case "warm":
                return {"seconds": {str(rows): model.plain(rows, self.threads) for rows in order["sizes"]}}
            case "compile":
                if "compile" in model.faults:
                    return {"fault": model.faults["compile"]}
                self.compiled.add(order["rows"])
                return {"seconds": 0.25}
            case "time":
                figures = model.xla if order["rows"] in self.compiled else model.plain
                return {"seconds": figures(order["rows"], self.threads)}
            case "compare_answers":
                return {"agrees": not model.faults.get("disagrees", False)}
            case "pair":
                return {"gain": 0.8}
        return {}


def found(model: Model, threads: int | None = None, cores: int = 4) -> Found:
    return search(model.start, SIZES, threads=threads, cores=cores, budget_s=1.0, say=lambda words: None)


def linear(each_s: float, fixed_s: float = 0.0) -> Figures:
    return lambda rows, threads: fixed_s + each_s * rows


def test_the_plain_call_stays_where_nothing_is_clearly_quicker() -> None:
    chosen = found(Model(linear(1.0), linear(0.9)))
    assert (chosen.calibration.call, chosen.calibration.sizes, chosen.calibration.threads) == (PLAIN, (), None)
    assert chosen.calibration.gain == 1.0
    assert not any(finding.chosen for finding in chosen.findings)
    assert all(finding.fault for finding in chosen.findings)


def test_xla_runs_the_sizes_it_is_clearly_quicker_for_and_no_others() -> None:
    chosen = found(Model(linear(1.0), linear(0.25, fixed_s=1.0)))  # slower alone, and only a little quicker for 2
    assert (chosen.calibration.call, chosen.calibration.sizes) == (XLA, (2, 4, 8))
    assert chosen.calibration.compile_s == {2: 0.25, 4: 0.25, 8: 0.25}
    assert chosen.calibration.chosen_s == {1: 1.0, 2: 1.5, 4: 2.0, 8: 3.0}
    assert chosen.calibration.best_rows == 8
    assert chosen.calibration.gain == pytest.approx(8 / 3)
    assert chosen.calibration.two_at_once == 0.8


def test_xla_that_is_hopeless_for_few_and_many_rows_is_not_compiled_further() -> None:
    model = Model(linear(1.0), linear(4.0))
    chosen = found(model)
    assert chosen.calibration.call == PLAIN
    assert model.asked.count("compile") == 2


def test_threads_must_be_slower_for_no_size() -> None:
    quicker_alone: Figures = lambda rows, threads: rows * (1.0 if threads is None else 0.5 if rows == 1 else 1.2)  # noqa: E731
    chosen = found(Model(quicker_alone, linear(9.0)))
    assert chosen.calibration.threads is None
    assert chosen.findings[0].fault == "it is slower for some sizes"


def test_the_quickest_number_of_threads_is_taken_and_xla_measured_with_it() -> None:
    by_threads: Figures = lambda rows, threads: rows * {None: 1.0, 1: 0.8, 2: 0.5}[threads]  # noqa: E731
    chosen = found(Model(by_threads, linear(0.25)))
    assert chosen.calibration.threads == 2
    assert chosen.calibration.call == XLA
    assert chosen.calibration.plain_s == {rows: rows * 0.5 for rows in SIZES}
    assert chosen.calibration.gain == pytest.approx(4.0)
    assert [finding.name for finding in chosen.findings if finding.chosen] == ["2 threads", "XLA"]


def test_the_operators_threads_are_the_only_ones_tried() -> None:
    chosen = found(Model(linear(1.0), linear(1.0)), threads=3)
    assert chosen.calibration.threads == 3
    assert [finding.name for finding in chosen.findings] == ["XLA"]


def test_a_candidate_that_answers_otherwise_is_refused() -> None:
    chosen = found(Model(lambda rows, threads: rows * (threads or 4.0), linear(0.01), disagrees=True))
    assert (chosen.calibration.call, chosen.calibration.threads) == (PLAIN, None)
    assert {finding.fault for finding in chosen.findings} == {"it answers otherwise"}


def test_a_candidate_that_cannot_be_compiled_is_refused_with_the_reason() -> None:
    chosen = found(Model(linear(1.0), linear(0.1), compile="it uses the operation GatherV2"))
    assert chosen.calibration.call == PLAIN
    assert chosen.findings[-1].fault == "it uses the operation GatherV2"


def test_a_candidate_whose_process_dies_is_refused_and_the_others_are_measured() -> None:
    chosen = found(
        Model(lambda rows, threads: rows * {None: 1.0, 1: 0.5, 2: 0.5}[threads], linear(1.0), dies=("time", 1))
    )
    assert chosen.findings[0].fault == "its process died (signal 11)"
    assert chosen.calibration.threads == 2


def test_a_model_that_cannot_be_measured_at_all_is_lost() -> None:
    with pytest.raises(Lost, match="signal 11"):
        found(Model(linear(1.0), linear(1.0), dies=("warm", None)))


# -- processes ---------------------------------------------------------------------------------------------------------


def probe(program: str, limit_s: float = 60.0) -> Probe:
    return Probe([sys.executable, "-c", program], os.environ, {"name": "m"}, {}, limit_s)


ANSWERS = "import sys; sys.stdin.readline(); print({}, flush=True); "
LOADED = ANSWERS.format(repr(json.dumps({"description": {}, "tensorflow": "2"})))


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import sys; sys.exit(3)", r"died \(exit code 3\)"),
        ("import os; os.abort()", r"died \(signal 6\)"),
        (ANSWERS.format('\'{"refused": "its files are damaged"}\''), "its files are damaged"),
    ],
    ids=["ends", "crashes", "refuses"],
)
def test_a_process_that_cannot_load_the_model_says_why(program: str, reason: str) -> None:
    with pytest.raises(Lost, match=reason), probe(program):
        pass


def test_a_process_that_dies_while_it_measures_is_lost() -> None:
    with (
        probe(LOADED + "sys.stdin.readline(); import os; os.kill(os.getpid(), 11)") as started,
        pytest.raises(Lost, match="signal 11"),
    ):
        started.ask("time", rows=1)


def test_a_process_that_hangs_is_given_up_and_gone() -> None:
    with probe(LOADED + "import time; time.sleep(1000)", limit_s=1.0) as started:
        with pytest.raises(Lost, match="longer than 1 s"):
            started.ask("time", rows=1)
        process = started._process
    assert process.returncode == -9
