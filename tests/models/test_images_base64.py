"""Base64 in all the spellings that clients send, and what is none."""

from __future__ import annotations

import base64
import time
from contextlib import suppress

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from models.errors import BadInput
from models.images import from_base64

SOME = st.binary(min_size=1, max_size=200)
PICTURE = bytes(range(256)) * 3  # every character of the alphabet, both '+' and '/'
TEXT = base64.b64encode(PICTURE).decode()


def wrapped(text: str, width: int, separator: str) -> str:
    return separator.join(text[i : i + width] for i in range(0, len(text), width))


@given(
    data=SOME,
    url_safe=st.booleans(),
    padded=st.booleans(),
    width=st.integers(1, 80),
    line_break=st.sampled_from(["", "\n", "\r\n", "\t"]),
    around=st.tuples(st.sampled_from(["", "\n", "\r\n\t"]), st.sampled_from(["", "\n", "\r\n"])),
    header=st.sampled_from(["", "data:image/png;base64,", "DATA:;BASE64,", "data:text/plain;charset=utf-8;base64,"]),
    as_bytes=st.booleans(),
)
def test_every_spelling_gives_the_bytes_back(
    data: bytes,
    url_safe: bool,
    padded: bool,
    width: int,
    line_break: str,
    around: tuple[str, str],
    header: str,
    as_bytes: bool,
) -> None:
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    text = text if padded else text.rstrip("=")
    spelled = around[0] + header + wrapped(text, width, line_break) + around[1]
    assert from_base64(spelled.encode() if as_bytes else spelled) == data


@given(SOME)
@example(b"\xf8")  # +A==
@example(b"\xf8\x0f\xbe")  # +A++
@example(base64.b64decode("a+b+c+d+"))  # whole without any blank, too
def test_blanks_that_were_plus_before_a_form_was_read(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    outer = len(text) - len(text.strip("+"))
    assume(not outer or outer % 4)  # four pluses at the ends leave a whole text without them: taken for layout
    assert from_base64(text.replace("+", " ")) == data


@given(SOME, st.sampled_from([str.upper, str.lower]))
def test_text_that_was_escaped_twice(data: bytes, case: type[str]) -> None:
    text = base64.b64encode(data).decode()
    for plain, escape in (("+", "%2B"), ("/", "%2F"), ("=", "%3D")):
        text = text.replace(plain, case(escape))
    assert from_base64(text) == data


def test_lines_as_the_base64_command_writes_them_after_a_form_was_read() -> None:
    """`curl -d "image=$(base64 file)"`: line breaks stay, every plus is a blank, also at a line's ends."""
    assert from_base64(wrapped(TEXT, 76, "\n").replace("+", " ")) == PICTURE
    assert from_base64(wrapped(TEXT, 1, "\n").replace("+", " ")) == PICTURE


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("+", "-").replace("/", "_")], ids=["standard", "url-safe"])
def test_blanks_of_the_layout_are_skipped_where_a_plus_or_a_minus_shows_what_they_are(text: str) -> None:
    assert from_base64("  " + wrapped(text, 60, "\n    ") + "  ") == PICTURE
    assert from_base64(wrapped(text, 4, " ")) == PICTURE


def test_blanks_around_a_text_without_plus_are_layout() -> None:
    assert from_base64("  aGVsbG8=  ") == b"hello"
    assert from_base64("data:image/gif;base64, aGVsbG8=") == b"hello"
    assert from_base64("aGVs bG8=") == b"hello"
    assert from_base64("aGVs bG8=   ") == b"hello"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \r\n", "is empty"),
        ("data:image/png;base64,", "is empty"),
        ("aGk=garbage", "wrong padding at offset 3|outside its alphabet at offset 3: '='"),
        ("aG=k", "outside its alphabet at offset 2: '='"),
        ("aGVsbG8=aGVsbG8=", "outside its alphabet at offset 7: '='"),
        ("aGVsbG8%3DaGVsbG8%3D", "outside its alphabet at offset 7: '%'"),
        ("aGk*", "outside its alphabet at offset 3: '\\*'"),
        ("aGVs\nbG8!", "outside its alphabet at offset 8: '!'"),
        ("data:;base64,aGk\x00", "outside its alphabet at offset 16: 0x00"),
        ("aG%zz", "outside its alphabet at offset 2: '%'"),
        ("aG%252Bk", "outside its alphabet at offset 2: '%'"),
        ("aG\u00e9k", "outside its alphabet at offset 2"),
        (b"aG\xffk", "outside its alphabet at offset 2: 0xff"),
        ("ab-+", "outside its alphabet at offset 3: '\\+'"),
        ("ab/c_d==", "outside its alphabet at offset 2: '/'"),
        ("aGVsb", "cut short: it ends at offset 5"),
        ("a", "cut short: it ends at offset 1"),
        ("aGk==", "wrong padding at offset 3"),
        ("aGVs=", "wrong padding at offset 4"),
        ("aGVsbA===", "wrong padding at offset 6"),
        ("=", "wrong padding at offset 0"),
        ("====", "wrong padding at offset 0"),
        ("data:image/png,aGk=", "must begin like data:image/png;base64,"),
        ("data:image/png;base64", "must begin like data:image/png;base64,"),
        ("data:" + "x" * 300 + ";base64,aGk=", "must begin like data:image/png;base64,"),
    ],
)
def test_what_is_no_base64_is_refused_with_its_place(text: str | bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        from_base64(text)
    assert len(caught.value.message) < 200


@given(st.text(max_size=40) | st.text(alphabet="aG=+/-_ %2BbD\n!", max_size=40) | st.binary(max_size=40))
def test_any_text_is_bytes_or_bad_input(text: str | bytes) -> None:
    with suppress(BadInput):
        assert from_base64(text)


@given(SOME, st.data())
def test_a_wrong_character_is_never_skipped(data: bytes, draw: st.DataObject) -> None:
    text = base64.b64encode(data).decode().rstrip("=")
    place = draw.draw(st.integers(0, len(text)))
    wrong = draw.draw(st.sampled_from("!\"#$&'()*,.:;<>?@[]^`{|}~\0\x7f\u00e9"))
    with pytest.raises(BadInput, match=f"at offset {place}"):
        from_base64(text[:place] + wrong + text[place:])


@pytest.mark.parametrize("part", ["A", "%2B", "A ", "\n", "=", "%", " "])
def test_eight_mebibytes_of_anything_take_no_longer_than_reading_them(part: str) -> None:
    text = part * ((8 << 20) // len(part)) + "!"
    started = time.process_time()
    with pytest.raises(BadInput):
        from_base64(text)
    assert time.process_time() - started < 1, "measured at most 0.16 s"
