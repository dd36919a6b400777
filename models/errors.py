"""What can be wrong with a model or with what was sent to it; each name says who may do something about it.

Every message here is written for the caller: it never holds a file-system path, a class name or more than
200 characters of the caller's own data.
"""

from __future__ import annotations

from typing import Any


class ModelsError(Exception):
    """The root; never raised itself."""


class BadInput(ModelsError):
    """The caller's value does not fit the contract; the caller can mend it.

    path: JSON pointer (RFC 6901) of the first bad element, "" for the whole body; None when it is not JSON.
    expected: what would have been accepted there, in words.
    sample: a request body that would pass, if one is known.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        expected: str | None = None,
        sample: Any = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.expected = expected
        self.sample = sample


class TooLarge(ModelsError):
    """A body, an image or a number of rows beyond its limit; the caller must send less."""


class UnsupportedMedia(ModelsError):
    """An image format or an encoding that is not offered; the caller must send another."""


class Unimplemented(ModelsError):
    """Something that a dialect has and this server does not; the caller must do without."""


class BadOutput(ModelsError):
    """The model answered with something the contract or the dialect cannot carry; the model's owner must look."""


class LoadError(ModelsError):
    """A model that cannot be served. `reason` is safe to show; details belong in the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
