"""JSON values become arrays exactly or not at all, and arrays become the JSON that reads back as the same numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from models.contract import DTYPES, FLOATS, INTEGERS, Tensor
from models.errors import BadInput, BadOutput
from models.tensors import dumps, fits, from_json, leaf_words, to_json
from models.wording import under
from tests.models.strategies import TENSORS, VALUES, rows

NUMERIC = tuple(dtype for dtype in DTYPES if dtype != "string")


@st.composite
def tensors_and_rows(draw: st.DrawFn) -> tuple[Tensor, list[Any]]:
    tensor = draw(TENSORS)
    return tensor, draw(rows(tensor, draw(st.integers(1, 3))))


# ---------------------------------------------------------------------------------------------- in


@settings(max_examples=300)
@given(tensors_and_rows(), st.booleans())
def test_values_come_through_exactly(case: tuple[Tensor, list[Any]], validated: bool) -> None:
    tensor, values = case
    array = from_json(orjson.loads(orjson.dumps(values)), tensor, validated=validated)
    assert fits(array.shape, (len(values), *tensor.shape))
    if tensor.dtype == "string":
        assert array.dtype == object
        assert [text.decode() for text in array.ravel()] == flat(values)
    else:
        assert array.dtype == tensor.dtype
        assert array.ravel().tolist() == flat(values)


def flat(values: Any) -> list[Any]:
    return [leaf for part in values for leaf in flat(part)] if isinstance(values, list) else [values]


@settings(max_examples=300)
@given(TENSORS, st.lists(VALUES, min_size=1, max_size=3))
def test_anything_else_is_refused_with_a_place_in_it(tensor: Tensor, values: list[Any]) -> None:
    try:
        array = from_json(values, tensor, under("x"))
    except BadInput as error:
        fault = error
    else:
        assert fits(array.shape, (len(values), *tensor.shape))
        assert tensor.dtype == "bool" or all(type(leaf) is not bool for leaf in flat(values))
        return
    assert fault.path is not None
    node: Any = values
    for part in fault.path.split("/")[2:]:
        node = node[int(part)]
    assert fault.message
    assert fault.expected


@pytest.mark.parametrize(
    ("dtype", "shape", "values", "path", "message"),
    [
        pytest.param("float32", (2,), [[1, True]], "/x/0/1", "/x/0/1 must be a number from", id="boolean for a float"),
        pytest.param(
            "int8", (1,), [[True]], "/x/0/0", "/x/0/0 must be a whole number from", id="boolean for an integer"
        ),
        pytest.param(
            "bool", (1,), [[1]], "/x/0/0", "/x/0/0 must be true or false, got the number 1", id="number for a boolean"
        ),
        pytest.param("float32", (1,), [["1"]], "/x/0/0", "/x/0/0 must be a number from", id="string for a number"),
        pytest.param("float32", (1,), [[None]], "/x/0/0", "/x/0/0 must be a number from", id="null for a number"),
        pytest.param(
            "string", (), ["a", 1], "/x/1", "/x/1 must be a string, got the number 1", id="number for a string"
        ),
        pytest.param("string", (), ["a", "\ud800"], "/x/1", "/x/1 must be a string, got", id="lone surrogate"),
        pytest.param(
            "float32",
            (2,),
            [[0, 1e39]],
            "/x/0/1",
            "/x/0/1 must be a number from -3.4028234663852886e+38",
            id="beyond float32",
        ),
        pytest.param(
            "float32", (2,), [[0, 10**39]], "/x/0/1", "/x/0/1 must be a number from", id="an integer beyond float32"
        ),
        pytest.param(
            "float64", (2,), [[0, 10**309]], "/x/0/1", "/x/0/1 must be a number from", id="an integer beyond float64"
        ),
        pytest.param(
            "float16", (2,), [[65504, -65520]], "/x/0/1", "/x/0/1 must be a number from -65504.0", id="beyond float16"
        ),
        pytest.param("float32", (2,), [[0, math.nan]], "/x/0/1", "/x/0/1 must be a number from", id="NaN"),
        pytest.param("float64", (2,), [[0, -math.inf]], "/x/0/1", "/x/0/1 must be a number from", id="infinity"),
        pytest.param(
            "uint8",
            (),
            [0, 255, 256],
            "/x/2",
            "/x/2 must be a whole number from 0 to 255, got the number 256",
            id="beyond uint8",
        ),
        pytest.param(
            "uint8", (), [-1], "/x/0", "/x/0 must be a whole number from 0 to 255, got the number -1", id="below uint8"
        ),
        pytest.param(
            "int64", (), [2**63], "/x/0", "/x/0 must be a whole number from -9223372036854775808", id="beyond int64"
        ),
        pytest.param("int64", (), [1e20], "/x/0", "/x/0 must be a whole number from", id="digits lost in parsing"),
        pytest.param(
            "int64", (), [-(2.0**63)], "/x/0", "/x/0 must be a whole number from", id="digits lost at the lower end"
        ),
        pytest.param(
            "uint64", (), [2.0**64], "/x/0", "/x/0 must be a whole number from", id="digits lost at the upper end"
        ),
        pytest.param("int32", (), [1.5], "/x/0", "/x/0 must be a whole number from", id="a fraction for an integer"),
        pytest.param("int32", (), [math.nan], "/x/0", "/x/0 must be a whole number from", id="NaN for an integer"),
        pytest.param("float32", (2,), [[1, 2], [3]], "/x/1", "/x/1 holds 1 values, expected 2", id="a short row"),
        pytest.param("float32", (2,), [[1, 2, 3]], "/x/0", "/x/0 holds 3 values, expected 2", id="a long row"),
        pytest.param(
            "float32",
            (None,),
            [[1, 2], [3]],
            "/x/1",
            "/x/1 holds 1 values, expected 2 like the list before it: lists must not be ragged",
            id="ragged rows",
        ),
        pytest.param(
            "float32",
            (None, None),
            [[[1], [2, 3]]],
            "/x/0/1",
            "/x/0/1 holds 2 values, expected 1 like",
            id="ragged inside a row",
        ),
        pytest.param(
            "float32",
            (None, None),
            [[[], [1]]],
            "/x/0/1",
            "/x/0/1 holds 1 values, expected 0 like",
            id="ragged after nothing",
        ),
        pytest.param(
            "float32", (2,), [5], "/x/0", "/x/0 must be a list of 2, got the number 5", id="a number for a list"
        ),
        pytest.param(
            "float32", (None,), ["ab"], "/x/0", '/x/0 must be a list, got the string "ab"', id="a string for a list"
        ),
        pytest.param(
            "float32", (None,), [{"0": 1}], "/x/0", "/x/0 must be a list, got an object", id="an object for a list"
        ),
        pytest.param("float32", (), [[1]], "/x/0", "/x/0 must be a number from", id="a list for a number"),
        pytest.param("float32", (1, 2), [[[1, "a"]], 5], "/x/0/0/1", "/x/0/0/1 must be", id="document order"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_path_of_the_first_bad_element(
    dtype: str, shape: tuple[int | None, ...], values: list[Any], path: str, message: str
) -> None:
    with pytest.raises(BadInput) as caught:
        from_json(values, Tensor("x", dtype, shape), under("x"))
    assert caught.value.path == path
    assert caught.value.message.startswith(message)
    assert caught.value.expected


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("float32", [[1e39]]),
        ("float16", [[1e5]]),
        ("float32", [[1, 2], [3]]),
        ("int64", [[1e20]]),
        ("uint64", [[2.0**64]]),
    ],
    ids=str,
)
def test_what_a_schema_cannot_say_is_looked_at_even_after_the_schema(dtype: str, values: list[Any]) -> None:
    with pytest.raises(BadInput):
        from_json(values, Tensor("x", dtype, (None,)), validated=True)


def test_another_shape_than_was_promised_is_refused_too() -> None:
    for values in ([[1, 2, 3]], [[[1], [2]]], [1]):
        with pytest.raises(BadInput):
            from_json(values, Tensor("x", "float32", (2,)), validated=True)


def test_nan_and_infinities_pass_where_a_dialect_has_words_for_them() -> None:
    values = [math.nan, math.inf, -math.inf, 1.5]
    array = from_json(values, Tensor("x", "float32", ()), finite=False)
    assert str(array.tolist()) == str(values)
    with pytest.raises(BadInput):
        from_json([1e39], Tensor("x", "float32", ()), finite=False)


def test_a_whole_number_may_be_written_with_a_fraction_of_zero_up_to_2_to_the_53() -> None:
    for dtype in ("int64", "uint64"):
        assert from_json([1.0, 2**53 * 1.0, 3], Tensor("x", dtype, ())).tolist() == [1, 2**53, 3]


@pytest.mark.parametrize(
    ("shape", "values", "expected"),
    [
        ((None,), [[], []], (2, 0)),
        ((None, 3), [[]], (1, 0, 3)),
        ((None, None), [[], []], (2, 0, 0)),
        ((2, None, 3), [[[], []]], (1, 2, 0, 3)),
        ((0, 4), [[]], (1, 0, 4)),
    ],
    ids=str,
)
def test_empty_lists_keep_every_axis(
    shape: tuple[int | None, ...], values: list[Any], expected: tuple[int, ...]
) -> None:
    for dtype in ("float32", "int64", "string"):
        for validated in (False, True):
            assert from_json(values, Tensor("x", dtype, shape), validated=validated).shape == expected


def test_strings_are_utf_8_and_keep_trailing_zeros() -> None:
    array = from_json(["hä", "a\0", b"\xff\0"], Tensor("x", "string", ()))
    assert array.tolist() == ["hä".encode(), b"a\0", b"\xff\0"]


def test_a_bad_leaf_after_thousands_of_good_ones_is_found() -> None:
    values = [0.0] * 5000 + [None] + [0.0] * 5000
    with pytest.raises(BadInput) as caught:
        from_json([values], Tensor("x", "float32", (None,)))
    assert caught.value.path == "/0/5000"


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_has_words(dtype: str) -> None:
    assert leaf_words(dtype)


# ---------------------------------------------------------------------------------------------- out


@pytest.mark.parametrize("dtype", NUMERIC)
@given(data=st.data())
@settings(max_examples=30)
def test_numbers_read_back_as_the_same(dtype: str, data: st.DataObject) -> None:
    shape = data.draw(npst.array_shapes(min_dims=1, max_dims=3, max_side=4))
    finite = {"allow_nan": False, "allow_infinity": False} if dtype in FLOATS else {}
    elements = npst.from_dtype(np.dtype(dtype), **finite)  # type: ignore[arg-type]
    array = data.draw(npst.arrays(dtype, shape, elements=elements))
    for layout in (array, np.asfortranarray(array)):
        back = np.array(orjson.loads(dumps(to_json(layout))), dtype=dtype)
        assert np.array_equal(back, array)


def test_float32_is_written_in_the_fewest_digits_it_needs() -> None:
    assert dumps(to_json(np.array([0.1, 1e-7, 16777216, 1 / 3], np.float32))) == b"[0.1,1e-7,16777216.0,0.33333334]"
    assert dumps(to_json(np.array([[0.1]], np.float32))[0]) == b"[0.1]"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_not_finite_is_refused_or_null(bad: float, size: int, dtype: str) -> None:
    array = np.zeros(size, dtype)
    array[-1] = bad
    with pytest.raises(BadOutput, match="NaN or an infinity"):
        to_json(array)
    assert orjson.loads(dumps(to_json(array, null_for_nan=True))) == [0.0] * (size - 1) + [None]


def test_strings_are_text_or_base64() -> None:
    array = np.array([[b"h\xc3\xa4", b"\xff\0"], [b"a\0", "text"]], object)
    assert orjson.loads(dumps(to_json(array))) == [["hä", {"b64": "/wA="}], ["a\0", "text"]]
    assert to_json(np.array(["abc"])) == ["abc"]


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "longdouble"])
def test_a_dtype_that_json_cannot_carry_is_the_models_fault(dtype: str) -> None:
    with pytest.raises(BadOutput, match="JSON cannot carry"):
        to_json(np.zeros(1, dtype))


def test_integers_keep_every_digit() -> None:
    assert dumps(to_json(np.array([2**64 - 1], np.uint64))) == b"[18446744073709551615]"
    assert all(orjson.loads(dumps(to_json(np.ones(1, dtype)))) == [1] for dtype in INTEGERS)
