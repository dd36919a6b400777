"""Workers that die: idle, in a batch, of one input, for want of memory. Nobody else's request shall suffer by it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import POISON
from tests.faults.asking import Reply, counted, predict, trouble_of
from tests.faults.base import back_to_base, faulty_server, until_ready
from tests.faults.conftest import Say
from tests.faults.connection import Asked
from tests.faults.load import Load, assert_promises, logged, statuses
from tests.faults.logs import assert_quiet
from tests.harness import SOON_S, Gate, Server, gate, wait_until

DEATHS = "inference_worker_deaths_total"
ROUNDS = 5
CRASHED = "500 PREDICT_FAILED worker_crashed"
AGAIN = 20
# float32 holds process ids exactly.
PID = {"name": "pid", "kind": "pid"}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as threads:
        yield threads


def until_counted(server: Server, deaths: float) -> None:
    """Wait until so many deaths have been seen."""
    wait_until(lambda: counted(server.url, DEATHS) >= deaths, SOON_S, f"{deaths} deaths are seen")


def active_worker(server: Server) -> int:
    """The process id of the worker that answers."""
    return int(predict(server.url, 1.0, "pid").json["prediction"])


@pytest.mark.parametrize(("standby", "ready_goal_s", "bound_s"), [(1, 0.5, 5.0), (0, 5.0, SOON_S)])
def test_an_idle_worker_that_is_killed_is_replaced(
    figure: Say, standby: int, ready_goal_s: float, bound_s: float
) -> None:
    seen, again, answers = [], [], Counter[int]()
    with faulty_server([PID], standby=standby) as server:
        until_ready(server, 1 + standby)
        with back_to_base(server):
            for round in range(ROUNDS):
                before, pid = counted(server.url, DEATHS), active_worker(server)
                killed = time.monotonic()
                server.kill(pid)
                until_counted(server, before + 1)
                seen.append(time.monotonic() - killed)
                while (reply := predict(server.url, 1.0, "pid")).status != 200 and time.monotonic() < killed + bound_s:
                    answers[reply.status] += 1
                    assert not trouble_of(*reply)
                again.append(time.monotonic() - killed)
                answers[reply.status] += 1
                assert reply.json["prediction"] != pid
                until_ready(server, 2 + standby + round)
    how = "with a stand-by" if standby else "without stand-by"
    figure(
        1,
        f"seen in 50 ms, answers again in {ready_goal_s} s",
        f"{how}, {ROUNDS} kills: seen in {max(seen) * 1e3:.0f} ms, again in {max(again):.2f} s, {dict(answers)}",
    )
    assert max(again) <= bound_s
    assert set(answers) <= ({200} if standby else {200, 503})


@pytest.mark.parametrize("settings", [{"workers": 2}, {"standby": 1}], ids=["two workers", "a stand-by"])
def test_a_batch_whose_worker_is_killed_is_answered_by_another(
    figure: Say, pool: ThreadPoolExecutor, tmp_path: Path, settings: dict[str, Any]
) -> None:
    with gate() as held, faulty_server([held.model()], prediction_log_dir=str(tmp_path), **settings) as server:
        until_ready(server, 2)
        with back_to_base(server):
            replies, seconds = kill_in_a_batch(server, held, pool)
            until_ready(server, 3)
    rows = Counter(row["request_id"] for row in logged(tmp_path))
    how = "two workers" if "workers" in settings else "a stand-by"
    answers = Counter(reply.status for reply in replies)
    figure(2, "all 200, each row once", f"{how}: {dict(answers)} after {seconds:.2f} s, {len(rows)} rows")
    assert [reply.json.get("prediction") for reply in replies] == [2.0 * number for number in range(len(replies))]
    assert rows == Counter({f"held-{number}": 1 for number in range(len(replies))})


def test_a_batch_whose_only_worker_is_killed_is_refused_for_now(figure: Say, pool: ThreadPoolExecutor) -> None:
    with gate() as held, faulty_server([held.model()]) as server, back_to_base(server):
        replies, seconds = kill_in_a_batch(server, held, pool)
        until_ready(server, 2)
        assert predict(server.url, 4.0).json["prediction"] == 8.0
    answers = Counter(reply.status for reply in replies)
    figure(2, "one worker: 503 with Retry-After, none hung", f"{dict(answers)} after {seconds:.2f} s")
    assert not [trouble for reply in replies if (trouble := trouble_of(*reply))]
    # What had not been sent to the dead one, or only been queued there, may wait for the next.
    assert answers[503]
    assert set(answers) <= {200, 503}


def kill_in_a_batch(server: Server, held: Gate, pool: ThreadPoolExecutor) -> tuple[list[Reply], float]:
    """Eight requests whose worker dies while it computes, and how long they took from then."""
    asked: list[Future[Reply]] = [
        pool.submit(predict, server.url, float(number), X_Request_Id=f"held-{number}") for number in range(8)
    ]
    call = held.next_call()
    wait_until(lambda: counted(server.url, "inference_in_flight") == len(asked), SOON_S, "all are under way")
    killed = time.monotonic()
    server.kill(call.pid)
    held.open()
    return [one.result(SOON_S) for one in asked], time.monotonic() - killed


def test_an_input_that_crashes_its_worker_is_found_and_refused(figure: Say) -> None:
    """It ends two of them: one with others in the batch, one alone."""
    model = {"name": "fatal", "kind": "crash", "seconds": 0.01}
    with faulty_server([model], workers=2, standby=1, fronts=2) as server:
        until_ready(server, 3)
        begun = time.monotonic()
        with back_to_base(server), Load(server.url, 16) as load:
            load.until(50)
            first = predict(server.url, POISON)
            found_s = time.monotonic() - begun
            deaths = counted(server.url, DEATHS)
            again = [predict(server.url, POISON) for _ in range(AGAIN)]
            load.until(load.answered + 50)
            asked = load.finish()
            later = counted(server.url, DEATHS)
        quiet = assert_quiet(server.log, time.monotonic() - begun)
    figure(
        4,
        "500 worker_crashed for it alone, then refused unseen; others 200",
        f"{told(first)} after {found_s:.2f} s and {deaths:.0f} deaths, then {AGAIN} times with "
        f"{later - deaths:.0f} deaths; others {dict(statuses(asked))}; {quiet}",
    )
    assert_promises(asked)
    assert {told(reply) for reply in (first, *again)} == {CRASHED}
    assert_others_answered(asked)
    assert 1 <= deaths <= 2
    assert later == deaths


def test_an_input_that_takes_all_memory_is_found_and_refused(figure: Say) -> None:
    """Whoever is killed may be killed by anybody: the first time that its workers are, it may come again.

    One front: what is only suspected there, others do not know of.
    """
    model = {"name": "fatal", "kind": "hungry", "seconds": 0.01}
    with faulty_server([model], workers=2, standby=2) as server:
        until_ready(server, 4)
        begun = time.monotonic()
        with back_to_base(server), Load(server.url, 16) as load:
            load.until(50)
            first = predict(server.url, POISON)
            deaths = counted(server.url, DEATHS)
            until_ready(server, 4 + int(deaths))
            again = [predict(server.url, POISON) for _ in range(AGAIN)]
            load.until(load.answered + 50)
            asked = load.finish()
            later = counted(server.url, DEATHS)
            oom = oom_scores(server)
        quiet = assert_quiet(server.log, time.monotonic() - begun)
    figure(
        8,
        "503 or 500 for it alone, at the second time 500 worker_crashed, then refused unseen; others 200",
        f"{told(first)} after {deaths:.0f} deaths, {told(again[0])} after {later - deaths:.0f} more, then {AGAIN - 1} "
        f"times without; others {dict(statuses(asked))}; {quiet}",
    )
    figure(8, "the kernel prefers workers (+500) to us", f"oom_score_adj {oom}")
    assert_promises(asked)
    assert told(first) in {CRASHED, "503 NOT_READY"}
    assert {told(reply) for reply in again} == {CRASHED}
    assert_others_answered(asked)
    assert 1 <= deaths <= 3
    assert later - deaths <= 1
    assert oom["worker"] == {500}
    assert max(oom["supervisor"] | oom["front"]) < 500


def told(reply: Reply) -> str:
    """An error in words, once it is known to be as promised."""
    assert not trouble_of(*reply)
    return " ".join(str(one) for one in (reply.status, reply.json.get("error"), reply.json.get("reason")) if one)


def assert_others_answered(asked: Sequence[Asked]) -> None:
    """Nobody has suffered for another's input, but for a moment without any worker on a busy machine."""
    counts = statuses(asked)
    assert set(counts) <= {"200", "503"}
    assert counts["200"] >= 0.99 * len(asked)


def test_an_input_that_was_refused_for_a_while_is_tried_again(figure: Say) -> None:
    model = {"name": "fatal", "kind": "crash"}
    with faulty_server([model], workers=2, standby=1, quarantine_s=1.0) as server:
        until_ready(server, 3)
        refused = predict(server.url, POISON)
        deaths = counted(server.url, DEATHS)
        again = time.monotonic()

        def tried() -> bool:
            predict(server.url, POISON)
            return counted(server.url, DEATHS) > deaths

        wait_until(tried, SOON_S, "a worker has tried it again")
    figure(4, "refused for QUARANTINE_S, here 1 s", f"tried again after {time.monotonic() - again:.1f} s")
    assert refused.status == 500


def oom_scores(server: Server) -> dict[str, set[int]]:
    """What the kernel adds to the score of each process when it looks for one to kill."""

    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    own = score(os.getpid())
    found = {role: {score(pid) - own for pid in server.children(role)} for role in ("front", "worker")}
    return {**found, "supervisor": {score(server.pid) - own}}
