"""What fronts and services say to the supervisor: how far they have read, what they lack, what is wrong, what to blame.

A front may be a foreign process, so everything said is checked for its type, and nothing that is said often costs more
than saying it once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batching.control import ControlChannel
from batching.fronts import Fronts
from batching.loop import Loop
from batching.quarantine import Quarantine

RELINK_S = 0.1
# A blame goes out at once, for the next of its kind may be on its way already; those that follow it so soon together.
SPREAD_S = 0.005
CONDITION_CHARACTERS = 200
ACTIONS = {"load", "unload", "reload", "rollback"}


class Hearing:
    """publish: tell every front how things stand now. announce: somebody knows more than before.

    administer: a front asks for an action on a model or (None) on all, under a number of its own.
    """

    def __init__(
        self,
        fronts: Fronts,
        quarantine: Quarantine,
        loop: Loop,
        *,
        publish: Callable[[], None],
        announce: Callable[[], None],
        administer: Callable[[ControlChannel, int, str, str | None], None],
    ) -> None:
        self._fronts = fronts
        self._quarantine = quarantine
        self._loop = loop
        self._publish = publish
        self._announce = announce
        self._administer = administer
        self._has_news = False  # blames that nobody was told of yet
        self._spreading = False  # some were told of just now

    def hear(self, channel: ControlChannel, message: dict[str, Any]) -> None:
        """One message; what is not understood is no message."""
        match message:
            case {"type": "acknowledged", "serial": int(serial)}:
                front = self._fronts.of(channel)
                if front is not None:
                    front.acknowledged = serial
                    self._announce()
            case {"type": "unlinked", "worker": int(worker)}:
                self._relink_later(channel, worker)
            case {"type": "condition", "text": None | str() as text}:
                self._fronts.set_condition(channel, None if text is None else text[:CONDITION_CHARACTERS])
                self._publish()
            case {"type": "admin", "id": int(id), "action": str(action), "model": None | str() as model}:
                if action in ACTIONS and self._fronts.of(channel) is not None:
                    self._administer(channel, id, action, model)
            case {"type": "blame", "digest": str(digest)}:
                self._blame(digest)

    def _blame(self, digest: str) -> None:
        if not self._quarantine.add(digest):
            return
        self._has_news = True
        if not self._spreading:
            self._spread()

    def _spread(self) -> None:
        self._spreading = self._has_news
        if self._has_news:
            self._has_news = False
            self._publish()
            self._loop.after(SPREAD_S, self._spread)

    def _relink_later(self, channel: ControlChannel, worker: int) -> None:
        """A front's link has ended. If its worker has not, as will be known soon, they get a new one."""
        front = self._fronts.of(channel)
        if front is None or worker not in front.links or worker in front.unlinked:
            return
        front.unlinked.add(worker)

        def relink() -> None:
            if worker in front.unlinked and self._fronts.of(channel) is front:  # else it has died meanwhile
                front.unlinked.discard(worker)
                front.links.discard(worker)
                self._publish()

        self._loop.after(RELINK_S, relink)
