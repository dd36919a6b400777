"""A gate for each test that asks for one; modules that share a server have a gate of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness import Gate, gate


@pytest.fixture
def a_gate() -> Iterator[Gate]:
    """Where the calls of models of kind "gate" wait; open at the end."""
    with gate() as made:
        yield made
