"""Who receives snapshots, what they have been told, and what is wrong with whom. Owns the snapshot's serial and links.

The snapshot is one immutable message to every front:

    {"type": "snapshot", "serial": 7, "draining": false,
     "models": [{"name", "version", "group", "generation", "index", "state", "reason", "description", "costs"}, ...],
     "workers": [{"id", "group", "generation", "slot"}, ...], "links": [worker ids whose sockets come with the message],
     "routing": {model: its labels and its canary, as the planner says},
     "conditions": [what is wrong with a process that serves on nevertheless, in words],
     "quarantine": {an input's digest: until when it is refused unseen, monotonic seconds}}

with states LOADING (no worker holds it yet, or just now), READY and FAILED (reason says why), UNLOADED (an operator's
word). There is one entry for each version; a READY one has a reason where its newest files could not be loaded. A
worker's slot is where its vital signs are. A worker that is no longer among them gets no more but from requests that
have read an older snapshot, and its links are closed with its last answers. It may come back, with new links.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from batching.child import Child, FrontEnd
from batching.control import ControlChannel


class Fronts:
    """The fronts in our books: our own and those attached from foreign processes."""

    def __init__(self) -> None:
        self.serial = 0
        self._ends: list[FrontEnd] = []
        self._conditions: dict[ControlChannel, str] = {}

    def __iter__(self) -> Iterator[FrontEnd]:
        return iter(self._ends)

    def add(self, front: FrontEnd) -> None:
        """It will be told of everything from the next snapshot on."""
        self._ends.append(front)

    def forget(self, channel: ControlChannel) -> bool:
        """A front's, worker's or service's channel has ended; whether anything was wrong with it."""
        self._ends = [front for front in self._ends if front.channel is not channel]
        return self._conditions.pop(channel, None) is not None

    def forget_worker(self, worker: int) -> None:
        """No link to it is worth anything."""
        for front in self._ends:
            front.links.discard(worker)
            front.unlinked.discard(worker)

    def has_foreigners(self) -> bool:
        """Whether a process that is not ours is among them."""
        return any(front.child is None for front in self._ends)

    def set_condition(self, channel: ControlChannel, text: str | None) -> None:
        """A process says what is wrong with it, or (None) that all is well again."""
        if text is None:
            self._conditions.pop(channel, None)
        else:
            self._conditions[channel] = text

    def of(self, channel: ControlChannel) -> FrontEnd | None:
        """The front at the other end, if it is still in the books."""
        return next((front for front in self._ends if front.channel is channel), None)

    def tell(self, message: dict[str, Any]) -> None:
        """Something that is no state, and so in no snapshot."""
        for front in self._ends:
            front.channel.send(message)

    def publish(
        self,
        models: Sequence[dict[str, Any]],
        workers: Sequence[Child],
        *,
        draining: bool,
        quarantine: dict[str, float],
        routing: Mapping[str, Any],
        conditions: Iterable[str] = (),
    ) -> None:
        """Tell every front how things stand, with a socket to each worker that it has none to.

        workers: those that are active. conditions: what is wrong besides what the processes say themselves.
        """
        self.serial += 1
        snapshot = {
            "type": "snapshot",
            "serial": self.serial,
            "draining": draining,
            "models": models,
            "workers": [
                {"id": one.id, "group": one.group, "generation": one.generation, "slot": one.slot} for one in workers
            ],
            "conditions": sorted({*self._conditions.values(), *conditions}),
            "quarantine": quarantine,
            "routing": routing,
        }
        ids = {child.id for child in workers}
        for front in self._ends:
            front.links &= ids  # a front closes those to the others in its own time
            front.unlinked &= ids
            new = [child for child in workers if child.id not in front.links]
            theirs = []
            for child in new:
                worker_end, front_end = socket.socketpair()
                child.channel.send({"type": "link"}, [worker_end.fileno()], owned=[worker_end])
                theirs.append(front_end)
                front.links.add(child.id)
            links = [child.id for child in new]
            front.channel.send({**snapshot, "links": links}, [sock.fileno() for sock in theirs], owned=theirs)
