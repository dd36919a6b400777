"""`score` in a process of its own, with a model that doubles: `python -m tests.commands.score_program SECONDS WORDS`.

The files, the journal and the threads are the real ones; in the place of a server with TensorFlow stands a client that
answers within this process, each call after so many seconds. The last line on stderr is the most memory there was.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from batching.client import Answer, Outcome, Target
from batching.errors import ItemFailed
from commands import score
from front.bulk import Bulk
from front.catalog import Entry
from models.contract import Contract, Tensor
from models.schema import compile_contract

COLUMNS = 3
POISON = -666.0
NAN = -777.0
# So that a kill at any moment finds something done.
KEEP_EVERY_S = 0.02


class Doubling:
    """A client whose model doubles its rows, fails on POISON, and answers NAN with no number."""

    view: Any = None

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.calls = 0

    def call(
        self, target: Target, items: Sequence[tuple[int, Sequence[np.ndarray]]], deadline: float, priority: int = 0
    ) -> list[Outcome]:
        """As BlockingClient.call."""
        self.calls += 1
        time.sleep(self._seconds)
        return [self._answer(arrays[0]) for _, arrays in items]

    @staticmethod
    def _answer(x: np.ndarray) -> Outcome:
        if (x == POISON).any():
            return ItemFailed("model_error")
        outputs = [np.where(x == NAN, np.float32(np.nan), x * 2)]
        return Answer(outputs, 0, 0, len(x), 1)


class Fake:
    """What `score` needs of an InferenceServer."""

    def __init__(self, client: Doubling, contract: Contract | None = None) -> None:
        self._client = client
        self._contract = contract

    def __call__(self, model: str, **settings: Any) -> AbstractContextManager[Fake]:
        return nullcontext(self)

    def bulk(self, model: str, version: str) -> Bulk:
        shape = (COLUMNS,)
        plain = Contract(model, version, (Tensor("x", "float32", shape),), (Tensor("y", "float32", shape),))
        compiled = compile_contract(self._contract or plain)
        return Bulk(self._client, Entry(model, version, "READY", None, Target("", 0, 0), compiled, {"1": 1e-4}))


def main() -> int:
    score.KEEP_EVERY_S = KEEP_EVERY_S
    score.BLOCK_ROWS_MAX = 512
    code = score.main(sys.argv[2:], Fake(Doubling(float(sys.argv[1]))))
    # Not getrusage: its peak is also that of whoever started us, until we were another program.
    peak = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]
    sys.stderr.write(f"{peak}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
