"""What an answer says of itself in its header: `Server-Timing`, as browsers and curl show it. In milliseconds.

Owns the header's words. The parts never add up to more than the total: what was measured is cut to whole microseconds,
and the total is one more.
"""

from __future__ import annotations

HEADER = "Server-Timing"
# To format a number takes 0.15 us, to look it up 0.02; most parts of a small request are below this.
_KNOWN = 4096
_MS = [f"{us / 1000:.3f}" for us in range(_KNOWN)]


def _ms(us: int) -> str:
    return _MS[us] if 0 <= us < _KNOWN else f"{us / 1000:.3f}"


def total(seconds: float) -> tuple[str, str]:
    """The header where there is no more to tell than how long it took."""
    return HEADER, f"total;dur={_ms(int(seconds * 1e6) + 1)}"


def of_failure(parse_us: int, total_us: int) -> tuple[str, str]:
    """The header of a request to a model that was not answered."""
    return HEADER, f"parse;dur={_ms(parse_us)}, total;dur={_ms(total_us)}"


def of_answer(
    parse_us: int, queue_us: int, batch_rows: int, compute_us: int, encode_us: int, total_us: int
) -> tuple[str, str]:
    """The header of a model's answer. queue, batch, compute: of the item that took longest, where there were several.

    batch: the rows of the batch that it was in.
    """
    if parse_us < _KNOWN > encode_us and queue_us < _KNOWN > compute_us and total_us < _KNOWN:
        return HEADER, (
            f"parse;dur={_MS[parse_us]}, queue;dur={_MS[queue_us]}, batch;desc={batch_rows}, "
            f"compute;dur={_MS[compute_us]}, encode;dur={_MS[encode_us]}, total;dur={_MS[total_us]}"
        )
    return HEADER, (
        f"parse;dur={_ms(parse_us)}, queue;dur={_ms(queue_us)}, batch;desc={batch_rows}, "
        f"compute;dur={_ms(compute_us)}, encode;dur={_ms(encode_us)}, total;dur={_ms(total_us)}"
    )
