"""What a worker's frame says of the items that it names. Knows no requests, no links and no sockets."""

from __future__ import annotations

import struct

import numpy as np

from batching import arrays
from batching.errors import Failure, ItemFailed
from batching.items import Answer, Outcome
from batching.transport import Frame, Kind, Payload, answered_of


def outcomes_of(frame: Frame, worker: int) -> list[tuple[int, Outcome]]:
    """(id, outcome) of each item; none where it is another kind of frame. Raises ConnectionLost for what is no frame.

    worker: what makes the numbers of its batches differ from others'.
    """
    if frame.kind == Kind.FAILED:
        return [(frame.id, Failure(frame.code).to_error(frame.wait_us / 1e6))]
    batch = worker << 32 | frame.batch
    if frame.kind == Kind.ANSWER:
        outputs = _outputs(frame, frame.payload)
        if outputs is None:
            return [(frame.id, ItemFailed("bad_output"))]
        return [(frame.id, Answer(outputs, frame.queue_us, frame.compute_us, frame.batch_rows, batch))]
    if frame.kind != Kind.ANSWERS:
        return []
    answered, payload = answered_of(frame)
    outputs = _outputs(frame, payload)
    if outputs is None:
        return [(id, ItemFailed("bad_output")) for id, _, _ in answered]
    compute_us, batch_rows = frame.compute_us, frame.batch_rows
    outcomes: list[tuple[int, Outcome]] = []
    start = 0
    for id, rows, queue_us in answered:
        stop = start + rows
        own = [output[start:stop] for output in outputs]
        outcomes.append((id, Answer(own, queue_us, compute_us, batch_rows, batch)))
        start = stop
    return outcomes


def _outputs(frame: Frame, payload: Payload) -> list[np.ndarray] | None:
    """None where they are not the bytes that the layout speaks of."""
    try:
        return arrays.decode(arrays.layout_of(frame.layout), payload, frame.rows)
    except (ValueError, IndexError, struct.error):
        return None
