"""Contracts that the tests of several modules speak of, one of each kind."""

from __future__ import annotations

from typing import Any

from models.contract import Contract, Field, Tensor

OUTPUTS = (Tensor("y", "float32", (1,)),)


def contract(*inputs: Tensor, **more: Any) -> Contract:
    return Contract("m", "1", inputs, OUTPUTS, **more)


VECTOR = contract(Tensor("x", "float32", (10,)))
FIELDS = contract(
    Tensor("x", "float32", (2,)), fields=(Field("feature1"), Field("feature2", {"minimum": 0, "maximum": 10}))
)
SCALAR = contract(Tensor("x", "int32", ()))
SEVERAL = contract(Tensor("a", "uint8", (2,)), Tensor("b", "string", ()), Tensor("c", "bool", (1, None)))
SEQUENCE = contract(Tensor("tokens", "int64", (None,)))
TEN = [0.5] * 10
