"""The Open Inference Protocol, outwards: a model's outputs become the answer that was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from models.contract import FLOATS, INTEGERS, Tensor
from models.dialects import open_inference
from models.dialects.dialect import Rendered
from models.errors import BadInput, BadOutput
from models.schema import Compiled
from models.tensors import Array
from tests.models.dialects.oip import DTYPES, ROW, VECTOR, X, answered, ask, given, model, of_strings, rows_of
from tests.models.strategies import leaves

THREE = model(X, outputs=(Tensor("a", "float32", ()), Tensor("b", "string", (2,)), Tensor("c", "bool", (1, 1))))
A, B, C = rows_of(0.1), rows_of([b"p", "ä".encode()], dtype="O"), rows_of([[True]], dtype="bool")
DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}


def render(compiled: Compiled, computed: list[Array], /, **members: Any) -> Rendered:
    request = ask(compiled, {"inputs": [ROW], **members})
    return open_inference.render(compiled, request, [computed])


# ---------------------------------------------------------------------------------------------- as they are


def test_an_answer_in_json_names_the_model_and_holds_flat_data() -> None:
    answer, _ = answered(render(VECTOR, [rows_of([0.1])], id="42"))
    assert answer == {
        "model_name": "m",
        "model_version": "7",
        "id": "42",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [0.1]}],
    }


@pytest.mark.parametrize("members", [{}, {"id": None}], ids=["none", "null"])
def test_an_answer_has_an_id_only_where_one_was_given(members: dict[str, Any]) -> None:
    assert "id" not in answered(render(VECTOR, [rows_of([0.1])], **members))[0]


def test_all_outputs_come_where_none_is_named() -> None:
    answer, values = answered(render(THREE, [A, B, C]))
    assert [(out["name"], out["datatype"], out["shape"]) for out in answer["outputs"]] == [
        ("a", "FP32", [1]),
        ("b", "BYTES", [1, 2]),
        ("c", "BOOL", [1, 1, 1]),
    ]
    assert values == [[0.1], ["p", "ä"], [True]]


def test_named_outputs_come_in_the_order_they_were_named() -> None:
    answer, values = answered(render(THREE, [A, B, C], outputs=[{"name": "c"}, {"name": "a"}]))
    assert [out["name"] for out in answer["outputs"]] == ["c", "a"]
    assert values == [[True], [0.1]]


def test_each_output_may_be_in_json_or_binary() -> None:
    outputs = [
        {"name": "b", "parameters": {"binary_data": True}},
        {"name": "a", "parameters": {"binary_data": False}},
        {"name": "c"},
    ]
    answer, values = answered(render(THREE, [A, B, C], outputs=outputs, parameters={"binary_data_output": True}))
    assert values == [of_strings(b"p", "ä".encode()), [0.1], b"\1"]
    assert answer["outputs"][0]["parameters"] == {"binary_data_size": 11}


@for_all(st.data(), st.sampled_from(["bool", *INTEGERS, *FLOATS, "string"]))
def test_values_of_any_datatype_read_back_from_json(data: st.DataObject, dtype: str) -> None:
    values = data.draw(st.lists(leaves(dtype), min_size=1, max_size=4))
    compiled = model(X, outputs=(Tensor("y", dtype, (None,)),))
    array = np.array([[value.encode() for value in values]], object) if dtype == "string" else np.array([values], dtype)
    answer, (received,) = answered(render(compiled, [array]))
    assert answer["outputs"][0]["datatype"] == DATATYPES[dtype]
    expected = values if dtype == "string" else array[0].tolist()
    read = received if dtype in ("string", "bool") else np.array(received, dtype).tolist()
    assert read == expected


def test_a_view_of_other_memory_is_written_in_row_major_order() -> None:
    compiled = model(X, outputs=(Tensor("y", "int32", (2, 2)),))
    turned = np.arange(4, dtype=np.int32).reshape(1, 2, 2).transpose(0, 2, 1)
    _, (in_json,) = answered(render(compiled, [turned]))
    _, (in_binary,) = answered(render(compiled, [turned], parameters={"binary_data_output": True}))
    assert in_json == [0, 2, 1, 3]
    assert np.frombuffer(in_binary, np.int32).tolist() == in_json


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_what_json_cannot_carry_travels_in_binary_alone(value: float) -> None:
    with pytest.raises(BadOutput, match="NaN or an infinity"):
        render(VECTOR, [rows_of([value])])
    _, (received,) = answered(render(VECTOR, [rows_of([value])], parameters={"binary_data_output": True}))
    assert received == np.float32(value).tobytes()


def test_nan_is_null_where_the_contract_says_so() -> None:
    _, (received,) = answered(render(model(X, null_for_nan=True), [rows_of([np.nan])]))
    assert received == [None]


def test_bytes_that_are_no_text_are_the_callers_to_ask_for_in_binary() -> None:
    with pytest.raises(BadInput, match="output 'y' holds bytes that are not UTF-8; ask for it with 'binary_data' true"):
        render(model(X, outputs=(Tensor("y", "string", ()),)), [rows_of(b"\xff", dtype="O")])


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        pytest.param([], "0 outputs, its contract has 1", id="none"),
        pytest.param([rows_of([1.0], [2.0])], "shape", id="other rows"),
        pytest.param([rows_of([1.0, 2.0])], "shape", id="another shape"),
        pytest.param([rows_of([1], dtype="complex64")], "which the protocol cannot carry", id="complex numbers"),
    ],
)
def test_outputs_that_break_the_contract_are_the_models_fault(outputs: list[Array], message: str) -> None:
    with pytest.raises(BadOutput, match=message):
        render(VECTOR, outputs)


# ---------------------------------------------------------------------------------------------- the best classes

SCORES = rows_of([0.1, 0.7, 0.2], [0.5, 0.0, 0.5])


def classes(compiled: Compiled, array: Array, count: int, *, binary: bool = False) -> tuple[list[int], Any]:
    """Shape and values of the answer where that many classes are asked for."""
    sent = given("x", "FP32", [len(array), 2], [0] * 2 * len(array))
    asked = [{"name": "y", "parameters": {"classification": count, "binary_data": binary}}]
    request = ask(compiled, {"inputs": [sent], "outputs": asked})
    answer, (values,) = answered(open_inference.render(compiled, request, [[array]]))
    (output,) = answer["outputs"]
    assert output["datatype"] == "BYTES"
    return output["shape"], values


def of_classes(dtype: str = "float32", **more: Any) -> Compiled:
    return model(X, outputs=(Tensor("y", dtype, (3,)),), **more)


def test_the_best_classes_come_in_order_with_their_values() -> None:
    expected = ["0.700000:1", "0.200000:2", "0.500000:0", "0.500000:2"]
    assert classes(of_classes(), SCORES, 2) == ([2, 2], expected)


def test_classes_have_their_labels() -> None:
    labelled = of_classes(labels=("ant", "bee", "cat"))
    assert classes(labelled, SCORES[:1], 1) == ([1, 1], ["0.700000:1:bee"])


def test_more_classes_than_there_are_are_all() -> None:
    assert classes(of_classes(), SCORES[:1], 9)[0] == [1, 3]


def test_classes_may_be_in_binary() -> None:
    assert classes(of_classes(), SCORES[:1], 1, binary=True) == ([1, 1], of_strings(b"0.700000:1"))


def test_unsigned_numbers_are_ranked_too() -> None:
    counts = rows_of([0, 255, 255], dtype="uint8")
    assert classes(of_classes("uint8"), counts, 3) == ([1, 3], ["255:1", "255:2", "0:0"])


def test_nan_is_no_best_class() -> None:
    with pytest.raises(BadOutput, match="no class is the best"):
        classes(of_classes(), rows_of([0.1, np.nan, 0.2]), 1)


def test_an_answer_is_json_that_any_parser_reads() -> None:
    body = render(VECTOR, [rows_of([0.1])], id='"\n').body
    assert orjson.loads(body)["id"] == '"\n'
