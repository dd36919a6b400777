"""The HTTP front: waitress's own loop with the application and the workers' sockets in it. One thread, no waiting.

A request has two halves. The application runs the first one in the loop and either answers at once or hands an exchange
to `environ[DEFER]`; its items travel to a worker, and the second half runs when the outcome arrives. What may take long
before that (decoding an image, parsing a large body) runs in a small thread pool and comes back through the trigger.

front.door lists what of waitress is replaced, and why.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from batching.client import Client, Handle, Outcome
from batching.counters import Slot
from batching.errors import QueueFull
from front import drain
from front.administration import Errand
from front.channel import Channel
from front.door import Door
from front.halves import Exchange, Response
from front.labour import Labour
from front.patience import LOOK_S
from front.poller import Poller
from front.settings import Settings
from front.sizing import decode_threads_of
from front.watched import Serving, Watched

# A longer answer is compressed in the pool: at some 100 MB/s this is 0.3 ms of the loop's time.
PACKED_INLINE_MAX = 32 * 1024
# Poll at least this often, whatever happens: no error in a reckoning may put the loop to sleep.
TURN_S = 1.0


class Front:
    """The loop and what lives in it. `turn` is one pass."""

    def __init__(
        self,
        listener: socket.socket,
        settings: Settings,
        slot: Slot,
        *,
        max_connections: int,
        parser_error: Callable[[int, str], Response],
        heavy_max: int = 256,
    ) -> None:
        self.client: Client
        self.parser_error = parser_error
        self.cancel_on_half_close = settings.cancel_on_half_close
        self._map = Poller()
        self._watched: set[Handle] = set()
        self._serving = Serving()
        self._soon: deque[Callable[[], None]] = deque()
        threads = decode_threads_of(settings)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        # All of its threads now, not one after the other as large bodies come: what a front holds stays the same.
        together = threading.Barrier(threads)
        for _ in range(threads):
            self._pool.submit(together.wait)
        self._heavy = 0
        self._heavy_max = heavy_max
        self._connections = slot.gauge("inference_connections")
        self._door = Door(
            self,
            listener,
            slot,
            map=self._map,
            dispatcher=self._serving,
            max_connections=max_connections,
            max_body_bytes=settings.max_body_bytes,
            header_timeout_s=settings.header_timeout_s,
            body_timeout_s=settings.body_timeout_s,
        )
        self._drain = drain.Drain(self._door)

    def run(self, application: Callable[..., Iterable[bytes]]) -> None:
        """Serve until drained."""
        self._door.application = application
        while not self._drain.done:
            self.turn()
        self._drain.give_up()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def turn(self) -> None:
        """Poll once, serve what has arrived whole, hand over what was gathered, give up what is too late."""
        now = time.monotonic()
        door = self._door
        door.look_over(now)
        self._map.poll(max(0.0, min(self.client.expire(now) - now, self._patience_s())))
        self._serving.serve()
        if door.knocked:
            door.let_in()
        for _ in range(len(self._soon)):
            self._soon.popleft()()
        self.client.flush()
        for handle in self._watched:
            if handle.wants_write:  # what could not be written at once
                self._map.touch(handle.fileno())
        self._connections.set(len(door.active_channels))
        if self._drain.begun:
            self._drain.step()

    def _patience_s(self) -> float:
        """How long the loop may wait for something to happen."""
        if self._serving:
            return 0.0
        if self._drain.begun:
            return drain.TURN_S
        return LOOK_S if self._door.is_waiting else TURN_S

    # -- what the client and the channels need of the loop ---------------------------------------------------------

    def watch(self, handle: Handle) -> None:
        """Put a descriptor of the client's into the loop."""
        self._map[handle.fileno()] = Watched(handle)
        self._watched.add(handle)

    def forget(self, handle: Handle) -> None:
        """Take it out again; it is still open."""
        self._watched.discard(handle)
        if handle.fileno() in self._map:
            del self._map[handle.fileno()]

    def call_soon(self, function: Callable[[], None]) -> None:
        """Run `function` in the loop; the only method for other threads."""
        self._soon.append(function)
        self._door.pull_trigger()

    def begin(self, exchange: Exchange | Errand | Labour, channel: Channel) -> None:
        """The wait between the halves: prepare (in the pool where heavy), submit, and answer when it is decided.

        What is no model's affair goes its own way.
        """
        if isinstance(exchange, Errand | Labour):
            exchange.begin(self, channel.answer)
            return
        if not exchange.heavy:
            try:
                exchange.prepare()
            except Exception as error:  # noqa: BLE001 - whatever it is, the exchange turns it into an answer
                channel.answer(exchange.fail(error))
            else:
                self._submit(exchange, channel)
            return
        if self._heavy >= self._heavy_max:
            channel.answer(exchange.fail(QueueFull("too many bodies wait to be decoded")))
            return
        self._heavy += 1
        self._pool.submit(self._prepare, exchange, channel)

    def in_pool(self, make: Callable[[], Response], answer: Callable[[Response], None]) -> None:
        """Make an answer in a thread; `answer` is called in the loop. Raises nothing, and nor may `make`."""

        def made() -> None:
            response = make()
            self.call_soon(lambda: answer(response))

        self._pool.submit(made)

    def _prepare(self, exchange: Exchange, channel: Channel) -> None:
        try:
            exchange.prepare()
        except Exception as error:  # noqa: BLE001 - whatever it is, the exchange turns it into an answer
            failure = error
            self.call_soon(lambda: self._end_heavy(lambda: channel.answer(exchange.fail(failure))))
        else:
            self.call_soon(lambda: self._end_heavy(lambda: self._submit(exchange, channel)))

    def _end_heavy(self, then: Callable[[], None]) -> None:
        self._heavy -= 1
        then()

    def _submit(self, exchange: Exchange, channel: Channel) -> None:
        if not channel.connected:
            return
        try:
            channel.ticket = self.client.submit(
                exchange.target,
                exchange.items,
                exchange.deadline,
                lambda outcomes: self._answer(exchange, channel, outcomes),
                exchange.priority,
            )
        except Exception as error:  # noqa: BLE001 - no worker, a full queue, or a defect of ours: this request's alone
            channel.answer(exchange.fail(error))

    def _answer(self, exchange: Exchange, channel: Channel, outcomes: list[Outcome]) -> None:
        response = exchange.answer(outcomes)
        if exchange.packs and len(response.body) > PACKED_INLINE_MAX:
            self._pool.submit(self._pack, exchange, channel, response)
        else:
            channel.answer(exchange.packed(response) if exchange.packs else response)

    def _pack(self, exchange: Exchange, channel: Channel, response: Response) -> None:
        try:
            response = exchange.packed(response)
        except Exception as error:  # noqa: BLE001 - as in _prepare
            response = exchange.fail(error)
        self.call_soon(lambda: channel.answer(response))

    # -- the end -------------------------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """Whether answers should say Connection: close."""
        return self._drain.begun

    def drain(self, timeout_s: float) -> None:
        """Serve on for a grace, then stop accepting, finish what there is, and let `run` return."""
        self._drain.begin(timeout_s)
