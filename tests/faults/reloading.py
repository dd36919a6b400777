"""Clients of all three dialects while models change: each version multiplies by a number of its own, so an answer says
whose it is twice. And what a server holds in memory, whoever it has started.

Owns what such clients ask and how their answers are judged.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import psutil

from tests.faults.asking import LEAKS, Reply, get, post, predict, raw_post, trouble_of
from tests.faults.connection import FIRST, Ask, Asked, new_id
from tests.faults.load import quantile
from tests.harness import SOON_S, Server, wait_until

MODEL, LONE, BESIDE = "a", "lone", "beside"
# More than 16 KiB either way, so that it is parsed in the pool: by then it has chosen the version that is to answer.
LARGE_ROWS = 2200
# What no single one of these numbers times any factor leaves float32's whole numbers for.
NUMBERS = 1000
# What Python and its allocator keep of a busy time.
PSS_SLACK, PSS_SLACK_BYTES = 1.1, 8 << 20

Heard = tuple[str, float]
"""A version, as the answer names it ("" where a dialect does not), and by what it has multiplied."""


class Clients:
    """What the clients ask of one model, and what they have heard.

    right: by version, the factors that it may multiply by. heard, first: how often, and when for the first time (in
    monotonic seconds). pids: by model, who has answered that says its process id.
    """

    def __init__(self, timeout_s: float, *, lone: bool = False) -> None:
        self.right: dict[str, set[float]] = {}
        self.heard: Counter[Heard] = Counter()
        self.first: dict[Heard, float] = {}
        self.pids: dict[str, set[int]] = defaultdict(set)
        self._timeout_s = timeout_s
        self._kinds = [self.native, self._v2, self.native, self._v1, self.native, self._large]
        self._kinds += [self.native, self._v2, self.native, self._v1, self.native, self._binary]
        if lone:
            self._kinds.append(self._lone)

    def allow(self, number: int, factor: float) -> Heard:
        """From now on this version may say so."""
        self.right.setdefault(str(number), set()).add(factor)
        return str(number), factor

    def ask(self, order: int) -> Ask:
        """One request, each kind in turn."""
        return self._kinds[order % len(self._kinds)](order)

    def until_heard(self, what: Heard, timeout_s: float = SOON_S) -> float:
        """Wait until somebody has had this answer; when that was for the first time."""
        wait_until(lambda: what in self.first, timeout_s, f"version {what[0]} multiplies by {what[1]}")
        return self.first[what]

    # -- what is asked -------------------------------------------------------------------------------------------

    def native(self, order: int) -> Ask:
        number = FIRST + order % NUMBERS
        body = b'{"features":[%d]}' % number
        return self._made(f"/predict/{MODEL}", body, "native", lambda told: self._is_right(
            told["model_version"], [told["prediction"]], [number]
        ))  # fmt: skip

    def _large(self, order: int) -> Ask:
        numbers = _numbers(order, LARGE_ROWS)
        body = json.dumps({"instances": [[number] for number in numbers]}).encode()
        return self._made(f"/predict/{MODEL}", body, "native, large", lambda told: self._is_right(
            told["model_version"], told["predictions"], numbers
        ))  # fmt: skip

    def _v1(self, order: int) -> Ask:
        numbers = _numbers(order, 3)
        body = json.dumps({"instances": [[number] for number in numbers]}).encode()
        return self._made(f"/v1/models/{MODEL}:predict", body, "TensorFlow Serving's", lambda told: self._is_right(
            "", told["predictions"], numbers
        ))  # fmt: skip

    def _v2(self, order: int) -> Ask:
        numbers = _numbers(order, 3)
        tensor = {"name": "x", "shape": [len(numbers), 1], "datatype": "FP32", "data": numbers}
        return self._v2_made(json.dumps({"inputs": [tensor]}).encode(), "v2", numbers)

    def _binary(self, order: int) -> Ask:
        numbers = _numbers(order, 2 * LARGE_ROWS)
        data = np.array(numbers, np.float32).tobytes()
        tensor = {"name": "x", "shape": [len(numbers), 1], "datatype": "FP32"}
        head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}]}).encode()
        return self._v2_made(
            head + data, "v2, binary", numbers, more=f"Inference-Header-Content-Length: {len(head)}\r\n"
        )

    def _v2_made(self, body: bytes, kind: str, numbers: list[int], more: str = "") -> Ask:
        return self._made(f"/v2/models/{MODEL}/infer", body, kind, lambda told: self._is_right(
            told["model_version"], told["outputs"][0]["data"], numbers
        ), more)  # fmt: skip

    def _lone(self, order: int) -> Ask:
        return self._made(f"/predict/{LONE}", b'{"features":[1]}', "another group", self._is_anybody)

    def _made(self, path: str, body: bytes, kind: str, right: Any, more: str = "") -> Ask:
        id_ = new_id()
        data = raw_post(path, body, request_id=id_, more=more)
        return Ask(data, id_, right, None, kind, self._timeout_s, judge=judge)

    # -- what is heard -------------------------------------------------------------------------------------------

    def _is_right(self, version: str, outputs: Any, numbers: Sequence[int]) -> bool:
        """Every row by the same factor, and that is one of the version's that the answer names."""
        factors = set((np.ravel(outputs) / np.array(numbers, float)).tolist())
        if len(np.ravel(outputs)) != len(numbers) or len(factors) != 1:
            return False
        (factor,) = factors
        self.heard[version, factor] += 1
        self.first.setdefault((version, factor), time.monotonic())
        return factor in (self.right.get(version, set()) if version else set().union(*self.right.values()))

    def _is_anybody(self, told: Any) -> bool:
        self.pids[LONE].add(int(told["prediction"]))
        return True


