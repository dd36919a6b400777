"""Arrays to bytes and back, joined and split: every dtype, strings, sizes of zero, several tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batching import arrays
from batching.transport import WHOLE_BYTES, Payload

DTYPES = st.sampled_from([*arrays.DTYPES, "string"])
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
# Dtypes and row shapes: what all items of a lane share.
SIGNATURES = st.lists(st.tuples(DTYPES, SHAPES), min_size=1, max_size=3)
Signature = list[tuple[str, tuple[int, ...]]]


def random_arrays(signature: Signature, rows: int, random: np.random.Generator) -> list[np.ndarray]:
    """Arrays with any bits in them: NaN of all kinds and denormals too."""
    made = []
    for dtype, shape in signature:
        size = rows * int(np.prod(shape))
        if dtype == "string":
            values = np.empty(size, object)
            values[:] = [random.bytes(int(random.integers(0, 9))) for _ in range(size)]
            made.append(values.reshape((rows, *shape)))
        elif dtype == "bool":
            made.append(random.integers(0, 2, (rows, *shape)).astype(bool))
        else:
            data = random.bytes(size * np.dtype(dtype).itemsize)
            made.append(np.frombuffer(data, dtype).reshape((rows, *shape)))
    return made


def same(left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> bool:
    """Equal in dtype, shape and every bit."""
    return len(left) == len(right) and all(
        (a.dtype, a.shape) == (b.dtype, b.shape)
        and (a.ravel().tolist() == b.ravel().tolist() if a.dtype == object else a.tobytes() == b.tobytes())
        for a, b in zip(left, right, strict=True)
    )


def decode(layout: bytes, payload: Payload, rows: int) -> list[np.ndarray]:
    return arrays.decode(arrays.layout_of(layout), payload, rows)


@given(SIGNATURES, st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_what_is_encoded_is_decoded_bit_by_bit(signature: Signature, rows: int, seed: int) -> None:
    made = random_arrays(signature, rows, np.random.default_rng(seed))
    layout, payload = arrays.encode(made)
    assert same(decode(layout, payload, rows), made)


@given(SIGNATURES, st.lists(st.integers(0, 4), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_items_joined_to_a_batch_and_split_again_are_the_same(signature: Signature, rows: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    items = [random_arrays(signature, n, random) for n in rows]
    encoded = [arrays.encode(item) for item in items]
    (layout,) = {layout for layout, _ in encoded}  # the same for all, whatever their rows
    batch = arrays.join(arrays.layout_of(layout), [payload for _, payload in encoded], rows)
    assert same(batch, [np.concatenate(tensors) for tensors in zip(*items, strict=True)])
    split_layout, payloads = arrays.split(batch, rows)
    assert split_layout == layout
    assert all(
        same(decode(split_layout, payload, n), item) for payload, n, item in zip(payloads, rows, items, strict=True)
    )


@given(SIGNATURES, SIGNATURES)
def test_layouts_are_equal_exactly_when_items_may_share_a_batch(left: Signature, right: Signature) -> None:
    random = np.random.default_rng(1)
    layouts = [arrays.encode(random_arrays(signature, 2, random))[0] for signature in (left, right)]
    assert (layouts[0] == layouts[1]) == (left == right)


@given(SIGNATURES, st.integers(1, 4), st.data())
def test_bytes_that_do_not_fit_are_refused_with_a_value_error(
    signature: Signature, rows: int, data: st.DataObject
) -> None:
    layout, payload = arrays.encode(random_arrays(signature, rows, np.random.default_rng(0)))
    length = data.draw(st.integers(0, len(payload) + 3).filter(lambda length: length != len(payload)))
    with pytest.raises(ValueError):  # noqa: PT011 - numpy's words or ours
        decode(layout, (bytes(payload) + b"\1\1\1")[:length], rows)


def test_strings_of_other_rows_are_refused() -> None:
    layout, payload = arrays.encode([np.array([b"one", b"two"], object)])
    with pytest.raises(ValueError, match="strings"):
        decode(layout, payload, 1)


@pytest.mark.parametrize(
    "given_array",
    [np.array(["zwölf", ""]), np.array(["zwölf", ""], object), np.array(["zwölf".encode(), b""])],
    ids=["numpy text", "text objects", "numpy bytes"],
)
def test_text_travels_as_utf_8(given_array: np.ndarray) -> None:
    layout, payload = arrays.encode([given_array])
    (decoded,) = decode(layout, payload, 2)
    assert decoded.tolist() == ["zwölf".encode(), b""]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 1), np.complex64),
        np.zeros((2, 1), ">f4"),
        np.array(["2024-01-01"], "datetime64[D]"),
        np.array([5, 6], object),
        np.array([None], object),
    ],
    ids=["complex", "big-endian", "dates", "numbers as objects", "nothing"],
)
def test_what_has_no_code_is_refused(array: np.ndarray) -> None:
    with pytest.raises(KeyError):
        arrays.encode([array])


@pytest.mark.parametrize("order", ["F", "strided"])
def test_the_order_in_memory_does_not_matter(order: Any) -> None:
    rows = np.arange(24, dtype=np.float32).reshape(4, 6)
    array = np.asfortranarray(rows) if order == "F" else np.repeat(rows, 2, axis=1)[:, ::2]
    layout, payloads = arrays.split([array], [1, 3])
    assert np.array_equal(np.concatenate([decode(layout, payloads[0], 1)[0], decode(layout, payloads[1], 3)[0]]), rows)


def test_codes_of_dtypes_never_move() -> None:
    """A frame may be read by a process of another build; new dtypes go to the end."""
    assert arrays.DTYPES[:12] == [
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bool", "float16"])
def test_a_large_tensor_is_neither_copied_when_it_is_sent_nor_when_it_is_a_batch(dtype: str) -> None:
    array = np.ones((2, WHOLE_BYTES), dtype)
    layout, payload = arrays.encode([array])
    (joined,) = arrays.join(arrays.layout_of(layout), [payload], [2])
    assert np.shares_memory(joined, array)
    assert same([joined], [array])
    _, halves = arrays.split([array], [1, 1])
    assert all(np.shares_memory(decode(layout, half, 1)[0], array) for half in halves)
