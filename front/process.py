"""A front process of ours: waitress's loop with the application in it. Started by the supervisor, ended by it."""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from batching.client import Client
from batching.control import ControlChannel
from batching.counters import Counters
from batching.life import exit_with_parent
from front.answering import guard_of
from front.catalog import cataloguer
from front.door import connections_allowed
from front.loop import Front
from front.recorder import open_journal
from front.refusals import parser_error
from front.settings import Settings
from prediction_log.journal import Journal


def main(control_fd: int, create_app: Callable[[Settings, Any, Journal | None], Any]) -> None:
    """Serve until the supervisor says drain, or is gone."""
    # The terminal and the service manager signal the whole group; only the supervisor decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control = ControlChannel(socket.socket(fileno=control_fd))
    hello, (life_fd, counters_fd, listener_fd) = control.wait()
    exit_with_parent(socket.socket(fileno=life_fd))
    settings = Settings(**hello["settings"])
    counters = Counters.attach(counters_fd)
    slot = counters.slot(hello["slot"])
    front = Front(
        socket.socket(fileno=listener_fd),
        settings,
        slot,
        max_connections=connections_allowed(settings.max_connections),
        parser_error=parser_error,
    )

    def on_message(message: dict[str, Any]) -> None:
        if message["type"] == "drain":
            front.drain(message["timeout_s"])
        elif message["type"] == "read_keys":
            guard_of(application).read_keys_again()

    front.client = Client(
        front,
        control,
        slot,
        counters,
        compile=cataloguer(settings.default_model),
        max_rows=settings.queue_rows,
        max_bytes=settings.queue_bytes,
        linger_s=settings.predict_timeout_ms / 1000,
        on_message=on_message,
        on_lost=lambda: os._exit(0),
    )
    client = front.client

    def on_condition(text: str | None) -> None:
        front.call_soon(lambda: client.tell_condition(text))

    journal = open_journal(hello["spool"], slot, on_condition)
    application = create_app(settings, client, journal)
    # What lives now lives for ever, and requests leave hardly a cycle behind: collecting seldom is enough.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    front.run(application)
    if journal is not None:
        journal.close()
    os._exit(0)  # a decoding thread may still be busy with a body nobody waits for
