"""Our own loop with a Bottle application that answers a constant: what HTTP costs here before any model is asked.

A program of its own: `python -m benchmarks.constant_front FRONTS` starts so many processes on one listening socket,
each set up as front.process sets up a front, and prints where they listen.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from batching.counters import Counters
from benchmarks.constant_server import application
from front.loop import Front
from front.refusals import parser_error
from front.settings import Settings

BACKLOG = 4096
FOR_EVER_S = 3600.0


def nobody() -> Any:
    """A client of no worker: nothing is ever submitted."""
    return SimpleNamespace(expire=lambda now: now + FOR_EVER_S, flush=lambda: None, withdraw=lambda ticket: None)


def serve(listener: socket.socket, counters: Counters, number: int) -> None:
    """One front, for ever."""
    settings = replace(Settings.from_environment(), decode_threads=1)  # nothing is decoded here
    front = Front(
        listener,
        settings,
        counters.slot(number + 1),  # 0 has the totals
        max_connections=settings.max_connections,
        parser_error=parser_error,
    )
    front.client = nobody()
    app = application()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # as front.process
    front.run(app)


def main(fronts: int) -> None:
    """Start them and wait for a signal."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    listener.setblocking(False)
    counters = Counters.create(fronts + 1)
    children = []
    for number in range(fronts):
        pid = os.fork()
        if pid == 0:
            serve(listener, counters, number)
        children.append(pid)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    try:
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(int(sys.argv[1]))
