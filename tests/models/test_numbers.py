"""Long bodies of numbers: read without an object for each, the array is the same, and what is no such body is None."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import numbers
from models.contract import Contract, Field, Tensor
from models.dialects import native, open_inference, tf_serving
from models.dialects.dialect import Call, nothing
from models.errors import BadInput, TooLarge
from models.schema import compile_contract
from tests.models.dialects.calls import OneVersion

VECTOR = Tensor("x", "float32", (3,))
PICTURE = Tensor("x", "float64", (2, 2, 1))


def contract(tensor: Tensor, **further: Any) -> Contract:
    return Contract("m", "1", (tensor,), (Tensor("y", "float32", (1,)),), **further)


def usual(body: bytes, tensor: Tensor) -> np.ndarray | None:
    """What the usual way makes of a body of instances; None for what it refuses."""
    call = Call("predict", body, nothing, 1 << 20, 100)
    try:
        request = native.parse(OneVersion(compile_contract(contract(tensor))), call)
    except (BadInput, TooLarge):
        return None
    (item,) = request.items
    return item.arrays[0]


NUMBER = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(["1e999", "-0", "-0.0", "1E5", "1e-400", "01", "1.", ".5", "+1", "--1", "1e", "3.5e38", ""]),
)
JUNK = st.sampled_from(["null", "true", '"1"', "[1]", "{}", "NaN", "Infinity", "\\u0031", "[", "]", "1,2", "1 2"])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Bodies of rows of three: right, nearly right, wrong."""
    leaf = st.one_of(NUMBER, NUMBER, NUMBER, JUNK) if draw(st.booleans()) else NUMBER
    size = st.sampled_from([3, 3, 3, 3, 2, 4, 0]) if draw(st.booleans()) else st.just(3)
    blank = st.sampled_from(["", "", " ", "\n\t"])
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        values = [draw(leaf) for _ in range(draw(size))]
        rows.append(draw(blank) + "[" + ("," + draw(blank)).join(values) + draw(blank) + "]")
    key = draw(st.sampled_from(["instances", "instances", "insta1nces", "instance", "inputs", "instanc.es"]))
    end = draw(st.sampled_from(["]}", "]}", "]}", "]", "]}}", "]}1", '],"instances":[]}', "]} "]))
    return f'{{"{key}":[{",".join(rows)}{end}'.encode()


@given(bodies())
def test_what_is_read_so_is_what_the_usual_way_reads_and_nothing_else(body: bytes) -> None:
    found = numbers.instances(body, VECTOR, 100)
    expected = usual(body, VECTOR)
    if found is not None:
        assert expected is not None
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()


@given(
    st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3), min_size=1)
)
def test_rows_of_numbers_are_read_so(rows: list[list[float]]) -> None:
    found = numbers.instances(json.dumps({"instances": rows}).encode(), VECTOR, 1000)
    assert found is not None
    assert found.tobytes() == np.array(rows, np.float32).tobytes()


@pytest.mark.parametrize("key", ["features", "x"])
def test_one_row_is_read_under_its_key(key: str) -> None:
    row = [[[1.5], [2]], [[3.25], [-4e3]]]
    found = numbers.one(json.dumps({key: row}).encode(), PICTURE)
    assert found is not None
    assert found[0] == key
    assert found[1].tolist() == [row]
    assert found[1].dtype == np.float64


@pytest.mark.parametrize(
    "body",
    [
        b'{"features":[1,2]}', b'{"features":[1,2,3],"x":[1,2,3]}', b'{"features":[1,2,3]', b'{"featur1es":[1,2,3]}',
        b"[1,2,3]", b"", b"{}", b'{"features":"1,2,3"}', b'{"features":[1,2,1e39]}', b'{"features":[1,2,NaN]}',
    ],
)  # fmt: skip
def test_what_is_not_one_row_is_left_to_the_usual_way(body: bytes) -> None:
    assert numbers.one(body, VECTOR) is None


def test_more_rows_than_allowed_are_left_to_the_usual_way() -> None:
    assert numbers.instances(b'{"instances":[[1,2,3],[4,5,6]]}', VECTOR, 1) is None


@pytest.mark.parametrize(
    "wide",
    [
        contract(Tensor("x", "float32", (None,))),
        contract(Tensor("x", "int32", (3,))),
        contract(Tensor("x", "float32", ())),
        contract(VECTOR, request_schema={"minItems": 3}),
        contract(VECTOR, fields=(Field("a", {"minimum": 0}), Field("b"), Field("c"))),
    ],
)
def test_a_contract_with_rules_of_its_own_is_never_read_so(wide: Contract) -> None:
    assert numbers.plain_rows(wide) is None


