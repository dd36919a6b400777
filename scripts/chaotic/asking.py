"""What chaos asks: plain requests, and every kind that a server can be annoyed by; which answers each may have.

Knows nothing of processes. The same seed asks the same in the same order.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from tests.fakes import POISON
from tests.faults.asking import raw_post
from tests.faults.connection import FIRST, Ask, new_id, posted, prediction

# A server under attack may refuse for a while, or be late; it may not be wrong.
HARD = frozenset({"200", "503", "504"})
TIMEOUT_S = 4.0
BAD = (b"", b"{", b"[" * 500, b'{"features":["x"]}', b'{"features":[1,2,3]}', b'{"features":[NaN]}', b"\xff\xfe\x00")


class Kind(NamedTuple):
    """One kind of request. weight: of some thousand. answers: which are right, in words as in faults.load.statuses."""

    weight: float
    answers: frozenset[str]
    make: Callable[[Random, int], Ask]


class Asker:
    """What is asked of the fake models, or with `pictures` of digits."""

    def __init__(self, seed: int, pictures: list[str]) -> None:
        self.kinds = _of_pictures(pictures) if pictures else _of_numbers()
        self._rng = Random(seed)  # noqa: S311 - to be repeatable
        self._names = list(self.kinds)
        self._weights = [kind.weight for kind in self.kinds.values()]

    def plain(self, order: int) -> Ask:
        """A request without any trick."""
        return self.kinds["plain"].make(self._rng, order)

    def ask(self, order: int) -> Ask:
        """The next request."""
        (name,) = self._rng.choices(self._names, self._weights)
        return self.kinds[name].make(self._rng, order)._replace(kind=name)


def held_out_pictures() -> list[str]:
    """Digits that the demo model has not seen, as PNG in base64."""
    import numpy as np
    from demo_models.digits import split_digits
    from PIL import Image

    found = []
    for digit in split_digits()[1][0]:
        out = io.BytesIO()
        Image.fromarray((digit.reshape(8, 8) * 255).round().astype(np.uint8)).save(out, "PNG")
        found.append(base64.b64encode(out.getvalue()).decode())
    return found


def _of_numbers() -> dict[str, Kind]:
    return {
        **_variants(lambda rng, order, more: prediction(order, timeout_s=TIMEOUT_S, more=more)),
        "poison": Kind(50, frozenset({"500", "503", "504"}), lambda rng, order: _number("/predict", [POISON])),
        "crash": Kind(
            0.5, frozenset({"500", "503", "504"}), lambda rng, order: _number("/predict/fatal", [POISON, order])
        ),
    }


def _of_pictures(pictures: list[str]) -> dict[str, Kind]:
    first: dict[str, int] = {}

    def picture(rng: Random, order: int, more: str) -> Ask:
        image = pictures[order % len(pictures)]

        def same(told: Any) -> bool:
            """A picture gets the same answer each time, whoever dies."""
            return bool(first.setdefault(image, told["predicted_class"]) == told["predicted_class"])

        id_ = new_id()
        body = json.dumps({"image": image}).encode()
        data = raw_post("/classify", body, request_id=id_, more=more)
        return Ask(data, id_, same, timeout_s=4 * TIMEOUT_S)

    return _variants(picture)


def _variants(plain: Callable[[Random, int, str], Ask]) -> dict[str, Kind]:
    """A plain request, in all the ways of a client, and what is none."""

    def hurried(rng: Random, order: int) -> Ask:
        timeout_ms = rng.randint(1, 200)
        return plain(rng, order, f"X-Request-Timeout-Ms: {timeout_ms}\r\n")._replace(timeout_s=timeout_ms / 1e3)

    def too_large(rng: Random, order: int) -> Ask:
        data = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000\r\n\r\n"
        return Ask(data, "", lambda told: False)

    return {
        "plain": Kind(700, HARD, lambda rng, order: plain(rng, order, "")),
        "closing": Kind(50, HARD, lambda rng, order: plain(rng, order, "Connection: close\r\n")),
        "vanishing": Kind(
            80, HARD | {"gone"}, lambda rng, order: plain(rng, order, "")._replace(gives_up_s=rng.uniform(0, 0.05))
        ),
        "slow": Kind(20, HARD, lambda rng, order: plain(rng, order, "")._replace(halts_s=rng.uniform(0, 1.0))),
        "hurried": Kind(60, HARD, hurried),
        "bad": Kind(
            40, frozenset({"400"}), lambda rng, order: posted("/predict", rng.choice(BAD), "bad", lambda told: False)
        ),
        "too large": Kind(10, frozenset({"413"}), too_large),
    }


def _number(path: str, numbers: list[float]) -> Ask:
    """A request that no model can answer. A number of its own makes it another input than all before."""
    body = json.dumps({"features": [numbers[0], *(FIRST + number for number in numbers[1:])]}).encode()
    return posted(path, body, "", lambda told: False, TIMEOUT_S)
