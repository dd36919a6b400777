"""Whether traffic is welcome, and what is wrong: what GET /ready says. From the snapshot and the workers' vital signs.

Owns the judgement; the signs are batching.vitals' and need no word from a worker, so one that is stuck is seen, too.
"""

from __future__ import annotations

import time
from typing import Any

from batching.counters import Counters
from front.catalog import Catalog

# A worker's loop beats four times a second; a busy machine may hold it up for longer than that.
SILENT_S = 1.0
NS = 1e9


def readiness(catalog: Catalog, counters: Counters, patience_s: float) -> tuple[bool, dict[str, Any]]:
    """(whether to send traffic here, the body that says why or why not).

    patience_s: how long an item may wait at all; one that has waited longer says that its queue does not move.
    Times in the body are whole milliseconds; null where there is nothing to tell.
    """
    now = time.monotonic_ns()
    models = [
        {"name": one.name, "version": one.version, "state": one.state, "reason": one.reason}
        for versions in catalog.models.values()
        for one in versions
    ]
    degraded = [f"{one['name']} version {one['version']}: {one['reason']}" for one in models if one["reason"]]
    degraded += catalog.conditions
    workers: list[dict[str, Any]] = []
    responding: set[str] = set()
    for worker in catalog.workers:
        signs = counters.vitals(worker.slot)
        silent_s, waits_s = (now - signs.beat) / NS, (now - signs.oldest) / NS if signs.oldest else 0.0
        if silent_s < SILENT_S:
            responding.add(worker.group)
        else:
            degraded.append(f"a worker of group {worker.group} has not responded for {silent_s:.1f} s")
        if waits_s > patience_s + SILENT_S:
            degraded.append(f"an item has waited {waits_s:.1f} s for a worker of group {worker.group}")
        workers.append(
            {
                "group": worker.group,
                "responding": silent_s < SILENT_S,
                "computing_ms": _ms(now, signs.busy_since),
                "oldest_queued_ms": _ms(now, signs.oldest),
                "last_answer_ms": _ms(now, signs.proved),
            }
        )
    if catalog.draining:
        degraded.append("the server is stopping")
    is_ready = catalog.is_ready() and catalog.groups <= responding
    status = "ready" if is_ready else "not ready"
    return is_ready, {"ok": is_ready, "status": status, "models": models, "workers": workers, "degraded": degraded}


def _ms(now: int, since: int) -> int | None:
    """Whole milliseconds since then; None where it was never."""
    return max(now - since, 0) // 1_000_000 if since else None
