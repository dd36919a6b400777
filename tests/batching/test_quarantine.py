"""What fronts may blame, for how long it is refused, and how much of it is kept."""

from __future__ import annotations

import hashlib

import pytest

from batching.quarantine import KEPT_MAX, Quarantine


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def test_a_blamed_input_is_refused_for_so_long_and_no_longer() -> None:
    now = [100.0]
    quarantine = Quarantine(60.0, lambda: now[0])
    assert quarantine.add(digest(1))
    now[0] += 30.0
    assert quarantine.add(digest(2))
    assert quarantine.current() == {digest(1): 160.0, digest(2): 190.0}
    now[0] += 30.0
    assert quarantine.current() == {digest(2): 190.0}
    now[0] += 30.0
    assert quarantine.current() == {}


def test_who_blames_the_same_again_has_no_news_and_prolongs_nothing() -> None:
    now = [100.0]
    quarantine = Quarantine(60.0, lambda: now[0])
    assert quarantine.add(digest(1))
    now[0] += 59.0
    assert not quarantine.add(digest(1))
    now[0] += 2.0
    assert quarantine.add(digest(1))


@pytest.mark.parametrize("nonsense", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n", "a" * 1_000_000])
def test_what_is_no_digest_is_not_taken(nonsense: str) -> None:
    quarantine = Quarantine(60.0)
    assert not quarantine.add(nonsense)
    assert quarantine.current() == {}


def test_of_too_many_the_oldest_are_let_go() -> None:
    quarantine = Quarantine(60.0)
    assert all(quarantine.add(digest(number)) for number in range(KEPT_MAX + 5))
    assert list(quarantine.current()) == [digest(number) for number in range(5, KEPT_MAX + 5)]
