"""Why an item has no answer, named for what its sender may do about it. Text crosses processes, exceptions do not."""

from __future__ import annotations

from enum import IntEnum


class BatchingError(Exception):
    """The root; never raised itself."""


class QueueFull(BatchingError):
    """Raised by the queue and the client: no room in rows or bytes, or no answer could be there by the deadline.

    wait_s: about how long it would have to wait now; 0 where that is unknown. Try again later.
    """

    def __init__(self, message: str = "", wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class NoWorker(BatchingError):
    """Raised by the client: no worker holds the model just now (starting, restarting, draining). Try again later."""


class DeadlineExceeded(BatchingError):
    """The item's deadline passed before its answer came. Allow more time, or send less."""


class Cancelled(BatchingError):
    """The item's sender went away or withdrew it. Nobody is left to be told."""


class ItemFailed(BatchingError):
    """The model could not answer this item. Sending it again will not help.

    reason: "model_error" (it raised), "bad_output" (it answered with something that cannot be carried) or
    "worker_crashed" (it took its process down).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StartupFailed(BatchingError):
    """Raised by the supervisor: it cannot serve at all. `reason` is one line for the operator."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConnectionLost(BatchingError):
    """Raised by the transport: the other end is gone, or sent something that is no frame."""


class Failure(IntEnum):
    """The codes that stand for the errors above in a frame."""

    MODEL_ERROR = 1
    BAD_OUTPUT = 2
    QUEUE_FULL = 3
    DEADLINE = 4
    CANCELLED = 5
    UNKNOWN_MODEL = 6

    def to_error(self, wait_s: float = 0.0) -> BatchingError:
        """The exception a client hands to whoever sent the item; wait_s is for QueueFull."""
        if self is Failure.QUEUE_FULL:
            return QueueFull("the worker's queue is too long", wait_s)
        if self is Failure.DEADLINE:
            return DeadlineExceeded("the deadline passed while the item was queued")
        if self is Failure.CANCELLED:
            return Cancelled("the item was withdrawn")
        if self is Failure.UNKNOWN_MODEL:
            return NoWorker("the worker does not hold this model")
        return ItemFailed("bad_output" if self is Failure.BAD_OUTPUT else "model_error")