def judge(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """As tests.faults.asking.trouble_of, of an answer in any dialect."""
    if b'"ok":' in body[:6]:
        return trouble_of(status, headers, body)
    return "" if status == 200 else f"{status}: {body[:80]!r}"


def _numbers(order: int, count: int) -> list[int]:
    return [FIRST + (order + index) % NUMBERS for index in range(count)]


# -- one request at a time ---------------------------------------------------------------------------------------------


def answer(url: str) -> Heard:
    """Which version answers now."""
    reply = predict(url, 1.0, MODEL)
    assert reply.status == 200, reply
    return reply.json["model_version"], reply.json["prediction"]


def until_answers(url: str, what: Heard, timeout_s: float = 4 * SOON_S) -> None:
    """Wait until nobody else answers: either front may be the first to hear of a change."""
    wait_until(lambda: {answer(url) for _ in range(8)} == {what}, timeout_s, f"version {what[0]} answers")


def reload(url: str, action: str, model: str = MODEL) -> Reply:
    """The answer to an operator's word, once all of it is done."""
    return post(url, "/reload", {"action": action, "model": model})


def repository(url: str) -> dict[tuple[str, str], tuple[str, str]]:
    """(state, reason) of each version in the second dialect's index."""
    found = post(url, "/v2/repository/index", b"").json
    return {(one["name"], one["version"]): (one["state"], one["reason"]) for one in found}


def until_told(url: str, version: int, words: str, timeout_s: float = SOON_S) -> str:
    """Wait until /ready and the repository's index say this of a version; the reason. The server is ready all along."""
    found: list[str] = []

    def told() -> bool:
        reply, reason = get(url, "/ready"), repository(url).get((MODEL, str(version)), ("", ""))[1]
        assert reply.status == 200, reply
        assert not LEAKS.search(reason.replace(".keras file", "file"))
        found.append(reason)
        return words in reason and f"{MODEL} version {version}: {reason}" in reply.json["degraded"]

    try:
        wait_until(told, timeout_s, f"{words!r} stands beside version {version}")
    except AssertionError as error:
        error.add_note(f"told: {found[-1:]}")
        raise
    return found[-1]


def until_well(url: str) -> None:
    """Wait until nothing is wrong with anything."""
    wait_until(lambda: get(url, "/ready").json["degraded"] == [], SOON_S, "nothing is wrong")


def workers(url: str, group: str) -> int:
    """How many serve."""
    return sum(one["group"] == group and one["responding"] for one in get(url, "/ready").json["workers"])


def pids(url: str, model: str, count: int) -> set[int]:
    """The workers that answer for a model whose answer is the process id, once so many have."""
    found: set[int] = set()

    def all_found() -> bool:
        found.add(int(predict(url, 1.0, model).json["prediction"]))
        return len(found) >= count

    wait_until(all_found, SOON_S, f"{count} workers of {model} have answered")
    return found


# -- what is measured --------------------------------------------------------------------------------------------------


def pss(server: Server) -> int:
    """Bytes of memory of the server and all its processes, what they share counted once."""
    root = psutil.Process(server.pid)
    found = 0
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            found += process.memory_full_info().pss
    return found


def until_memory_is_back(server: Server, before: int) -> int:
    """Wait until `pss` is what it was, or little more; how much it is."""
    found: list[int] = []

    def is_back() -> bool:
        found.append(pss(server))
        return found[-1] <= before * PSS_SLACK + PSS_SLACK_BYTES

    try:
        wait_until(is_back, SOON_S, f"memory is back to {before >> 20} MiB")
    except AssertionError as error:
        error.add_note(f"{found[-1] >> 20} MiB")
        raise
    return found[-1]


def longest_gap_s(asked: Sequence[Asked], begun: float, ended: float) -> float:
    """The longest time between two moments in which nobody was answered."""
    moments = sorted(one.begun + one.seconds for one in asked if one.status == 200)
    within = [begun, *(moment for moment in moments if begun < moment < ended), ended]
    return max(after - before for before, after in itertools.pairwise(within))


def p99_s(asked: Sequence[Asked], begun: float, ended: float) -> float:
    """Of those that began between two moments."""
    return quantile([one.seconds for one in asked if begun <= one.begun < ended], 0.99)
