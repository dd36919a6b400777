"""What a front asks of the supervisor, and who waits for its answer. Owns the messages of an admin call.

    {"type": "admin", "id": 7, "action": "load" | "unload" | "reload" | "rollback", "model": a name or null}
    {"type": "admin_done", "id": 7, "ok": true, "reason": null, "models": [{"name", "version", "state", "reason"}, ...]}

The answer comes when it is decided, which may take as long as models take to load: all that the call has set off
serves, or has failed (`reason` says which and why), or there was nothing to change. What is asked of a model that
shares its workers with others moves all of them to a new generation, or back to the one before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from batching.control import ControlChannel

GONE = "the supervisor has gone"

Answered = Callable[[dict[str, Any]], None]


class Asking:
    """One client's calls."""

    def __init__(self, channel: ControlChannel) -> None:
        self._channel = channel
        self._ids = itertools.count(1)
        self._waiting: dict[int, Answered] = {}
        self._ended = False

    def ask(self, action: str, model: str | None, done: Answered) -> None:
        """Of one model or (None) of all. `done` hears once: "ok", "reason" and "models" as they are then."""
        if self._ended:
            done({"ok": False, "reason": GONE, "models": []})
            return
        id = next(self._ids)
        self._waiting[id] = done
        self._channel.send({"type": "admin", "id": id, "action": action, "model": model})

    def hear(self, message: dict[str, Any]) -> None:
        """The supervisor's answer."""
        self._waiting.pop(message["id"])({name: message[name] for name in ("ok", "reason", "models")})

    def end(self) -> None:
        """Nobody will answer any more."""
        self._ended = True
        waiting, self._waiting = self._waiting, {}
        for done in waiting.values():
            done({"ok": False, "reason": GONE, "models": []})
