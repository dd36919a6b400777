"""Models that cannot be loaded any more, and models that leak."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from tests.faults.asking import predict, trouble_of
from tests.faults.base import back_to_base, faulty_server, ready
from tests.faults.conftest import Say
from tests.faults.load import Load, assert_promises, quantile, statuses
from tests.faults.logs import assert_quiet
from tests.harness import SOON_S, Server, wait_until

ASKED = 50
WATCHED_S = 4.0
MEMORY_MB = 250
RECYCLED = 3


def test_a_model_that_cannot_be_loaded_again_is_refused_quickly_and_heals(figure: Say, tmp_path: Path) -> None:
    """The file goes, then the worker: what is left says so, at little cost, until the file is back."""
    file = tmp_path / "weights"
    file.touch()
    with faulty_server([{"name": "frail", "kind": "needs_file", "path": str(file)}]) as server, back_to_base(server):
        assert predict(server.url, 1.0).status == 200
        file.unlink()
        gone = time.monotonic()
        server.kill(server.worker())
        wait_until(lambda: not ready(server), SOON_S, "GET /ready says 503")
        unready_s = time.monotonic() - gone
        seconds = []
        for number in range(ASKED):
            begun = time.monotonic()
            reply = predict(server.url, float(number))
            seconds.append(time.monotonic() - begun)
            assert reply.status == 503
            assert not trouble_of(*reply)
        # The tries to start a worker cost what they cost; what is watched is whether anything spins beside them.
        share = cpu_share(server, gone + WATCHED_S - time.monotonic())
        file.touch()
        back = time.monotonic()
        wait_until(lambda: predict(server.url, 1.0).status == 200, SOON_S, "it is served again")
        healed_s = time.monotonic() - back
        quiet = assert_quiet(server.log, time.monotonic() - gone)
    figure(
        5,
        "503 in 50 ms, /ready 503 in 1 s, < 5 % CPU, heals in 1 s",
        f"503 in p99 {quantile(seconds, 0.99) * 1e3:.0f} ms, /ready in {unready_s:.2f} s, "
        f"{100 * share:.1f} % CPU, healed in {healed_s:.2f} s; {quiet}",
    )
    assert quantile(seconds, 0.5) < 0.25
    assert unready_s < 5.0
    assert share < 0.25
    # After 4 s of failed starts the next try is at most 4 s away.
    assert healed_s < 10.0


def test_a_leaking_worker_is_replaced_without_a_failed_request(figure: Say) -> None:
    """10 MB a call, ten calls a second."""
    model = {"name": "leaks", "kind": "leaks", "seconds": 0.1}
    workers: set[int] = set()
    peak = 0
    with (
        faulty_server([model], worker_memory_mb=MEMORY_MB) as server,
        back_to_base(server),
        Load(server.url, 8) as load,
    ):

        def recycled() -> bool:
            nonlocal peak
            for pid in server.children("worker"):
                workers.add(pid)
                try:
                    peak = max(peak, psutil.Process(pid).memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
            return len(workers) > RECYCLED

        wait_until(recycled, 60.0, f"{RECYCLED} workers have been replaced")
        load.until(load.answered + 50)
        asked = load.finish()
    latest, others = assert_promises(asked), statuses(asked)
    figure(
        9,
        "replaced at its memory limit between batches, 0 failed",
        f"{len(workers) - 1} replaced, {dict(others)}, latest {latest:.2f} s after its deadline, "
        f"at most {peak >> 20} MiB at a limit of {MEMORY_MB}",
    )
    assert set(others) == {"200"}
    assert peak < (MEMORY_MB + 400) << 20


def cpu_share(server: Server, seconds: float) -> float:
    """What supervisor and fronts take of one core, over some time."""
    watched = [psutil.Process(pid) for pid in (server.pid, *server.children("front"))]

    def spent() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in watched)

    before, begun = spent(), time.monotonic()
    time.sleep(max(seconds, 0.5))
    return (spent() - before) / (time.monotonic() - begun)
