"""Only strict JSON objects get in; everything else is refused with its place, cheaply, and without being repeated."""

from __future__ import annotations

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.body import MAX_CONTAINERS, loads
from models.errors import BadInput, TooLarge
from tests.models.strategies import VALUES

OBJECTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=4)


@given(OBJECTS)
def test_an_object_comes_back_as_it_was_written(value: dict[str, Any]) -> None:
    assert loads(orjson.dumps(value)) == value


@pytest.mark.parametrize(
    ("body", "message", "expected"),
    [
        pytest.param(b"", "the body is empty", "a JSON object in UTF-8", id="empty"),
        pytest.param(b" \n", "the body is empty", "a JSON object in UTF-8", id="only spaces"),
        pytest.param(b'{"a": NaN}', "NaN, an infinity", "finite numbers", id="NaN"),
        pytest.param(b'{"a": [1,\n Infinity]}', "line 2, column 2", "finite numbers", id="Infinity"),
        pytest.param(b'{"a": -Infinity}', "NaN, an infinity", "finite numbers", id="-Infinity"),
        pytest.param(b'{"a": 1e999}', "line 1, column 7", "finite numbers", id="1e999"),
        pytest.param(b'{"a": "\\ud800"}', "lone surrogate", "whole Unicode characters", id="lone high surrogate"),
        pytest.param(b'{"a": "\\udc00"}', "lone surrogate", "whole Unicode characters", id="lone low surrogate"),
        pytest.param(b'\xef\xbb\xbf{"a": 1}', "byte order mark", "a JSON object in UTF-8", id="UTF-8 with a mark"),
        pytest.param('{"a": 1}'.encode("utf-16"), "UTF-16 or UTF-32", "a JSON object in UTF-8", id="UTF-16"),
        pytest.param('{"a": 1}'.encode("utf-16-be"), "UTF-16 or UTF-32", "a JSON object in UTF-8", id="UTF-16 bare"),
        pytest.param('{"a": 1}'.encode("utf-32"), "UTF-16 or UTF-32", "a JSON object in UTF-8", id="UTF-32"),
        pytest.param(b'{"a": "\xe4"}', "bad byte at offset 7", "a JSON object in UTF-8", id="Latin-1"),
        pytest.param(b'{"a": ' + b"[" * 5000, "nested too deep", "at most 1024 levels", id="depth bomb"),
        pytest.param(b'{"a":' * 5000, "nested too deep", "at most 1024 levels", id="depth bomb of objects"),
        pytest.param(b"{'a': 1}", "not valid JSON", "a JSON object", id="single quotes"),
        pytest.param(b'{"a": 1,}', "line 1, column 8", "a JSON object", id="trailing comma"),
        pytest.param(b'{"a": 01}', "not valid JSON", "a JSON object", id="leading zero"),
        pytest.param(b'{"a": 1} {}', "not valid JSON", "a JSON object", id="two documents"),
        pytest.param(b'{"a": [1', "not valid JSON", "a JSON object", id="cut off"),
        pytest.param(b"a=1&b=2", "not valid JSON", "a JSON object", id="a form"),
    ],
)
def test_what_is_not_json_is_refused_with_its_position(body: bytes, message: str, expected: str) -> None:
    with pytest.raises(BadInput, match=r"^the body ") as caught:
        loads(body)
    assert message in caught.value.message
    assert caught.value.path is None
    assert caught.value.expected is not None
    assert caught.value.expected.startswith(expected)


@pytest.mark.parametrize("body", [b"[1]", b'"secret"', b"3", b"null", b"true"])
def test_the_body_must_be_an_object(body: bytes) -> None:
    with pytest.raises(BadInput, match=r"^the body must be a JSON object, got ") as caught:
        loads(body)
    assert caught.value.path == ""


