"""Bodies that were made smaller on the way: what a request's Content-Encoding unfolds to, and answers made smaller.

Owns the two encodings that clients of model servers use, gzip and deflate, and the bound on what they unfold to. Knows
nothing of HTTP beyond the values of two headers.
"""

from __future__ import annotations

import gzip
import zlib

from models.errors import BadInput, TooLarge, UnsupportedMedia
from models.wording import clip

# zlib's number for a container; "deflate" in HTTP is the zlib container, not the bare stream.
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_CHUNK = 1 << 16
# gzip allows any number of members; each costs some microseconds and may be empty.
_MAX_MEMBERS = 1000
# What fits one packet goes no faster for being smaller.
_WORTH_IT = 1400
# Numbers hardly shrink further: level 6 takes three times as long as this for a few percent.
_LEVEL = 1


def decode(body: bytes, encoding: str | None, max_bytes: int) -> bytes:
    """The body without its Content-Encoding; never more than `max_bytes` of it are made.

    Raises:
        UnsupportedMedia: neither gzip nor deflate nor identity.
        TooLarge: it unfolds to more.
        BadInput: it is not what it says, or ends early.
    """
    name = (encoding or "").strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOW:
        raise UnsupportedMedia(f"Content-Encoding {clip(name, 40)} is not offered: send gzip, deflate or identity")
    try:
        return _unfolded(body, _WINDOW[name], max_bytes)
    except zlib.error:
        raise BadInput(f"the body is no {name}, as its Content-Encoding says", expected=f"a body in {name}") from None


def _unfolded(body: bytes, window: int, max_bytes: int) -> bytes:
    """All members one after the other; only gzip has more than one."""
    pieces: list[bytes] = []
    at, left, members = 0, max_bytes, 0
    while at < len(body) or not members:
        members += 1
        if members > (_MAX_MEMBERS if window > zlib.MAX_WBITS else 1):
            raise BadInput("the compressed body has too many parts, or bytes behind its end")
        engine = zlib.decompressobj(window)
        while not engine.eof:
            if at == len(body):
                raise BadInput("the compressed body ends early")
            chunk = body[at : at + _CHUNK]
            piece = engine.decompress(chunk, left + 1)
            at += len(chunk) - len(engine.unconsumed_tail) - len(engine.unused_data)
            left -= len(piece)
            if left < 0:
                raise TooLarge(f"the body unfolds to more than {max_bytes} bytes, the most that are taken")
            pieces.append(piece)
    return b"".join(pieces)


def encode(body: bytes, accept_encoding: str | None) -> tuple[bytes, str | None]:
    """An answer's body, smaller where the client asks for it by name and it pays; and its Content-Encoding or None."""
    if accept_encoding is None or len(body) < _WORTH_IT:
        return body, None
    weights = _weights(accept_encoding)
    best = max(("gzip", "deflate"), key=lambda name: weights.get(name, 0.0))  # of equals gzip
    if not weights.get(best, 0.0) or weights[best] < weights.get("identity", 0.0):
        return body, None
    smaller = gzip.compress(body, _LEVEL, mtime=0) if best == "gzip" else zlib.compress(body, _LEVEL)
    return (smaller, best) if len(smaller) < len(body) else (body, None)


def _weights(accept_encoding: str) -> dict[str, float]:
    """What the client would rather have, by name, from 0 (not at all) to 1. `*` names nothing and is passed over."""
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        try:
            weight = next((float(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
        except ValueError:
            continue
        if 0.0 <= weight <= 1.0:  # NaN is not
            weights[name] = weight
    return weights
