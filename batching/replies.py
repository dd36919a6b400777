"""What a worker says to the fronts: the answers of a batch, what failed, what goes into a batch now.

Owns how that is put into frames; a batch's small answers to one front are one frame. Knows no models and no queue;
when it is written is the worker's affair.
"""

from __future__ import annotations

import selectors
from collections.abc import Sequence

import numpy as np

from batching import arrays
from batching.batch import Batch, Served
from batching.connection import Connection
from batching.errors import Failure
from batching.queue import Item
from batching.slices import Whole
from batching.transport import WHOLE_BYTES, Kind, Payload, pack, pack_answered, pack_ids

# A front that has not taken so many bytes of answers is read no further: it may only be slow, or stopped for a while.
UNSENT_BYTES_MAX = 256 * 1024 * 1024
# What it had queued by then is still computed, but an answer that finds so much unsent is given up, as in a full queue.
UNSENT_BYTES_LIMIT = 4 * UNSENT_BYTES_MAX


class Link:
    """A front's connection, and what we wait for on it.

    withdrawn: items that were before they had come whole. large: those that go through in slices.
    """

    __slots__ = ("connection", "events", "large", "withdrawn")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.events = selectors.EVENT_READ
        self.withdrawn: set[int] = set()
        self.large: dict[int, Whole] = {}


class Replies:
    """All that has been said and not been written. `links`: where there is something to write."""

    def __init__(self) -> None:
        self.links: set[Link] = set()

    def started(self, items: Sequence[Item]) -> set[Link]:
        """Should this process die of them, their fronts know which it was; after the call it would be too late."""
        by_link: dict[Link, list[int]] = {}
        for item in items:
            by_link.setdefault(item.sender, []).append(item.id)
        for link, ids in by_link.items():
            link.connection.send(pack_ids(Kind.STARTED, ids))
        return set(by_link)

    def fail(self, one: Served, item: Item, code: Failure, wait_s: float = 0.0) -> None:
        """This item has no answer. wait_s: how long it would have had to wait."""
        one.failed[code].add(1)
        link: Link = item.sender
        link.large.pop(item.id, None)
        link.connection.send(pack(Kind.FAILED, item.id, code=code, model=one.index, wait_us=microseconds(wait_s)))
        self.links.add(link)

    def reject(self, link: Link, id: int) -> None:
        """An item for a model that is not here."""
        link.connection.send(pack(Kind.FAILED, id, code=Failure.UNKNOWN_MODEL))
        self.links.add(link)

    def answer_all(self, batch: Batch, outputs: list[np.ndarray], wait_us: int) -> None:
        """Every item of a batch whose outputs are small; `outputs` are of all its rows in order."""
        items = batch.items
        links: set[Link] = {item.sender for item in items}
        if len(links) == 1:
            self._answer_some(batch, links.pop(), items, outputs, wait_us)
            return
        rows = [item.rows for item in items]
        for link in links:
            own = [item.sender is link for item in items]
            taken = np.repeat(own, rows)
            mine = [item for item in items if item.sender is link]
            self._answer_some(batch, link, mine, [output[taken] for output in outputs], wait_us)

    def _answer_some(
        self, batch: Batch, link: Link, items: list[Item], outputs: list[np.ndarray], wait_us: int
    ) -> None:
        if link.connection.pending_bytes > UNSENT_BYTES_LIMIT:
            for item in items:
                self.fail(batch.served, item, Failure.QUEUE_FULL)
            return
        _, payload = arrays.encode(outputs)
        started = batch.started
        if len(items) == 1:
            (item,) = items
            kind, id, rows, queue_us = Kind.ANSWER, item.id, item.rows, microseconds(started - item.arrived)
        else:
            table = [(item.id, item.rows, microseconds(started - item.arrived)) for item in items]
            kind, id, rows, queue_us = Kind.ANSWERS, len(items), len(outputs[0]), 0
            payload = pack_answered(table) + payload
        self._say(batch, link, kind, id, rows, queue_us, microseconds(batch.compute_s), wait_us, batch.layout, payload)

    def answer(
        self,
        batch: Batch,
        item: Item,
        outcome: tuple[bytes, Payload],
        rows: int,
        queued_s: float,
        compute_s: float,
        wait_us: int,
    ) -> None:
        """One item, of any size."""
        layout, payload = outcome
        link: Link = item.sender
        if link.connection.pending_bytes > UNSENT_BYTES_LIMIT:
            self.fail(batch.served, item, Failure.QUEUE_FULL)
            return
        queue_us, compute_us = microseconds(queued_s), microseconds(compute_s)
        self._say(batch, link, Kind.ANSWER, item.id, rows, queue_us, compute_us, wait_us, layout, payload)

    def _say(
        self,
        batch: Batch,
        link: Link,
        kind: int,
        id: int,
        rows: int,
        queue_us: int,
        compute_us: int,
        wait_us: int,
        layout: bytes,
        payload: Payload,
    ) -> None:
        whole = len(payload) <= WHOLE_BYTES
        frame = pack(
            kind,
            id,
            model=batch.served.index,
            rows=rows,
            queue_us=queue_us,
            compute_us=compute_us,
            batch_rows=batch.rows,
            batch=batch.number,
            wait_us=wait_us,
            layout=layout,
            payload=payload if whole else b"",
        )
        if whole:
            link.connection.send(frame)
        else:
            link.connection.send_large(id, frame, payload)
        self.links.add(link)


def microseconds(seconds: float) -> int:
    """As a frame carries them."""
    whole = int(seconds * 1e6)
    return whole if 0 <= whole <= 0xFFFFFFFF else max(0, min(whole, 0xFFFFFFFF))
