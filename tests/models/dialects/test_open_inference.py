"""The Open Inference Protocol, inwards: a JSON body becomes rows for the model, or a refusal that clients know."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from models.contract import Field, Tensor
from models.errors import BadInput, ModelsError, TooLarge, Unimplemented
from models.schema import Compiled
from models.tensors import fits
from tests.models.dialects.oip import DTYPES, ROW, SEVERAL, VECTOR, X, arrays, ask, given, model
from tests.models.strategies import TENSORS, rows

DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}


def flat(value: Any) -> list[Any]:
    return [leaf for part in value for leaf in flat(part)] if isinstance(value, list) else [value]


# ---------------------------------------------------------------------------------------------- rows


@settings(max_examples=200)
@for_all(st.data(), TENSORS, st.integers(1, 3), st.booleans())
def test_values_come_through_exactly_flat_or_nested(data: st.DataObject, tensor: Tensor, n: int, nested: bool) -> None:
    values = data.draw(rows(tensor, n))
    shape = np.array(values, object).shape
    while len(shape) < len(tensor.shape) + 1:  # what empty lists cannot show
        shape = (*shape, tensor.shape[len(shape) - 1] or 0)
    sent = given(tensor.name, DATATYPES[tensor.dtype], list(shape), values if nested else flat(values))
    request = ask(model(tensor), {"inputs": [sent]})
    (array,) = arrays(request)
    assert request.count == n
    assert fits(array.shape, (n, *tensor.shape))
    decoded = [v.decode() if isinstance(v, bytes) else v for v in array.ravel().tolist()]
    assert decoded == flat(values)


def test_inputs_come_in_any_order() -> None:
    sent = [
        given("c", "BOOL", [2, 1, 1], [True, False]),
        given("b", "BYTES", [2], ["ä", ""]),
        given("a", "UINT8", [2, 2], [[1, 2], [3, 4]]),
    ]
    a, b, c = arrays(ask(SEVERAL, {"inputs": sent}))
    assert a.tolist() == [[1, 2], [3, 4]]
    assert b.tolist() == ["ä".encode(), b""]
    assert c.tolist() == [[[True]], [[False]]]


def test_a_scalar_for_each_row_has_only_the_row_dimension() -> None:
    (array,) = arrays(ask(model(Tensor("x", "int32", ())), {"inputs": [given("x", "INT32", [3], [1, 2, 3])]}))
    assert array.tolist() == [1, 2, 3]


def test_half_floats_may_come_in_json() -> None:
    (array,) = arrays(ask(model(Tensor("x", "float16", ())), {"inputs": [given("x", "FP16", [1], [0.5])]}))
    assert array.dtype == np.float16


def test_what_no_model_reads_is_ignored() -> None:
    members = {"inputs": [ROW], "parameters": {"mine": 1.5, "headers": "x", "sequence_id": 0}, "more": []}
    request = ask(VECTOR, members)
    assert (request.timeout_s, request.priority, request.form.id) == (None, 0, None)


def test_timeout_is_in_microseconds_and_priority_is_passed_on() -> None:
    request = ask(VECTOR, {"inputs": [ROW], "parameters": {"timeout": 2_500_000, "priority": 1}})
    assert (request.timeout_s, request.priority) == (2.5, 1)


# ---------------------------------------------------------------------------------------------- refusals

SOURCES = "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters'"


def of(*inputs: Any, **more: Any) -> dict[str, Any]:
    return {"inputs": list(inputs), **more}


def with_parameters(**parameters: Any) -> dict[str, Any]:
    return of(ROW, parameters=parameters)


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in ROW.items() if name != key}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "failed to parse the request JSON buffer: the body is empty", id="an empty body"),
        pytest.param(b"{", "failed to parse the request JSON buffer: the body is not valid JSON", id="half a body"),
        pytest.param([], "failed to parse the request JSON buffer: the body must be a JSON object", id="a list"),
        pytest.param(
            b'{"inputs":[{"data":[NaN]}]}', "failed to parse the request JSON buffer: the body holds NaN", id="NaN"
        ),
        pytest.param({}, "Unable to parse 'inputs'", id="no inputs"),
        pytest.param({"inputs": {"x": 1}}, "Unable to parse 'inputs'", id="inputs as an object"),
        pytest.param(of(3), "Unable to parse 'inputs'", id="an input that is a number"),
        pytest.param(of(without("name")), "Unable to parse 'name'", id="an input without a name"),
        pytest.param(of(without("datatype")), "Unable to parse 'datatype'", id="an input without a datatype"),
        pytest.param(of(without("shape")), "Unable to parse 'shape'", id="an input without a shape"),
        pytest.param(of(without("data")), f"{SOURCES}, 'shared_memory_region'", id="an input without data"),
        pytest.param(
            of({**ROW, "parameters": {"binary_data_size": 8}}),
            "But set 'data' 'binary_data_size'",
            id="data in two places",
        ),
        pytest.param(of({**ROW, "parameters": 3}), "Unable to parse 'parameters'", id="parameters as a number"),
        pytest.param(of({**ROW, "data": 3}), "Unable to parse 'data'", id="data as a number"),
        pytest.param(
            of({**ROW, "name": "z"}), "unexpected inference input 'z' for model 'm'", id="an input it does not have"
        ),
        pytest.param(of(ROW, ROW), "input 'x' already exists in request", id="an input twice"),
        pytest.param(
            of(),
            "expected 1 inputs but got 0 inputs for model 'm'. Got inputs [], but missing required inputs ['x']."
            " Please provide all required inputs.",
            id="a missing input",
        ),
        pytest.param(
            of({**ROW, "datatype": "FP64"}),
            "inference input 'x' data-type is 'FP64', but model 'm' expects 'FP32'",
            id="another datatype",
        ),
        pytest.param(
            of({**ROW, "datatype": "float"}),
            "invalid datatype for input x: 'float' is none of",
            id="no datatype at all",
        ),
        pytest.param(
            of({**ROW, "datatype": "BF16"}), "receiving BF16 data via JSON is not supported", id="bfloat16 in JSON"
        ),
        pytest.param(
            of({**ROW, "shape": []}), "input 'x' has no shape but model requires batch dimension for 'm'", id="no rows"
        ),
        pytest.param(
            of({**ROW, "shape": [1, 3]}),
            "unexpected shape for input 'x' for model 'm'. Expected [-1,2], got [1,3]",
            id="another shape",
        ),
        pytest.param(
            of({**ROW, "shape": [2]}),
            "unexpected shape for input 'x' for model 'm'. Expected [-1,2], got [2]",
            id="a shape without rows",
        ),
        pytest.param(
            of(given("x", "FP32", [0, 2], [])), "inference request batch-size must be >= 1 for 'm'", id="zero rows"
        ),
        pytest.param(of({**ROW, "shape": [-1, 2]}), "Unable to parse 'shape'", id="a negative size"),
        pytest.param(of({**ROW, "shape": [1.0, 2]}), "Unable to parse 'shape'", id="a size that is no integer"),
        pytest.param(of({**ROW, "shape": [True, 2]}), "Unable to parse 'shape'", id="a size that is true"),
        pytest.param(of({**ROW, "shape": [2**40, 2]}), "Unable to parse 'shape'", id="a size beyond memory"),
        pytest.param(of({**ROW, "shape": [1] * 40}), "Unable to parse 'shape'", id="forty dimensions"),
        pytest.param(
            of({**ROW, "data": [1, 2, 3]}),
            "Unable to parse 'data': Shape does not match true shape of 'data' field: input 'x' of shape [1,2] takes"
            " 2 values",
            id="too many values",
        ),
        pytest.param(
            of({**ROW, "data": [[1, 2], [3, 4]]}), "Shape does not match true shape of 'data' field", id="too many rows"
        ),
        pytest.param(of({**ROW, "data": [[1, 2, 3]]}), "/inputs/0/data/0", id="a row too long"),
        pytest.param(of({**ROW, "data": [1, "2"]}), "/inputs/0/data/1 must be a number", id="a string for a number"),
        pytest.param(of({**ROW, "data": [1, True]}), "/inputs/0/data/1 must be a number", id="true for a number"),
        pytest.param(of({**ROW, "data": [1, None]}), "/inputs/0/data/1 must be a number", id="null for a number"),
        pytest.param(of({**ROW, "data": [1, 1e39]}), "/inputs/0/data/1 must be a number", id="beyond a float32"),
        pytest.param(of(ROW, id=3), "Unable to parse 'id'", id="an id that is a number"),
        pytest.param(with_parameters(timeout=-1), "Unable to parse 'timeout'", id="a negative timeout"),
        pytest.param(with_parameters(timeout=1.5), "Unable to parse 'timeout'", id="half a microsecond"),
        pytest.param(with_parameters(priority=True), "Unable to parse 'priority'", id="a priority that is true"),
        pytest.param(
            with_parameters(binary_data_output=1), "Unable to parse 'binary_data_output'", id="a number for a flag"
        ),
        pytest.param(with_parameters(mine=[]), "parameter 'mine' has invalid type", id="a parameter that is a list"),
        pytest.param(
            with_parameters(triton_x=1),
            "parameter keys starting with 'triton_' are reserved",
            id="a reserved parameter",
        ),
        pytest.param(
            of(ROW, outputs=[{"name": "z"}]),
            "unexpected inference output 'z' for model 'm'",
            id="an output it does not have",
        ),
        pytest.param(
            of(ROW, outputs=[{"name": "y"}, {"name": "y"}]), "output 'y' is requested twice", id="an output twice"
        ),
        pytest.param(of(ROW, outputs=[{}]), "Unable to parse 'name'", id="an output without a name"),
        pytest.param(
            of(ROW, outputs=[{"name": "y", "parameters": {"binary_data": "yes"}}]),
            "Unable to parse 'binary_data'",
            id="a string for a flag of an output",
        ),
        pytest.param(
            of(ROW, outputs=[{"name": "y", "parameters": {"classification": -1}}]),
            "Unable to parse 'classification'",
            id="fewer than no classes",
        ),
    ],
)
def test_a_body_that_does_not_fit_is_refused_in_the_words_that_clients_know(body: Any, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        ask(VECTOR, body)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(with_parameters(sequence_id=5, sequence_start=True), id="a sequence"),
        pytest.param(with_parameters(sequence_id="a"), id="a sequence by name"),
        pytest.param(
            of({**without("data"), "parameters": {"shared_memory_region": "r"}}), id="an input in shared memory"
        ),
        pytest.param(
            of(ROW, outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]),
            id="an output in shared memory",
        ),
    ],
)
def test_what_is_not_offered_says_so(body: Any) -> None:
    with pytest.raises(Unimplemented, match="not offered"):
        ask(VECTOR, body)


def test_inputs_of_different_rows_are_refused() -> None:
    sent = [given("a", "UINT8", [2, 2], [1, 2, 3, 4]), given("b", "BYTES", [1], [""])]
    with pytest.raises(BadInput, match="input 'b' batch size does not match other inputs for 'm'"):
        ask(SEVERAL, {"inputs": sent})


def test_classes_of_strings_are_refused() -> None:
    asked = [{"name": "y", "parameters": {"classification": 1}}]
    with pytest.raises(BadInput, match="class result not available for output 'y' due to unsupported type 'BYTES'"):
        ask(model(X, outputs=(Tensor("y", "string", ()),)), of(ROW, outputs=asked))


@pytest.mark.parametrize(
    ("compiled", "max_rows"),
    [pytest.param(VECTOR, 2, id="the queue's"), pytest.param(model(X, max_rows=2), 9, id="the contract's")],
)
def test_more_rows_than_a_limit_are_refused(compiled: Compiled, max_rows: int) -> None:
    sent = given("x", "FP32", [3, 2], [0] * 6)
    with pytest.raises(BadInput, match="inference request batch-size must be <= 2 for 'm'"):
        ask(compiled, of(sent), max_rows=max_rows)


def test_a_longer_json_than_allowed_is_refused_unread() -> None:
    with pytest.raises(TooLarge, match="at most 10 are taken"):
        ask(VECTOR, b"x" * 11, max_json_bytes=10)


@settings(max_examples=300)
@for_all(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-3, 2**66), st.floats(allow_nan=False), st.text(max_size=3)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["inputs", "name", "shape", "datatype", "data", "parameters", "outputs", "id"]),
                st.one_of(inner, st.sampled_from(["x", "FP32", [1, 2], [[1, 2]], [ROW], {"binary_data_size": 8}])),
                max_size=6,
            ),
        ),
        max_leaves=12,
    ),
    st.sampled_from([None, "0", "1", "20", "x"]),
)
def test_nothing_else_ever_happens_to_a_strange_body(body: Any, header: str | None) -> None:
    try:
        text = orjson.dumps(body)
    except TypeError:  # integers beyond 64 bits
        text = str(body).encode()
    with suppress(ModelsError):
        request = ask(VECTOR, text, header=header)
        assert arrays(request)[0].shape == (request.count, 2)


def test_a_shape_that_no_memory_holds_is_refused_though_it_holds_nothing() -> None:
    compiled = model(Tensor("x", "float32", (None, None, None)))
    with pytest.raises(BadInput, match="is too large for model 'm'"):
        ask(compiled, of(given("x", "FP32", [1, 2**30, 2**30, 0], [])))


# ---------------------------------------------------------------------------------------------- the contract's own

BOUNDED = model(X, fields=(Field("low", {"minimum": 0}), Field("high", {"maximum": 0.1})))
COLOURS = model(Tensor("colour", "string", ()), Tensor("n", "int32", (1,)), request_schema={
    "properties": {"colour": {"enum": ["red", "blau"]}},
})  # fmt: skip


def test_ranges_of_the_contract_hold() -> None:
    sent = given("x", "FP32", [3, 2], [0, 0.1, 0, -1, 0, 0.2])
    with pytest.raises(BadInput, match=r"row 2/1 must be .* at most 0\.1, got the number 0\.2"):
        ask(BOUNDED, of(sent))


def test_a_number_within_the_ranges_passes() -> None:
    assert ask(BOUNDED, of(given("x", "FP32", [1, 2], [0, 0.1]))).count == 1


def test_a_schema_of_several_inputs_holds() -> None:
    def body(colour: str) -> dict[str, Any]:
        return of(given("colour", "BYTES", [1], [colour]), given("n", "INT32", [1, 1], [1]))

    assert ask(COLOURS, body("blau")).count == 1
    with pytest.raises(BadInput, match='row 0/colour must be one of "red", "blau", got the string "green"'):
        ask(COLOURS, body("green"))
