"""The last requests of one process: a ring in its slot of the counters' file, written by it alone and read by all.

Owns what an entry holds, how many a second there may be, and that nobody sees half of one. Knows nothing of HTTP.

1. An entry's checksum is over all of it. Whoever reads while it is being written finds that it does not fit, and leaves
   it out; so does whoever reads what a killed process has left half done. Nobody waits for anybody.
2. Failures have places and a rate of their own: no number of answers crowds them out.
3. What does not fit its place is cut. Text is UTF-8 in the file, so what comes out can always be said in JSON.
"""

from __future__ import annotations

import struct
import threading
import time
import zlib
from typing import Any, NamedTuple

ENTRY_BYTES = 512
# So many a second, and so many at once after a pause: enough to look at, and at 28,000 requests/s it costs nothing.
PER_SECOND = 50
AT_ONCE = 25
# Control words of a slot: how many entries of each sort were written; 0 to 5 are the counters' own and the vitals'.
ANSWERS, FAILURES = 6, 7

# checksum of what follows, status, number, at (Unix seconds), rows, batch rows, five times in microseconds, and the
# lengths of the texts behind it
_HEAD = struct.Struct("<IHQd7I7B")
_SUM = struct.Struct("<I")
_U16_MAX, _U32_MAX = 0xFFFF, 0xFFFF_FFFF
# The most bytes of each text, in their order; with the head they fit into an entry.
_TEXTS = {"request_id": 128, "route": 64, "model": 64, "version": 20, "dialect": 20, "code": 24, "answer": 128}
ANSWER_BYTES = _TEXTS["answer"]


class _Places(NamedTuple):
    """Where one sort lies in the ring. word: the control word that counts them."""

    word: int
    first: int
    room: int


def _places(entries: int) -> tuple[_Places, _Places]:
    """Three quarters for what went well, the last for what failed."""
    answers = entries * 3 // 4
    return _Places(ANSWERS, 0, answers), _Places(FAILURES, answers, entries - answers)


class Recent:
    """The writer's end. Threads may share it.

    opens_at, failures_open_at: when the next answer and the next failure may be added (monotonic seconds). Whoever has
    that time at hand asks first, and then need not even gather what to say.
    """

    __slots__ = ("_due", "_lock", "_ring", "_sorts", "_words", "failures_open_at", "opens_at")

    def __init__(self, ring: memoryview, words: memoryview[int]) -> None:
        self._ring = ring
        self._words = words
        self._sorts = _places(len(ring) // ENTRY_BYTES)
        self._due = [0.0, 0.0]  # when each sort's next entry would come, were they evenly spaced
        self._lock = threading.Lock()
        self.opens_at = self.failures_open_at = 0.0

    def add(
        self,
        request_id: str,
        route: str,
        model: str,
        version: str,
        dialect: str,
        status: int,
        code: str,
        rows: int,
        total_us: int,
        parse_us: int = 0,
        queue_us: int = 0,
        batch_rows: int = 0,
        compute_us: int = 0,
        encode_us: int = 0,
        answer: bytes = b"",
    ) -> None:
        """One more request that was answered now, unless there were too many just before; of `answer` the beginning.

        What has the time 0 has not come about.
        """
        is_failure = status >= 400
        now = time.monotonic()
        with self._lock:
            if now < (self.failures_open_at if is_failure else self.opens_at):
                return
            self._pace(is_failure, now)
            said = [
                text.encode("utf-8", "backslashreplace") for text in (request_id, route, model, version, dialect, code)
            ]
            texts = [text[:limit] for text, limit in zip([*said, answer], _TEXTS.values(), strict=True)]
            numbers = (rows, batch_rows, total_us, parse_us, queue_us, compute_us, encode_us)
            places = self._sorts[is_failure]
            number = self._words[places.word]
            entry = _HEAD.pack(
                0,
                min(status, _U16_MAX),
                number,
                time.time(),
                *[min(max(one, 0), _U32_MAX) for one in numbers],
                *map(len, texts),
            )
            entry = b"".join((entry, *texts)).ljust(ENTRY_BYTES, b"\0")
            at = (places.first + number % places.room) * ENTRY_BYTES
            self._ring[at : at + ENTRY_BYTES] = _SUM.pack(zlib.crc32(entry[_SUM.size :])) + entry[_SUM.size :]
            self._words[places.word] = number + 1

    def _pace(self, is_failure: bool, now: float) -> None:
        due = self._due[is_failure] = max(self._due[is_failure], now) + 1 / PER_SECOND
        opens_at = due - AT_ONCE / PER_SECOND
        if is_failure:
            self.failures_open_at = opens_at
        else:
            self.opens_at = opens_at


def entries(ring: memoryview, words: memoryview[int], limit: int) -> list[dict[str, Any]]:
    """One process's last requests, at most so many of each sort, in no order. Touches no page where there are none."""
    found: list[dict[str, Any]] = []
    for word, first, room in _places(len(ring) // ENTRY_BYTES):
        written = words[word]
        for number in range(max(written - min(room, limit), 0), written):
            at = (first + number % room) * ENTRY_BYTES
            entry = _read(bytes(ring[at : at + ENTRY_BYTES]))
            if entry is not None:
                found.append(entry)
    return found


def clear(ring: memoryview, words: memoryview[int]) -> None:
    """Forget what a process that has ended wrote, so that the next one begins with nothing."""
    if words[ANSWERS] or words[FAILURES]:
        words[ANSWERS] = words[FAILURES] = 0
        ring[:] = bytes(len(ring))


def _read(data: bytes) -> dict[str, Any] | None:
    """An entry; None for what is none, or not yet, or no longer."""
    checksum, status, _, at, *numbers = _HEAD.unpack_from(data)
    if checksum != zlib.crc32(data[_SUM.size :]):
        return None
    rows, batch_rows, total_us, parse_us, queue_us, compute_us, encode_us, *lengths = numbers
    texts = {}
    start = _HEAD.size
    for (name, limit), length in zip(_TEXTS.items(), lengths, strict=True):
        text = data[start : start + length].decode("utf-8", "replace")
        texts[name] = text.rstrip("\N{REPLACEMENT CHARACTER}") if length == limit else text  # half a character
        start += length
    answer = texts.pop("answer")
    return {
        "at": at,
        **texts,
        "status": status,
        "rows": rows,
        "total_ms": total_us / 1000,
        "parse_ms": parse_us / 1000,
        "queue_ms": queue_us / 1000,
        "batch_rows": batch_rows,
        "compute_ms": compute_us / 1000,
        "encode_ms": encode_us / 1000,
        "answer": answer,
    }
