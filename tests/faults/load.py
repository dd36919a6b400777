"""Many requests at once over connections that stay open, and what became of each: the load under which faults happen.

Every request has an id and, where it is a prediction, a number of its own, so that an answer that is another's shows.
Runs in a thread of its own, on one event loop. What must hold of all that was asked stands here too; how many were to
be answered is the test's affair.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Self

import orjson

from commands.log_records import Damage, all_records, rows_of
from tests.faults.asking import address
from tests.faults.connection import Ask, Asked, Connection, prediction
from tests.harness import SOON_S, wait_until

RECONNECT_S = 0.02
# After a 503: clients that fail at once would otherwise ask thousands of times while a worker starts.
RETRY_S = 0.02
# The goal is 0.25 s; a machine that is busy otherwise stops us and the server alike.
LATE_S = 1.5
WARM_CLIENTS, WARM_REQUESTS = 16, 200


class Load:
    """Some clients, each with one request under way; as a context manager it ends with the block.

    make: order -> what to ask. rate: requests a second instead, whatever is answered, each on an idle connection or
    a new one, never more than `clients` at once. pause_s, retry_s: a client's pause after an answer, and after a 503.
    """

    def __init__(
        self,
        url: str,
        clients: int = 16,
        *,
        make: Callable[[int], Ask] = prediction,
        rate: float | None = None,
        pause_s: float = 0.0,
        retry_s: float = RETRY_S,
        limit: int | None = None,
    ) -> None:
        self.asked: list[Asked] = []
        self.refused = 0  # connections that were
        self.answered = 0
        self._address = address(url)
        self._clients = clients
        self._make = make
        self._rate = rate
        self._pause_s = pause_s
        self._retry_s = retry_s
        self._orders = itertools.count() if limit is None else iter(range(limit))
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="load")
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending = True
        self._thread.join(60)

    @property
    def is_asking(self) -> bool:
        """Whether any client still has something to ask or to hear."""
        return self._thread.is_alive()

    def until(self, answered: int, timeout_s: float = SOON_S) -> None:
        """Wait until so many requests have had a whole answer."""
        wait_until(lambda: self.answered >= answered or not self._thread.is_alive(), timeout_s, f"{answered} answers")

    def finish(self) -> list[Asked]:
        """Everything, once each client has its last answer."""
        self._ending = True
        return self.join(60)

    def join(self, timeout_s: float) -> list[Asked]:
        """Everything, once all of `limit` have been asked."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the clients do not end"
        if self._error is not None:
            raise self._error
        return self.asked

    # -- the thread ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            asyncio.run(self._open_loop(self._rate) if self._rate else self._closed_loop())
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
            self._error = error

    async def _closed_loop(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._clients)))

    async def _client(self) -> None:
        connection = Connection(self._address)
        while not self._ending:
            if not await self._connected(connection):
                await asyncio.sleep(RECONNECT_S)
                continue
            order = next(self._orders, None)
            if order is None:
                break
            asked = await self._ask(connection, order)
            if pause_s := self._retry_s if asked.status == 503 else self._pause_s:
                await asyncio.sleep(pause_s)
        await connection.close()

    async def _open_loop(self, rate: float) -> None:
        idle: list[Connection] = []
        tasks: set[asyncio.Task[None]] = set()

        async def one(connection: Connection, order: int) -> None:
            if await self._connected(connection):
                await self._ask(connection, order)
            idle.append(connection)

        begun = time.monotonic()
        for order in self._orders:
            await asyncio.sleep(begun + order / rate - time.monotonic())
            if self._ending:
                break
            if len(tasks) < self._clients:
                task = asyncio.create_task(one(idle.pop() if idle else Connection(self._address), order))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        for connection in idle:
            await connection.close()

    async def _connected(self, connection: Connection) -> bool:
        try:
            await connection.open()
        except OSError:
            self.refused += 1
            return False
        return True

    async def _ask(self, connection: Connection, order: int) -> Asked:
        asked = await connection.ask(self._make(order))
        self.asked.append(asked)
        self.answered += asked.status is not None
        return asked


def warm_up(url: str, make: Callable[[int], Ask]) -> list[Asked]:
    """Let every front have done everything once: what it opens and starts for the first request of a kind, it keeps."""
    with Load(url, WARM_CLIENTS, make=lambda order: make(order).closing(), limit=WARM_REQUESTS) as load:
        return load.join(60)


def statuses(asked: Sequence[Asked]) -> Counter[str]:
    """How many got which status, or met which fault."""
    return Counter(str(one.status or one.fault) for one in asked)


def assert_promises(asked: Sequence[Asked], *, faults: Collection[str] = ("idle",)) -> float:
    """What holds of all: each ended in time, as promised, with its own number; how late the latest was, in seconds.

    faults: ways to have no answer that are no fault of the server's here.
    """
    unanswered = [one for one in asked if one.status is None and one.fault not in faults]
    assert not unanswered, f"{len(unanswered)} of {len(asked)} have no answer: {unanswered[:3]}"
    wrong = [one for one in asked if one.trouble]
    assert not wrong, f"{len(wrong)} of {len(asked)} are not as promised: {wrong[:3]}"
    latest = max((one.late_s for one in asked), default=0.0)
    assert latest <= LATE_S, f"one came {latest:.2f} s after its deadline"
    return latest


def quantile(seconds: Sequence[float], part: float) -> float:
    """The `part` of them are at most so long; 0 where there are none."""
    return sorted(seconds)[min(math.ceil(len(seconds) * part), len(seconds)) - 1] if seconds else 0.0


def logged(folder: Path) -> list[dict[str, Any]]:
    """The rows of a prediction log without a database."""
    damage = Damage()
    return [orjson.loads(row) for record in all_records(folder, damage) for row in rows_of(record, damage)]


def assert_logged_once(folder: Path, asked: Sequence[Asked]) -> int:
    """Every answer is in the prediction log exactly once, with its number; how many rows nobody received.

    Those may only be of requests without an answer.
    """
    answered = {one.id: one for one in asked if one.status == 200}
    rows = [row for row in logged(folder) if row["status"] == 200]
    times = Counter(row["request_id"] for row in rows)
    twice = [id for id, number in times.items() if number > 1]
    assert not twice, f"{len(twice)} are in the log twice: {twice[:3]}"
    missing = answered.keys() - times.keys()
    assert not missing, f"{len(missing)} of {len(answered)} are not in the log: {sorted(missing)[:3]}"
    for row in rows:
        one = answered.get(row["request_id"])
        if one is not None and one.number is not None:
            assert row["prediction"] == 2 * one.number, f"{row} is not what {one} heard"
    unknown = times.keys() - answered.keys()
    unheard = {one.id for one in asked if one.status is None}
    assert unknown <= unheard, f"rows of requests that had another answer: {sorted(unknown - unheard)[:3]}"
    return len(unknown)
