"""A SavedModel's further signatures: each a model of its own, the same never twice, none that takes all down."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest

from models import runtime
from models.contract import METHOD_CLASSIFY, METHOD_PREDICT, METHOD_REGRESS, Contract, GraphNames
from tests.models.conftest import Load

Zoo = Callable[[str], Path]


def described(model: object) -> Contract:
    return Contract.from_json(orjson.loads(orjson.dumps(model.description)))  # type: ignore[attr-defined]


def serialized(**features: list[float] | list[int] | list[bytes]) -> bytes:
    import tensorflow as tf

    def feature(values: list[float] | list[int] | list[bytes]) -> object:
        kinds = {float: "float_list", int: "int64_list", bytes: "bytes_list"}
        lists = {"float_list": tf.train.FloatList, "int64_list": tf.train.Int64List, "bytes_list": tf.train.BytesList}
        kind = kinds[type(values[0])]
        return tf.train.Feature(**{kind: lists[kind](value=values)})

    made = {name: feature(values) for name, values in features.items()}
    text: bytes = tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()
    return text


def test_the_signatures_of_a_graph_of_tensorflow_1_are_all_served(load: Load) -> None:
    model = load("half_plus_two")
    assert described(model).method == METHOD_PREDICT
    assert {name: described(one).method for name, one in model.others.items()} == {
        "classify_x_to_y": METHOD_CLASSIFY,
        "regress_x2_to_y3": METHOD_REGRESS,
        "regress_x_to_y": METHOD_REGRESS,
    }
    assert model.run([np.array([[1.0], [2.0]], "float32")])[0].tolist() == [[2.5], [3.0]]
    rows = np.array([serialized(x=[1.0], x2=[4.0]), serialized(x=[2.0])], object)
    assert model.others["regress_x_to_y"].run([rows])[0].tolist() == [[2.5], [3.0]]
    assert model.others["regress_x2_to_y3"].run([rows])[0].tolist() == [[5.0], [3.0]]
    assert model.others["classify_x_to_y"].run([rows])[0].tolist() == [[2.5], [3.0]]


def test_what_the_graph_calls_its_tensors_is_told(load: Load) -> None:
    model = load("half_plus_two")
    assert described(model).graph_names == GraphNames(("x:0",), ("y:0",))
    assert described(model.others["regress_x2_to_y3"]).graph_names == GraphNames(("tf_example:0",), ("y3:0",))
    assert described(load("sequential")).graph_names == GraphNames()


@pytest.mark.parametrize(("name", "aliases"), [("half_plus_two", ("same",)), ("exported", ("serve",))])
def test_two_names_of_one_computation_are_one_signature(load: Load, name: str, aliases: tuple[str, ...]) -> None:
    model = load(name)
    assert (described(model).signature, described(model).aliases) == ("serving_default", aliases)
    assert not model.others.keys() & {*aliases}


def test_two_computations_of_the_same_form_are_two(load: Load) -> None:
    model = load("two_signatures", {"signature": "triple"})
    assert (described(model).signature, described(model).aliases) == ("triple", ())
    x = np.ones((2, 1), "float32")
    assert model.run([x])[0].tolist() == [[3], [3]]
    assert model.others["double"].run([x])[0].tolist() == [[2], [2]]


def test_a_signature_that_cannot_be_served_is_left_out(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = load("default_and_broken")
    assert list(model.others) == ["triple"]
    assert "signature total is left out" in caplog.text


def test_more_signatures_than_are_served_are_cut(
    load: Load, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "MAX_OTHER_SIGNATURES", 2)
    with caplog.at_level(logging.WARNING):
        model = load("half_plus_two")
    assert list(model.others) == ["classify_x_to_y", "regress_x2_to_y3"]
    assert "left out: regress_x_to_y" in caplog.text


def test_strings_and_answers_without_a_rank_have_the_one_their_method_calls_for(load: Load) -> None:
    model = load("iris")
    assert [(one.name, one.dtype, one.shape) for one in described(model).inputs] == [("inputs", "string", ())]
    assert [(one.name, one.dtype, len(one.shape)) for one in described(model).outputs] == [
        ("classes", "string", 1),
        ("scores", "float32", 1),
    ]
    rows = np.array(
        [serialized(a=[1.0, 2.0], name=[b"ann"], age=[3]), serialized(a=[0.0, 1.0], words=[b"a", b"b"])], object
    )
    classes, scores = model.run([rows])
    assert classes.tolist() == [[b"is ann", b"other"], [b"is ", b"other"]]
    assert scores.tolist() == [[4.0, 2.0], [0.0, 3.0]]
    assert model.others["sum"].run([rows])[0].tolist() == [6.0, 3.0]


def test_of_several_graphs_the_plain_one_is_served(load: Load) -> None:
    assert load("two_graphs").run([np.ones((1, 1), "float32")])[0].tolist() == [[2]]


def test_each_signature_can_be_warmed_up_and_is_never_traced_again(load: Load) -> None:
    model = load("default_and_broken").others["triple"]
    traced = model.trace_count
    assert list(model.warm_up((1, 2), budget_s=1)) == [1, 2]
    assert model.trace_count == traced


def test_what_a_contract_says_of_the_whole_model_holds_for_each_signature(load: Load) -> None:
    contract = {"max_rows": 3, "null_for_nan": True, "log": {"capture": "hash", "omit": ["x"]}, "routes": ["/mine"]}
    other = described(load("half_plus_two", contract).others["regress_x_to_y"])
    assert (other.max_rows, other.null_for_nan, other.log.capture, other.routes) == (3, True, "hash", ())
    assert other.log.omit == ("inputs",)  # whatever was hidden in x may be in an Example too


def test_what_a_contract_says_of_an_input_holds_for_each_signature_that_takes_it(load: Load) -> None:
    fields = [{"name": "age", "schema": {"minimum": 0}}]
    model = load("two_signatures", {"signature": "double", "fields": fields})
    assert described(model.others["triple"]).fields == described(model).fields
    assert described(load("default_and_broken", {"fields": fields}).others["triple"]).fields == ()
