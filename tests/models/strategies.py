"""Hypothesis strategies: schemas of the allowed keywords, JSON values, contracts and bodies near them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from models.contract import DTYPES, FLOATS, INTEGERS, Contract, Tensor
from models.keywords import TYPES

_LIMIT = 2**53
NUMBERS = st.one_of(
    st.integers(-_LIMIT, _LIMIT),
    st.floats(-_LIMIT, _LIMIT),
    st.sampled_from([0, 1, -0.0, 0.1, 1 / 3, 5e-324, _LIMIT, -_LIMIT, float(_LIMIT)]),
)
# What orjson can hand over: integers of 64 bits, finite floats.
JSON_NUMBERS = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False), st.integers(-3, 300), NUMBERS
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=4))
_KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.one_of(SCALARS, JSON_NUMBERS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_KEYS, inner, max_size=3)),
    max_leaves=6,
)

_COUNTS = st.integers(0, 4)
_PLAIN = st.fixed_dictionaries(
    {},
    optional={
        "type": st.one_of(
            st.sampled_from(TYPES), st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True)
        ),
        "enum": st.lists(SCALARS, min_size=1, max_size=3),
        "const": SCALARS,
        **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), NUMBERS),
        **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _COUNTS),
        "required": st.lists(_KEYS, unique=True, max_size=2),
        "title": st.text(max_size=3),
    },
)


def _nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    keywords = {
        "properties": st.dictionaries(_KEYS, inner, max_size=2),
        "additionalProperties": st.one_of(st.booleans(), inner),
        "items": inner,
        "allOf": st.lists(inner, min_size=1, max_size=2),
        "anyOf": st.lists(inner, min_size=1, max_size=2),
    }
    return st.builds(lambda plain, more: {**plain, **more}, _PLAIN, st.fixed_dictionaries({}, optional=keywords))


SCHEMAS = st.recursive(_PLAIN, _nested, max_leaves=4)

_SHAPES = st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=3).map(tuple)
TENSORS = st.builds(Tensor, st.sampled_from(["x", "features", "instances"]), st.sampled_from(DTYPES), _SHAPES)


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    """Contracts of one to three inputs with any dtypes and shapes."""
    count = draw(st.integers(1, 3))
    names = draw(st.permutations(["x", "features", "instances", "y z/~"]))[:count]
    inputs = tuple(Tensor(name, draw(st.sampled_from(DTYPES)), draw(_SHAPES)) for name in names)
    return Contract("m", "1", inputs, (Tensor("out", "float32", (1,)),), max_rows=draw(st.sampled_from([None, 2])))


def leaves(dtype: str) -> st.SearchStrategy[Any]:
    """JSON values that the dtype takes."""
    if dtype == "bool":
        return st.booleans()
    if dtype == "string":
        return st.text(max_size=5)
    if dtype in INTEGERS:
        bits, signed = int(dtype.lstrip("uint")), dtype.startswith("i")
        return st.integers(-(2 ** (bits - 1)) if signed else 0, 2 ** (bits - signed) - 1)
    assert dtype in FLOATS
    return st.floats(width=int(dtype.removeprefix("float")), allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]


@st.composite
def rows(draw: st.DrawFn, tensor: Tensor, count: int) -> list[Any]:
    """`count` rows of one shape that fits the tensor, as nested lists."""
    sizes = [draw(st.integers(0, 3)) if size is None else size for size in tensor.shape]

    def fill(depth: int) -> Any:
        return draw(leaves(tensor.dtype)) if depth == len(sizes) else [fill(depth + 1) for _ in range(sizes[depth])]

    return [fill(0) for _ in range(count)]
