"""Binary tensors of the Open Inference Protocol: bytes behind the JSON become rows, and outputs become bytes."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from models.contract import Field, Tensor
from models.dialects import open_inference
from models.errors import BadInput, BadOutput, TooLarge
from models.tensors import Array
from tests.models.dialects.oip import (
    DTYPES,
    SEVERAL,
    VECTOR,
    X,
    answered,
    arrays,
    ask,
    ask_in_binary,
    given,
    model,
    of_strings,
    sized,
)

NUMBERS = {datatype: dtype for datatype, dtype in DTYPES.items() if dtype != "string"}


# ---------------------------------------------------------------------------------------------- in and out


@settings(max_examples=150)
@for_all(st.data(), st.sampled_from(sorted(NUMBERS)))
def test_any_bits_come_through_and_back(data: st.DataObject, datatype: str) -> None:
    dtype = np.dtype(NUMBERS[datatype])
    shape = tuple(data.draw(st.lists(st.integers(0, 3), max_size=3)))
    rows = data.draw(st.integers(1, 3))
    # NaNs in all their forms and infinities too: all that a byte can be.
    raw = data.draw(npst.arrays(np.uint8, (rows * int(np.prod(shape)) * dtype.itemsize,)))
    sent = (raw & 1 if datatype == "BOOL" else raw).tobytes()
    same = (Tensor("x", NUMBERS[datatype], shape),)
    compiled = model(*same, outputs=(Tensor("y", NUMBERS[datatype], shape),))
    members = {
        "inputs": [sized("x", datatype, [rows, *shape], len(sent))],
        "parameters": {"binary_data_output": True},
    }
    request = ask_in_binary(compiled, members, sent)
    (array,) = arrays(request)
    assert array.dtype == dtype
    assert array.tobytes() == sent
    answer, (received,) = answered(open_inference.render(compiled, request, [[array]]))
    assert received == sent
    assert answer["outputs"] == [
        {
            "name": "y",
            "datatype": datatype,
            "shape": [rows, *shape],
            "parameters": {"binary_data_size": len(sent)},
        }
    ]


@for_all(st.lists(st.binary(max_size=5), min_size=1, max_size=4))
def test_strings_of_any_bytes_come_through_and_back(values: list[bytes]) -> None:
    compiled = model(Tensor("x", "string", ()), outputs=(Tensor("y", "string", ()),))
    blob = of_strings(*values)
    members = {
        "inputs": [sized("x", "BYTES", [len(values)], len(blob))],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    request = ask_in_binary(compiled, members, blob)
    assert arrays(request)[0].tolist() == values
    _, (received,) = answered(open_inference.render(compiled, request, [arrays(request)]))
    assert received == blob


def test_numbers_are_not_copied() -> None:
    text = orjson.dumps({"inputs": [sized("x", "FP32", [1, 2], 8)]})
    body = text + b" " * (-len(text) % 4) + struct.pack("<2f", 1, 2)
    (array,) = arrays(ask(VECTOR, body, header=str(len(body) - 8)))
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))


def test_inputs_in_json_and_binary_mix_in_the_order_of_the_json() -> None:
    strings = of_strings(b"\xff", b"")
    members = {
        "inputs": [
            sized("b", "BYTES", [2], len(strings)),
            given("a", "UINT8", [2, 2], [1, 2, 3, 4]),
            sized("c", "BOOL", [2, 1, 2], 4),
        ]
    }
    a, b, c = arrays(ask_in_binary(SEVERAL, members, strings, b"\1\0\0\2"))
    assert a.tolist() == [[1, 2], [3, 4]]
    assert b.tolist() == [b"\xff", b""]
    assert c.tolist() == [[[True, False]], [[False, True]]]


def test_bfloat16_is_widened_exactly() -> None:
    values = np.array([1.5, -3.0, 1e38, 2.0**-120], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    exact = (halves.astype(np.uint32) << 16).view(np.float32)
    (array,) = arrays(ask_in_binary(VECTOR, {"inputs": [sized("x", "BF16", [2, 2], 8)]}, halves.tobytes()))
    assert array.dtype == np.float32
    assert array.ravel().tolist() == exact.tolist()


def test_nothing_at_all_in_binary() -> None:
    (array,) = arrays(ask(model(Tensor("x", "float32", (0,))), {"inputs": [sized("x", "FP32", [2, 0], 0)]}))
    assert array.shape == (2, 0)


def test_nan_may_come_and_go_in_binary() -> None:
    (array,) = arrays(
        ask_in_binary(VECTOR, {"inputs": [sized("x", "FP32", [1, 2], 8)]}, struct.pack("<2f", np.nan, np.inf))
    )
    assert np.isnan(array[0, 0])


def test_json_may_be_short_while_tensors_are_long() -> None:
    blob = bytes(8 * 1000)
    text = orjson.dumps({"inputs": [sized("x", "FP32", [1000, 2], len(blob))]})
    assert ask(VECTOR, text + blob, header=str(len(text)), max_json_bytes=len(text)).count == 1000
    with pytest.raises(TooLarge, match="the request's JSON has"):
        ask(VECTOR, text + blob, header=str(len(text)), max_json_bytes=len(text) - 1)


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("datatype", "shape", "size", "blob", "message"),
    [
        pytest.param(
            "FP32",
            [1, 2],
            4,
            bytes(4),
            "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 4",
            id="too few",
        ),
        pytest.param(
            "FP32",
            [1, 2],
            12,
            bytes(12),
            "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 12",
            id="too many",
        ),
        pytest.param(
            "FP32",
            [1, 2],
            8,
            bytes(5),
            "unexpected size for input 'x', expecting 3 additional bytes for model 'm'",
            id="the body ends early",
        ),
        pytest.param(
            "FP32", [1, 2], 8, bytes(9), "unexpected additional input data for model 'm'", id="bytes left over"
        ),
        pytest.param("FP32", [1, 2], -8, bytes(8), "Unable to parse 'binary_data_size'", id="a negative size"),
        pytest.param("FP32", [1, 2], "8", bytes(8), "Unable to parse 'binary_data_size'", id="a size as a string"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(
    datatype: str, shape: list[int], size: Any, blob: bytes, message: str
) -> None:
    with pytest.raises(BadInput) as refused:
        ask_in_binary(VECTOR, {"inputs": [sized("x", datatype, shape, size)]}, blob)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        pytest.param(of_strings(b"a"), "expected 2 string elements", id="too few bytes for the lengths"),
        pytest.param(
            struct.pack("<I", 9) + b"ab" + bytes(4), "expecting string of length 9 but only 6", id="a long string"
        ),
        pytest.param(struct.pack("<I", 2) + b"ab" + b"\0\0", "incomplete string length indicator", id="half a length"),
        pytest.param(of_strings(b"a", b"b") + b"!", "unexpected 1 bytes after 2 string elements", id="bytes left over"),
    ],
)
def test_strings_that_do_not_fit_their_lengths_are_refused(blob: bytes, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        ask_in_binary(model(Tensor("x", "string", ())), {"inputs": [sized("x", "BYTES", [2], len(blob))]}, blob)
    assert message in str(refused.value)


def test_a_shape_of_more_strings_than_there_is_memory_costs_nothing() -> None:
    compiled = model(Tensor("x", "string", (None, None)))
    with pytest.raises(BadInput, match="expected 1000000000000 string elements"):
        ask_in_binary(compiled, {"inputs": [sized("x", "BYTES", [1, 10**6, 10**6], 4)]}, bytes(4))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        pytest.param("many", "Unable to parse Inference-Header-Content-Length, got: many", id="no number"),
        pytest.param("1e1", "Unable to parse Inference-Header-Content-Length, got: 1e1", id="a fraction"),
        pytest.param("-1", r"inference header size should be in range (0, 4), got: -1", id="negative"),
        pytest.param("5", r"inference header size should be in range (0, 4), got: 5", id="beyond the body"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(header: str, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        ask(VECTOR, b"abcd", header=header)
    assert str(refused.value) == message


def test_binary_without_the_header_is_refused() -> None:
    with pytest.raises(BadInput, match="must specify valid 'Inference-Header-Content-Length' in request header"):
        ask(VECTOR, {"inputs": [sized("x", "FP32", [1, 2], 8)]})


@pytest.mark.parametrize("value", [0.2, np.nan, np.inf], ids=str)
def test_ranges_of_the_contract_hold_for_bytes_too(value: float) -> None:
    bounded = model(X, fields=(Field("low", {"minimum": 0}), Field("high", {"maximum": 0.1})))
    inputs = {"inputs": [sized("x", "FP32", [1, 2], 8)]}
    with pytest.raises(BadInput, match="row 0/1 must be"):
        ask_in_binary(bounded, inputs, struct.pack("<2f", 0, value))
    # As a float32 the bound itself lies a little above it.
    assert ask_in_binary(bounded, inputs, struct.pack("<2f", 0, 0.1)).count == 1


def test_a_contract_of_strings_needs_text() -> None:
    compiled = model(Tensor("x", "string", ()), request_schema={"maxLength": 2})
    with pytest.raises(BadInput, match="input 'x' must be UTF-8"):
        ask_in_binary(compiled, {"inputs": [sized("x", "BYTES", [1], 5)]}, of_strings(b"\xff"))


# ---------------------------------------------------------------------------------------------- raw requests


@pytest.mark.parametrize(
    ("tensor", "body", "expected"),
    [
        pytest.param(X, struct.pack("<2f", 1, 2), [[1, 2]], id="a vector"),
        pytest.param(Tensor("x", "int16", (None,)), bytes(6), [[0, 0, 0]], id="as long as it is"),
        pytest.param(Tensor("x", "int8", (2, None)), bytes(4), [[[0, 0], [0, 0]]], id="one open size of two"),
        pytest.param(Tensor("x", "uint8", ()), b"\7", [7], id="a scalar"),
        pytest.param(Tensor("x", "string", (1,)), b"a picture", [[b"a picture"]], id="one string of any length"),
        pytest.param(Tensor("x", "string", ()), b"", [b""], id="an empty string"),
    ],
)
def test_a_raw_body_is_one_row_of_the_only_input(tensor: Tensor, body: bytes, expected: list[Any]) -> None:
    compiled = model(tensor)
    request = ask(compiled, body, header="0")
    assert arrays(request)[0].tolist() == expected
    output: Array = np.ones((1, 1), np.float32)
    _, values = answered(open_inference.render(compiled, request, [[output]]))
    assert values == [output.tobytes()]


@pytest.mark.parametrize(
    ("compiled", "message"),
    [
        pytest.param(SEVERAL, "Raw request must only have 1 input to be deduced but got 3 inputs", id="three inputs"),
        pytest.param(
            model(Tensor("x", "int8", (None, None))), "more than one variable-sized dimension", id="two open sizes"
        ),
        pytest.param(
            model(Tensor("x", "string", (2,))), "the model must have input shape [1]", id="strings that are two"
        ),
        pytest.param(VECTOR, "input byte size mismatch for input 'x'", id="other bytes than the shape takes"),
        pytest.param(model(Tensor("x", "int32", (None,))), "Expected 0, got 3", id="bytes that are no whole elements"),
        pytest.param(model(Tensor("x", "int32", (0, None))), "Expected 0, got 3", id="bytes for no elements"),
    ],
)
def test_a_raw_body_that_cannot_be_understood_is_refused(compiled: Any, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        ask(compiled, b"abc", header="0")
    assert message in str(refused.value)


def test_objects_that_are_no_strings_are_the_models_fault() -> None:
    compiled = model(X, outputs=(Tensor("y", "string", ()),))
    request = ask_in_binary(
        compiled,
        {"inputs": [sized("x", "FP32", [1, 2], 8)], "parameters": {"binary_data_output": True}},
        bytes(8),
    )
    with pytest.raises(BadOutput, match="no strings"):
        open_inference.render(compiled, request, [[np.full(1, 5, object)]])
