"""A contract crosses process boundaries as JSON without losing anything."""

from __future__ import annotations

import orjson
from hypothesis import given

from models.contract import METHOD_CLASSIFY, Contract, Example, Field, GraphNames, Image, Tensor
from tests.models.strategies import contracts


@given(contracts())
def test_a_contract_comes_back_equal_from_json(contract: Contract) -> None:
    assert Contract.from_json(orjson.loads(orjson.dumps(contract.to_json()))) == contract


def test_everything_a_user_may_add_comes_back_too() -> None:
    contract = Contract(
        "digits",
        "3",
        (Tensor("pixels", "float32", (8, 8, 1)),),
        (Tensor("scores", "float32", (2,)),),
        description="two digits",
        fields=(Field("a", {"minimum": 0}, "first"),),
        request_schema={"items": {"type": "number"}},
        labels=("zero", "one"),
        image=Image("pixels", 8, 8, "grey", 0.5, -1.0),
        examples=(Example({"features": [1]}, {"prediction": 2}, 0.1),),
        routes=("/digits",),
        null_for_nan=True,
        isolate=True,
        max_rows=7,
    )
    assert Contract.from_json(orjson.loads(orjson.dumps(contract.to_json()))) == contract


def test_what_a_signature_adds_comes_back_too() -> None:
    contract = Contract(
        "iris",
        "3",
        (Tensor("inputs", "string", ()),),
        (Tensor("scores", "float32", (2,)),),
        signature="classify",
        aliases=("same", "other"),
        method=METHOD_CLASSIFY,
        graph_names=GraphNames(("examples:0",), ("scores:0",)),
    )
    assert Contract.from_json(orjson.loads(orjson.dumps(contract.to_json()))) == contract
