"""Encoded bodies unfold within their bound, and answers become smaller only where the client asks."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from front.encodings import decode, encode
from models.errors import BadInput, TooLarge, UnsupportedMedia

MEBIBYTE = 1 << 20
TEXT = b'{"features": [1, 2, 3]}' * 200
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "GZip ": gzip.compress,
    "identity": bytes,
    "": bytes,
}
DECODERS: dict[str | None, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    None: bytes,
}


# ---------------------------------------------------------------------------------------------- in


@pytest.mark.parametrize("encoding", ENCODERS)
@given(body=st.binary())
def test_a_body_unfolds_to_what_it_was(encoding: str, body: bytes) -> None:
    assert decode(ENCODERS[encoding](body), encoding, max(len(body), 1)) == body


def test_a_body_without_the_header_is_itself() -> None:
    assert decode(b"abc", None, 1) == b"abc"


def test_all_members_of_a_gzip_body_count() -> None:
    assert decode(gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b" two"), "gzip", 7) == b"one two"


def test_a_long_body_of_noise_unfolds() -> None:
    noise = random.Random(1).randbytes(3 * MEBIBYTE)
    assert decode(gzip.compress(noise, 1), "gzip", len(noise)) == noise


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("beyond", [1, 100 * MEBIBYTE])
def test_a_bomb_is_refused_at_its_bound(encoding: str, beyond: int) -> None:
    bomb = ENCODERS[encoding](bytes(MEBIBYTE + beyond))
    with pytest.raises(TooLarge, match=f"more than {MEBIBYTE} bytes"):
        decode(bomb, encoding, MEBIBYTE)


def test_a_bomb_of_several_members_is_refused_at_its_bound() -> None:
    with pytest.raises(TooLarge):
        decode(gzip.compress(bytes(MEBIBYTE)) * 3, "gzip", 2 * MEBIBYTE)


def test_no_end_of_empty_members_is_refused() -> None:
    members = gzip.compress(b"") * 500_000
    with pytest.raises(BadInput, match="too many parts"):
        decode(members, "gzip", MEBIBYTE)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(lambda body: body[:-1], "ends early", id="cut short"),
        pytest.param(lambda body: b"", "ends early", id="empty"),
        pytest.param(lambda body: b"x" + body, "the body is no", id="something before it"),
        pytest.param(lambda body: TEXT, "the body is no", id="not encoded at all"),
        pytest.param(lambda body: body[:-1] + bytes([body[-1] ^ 1]), "the body is no", id="a bit of its sum turned"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_refused(
    encoding: str, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    with pytest.raises(BadInput, match=reason):
        decode(spoil(ENCODERS[encoding](TEXT)), encoding, MEBIBYTE)


@pytest.mark.parametrize(("encoding", "reason"), [("gzip", "the body is no gzip"), ("deflate", "bytes behind its end")])
def test_bytes_behind_the_end_are_refused(encoding: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        decode(ENCODERS[encoding](TEXT) + b"more", encoding, MEBIBYTE)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x" * 1000])
def test_other_encodings_are_refused_by_name(encoding: str) -> None:
    with pytest.raises(UnsupportedMedia, match="send gzip, deflate or identity") as refused:
        decode(b"", encoding, MEBIBYTE)
    assert len(str(refused.value)) < 200


# ---------------------------------------------------------------------------------------------- out


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(None, None, id="no header"),
        pytest.param("", None, id="an empty header"),
        pytest.param("gzip", "gzip", id="gzip"),
        pytest.param("deflate", "deflate", id="deflate"),
        pytest.param("DEFLATE;q=0.9, Gzip;q=0.8", "deflate", id="deflate rather"),
        pytest.param("deflate, gzip", "gzip", id="either"),
        pytest.param("gzip;q=0.5 , identity", None, id="identity rather"),
        pytest.param("gzip;q=0", None, id="not gzip"),
        pytest.param("gzip;q=0, deflate;q=0.1", "deflate", id="anything but gzip"),
        pytest.param("br, zstd, *", None, id="none of ours by name"),
        pytest.param("gzip;q=much", None, id="a weight that is no number"),
        pytest.param("gzip;q=nan", None, id="a weight that is NaN"),
        pytest.param("gzip;level=9;q=1", "gzip", id="a parameter that nobody knows"),
    ],
)
def test_an_answer_is_made_smaller_only_as_the_client_asks(asked: str | None, expected: str | None) -> None:
    body, encoding = encode(TEXT, asked)
    assert encoding == expected
    assert DECODERS[encoding](body) == TEXT
    assert (len(body) < len(TEXT)) is (expected is not None)


@pytest.mark.parametrize(
    "body", [pytest.param(TEXT[:1000], id="small"), pytest.param(random.Random(2).randbytes(5000), id="noise")]
)
def test_what_gains_nothing_is_left_alone(body: bytes) -> None:
    assert encode(body, "gzip") == (body, None)


def test_the_same_answer_is_the_same_bytes() -> None:
    assert encode(TEXT, "gzip") == encode(TEXT, "gzip")
