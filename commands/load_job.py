"""What a load generator is told: how many connections, what to send over them, and when."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

POISSON, CONSTANT = "poisson", "constant"
# What an open loop has connections for from the start; it opens more when it needs them.
FIRST_CONNECTIONS = 16


@dataclass(frozen=True)
class Job:
    """One load. requests: whole ones, in base64, sent in turn. rate: requests a second; None: as soon as answered."""

    family: int
    address: tuple[Any, ...]
    requests: list[str]
    window_s: float
    connections: int = FIRST_CONNECTIONS
    rate: float | None = None
    distribution: str = POISSON
    seed: int = 0

    def to_json(self) -> bytes:
        """For `of`."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def of(cls, data: bytes) -> Job:
        """What `to_json` made."""
        return cls(**json.loads(data))
