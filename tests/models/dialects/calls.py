"""A version of a model and a call to it, as a front hands them to a dialect, without a front."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from models.dialects.dialect import Call
from models.schema import Compiled

MEBIBYTE = 1 << 20
MANY = 1 << 20


@dataclass(frozen=True)
class OneVersion:
    """See models.dialects.dialect.Version."""

    compiled: Compiled
    state: str = "READY"
    reason: str | None = None
    signatures: dict[str, Compiled] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return self.compiled.contract.name

    @property
    def version(self) -> str:
        return self.compiled.contract.version


def call(
    action: str,
    body: bytes,
    *,
    headers: dict[str, str] | None = None,
    query: dict[str, str] | None = None,
    max_json_bytes: int = MEBIBYTE,
    max_rows: int = MANY,
) -> Call:
    """One with room for everything, unless the test says otherwise. headers: by their lower-case names."""
    return Call(action, body, (headers or {}).get, max_json_bytes, max_rows, 1 << 24, (query or {}).get)
