"""What is not a client in waitress's loop: the sockets to workers and supervisor, and the tasks that it thinks it has.

Knows no HTTP. Written for waitress 3.0.2's wasyncore and task dispatcher.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Protocol

from batching.client import Handle

log = logging.getLogger("inference.front")


class Task(Protocol):
    """A connection whose next request is whole."""

    def service(self) -> None: ...

    def handle_close(self) -> None: ...


class Serving:
    """waitress's task dispatcher, without threads: a channel is queued while it reads, and served after the poll.

    Handler threads that block on a worker starve on the interpreter lock: 250 requests/s were measured with 16 of them
    and 64 clients, against 10,000 here.
    """

    def __init__(self) -> None:
        self._ready: deque[Task] = deque()

    def add_task(self, task: Task) -> None:
        self._ready.append(task)

    def serve(self) -> None:
        """Serve each that is ready once: who has sent many requests at once waits with the second for the others."""
        for _ in range(len(self._ready)):
            task = self._ready.popleft()
            try:
                task.service()
            except Exception:
                # A defect of ours costs this connection, not the loop and with it everybody else's.
                log.exception("a connection is dropped")
                task.handle_close()

    def __bool__(self) -> bool:
        return bool(self._ready)

    def set_thread_count(self, count: int) -> None:
        """There are none."""

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        """Nothing runs beside the loop."""
        return True


class Watched:
    """A handle of the client's, as waitress's loop wants it."""

    accepting = False

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return self._handle.wants_write

    def handle_read_event(self) -> None:
        self._handle.on_readable()

    def handle_write_event(self) -> None:
        self._handle.on_writable()

    def handle_expt_event(self) -> None:
        """Nothing is sent out of band."""

    def handle_close(self) -> None:
        if self._handle.fileno() >= 0:
            self._handle.on_readable()  # meets the end of the stream

    def handle_error(self) -> None:
        log.exception("the connection to a worker or the supervisor failed")  # noqa: LOG004 - called by an except
        raise SystemExit(1)  # the supervisor starts another front

    def close(self) -> None:
        """The client closes what is its own."""
