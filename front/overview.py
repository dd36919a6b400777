"""The whole server at a glance: what GET /status says, for the console and for the command `status`.

Owns the shape of that answer. Everything in it comes from the counters of all processes, the catalog and the vital
signs; nothing is measured for it. Counts are since the server started: whoever asks twice has what went on between.

    server          name and version           now               seconds since 1970
    ready, draining, degraded                  as GET /ready says it; degraded: sentences
    bounds          upper bounds of the buckets of histograms: {"seconds": [...], "rows": [...]}
    models          one for each version: name, version, state, reason, group, generation, serves (whether requests go
                    there that name no version), labels, canary_share, queued_rows, batches, rows, items_failed
                    {reason: count}, and the histograms answered, failed (seconds of requests), queue, compute
                    (seconds), batch_rows
    groups          group, generation, reloads {outcome: count}, worker_starts, worker_deaths {reason: count}
    workers         as GET /ready
    fronts          starts, deaths, connections, in_flight, cut {reason: count}, retries, cancelled
    requests        route, model, version, dialect, status, count
    memory_bytes    {kind of process: resident bytes of all of them}
    log             null where there is no prediction log, else its counts, waiting_bytes, oldest_s
    recent          the last requests, newest first (batching.recent)

A histogram is {"sum": of the values, "counts": [in each bucket by itself, then above the last bound]}.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from batching import families
from batching.counters import Counters
from batching.families import BY_NAME, Series
from front.catalog import Catalog, Entry
from front.readiness import readiness

RECENT_MAX = 100


def overview(catalog: Catalog, counters: Counters, *, server: str, patience_s: float, has_log: bool) -> dict[str, Any]:
    """The body of the answer. server: our name and version; patience_s: as in front.readiness."""
    ready, said = readiness(catalog, counters, patience_s)
    read = counters.read()
    table, of_version = _Table(read), _by_version(read)
    queued = table.by("inference_queue_rows", "model")
    return {
        "server": server,
        "now": time.time(),
        "ready": ready,
        "draining": catalog.draining,
        "degraded": said["degraded"],
        "bounds": {"seconds": families.SECONDS, "rows": families.ROWS},
        "models": [
            _version(catalog, entry, _Table(of_version[entry.name, entry.version]), queued.get(entry.name, 0))
            for versions in catalog.models.values()
            for entry in versions
        ],
        "groups": [_group(catalog, group, table) for group in sorted(catalog.groups)],
        "workers": said["workers"],
        "fronts": {
            "starts": table.number("inference_front_starts_total"),
            "deaths": table.number("inference_front_deaths_total"),
            "connections": table.number("inference_connections"),
            "in_flight": table.number("inference_in_flight"),
            "cut": table.by("inference_connections_cut_total", "reason"),
            "retries": table.number("inference_retries_total"),
            "cancelled": table.number("inference_cancelled_total"),
        },
        "requests": [{**labels, "count": int(numbers[0])} for labels, numbers in table.of("inference_requests_total")],
        "memory_bytes": table.by("inference_resident_memory_bytes", "process"),
        "log": _log(table) if has_log else None,
        "recent": counters.recent(RECENT_MAX),
    }


class _Table:
    """One reading of the counters, by family."""

    def __init__(self, read: dict[Series, list[float]]) -> None:
        self._rows: dict[str, list[tuple[dict[str, str], list[float]]]] = defaultdict(list)
        for (family, values), numbers in read.items():
            self._rows[family].append((dict(zip(BY_NAME[family].labels, values, strict=True)), numbers))

    def of(self, family: str, **where: str) -> Iterator[tuple[dict[str, str], list[float]]]:
        """(labels, numbers) of the series with these labels."""
        for labels, numbers in self._rows[family]:
            if where.items() <= labels.items():
                yield labels, numbers

    def number(self, family: str, **where: str) -> int:
        """Their sum."""
        return int(sum(numbers[0] for _, numbers in self.of(family, **where)))

    def by(self, family: str, label: str, **where: str) -> dict[str, int]:
        """Their sum for each value of one label."""
        sums: dict[str, int] = defaultdict(int)
        for labels, numbers in self.of(family, **where):
            sums[labels[label]] += int(numbers[0])
        return dict(sums)

    def histogram(self, family: str, **where: str) -> dict[str, Any]:
        """All of them as one."""
        total = [0.0] * BY_NAME[family].width
        for _, numbers in self.of(family, **where):
            total = [one + other for one, other in zip(total, numbers, strict=True)]
        return {"sum": total[0], "counts": [int(count) for count in total[1:]]}


def _by_version(read: dict[Series, list[float]]) -> dict[tuple[str, str], dict[Series, list[float]]]:
    """The series of each version: of hundreds, none looks through those of all."""
    found: dict[tuple[str, str], dict[Series, list[float]]] = defaultdict(dict)
    for series, numbers in read.items():
        labels = dict(zip(BY_NAME[series[0]].labels, series[1], strict=True))
        if labels.keys() >= {*families.MODEL}:
            found[labels["model"], labels["version"]][series] = numbers
    return found


def _version(catalog: Catalog, entry: Entry, table: _Table, queued_rows: int) -> dict[str, Any]:
    """table: of this version's series alone."""
    routing = catalog.routing.get(entry.name)
    is_canary = routing is not None and routing.canary == entry.version
    return {
        "name": entry.name,
        "version": entry.version,
        "state": entry.state,
        "reason": entry.reason,
        "group": entry.target.group,
        "generation": entry.target.generation,
        "serves": catalog.newest[entry.name] is entry,
        "labels": [] if routing is None else [label for label, to in routing.labels.items() if to == entry.version],
        "canary_share": routing.share if routing is not None and is_canary else None,
        "queued_rows": queued_rows,
        "batches": table.number("inference_batches_total"),
        "rows": table.number("inference_rows_total"),
        "items_failed": table.by("inference_items_failed_total", "reason"),
        "answered": table.histogram("inference_model_request_seconds", outcome="answered"),
        "failed": table.histogram("inference_model_request_seconds", outcome="failed"),
        "queue": table.histogram("inference_queue_seconds"),
        "compute": table.histogram("inference_compute_seconds"),
        "batch_rows": table.histogram("inference_batch_rows"),
    }


def _group(catalog: Catalog, group: str, table: _Table) -> dict[str, Any]:
    return {
        "group": group,
        "generation": table.number("inference_generation", group=group),
        "reloads": table.by("inference_reloads_total", "outcome", group=group),
        "worker_starts": table.number("inference_worker_starts_total", group=group),
        "worker_deaths": table.by("inference_worker_deaths_total", "reason", group=group),
    }


def _log(table: _Table) -> dict[str, Any]:
    return {
        "has_database": table.number("inference_service_starts_total", service="shipper") > 0,
        "written": table.number("inference_log_rows_written_total"),
        "dropped": table.number("inference_log_rows_dropped_total"),
        "left_out": table.number("inference_log_rows_left_out_total"),
        "shipped": table.number("inference_log_rows_shipped_total"),
        "quarantined": table.number("inference_log_rows_quarantined_total"),
        "damaged": table.number("inference_log_records_damaged_total"),
        "retries": table.by("inference_log_retries_total", "sqlstate"),
        "waiting_bytes": table.number("inference_log_spool_bytes"),
        "oldest_s": table.number("inference_log_oldest_seconds"),
    }
