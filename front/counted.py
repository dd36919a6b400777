"""What the counters say of each version, in the terms of the dialects. Reads them once for all versions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from batching.counters import Counters
from batching.families import BY_NAME, Series
from models.dialects.dialect import Counted, Version

Table = dict[tuple[str, str], dict[str, Any]]


def counted(counters: Counters) -> Callable[[Version], Counted]:
    """Looks up what was counted; the counters are read at the first question, as most that is asked needs none."""
    tables: list[Table] = []

    def of(version: Version) -> Counted:
        if not tables:
            tables.append(_table(counters.read()))
        return Counted(**tables[0][version.name, version.version])

    return of


def _table(read: dict[Series, list[float]]) -> Table:
    table: Table = defaultdict(lambda: defaultdict(int))
    for (family, values), numbers in read.items():
        labels = dict(zip(BY_NAME[family].labels, values, strict=True))
        if "version" not in labels:
            continue
        of = table[labels["model"], labels["version"]]
        match family:
            case "inference_model_request_seconds":
                of[labels["outcome"]] += int(sum(numbers[1:]))
                of[f"{labels['outcome']}_s"] += numbers[0]
            case "inference_queue_seconds":
                of["queue_s"] += numbers[0]
                of["items"] += int(sum(numbers[1:]))
            case "inference_compute_seconds":
                of["compute_s"] += numbers[0]
            case "inference_batches_total":
                of["batches"] += int(numbers[0])
            case "inference_rows_total":
                of["rows"] += int(numbers[0])
            case "inference_last_answer_timestamp_seconds":
                of["last_answer_s"] = max(of["last_answer_s"], numbers[0])
    return table
