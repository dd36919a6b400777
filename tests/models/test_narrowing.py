"""A contract.json adds to what the model says, and every mistake in it is refused with what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

from models.contract import Contract, Example, Field, Image, LogRules, Tensor
from models.errors import LoadError
from models.narrowing import narrow

SCORES = Tensor("scores", "float32", (10,))


def model(*inputs: Tensor, outputs: tuple[Tensor, ...] = (SCORES,)) -> Contract:
    return Contract("m", "1", inputs, outputs)


def pixels(*shape: int | None, dtype: str = "float32") -> Contract:
    return model(Tensor("pixels", dtype, shape))


VECTOR = model(Tensor("x", "float32", (2,)))
TWO_INPUTS = model(Tensor("a", "float32", (2,)), Tensor("b", "float32", (2,)))


def test_an_empty_contract_changes_nothing() -> None:
    assert narrow(VECTOR, {}) == VECTOR


def test_everything_that_may_be_said_is_taken_over() -> None:
    narrowed = narrow(
        pixels(8, 6, 3),
        {
            "description": "ten things",
            "labels": [f"thing {index}" for index in range(10)],
            "image": {"scale": 0.5, "offset": -1},
            "request_schema": {"items": {"items": {"items": {"minimum": 0}}}},
            "examples": [{"request": {"image": "…"}, "answer": {"predicted_class": 3}, "tolerance": 0.5}],
            "routes": ["/things", "/things/all_of-them2"],
            "null_for_nan": True,
            "isolate": True,
            "max_rows": 64,
            "log": {"capture": "hash", "sample": 0.5, "omit": ["pixels"]},
        },
    )
    assert narrowed == Contract(
        "m",
        "1",
        (Tensor("pixels", "float32", (8, 6, 3)),),
        (SCORES,),
        description="ten things",
        request_schema={"items": {"items": {"items": {"minimum": 0}}}},
        labels=tuple(f"thing {index}" for index in range(10)),
        image=Image("pixels", width=6, height=8, colour="rgb", scale=0.5, offset=-1.0),
        examples=(Example({"image": "…"}, {"predicted_class": 3}, 0.5),),
        routes=("/things", "/things/all_of-them2"),
        null_for_nan=True,
        isolate=True,
        max_rows=64,
        log=LogRules("hash", 0.5, ("pixels",)),
    )


def test_fields_may_be_bare_names_or_say_more() -> None:
    second = {"name": "b", "schema": {"minimum": 0}, "description": "metres"}
    assert narrow(VECTOR, {"fields": ["a", second]}).fields == (Field("a"), Field("b", {"minimum": 0}, "metres"))


def test_a_scalar_input_may_have_one_field() -> None:
    assert narrow(model(Tensor("x", "float32", ())), {"fields": ["a"]}).fields == (Field("a"),)


def test_a_request_schema_of_fields_becomes_the_fields_own() -> None:
    user = {
        "request_schema": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"maximum": 5}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
        "fields": ["a", {"name": "b", "schema": {"minimum": 0}}],
    }
    narrowed = narrow(VECTOR, user)
    assert narrowed.request_schema == {}
    assert narrowed.fields == (Field("a", {"type": "integer"}), Field("b", {"minimum": 0, "maximum": 5}))


def test_a_request_schema_of_several_inputs_speaks_of_the_object() -> None:
    schema = {"properties": {"a": {"items": {"minimum": 0}}}}
    assert narrow(TWO_INPUTS, {"request_schema": schema}).request_schema == schema


@pytest.mark.parametrize(
    ("contract", "user", "reason"),
    [
        pytest.param(VECTOR, [], "it must hold a JSON object", id="no object"),
        pytest.param(VECTOR, {"feilds": []}, 'unknown key "feilds"; did you mean "fields"?', id="misspelt key"),
        pytest.param(VECTOR, {"inputs": []}, 'unknown key "inputs"; use only description, fields', id="renaming"),
        pytest.param(VECTOR, {"description": 1}, "description must be a string of at most 4000", id="description"),
        pytest.param(
            VECTOR, {"description": "x" * 4001}, "description must be a string of at most", id="long description"
        ),
        pytest.param(VECTOR, {"fields": "a"}, "fields must be a list of names", id="fields no list"),
        pytest.param(
            VECTOR, {"fields": ["a"]}, "fields names 1 columns, the model's input has 2; name each", id="too few fields"
        ),
        pytest.param(
            VECTOR, {"fields": ["a", "b", "c"]}, "fields names 3 columns, the model's input has 2", id="too many fields"
        ),
        pytest.param(
            VECTOR, {"fields": ["a", "a"]}, 'fields holds "a" twice; each name must be different', id="fields twice"
        ),
        pytest.param(
            VECTOR,
            {"fields": ["a", 1]},
            "fields 1 must be an object with name, schema, description",
            id="a number as field",
        ),
        pytest.param(
            VECTOR, {"fields": ["a", ""]}, "fields 1: name must be a string of 1 to 64 printable", id="no name"
        ),
        pytest.param(
            VECTOR, {"fields": ["a", {}]}, "fields 1: name must be a string of 1 to 64 printable", id="name missing"
        ),
        pytest.param(
            VECTOR,
            {"fields": ["a", "b\n"]},
            "fields 1: name must be a string of 1 to 64 printable",
            id="control character",
        ),
        pytest.param(VECTOR, {"fields": ["a", "features"]}, "fields 1: the name features is taken", id="reserved name"),
        pytest.param(
            VECTOR,
            {"fields": ["a", {"name": "b", "min": 0}]},
            'fields 1: unknown key "min"; use only name',
            id="keyword beside name",
        ),
        pytest.param(
            VECTOR,
            {"fields": ["a", {"name": "b", "schema": {"pattern": ""}}]},
            "fields 1: schema: the keyword pattern is not offered",
            id="keyword",
        ),
        pytest.param(
            VECTOR,
            {"fields": ["a", {"name": "b", "description": 1}]},
            "fields 1: description must be a string",
            id="field description",
        ),
        pytest.param(
            TWO_INPUTS,
            {"fields": ["a"]},
            "fields name the columns of a model's only input; this model has 2",
            id="two inputs",
        ),
        pytest.param(
            pixels(2, 2),
            {"fields": ["a", "b"]},
            "fields need an input that is a vector of fixed length; this model's has (2, 2)",
            id="a matrix",
        ),
        pytest.param(
            pixels(None),
            {"fields": ["a", "b"]},
            "fields need an input that is a vector of fixed length; this model's has (any,)",
            id="any length",
        ),
        pytest.param(
            VECTOR, {"request_schema": {"$ref": "x"}}, "request_schema: the keyword $ref is not offered", id="$ref"
        ),
        pytest.param(
            VECTOR,
            {"request_schema": {"properties": {}}},
            "request_schema speaks of the only input's value",
            id="object schema for a value",
        ),
        pytest.param(
            VECTOR,
            {"request_schema": {"type": "object"}},
            "request_schema speaks of the only input's value",
            id="object type for a value",
        ),
        pytest.param(
            VECTOR,
            {"fields": ["a", "b"], "request_schema": {"anyOf": [{}]}},
            "request_schema of a model with fields may be an object with type",
            id="anyOf over fields",
        ),
        pytest.param(
            VECTOR,
            {"fields": ["a", "b"], "request_schema": {"type": "array"}},
            "request_schema of a model with fields may be an object",
            id="array over fields",
        ),
        pytest.param(
            VECTOR,
            {"fields": ["a", "b"], "request_schema": {"additionalProperties": {}}},
            "request_schema: additionalProperties must be true or false",
            id="additional schema",
        ),
        pytest.param(
            VECTOR,
            {"fields": ["alpha", "b"], "request_schema": {"properties": {"alpa": {}}}},
            'request_schema names "alpa", which is no field; did you mean "alpha"?',
            id="property no field",
        ),
        pytest.param(
            VECTOR,
            {"fields": ["alpha", "b"], "request_schema": {"required": ["c"]}},
            'request_schema names "c", which is no field; use only alpha, b',
            id="required no field",
        ),
        pytest.param(
            VECTOR, {"examples": {}}, "examples must be a list of objects with request and answer", id="examples"
        ),
        pytest.param(
            VECTOR, {"examples": [1]}, "examples 0 must be an object with request, answer, tolerance", id="example"
        ),
        pytest.param(
            VECTOR,
            {"examples": [{"requests": {}}]},
            'examples 0: unknown key "requests"; did you mean "request"?',
            id="example key",
        ),
        pytest.param(
            VECTOR,
            {"examples": [{"request": [1, 2]}]},
            "examples 0: request must be a request's body, a JSON object",
            id="request",
        ),
        pytest.param(
            VECTOR, {"examples": [{"answer": 1}]}, "examples 0: request must be a request's body", id="no request"
        ),
        pytest.param(
            VECTOR,
            {"examples": [{"request": {}, "tolerance": -1}]},
            "examples 0: tolerance must be a number of at least 0",
            id="tolerance",
        ),
        pytest.param(VECTOR, {"routes": "/a"}, "routes must be a list of paths", id="routes no list"),
        pytest.param(
            VECTOR, {"routes": ["predict2"]}, 'routes: "predict2" must be / and a-z, 0-9, _, -, /', id="no slash"
        ),
        pytest.param(VECTOR, {"routes": ["/A"]}, 'routes: "/A" must be /', id="capitals"),
        pytest.param(VECTOR, {"routes": ["/a\n"]}, 'routes: "/a?" must be /', id="line end"),
        pytest.param(VECTOR, {"routes": ["/a?b"]}, 'routes: "/a?b" must be /', id="query"),
        pytest.param(VECTOR, {"routes": [1]}, "routes: one that is no string must be /", id="route a number"),
        pytest.param(VECTOR, {"routes": ["/a", "/a"]}, 'routes holds "/a" twice', id="routes twice"),
        pytest.param(VECTOR, {"null_for_nan": 1}, "null_for_nan must be true or false", id="null_for_nan"),
        pytest.param(VECTOR, {"isolate": "yes"}, "isolate must be true or false", id="isolate"),
        pytest.param(
            VECTOR, {"log": {"capture": "all"}}, "log: capture must be one of none, hash, auto, full", id="log capture"
        ),
        pytest.param(VECTOR, {"log": {"sample": 2}}, "log: sample must be a number from 0 to 1", id="log sample"),
        pytest.param(VECTOR, {"log": {"omit": ["y"]}}, 'log: omit holds "y"; there are: x', id="log omit"),
        pytest.param(VECTOR, {"log": {"keep": 1}}, 'log: unknown key "keep"', id="log unknown key"),
        pytest.param(
            VECTOR, {"max_rows": 0}, "max_rows must be a whole number of at least 1, or null", id="max_rows 0"
        ),
        pytest.param(
            VECTOR, {"max_rows": True}, "max_rows must be a whole number of at least 1", id="max_rows a boolean"
        ),
    ],
)
def test_a_mistake_is_refused_with_what_to_write_instead(contract: Contract, user: Any, reason: str) -> None:
    with pytest.raises(LoadError) as caught:
        narrow(contract, user)
    assert caught.value.reason.startswith(f"contract.json: {reason}")
    assert "\n" not in caught.value.reason
