"""A blocking call around the client, for callers without a loop of ours: webtest, other WSGI servers, plain scripts.

Owns one thread in which a small loop runs the client. Safe to call from many threads.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from batching.asking import GONE
from batching.client import Client, Handle, Outcome, Target
from batching.control import ControlChannel
from batching.counters import Counters
from batching.errors import NoWorker


class SelectorLoop:
    """The smallest loop that the client can live in."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._todo: deque[Callable[[], None]] = deque()

    def watch(self, handle: Handle) -> None:
        self._selector.register(handle, selectors.EVENT_READ, handle)

    def forget(self, handle: Handle) -> None:
        self._selector.unregister(handle)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Run `function` in the loop's thread; the only method for other threads. Raises OSError after `close`."""
        self._todo.append(function)
        with contextlib.suppress(BlockingIOError):  # so many wake-ups are on their way that one more says nothing
            self._wake.send(b"x")

    def turn(self, timeout_s: float | None) -> None:
        """Wait for events or work, and deal with all of it."""
        for key in list(self._selector.get_map().values()):
            handle: Handle | None = key.data
            if handle is not None:
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if handle.wants_write else 0)
                if events != key.events:
                    self._selector.modify(key.fileobj, events, handle)
        for key, events in self._selector.select(timeout_s):
            if key.data is None:
                self._woken.recv(4096)
            else:
                if events & selectors.EVENT_WRITE:
                    key.data.on_writable()
                if events & selectors.EVENT_READ and key.fd in self._selector.get_map():
                    key.data.on_readable()
        self._run_todo()

    def close(self) -> None:
        """The end; what was asked for until now is still run."""
        self._selector.close()
        self._woken.close()
        self._wake.close()
        self._run_todo()

    def _run_todo(self) -> None:
        for _ in range(len(self._todo)):
            self._todo.popleft()()


class BlockingClient:
    """Attached to a supervisor by its control channel; raises ConnectionLost when that is no supervisor.

    The first message (hello) carries the counters' descriptor and the limits. on_message: hears what is no snapshot, in
    the client's thread.
    """

    def __init__(
        self,
        channel: ControlChannel,
        compile: Callable[[dict[str, Any]], Any],
        on_message: Callable[[dict[str, Any]], None] = lambda message: None,
    ) -> None:
        try:
            hello, (counters_fd,) = channel.wait(timeout_s=10)
        except Exception:
            channel.close()
            raise
        self.hello = hello
        self.counters = Counters.attach(counters_fd)
        self.slot = self.counters.slot(hello["slot"])
        self._heard = on_message
        self._loop = SelectorLoop()
        self._changed = threading.Condition()
        self._lost = False
        self._client = Client(
            self._loop,
            channel,
            self.slot,
            self.counters,
            compile=self._compile(compile),
            max_rows=hello["queue_rows"],
            max_bytes=hello["queue_bytes"],
            linger_s=hello["linger_s"],
            on_message=self._on_message,
            on_lost=self._on_lost,
        )
        self.messages: deque[dict[str, Any]] = deque()
        self._thread = threading.Thread(target=self._run, name="batching-client", daemon=True)
        self._thread.start()

    @property
    def view(self) -> Any:
        """The last snapshot as `compile` made it."""
        return self._client.view

    @property
    def lost(self) -> bool:
        """Whether the supervisor has gone: this client is of no more use."""
        return self._lost

    def wait_until(self, condition: Callable[[Any], bool], timeout_s: float) -> bool:
        """Block until `condition(view)` holds; False when it does not within the time or the supervisor has gone."""
        with self._changed:
            return self._changed.wait_for(lambda: self._lost or condition(self.view), timeout_s) and not self._lost

    def call(
        self,
        target: Target,
        items: Sequence[tuple[int, Sequence[np.ndarray]]],
        deadline: float,
        priority: int = 0,
    ) -> list[Outcome]:
        """Outcomes of items of (rows, arrays), in order. Raises what Client.submit raises, when nothing was sent."""
        finished = threading.Event()
        result: list[Outcome] = []
        refused: list[Exception] = []

        def done(outcomes: list[Outcome]) -> None:
            result.extend(outcomes)
            finished.set()

        def submit() -> None:
            try:
                self._client.submit(target, items, deadline, done, priority)
            except Exception as error:  # noqa: BLE001 - raised below, where it belongs: in the caller's thread
                refused.append(error)
                finished.set()

        try:
            self._loop.call_soon(submit)
        except OSError:
            raise NoWorker("the supervisor has gone") from None
        # The loop expires every item; the margin only covers a loop that died.
        if not finished.wait(max(deadline - time.monotonic(), 0) + 5):
            raise NoWorker("the client's loop has ended")
        if refused:
            raise refused[0]
        return result

    def tell_condition(self, text: str | None) -> None:
        """As Client.tell_condition, from any thread."""
        with contextlib.suppress(OSError):  # the supervisor has gone, and with it whoever would ask
            self._loop.call_soon(lambda: self._client.tell_condition(text))

    def administer(self, action: str, model: str | None, timeout_s: float) -> dict[str, Any]:
        """Have models changed and wait for what comes of it; see batching.asking."""
        answered = threading.Event()
        answers: list[dict[str, Any]] = []

        def done(answer: dict[str, Any]) -> None:
            answers.append(answer)
            answered.set()

        try:
            self._loop.call_soon(lambda: self._client.administer(action, model, done))
        except OSError:
            return {"ok": False, "reason": GONE, "models": []}
        if not answered.wait(timeout_s):
            return {"ok": False, "reason": f"it was not decided within {timeout_s:g} s", "models": []}
        return answers[0]

    def close(self) -> None:
        """End the thread and let go of every descriptor."""
        with contextlib.suppress(OSError):  # it has ended by itself
            self._loop.call_soon(self._on_lost)
        self._thread.join()

    def _compile(self, compile: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
        def compile_and_tell(snapshot: dict[str, Any]) -> Any:
            # The view is replaced right after this returns, in this thread: waiters look again on the next turn.
            self._loop.call_soon(self._tell)
            return compile(snapshot)

        return compile_and_tell

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _on_message(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        self._heard(message)
        self._tell()

    def _on_lost(self) -> None:
        self._lost = True
        self._tell()

    def _run(self) -> None:
        next_expiry = float("inf")
        try:
            while not self._lost:
                wait_s = max(next_expiry - time.monotonic(), 0)
                self._loop.turn(min(wait_s, 1.0) if wait_s != float("inf") else None)
                next_expiry = self._client.expire(time.monotonic())
                self._client.flush()
        finally:
            self._on_lost()
            self._client.close()
            self._loop.close()
            self.counters.close()