@pytest.mark.parametrize("dialect", [native, tf_serving], ids=["native", "tf_serving"])
def test_a_long_body_makes_the_request_that_a_short_one_makes(dialect: Any) -> None:
    rows = [[float(row), row / 7, -row] for row in range(200)]
    body = json.dumps({"instances": rows}).encode()
    assert len(body) > numbers.BYTES_MIN
    asked = OneVersion(compile_contract(contract(VECTOR)))
    request = dialect.parse(asked, Call("predict", body, nothing, 1 << 20, 1000))
    (item,) = request.items
    assert item.arrays[0].tobytes() == np.array(rows, np.float32).tobytes()
    assert (request.count, request.many, item.rows) == (200, True, range(200))
    short = dialect.parse(asked, Call("predict", b'{"instances":[[1,2,3]]}', nothing, 1 << 20, 1000))
    assert (request.form, request.value_key, request.signature) == (short.form, short.value_key, short.signature)


def test_too_many_rows_are_refused_in_the_usual_words() -> None:
    body = json.dumps({"instances": [[1.0, 2.0, 3.0]] * 300}).encode()
    with pytest.raises(TooLarge, match="300 rows, at most 100"):
        native.parse(OneVersion(compile_contract(contract(VECTOR))), Call("predict", body, nothing, 1 << 20, 100))


def test_every_contract_is_looked_at_once() -> None:
    assert compile_contract(contract(VECTOR)).plain == VECTOR
    assert compile_contract(contract(Tensor("x", "string", (3,)))).plain is None


# ------------------------------------------------------------------------------------------ lists cut out of a body

LONG = ",".join(f"{number}.25" for number in range(400))
VALUES = np.arange(400) + 0.25


def test_long_lists_under_the_key_become_words_and_everything_else_stays() -> None:
    text = (
        f'{{"id":"a","inputs":[{{"name":"x","data" : [{LONG}],"shape":[400]}},{{"data":[1,2]}},{{"data":[{LONG}]}}]}}'
    )
    body, found = numbers.cut_out(text.encode(), "data")
    assert [array.tolist() for array in found.values()] == [VALUES.tolist()] * 2
    first, second = found
    wanted = [{"name": "x", "data": first, "shape": [400]}, {"data": [1, 2]}, {"data": second}]
    assert json.loads(body) == {"id": "a", "inputs": wanted}


@pytest.mark.parametrize(
    "text",
    [
        f'{{"data":[{LONG},[1]]}}', f'{{"data":[{LONG},null]}}', f'{{"data":[{LONG},]}}', f'{{"data":[{LONG},1e999]}}',
        f'{{"data":[{LONG},01]}}', f'{{"data":[{LONG} 5]}}', f'{{"data":[{LONG}', f'{{"data":{{"x":[{LONG}]}}}}',
        f'{{"other":[{LONG}]}}', json.dumps({"text": f'"data":[{LONG}]'}), f'{{"data":[{LONG},"]"]}}',
    ],
)  # fmt: skip
def test_what_is_no_flat_list_of_numbers_is_not_touched(text: str) -> None:
    assert numbers.cut_out(text.encode(), "data") == (text.encode(), {})


def v2(data: str, **more: Any) -> bytes:
    entry = json.dumps({"name": "x", "datatype": "FP32", "shape": [100, 4], **more})
    return f'{{"inputs":[{entry[:-1]},"data":{data}}}]}}'.encode()


WIDE = contract(Tensor("x", "float32", (4,)))


@pytest.mark.parametrize(
    "body",
    [
        v2(f"[{LONG}]"), v2(f"[{LONG},1]"), v2(f"[{LONG[:-7]}]"), v2(f"[{LONG[:-6]}1e39]"),
        v2(f"[{LONG}]", shape=[4, 100]),
        v2(f"[{LONG}]", parameters={"a": [1]}), v2(f"[{LONG}]", datatype="FP64"), v2(f"[{LONG}]", name="z"),
        v2(f"[{LONG}]", parameters={"data": 1}), v2(f"[{LONG}")[:-2], v2(f"[{LONG}]") + b"x",
        v2(f"[{LONG}]").replace(b'"inputs"', b'"parameters":{"data":[%b]},"inputs"' % LONG.encode()),
        v2(f"[{LONG}]").replace(b'"name"', b'"name":"x","name"'), v2(f"[[{LONG}]]"),
        v2("[" + LONG.replace("0.25", "true") + "]"),
        v2("[" + ",".join("[1.5,2,3e2,-4]" for _ in range(100)) + "]"),
    ],
)  # fmt: skip
def test_a_long_request_is_understood_or_refused_as_it_is_without_cutting(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = OneVersion(compile_contract(WIDE))
    call = Call("infer", body, nothing, 1 << 20, 1000)

    def outcome() -> Any:
        try:
            request = open_inference.parse(version, call)
        except (BadInput, TooLarge) as error:
            return type(error), str(error)
        (item,) = request.items
        return item.arrays[0].tobytes(), item.arrays[0].shape, request.form, request.count

    cut = outcome()
    monkeypatch.setattr(numbers, "BYTES_MIN", 1 << 30)
    assert cut == outcome()
