"""Who receives snapshots, what they have been told, and what is wrong with whom. Owns the snapshot's serial and links.

The snapshot is one immutable message to every front:

    {"type": "snapshot", "serial": 7, "draining": false,
     "models": [{"name", "version", "group", "generation", "index", "state", "reason", "description", "costs"}, ...],
     "workers": [{"id", "group", "generation"}, ...], "links": [worker ids whose sockets come beside the message],
     "conditions": [what is wrong with a process that serves on nevertheless, in words]}

with states LOADING (no worker holds it yet, or just now), READY and FAILED (reason says why).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
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

    def set_condition(self, channel: ControlChannel, text: str | None) -> None:
        """A process says what is wrong with it, or (None) that all is well again."""
        if text is None:
            self._conditions.pop(channel, None)
        else:
            self._conditions[channel] = text

    def of(self, channel: ControlChannel) -> FrontEnd | None:
        """The front at the other end, if it is still in the books."""
        return next((front for front in self._ends if front.channel is channel), None)

    def publish(
        self, models: Sequence[dict[str, Any]], workers: Sequence[tuple[Child, int]], *, draining: bool
    ) -> None:
        """Tell every front how things stand, with a socket to each worker that it has none to.

        workers: those that are ready, each with its generation.
        """
        self.serial += 1
        snapshot = {
            "type": "snapshot",
            "serial": self.serial,
            "draining": draining,
            "models": models,
            "workers": [
                {"id": child.id, "group": child.group, "generation": generation} for child, generation in workers
            ],
            "conditions": sorted(set(self._conditions.values())),
        }
        for front in self._ends:
            new = [child for child, _ in workers if child.id not in front.links]
            theirs = []
            for child in new:
                worker_end, front_end = socket.socketpair()
                child.channel.send({"type": "link"}, [worker_end.fileno()], owned=[worker_end])
                theirs.append(front_end)
                front.links.add(child.id)
            links = [child.id for child in new]
            front.channel.send({**snapshot, "links": links}, [sock.fileno() for sock in theirs], owned=theirs)
