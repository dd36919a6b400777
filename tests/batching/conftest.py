"""A gate and a file of counters for each test that asks; modules that share a server have a gate of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from batching.counters import Counters
from tests.batching.desk import Desk
from tests.harness import Gate, gate


@pytest.fixture
def a_gate() -> Iterator[Gate]:
    """Where the calls of models of kind "gate" wait; open at the end."""
    with gate() as made:
        yield made


@pytest.fixture
def shared() -> Iterator[Counters]:
    """The creator's end, with four slots."""
    made = Counters.create(4)
    yield made
    made.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A client whose workers and supervisor are the test."""
    made = Desk()
    yield made
    made.end()