@pytest.mark.parametrize(
    ("body", "path"),
    [
        pytest.param(b'{"a": 1, "a": 1}', "/a", id="at the top"),
        pytest.param(b'{"a": 1, "\\u0061": 2}', "/a", id="once escaped"),
        pytest.param(b'{"instances": [{"x": 1}, {"x": 1, "x": 2}]}', "/instances/1/x", id="in a row"),
        pytest.param(b'{"a": {"b": [[{"c": 1, "c": ":"}]]}, "d": 1}', "/a/b/0/0/c", id="deep inside"),
        pytest.param(b'{"b": {"c": 1, "c": 2}, "a": 1, "a": 2}', "/a", id="outermost first"),
        pytest.param(b'{"b": {"c": 1, "c": 2}, "d": {"e": 1, "e": 2}}', "/b/c", id="document order"),
        pytest.param(b'{"a/b": 1, "a/b": "x:y"}', "/a~1b", id="a key that needs escaping"),
        pytest.param(b'{"a": {"b": 1}, "a": {"b": 1}}', "/a", id="whole objects"),
    ],
)
def test_a_key_given_twice_is_found_and_named(body: bytes, path: str) -> None:
    with pytest.raises(BadInput, match="is given twice") as caught:
        loads(body)
    assert caught.value.path == path
    assert caught.value.expected == "every key once"


def test_in_a_long_body_a_key_given_twice_is_found_without_being_looked_for() -> None:
    with pytest.raises(BadInput, match=r"^a key is given twice$") as caught:
        loads(b'{"a": 1, "a": 2, "b": [' + b"0.125," * 200_000 + b"0]}")
    assert caught.value.path == ""


def test_a_body_with_more_levels_than_can_be_written_again_is_too_deep_to_tell() -> None:
    with pytest.raises(BadInput, match="nested too deep") as caught:
        loads(b'{"a": ' + b"[" * 1000 + b'{"b": 1, "b": 2}' + b"]" * 1000 + b"}")
    assert caught.value.expected == "at most 254 levels of lists and objects"


def test_escaped_colons_neither_hide_a_repeated_key_nor_look_like_one() -> None:
    assert loads(rb'{"a": ["\u003a", "\u003A:", "\\u003a", "\\\u003a", "\\\\u003a"]}') == {
        "a": [":", "::", "\\u003a", "\\:", "\\\\u003a"]
    }
    with pytest.raises(BadInput, match="given twice"):
        loads(rb'{"a": "\u003a", "a": "\\u003a"}')


@given(OBJECTS)
def test_colons_and_quotes_in_strings_are_not_taken_for_keys(value: dict[str, Any]) -> None:
    body = {'":"': value, "text": ['a:"b": {', "\\", "\\\\:", {"::": ":"}]}
    assert loads(orjson.dumps(body)) == body


def has_twice(body: bytes) -> bool:
    twice = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal twice
        twice = twice or len({key for key, _ in pairs}) < len(pairs)

    json.loads(body, object_pairs_hook=look)
    return twice


JSON_TEXTS = st.recursive(
    st.sampled_from(["1", '":"', '"\\":\\""', '"\\u003a"', '"\\\\u003a"', "null"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]"),
        st.lists(st.tuples(st.sampled_from(['"a"', '"b"', '":"', '"\\u0061"']), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{key} : {value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=8,
)


@given(JSON_TEXTS)
def test_a_body_is_refused_for_a_repeated_key_exactly_when_it_has_one(text: str) -> None:
    body = f'{{"root": {text}}}'.encode()
    if not has_twice(body):
        loads(body)
        return
    with pytest.raises(BadInput, match="is given twice") as caught:
        loads(body)
    assert str(caught.value.path).startswith("/")


def test_more_lists_than_any_sensible_request_holds_are_refused_before_parsing() -> None:
    bomb = b'{"a": [' + b"[]," * 2_000_000 + b"0]}"
    started = time.process_time()
    with pytest.raises(TooLarge, match="2000002 lists and objects, at most 200000"):
        loads(bomb)
    assert time.process_time() - started < 0.2  # parsing takes over 0.5 s


def test_as_many_lists_as_are_allowed_pass() -> None:
    body = b'{"a":[' + b"[0]," * (MAX_CONTAINERS - 3) + b"[0]]}"
    assert len(loads(body)["a"]) == MAX_CONTAINERS - 2


def test_a_message_never_repeats_the_body() -> None:
    for body in (
        b'{"' + b"k" * 5000 + b'": 1, ' * 2 + b"}",
        b'{"' + b"k" * 5000 + b'": tru}',
        b'"' + b"k" * 5000 + b'"',
    ):
        with pytest.raises(BadInput) as caught:
            loads(body)
        assert len(caught.value.message) < 200
        assert len(caught.value.path or "") < 100
        assert caught.value.__cause__ is None
