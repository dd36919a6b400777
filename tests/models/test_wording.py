"""What a message repeats of the caller's data is short, printable and points to the right place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.wording import HERE, clip, found, place, pointer, quoted, under
from tests.models.strategies import VALUES


@pytest.mark.parametrize(
    ("parts", "expected"),
    [((), ""), (("features",), "/features"), (("instances", 3, "a"), "/instances/3/a"), (("a/b", "m~n"), "/a~1b/m~0n")],
)
def test_pointers_follow_rfc_6901(parts: tuple[str | int, ...], expected: str) -> None:
    assert pointer(parts) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "true"),
        (1.5, "the number 1.5"),
        (2**63, "the number 9223372036854775808"),
        (float("nan"), "the number nan"),
        (10**30, f"the number {10**30}"),
        ("abc", 'the string "abc"'),
        ([1, 2], "a list of 2"),
        ({}, "an object"),
        (b"raw", "another kind of value"),
    ],
)
def test_what_was_found_is_said_in_a_few_words(value: Any, expected: str) -> None:
    assert found(value) == expected


@given(st.text(max_size=500) | VALUES)
def test_any_value_is_named_in_less_than_60_printable_characters(value: Any) -> None:
    text = found(value)
    assert len(text) < 60
    assert text.isprintable()


@given(st.text(min_size=1, max_size=500))
def test_a_key_is_cut_and_stripped_of_control_characters_wherever_it_is_shown(key: str) -> None:
    assert len(quoted(key)) <= 66
    assert place((key,)).isprintable()
    assert len(pointer((key,))) <= 1 + 2 * 64


def test_a_long_text_ends_in_an_ellipsis() -> None:
    assert clip("abcdef", 4) == "abc…"
    assert clip("abcd", 4) == "abcd"


def test_a_locator_appends_the_indices_to_its_place() -> None:
    assert under("inputs", 0)((2, 3)) == ("inputs", 0, 2, 3)
    assert HERE((1,)) == (1,)
    assert place(()) == "the body"
