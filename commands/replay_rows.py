"""The logged rows that a replay is made of: from the database or the local spool, and as instances for a model.

Owns which rows can be run again, and why not. Knows nothing of the version they are run through.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from commands.log_records import Damage, all_records, rows_of
from models.contract import FLOATS, Contract, Image, Tensor
from models.errors import ModelsError
from prediction_log.record import Kind

ALL_ROWS = 1 << 62
MAX_PIXELS = 1 << 32  # a server has taken it already


class LoggedRow(NamedTuple):
    """One answered row. features and outputs are JSON text; times are in milliseconds, None where unknown."""

    created_at: datetime
    request_id: str | None
    row_number: int
    version: str
    features: str
    outputs: str | None
    truncated: bool
    queue_ms: float | None
    compute_ms: float | None
    batch_size: int | None


class Skipped(Exception):
    """A row that cannot be run again; the text says why, the same for all alike."""


def from_database(url: str, model: str, since: datetime) -> Iterator[LoggedRow]:
    """A model's answered rows since then, oldest first. Raises prediction_log.database.StoreError, ValueError."""
    from prediction_log.database import Store

    store = Store(url)
    try:
        for row in store.select(model, since, ALL_ROWS):
            told = row._asdict()
            yield LoggedRow(**{name: told[name] for name in LoggedRow._fields})
    finally:
        store.close()


def from_folder(folder: Path, model: str, since: datetime, damage: Damage) -> Iterator[LoggedRow]:
    """The same of a local log. Raises OSError."""
    since_us = since.timestamp() * 1e6
    for record in all_records(folder, damage):
        if record.kind == Kind.PREDICTION and record.status == 200 and record.created_us >= since_us:
            for row in rows_of(record, damage):
                told = orjson.loads(row)
                if told["model"] == model:
                    created_at = datetime.fromtimestamp(record.created_us / 1e6, UTC)
                    yield LoggedRow(created_at, *(told[name] for name in LoggedRow._fields[1:]))


def chosen(rows: Iterator[LoggedRow], version: str | None, limit: int | None) -> Iterator[LoggedRow]:
    """Those of one version, and no more than so many."""
    return itertools.islice((row for row in rows if version in (None, row.version)), limit)


def outputs_of(row: LoggedRow) -> Any:
    """What was answered. Raises Skipped."""
    outputs = None if row.outputs is None else _parsed(row.outputs)
    if outputs is None:
        raise Skipped("its answer was not kept")
    return outputs


def instance_of(row: LoggedRow, contract: Contract | None) -> Any:
    """What one of "instances" is for this row; contract: None where nothing is known of pictures. Raises Skipped."""
    if row.truncated:
        raise Skipped("it was longer than the log keeps")
    features = _parsed(row.features)
    if features is None:
        raise Skipped("its input was not kept")
    if isinstance(features, dict):
        if {"sha256", "bytes"} <= features.keys():
            raise Skipped("only a digest of its input was kept")
        if features.keys() == {"image"} and contract is None:
            raise Skipped("it is a picture")
        if features.keys() == {"image"} and contract is not None and contract.image is not None:
            return _pixels(features["image"], contract.image, contract.inputs[0])
    if _holds_null(features):
        raise Skipped("a field of its input is never written")
    return features


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Skipped("it was logged as text that is no JSON") from None


def _holds_null(value: Any) -> bool:
    """Whether there is a null in it, which no model takes: it stands for a field that contract.json omits."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return None in inner


def _pixels(encoded: Any, image: Image, tensor: Tensor) -> Any:
    """A picture that was kept whole, as the model sees it, by the same steps as in a server."""
    import numpy as np

    from models.images import decode, from_base64

    try:
        pixels = decode(from_base64(encoded), image, max_pixels=MAX_PIXELS, squeeze=len(tensor.shape) == 2)
    except ModelsError as error:
        raise Skipped(f"its picture cannot be read: {type(error).__name__}") from None
    if tensor.dtype not in FLOATS:
        return pixels.tolist()
    precise = np.dtype("float64" if tensor.dtype == "float64" else "float32")
    scale, offset = np.array([image.scale, image.offset], precise)
    return (pixels.astype(precise) * scale + offset).tolist()
