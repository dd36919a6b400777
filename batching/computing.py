"""The thread that runs what would hold up the worker's loop. Owns nothing but the handing over and back."""

from __future__ import annotations

import socket
import threading
from collections import deque
from typing import Protocol


class Job(Protocol):
    """What takes long. It must not raise."""

    def run(self) -> None: ...


class ComputingThread:
    """Runs one job at a time; `woken` becomes readable when one is done."""

    def __init__(self) -> None:
        self.woken, self._wake = socket.socketpair()
        self.woken.setblocking(False)
        self._todo: deque[Job | None] = deque()
        self._done: deque[Job] = deque()
        self._ready = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self._thread.start()

    def start(self, job: Job) -> None:
        """Run it there; it comes back by `finished`."""
        self._todo.append(job)
        self._ready.release()

    def finished(self) -> list[Job]:
        """What has been run since the last call."""
        self.woken.recv(64)
        return [self._done.popleft() for _ in range(len(self._done))]

    def close(self) -> None:
        """End the thread once it has run what it was given."""
        self._todo.append(None)
        self._ready.release()
        self._thread.join()
        self.woken.close()
        self._wake.close()

    def _run(self) -> None:
        while True:
            self._ready.acquire()
            job = self._todo.popleft()
            if job is None:
                return
            job.run()
            self._done.append(job)
            self._wake.send(b"x")
