"""The wall clock steps by an hour under load: whoever measures time here must not look at it.

Every process of the server is given a `time.time` of its own that the test can shift: Python's `sitecustomize`, as
libfaketime would with DONT_FAKE_MONOTONIC, but without a library that not every machine has.
"""

from __future__ import annotations

import os
import struct
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

from tests.faults.asking import get
from tests.faults.base import faulty_server, until_ready
from tests.faults.conftest import Say
from tests.faults.load import Load, assert_logged_once, assert_promises, statuses
from tests.harness import SOON_S, wait_until

SHIM = """\
import mmap, os, struct, time
with open(os.environ["CLOCK_SHIFT"], "rb") as file:
    shift = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + struct.unpack("d", shift)[0]
time.time_ns = lambda: real_ns() + int(struct.unpack("d", shift)[0] * 1e9)
"""
STEPS_S = (3600.0, -3600.0, 0.0)


def test_steps_of_the_clock_change_nothing(figure: Say, tmp_path: Path) -> None:
    shift, spool = tmp_path / "shift", tmp_path / "spool"
    set_clock(shift, 0.0)
    (tmp_path / "sitecustomize.py").write_text(SHIM)
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "CLOCK_SHIFT": str(shift)}
    with faulty_server(
        [{"name": "double", "seconds": 0.01}], environment=environment, workers=2, prediction_log_dir=str(spool)
    ) as server:
        until_ready(server, 2)
        with Load(server.url, 16) as load:
            children = server.children()
            for step in STEPS_S:
                load.until(load.answered + 200)
                set_clock(shift, step)
                until_server_time_is(server.url, step)
                load.until(load.answered + 200)
            kept = server.children() == children
            set_clock(shift, STEPS_S[0])
            stopped = time.monotonic()
            server.signal()
            assert server.wait() == 0
            seconds = time.monotonic() - stopped
            asked = load.finish()
    latest, closed = assert_promises(asked), sum(one.fault == "idle" for one in asked)
    assert_logged_once(spool, asked)
    figure(
        44,
        "+-1 h under load: no connection closed, no wrong time-out, drain works",
        f"{dict(statuses(asked))}, {closed} closed, latest {latest:.2f} s after its deadline, "
        f"processes {'kept' if kept else 'replaced'}, drained in {seconds:.2f} s",
    )
    assert {one.status for one in asked if one.reached} == {200}
    assert kept
    assert closed <= 16  # one for each client, in the drain
    assert seconds < 10.0


def set_clock(shift: Path, seconds: float) -> None:
    """Shift the server's clock: one store, in a file that it has mapped."""
    with open(shift, "r+b" if shift.exists() else "w+b") as file:
        file.write(struct.pack("d", seconds))


def until_server_time_is(url: str, off_s: float) -> None:
    """Wait until the Date of its answers is so far from ours."""

    def off() -> float:
        return parsedate_to_datetime(get(url, "/health").headers["date"]).timestamp() - time.time()

    wait_until(lambda: abs(off() - off_s) < 60, SOON_S, f"its clock is {off_s} s off")
