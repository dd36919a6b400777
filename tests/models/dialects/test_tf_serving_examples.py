"""TensorFlow Serving's dialect: classify and regress from feature lists, what it says of models, and its refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest

from models.contract import METHOD_CLASSIFY, METHOD_REGRESS, Contract, Field, GraphNames, Tensor
from models.dialects import tf_serving
from models.dialects.dialect import Asked, Counted, Fault, Version
from models.schema import compile_contract
from tests.models.dialects.calls import OneVersion, call
from tests.models.dialects.test_tf_serving import (
    CLASSIFIER,
    HALF,
    REGRESSOR,
    SCORER,
    TEXT,
    answer,
    compiled,
    half_plus_two,
    refused,
)

PEOPLE = compiled(
    Tensor("x", "float32", (2,)),
    outputs=(Tensor("p", "float32", (2,)),),
    fields=(Field("age"), Field("height", {"maximum": 3})),
    labels=("child", "adult"),
)


def column(*values: float) -> np.ndarray:
    return np.array([[value] for value in values], "float32")


def words(*rows: Sequence[str]) -> np.ndarray:
    return np.array([[one.encode() for one in row] for row in rows], object)


@pytest.mark.parametrize(
    ("action", "model", "outputs", "expected"),
    [
        pytest.param("regress", REGRESSOR, [column(3.5, 4)], '{"results":[3.5,4.0]}', id="regress"),
        pytest.param("regress", REGRESSOR, [column(42)], '{"results":[42.0]}', id="a whole number"),
        pytest.param("regress", REGRESSOR, [column(np.nan, 1)], '{"results":[NaN,1.0]}', id="NaN"),
        pytest.param("classify", SCORER, [column(12)], '{"results":[[["",12.0]]]}', id="scores without labels"),
        pytest.param(
            "classify", CLASSIFIER, [words(["a", "b"]), np.array([[0.9, 0.1]], "f4")],
            '{"results":[[["a",0.9],["b",0.1]]]}', id="labels and scores",
        ),
        pytest.param(
            "classify", CLASSIFIER, [words(["a"], ["b"]), column(np.inf, 0.5)],
            '{"results":[[["a",Infinity]],[["b",0.5]]]}', id="infinite scores",
        ),
    ],
)  # fmt: skip
def test_results(action: str, model: Any, outputs: list[np.ndarray], expected: str) -> None:
    body = orjson.dumps({"examples": [{"x": 1.0}] * len(outputs[0])})
    assert answer(model, body, lambda x: outputs, action).decode() == expected


def test_classes_without_scores_score_nothing() -> None:
    model = compiled(
        Tensor("inputs", "string", ()), outputs=(Tensor("classes", "string", (None,)),), method=METHOD_CLASSIFY
    )
    body = answer(model, '{"examples": [{}]}', lambda x: [words(["a"])], "classify")
    assert body == b'{"results":[[["a",0.0]]]}'


def test_features_become_examples_of_their_kinds() -> None:
    import tensorflow as tf

    body = (
        '{"context": {"common": 1}, "examples": [{"f": 1.5, "i": [1, true], "s": ["a", {"b64": "/w=="}], "none": []},'
        ' {"common": 2, "nan": [NaN, 1.0]}]}'
    )
    request = tf_serving.parse(OneVersion(REGRESSOR), call("regress", body.encode()))
    first, second = (tf.train.Example.FromString(one).features.feature for one in request.items[0].arrays[0])
    assert list(first["f"].float_list.value) == [1.5]
    assert list(first["i"].int64_list.value) == [1, 1]
    assert list(first["s"].bytes_list.value) == [b"a", b"\xff"]
    assert list(first["common"].int64_list.value) == [1]
    assert first["none"].WhichOneof("kind") is None
    assert list(second["common"].int64_list.value) == [2]
    assert np.isnan(second["nan"].float_list.value[0])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param("{}", "JSON Value: {} When method is regress, key 'examples' is expected and was not found",
                     id="no examples"),
        pytest.param('{"examples": 1}', "JSON Value: {\"examples\":1} Expecting 'examples' value to be an list/array",
                     id="no list"),
        pytest.param('{"examples": []}', "JSON Value: {\"examples\":[]} 'examples' value is an empty array",
                     id="empty"),
        pytest.param('{"examples": [[1]]}', "Example must be JSON object but got JSON Array", id="a list"),
        pytest.param('{"context": 5, "examples": [{}]}', "Example must be JSON object but got JSON Number",
                     id="a context that is a number"),
        pytest.param('{"examples": [{"x": null}]}', "Feature: x has element with unexpected JSON type: Null",
                     id="null"),
        pytest.param('{"examples": [{"x": [[1]]}]}', "Feature: x has element with unexpected JSON type: Array",
                     id="nested"),
        pytest.param('{"examples": [{"x": {"a": 1}}]}', "Feature: x has element with unexpected JSON type: Object",
                     id="an object"),
        pytest.param('{"examples": [{"x": [1.5, 1]}]}',
                     "Unexpected element type in feature: x expecting type: float", id="mixed"),
        pytest.param('{"examples": [{"x": 9223372036854775808}]}',
                     "Feature: x has uint64 element. Only int64 is supported.", id="beyond an int64"),
        pytest.param('{"examples": [{"x": 1e39}]}',
                     "Cannot convert JSON value: 1e+39 to float without loss of precision.", id="beyond a float"),
        pytest.param('{"examples": [{"x": {"b64": "_"}}]}', "Unable to base64 decode", id="bad base64"),
        pytest.param('{"signature_name": "Y", "examples": [{}]}', "No signature was found with the name: Y",
                     id="unknown signature"),
    ],
)  # fmt: skip
def test_feature_lists_refused(body: str, expected: str) -> None:
    assert refused(REGRESSOR, body, "regress") == expected


@pytest.mark.parametrize(
    ("model", "action", "wanted", "given"),
    [
        (CLASSIFIER, "regress", "regression regress", "classify"),
        (REGRESSOR, "classify", "classification classify", "regress"),
        (TEXT, "regress", "regression regress", "predict"),
    ],
    ids=["regress with a classifier", "classify with a regressor", "regress with text"],
)
def test_a_signature_of_another_method_is_refused(model: Any, action: str, wanted: str, given: str) -> None:
    noun, method = wanted.split()
    words = f"Expected {noun} signature method_name to be tensorflow/serving/{method}. Was: tensorflow/serving/{given}"
    assert refused(model, '{"examples": [{"x": 1.0}]}', action) == words


# -- models without a signature for examples ---------------------------------------------------------------------------


def test_features_reach_a_plain_model_by_its_inputs() -> None:
    body = '{"examples": [{"x": 1.0}, {"x": [2]}]}'
    assert answer(HALF, body, half_plus_two, "regress") == b'{"results":[2.5,3.0]}'


def test_features_reach_a_plain_model_by_its_fields() -> None:
    seen: list[np.ndarray] = []

    def scores(x: np.ndarray) -> list[np.ndarray]:
        seen.append(x)
        return [np.array([[0.25, 0.75]], "f4")]

    body = '{"context": {"height": [1.5]}, "examples": [{"age": 7}]}'
    assert answer(PEOPLE, body, scores, "classify") == b'{"results":[[["child",0.25],["adult",0.75]]]}'
    assert seen[0].tolist() == [[7, 1.5]]


def test_the_probability_of_the_second_class_is_both() -> None:
    model = compiled(Tensor("x", "float32", (1,)), labels=("no", "yes"))
    body = answer(model, '{"examples": [{"x": 1}]}', lambda x: [column(0.75)], "classify")
    assert body == b'{"results":[[["no",0.25],["yes",0.75]]]}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"examples": [{"age": 1}]}', "keys must be equal to: age,height"),
        ('{"examples": [{"age": 1, "height": "a"}]}', "is not of expected type: float"),
        ('{"examples": [{"age": 1, "height": 4}]}', "/instances/0/1 must be"),
    ],
    ids=["a feature is missing", "text", "beyond its range"],
)
def test_features_of_a_plain_model_are_checked(body: str, expected: str) -> None:
    assert expected in refused(PEOPLE, body, "classify")


# -- what is said of models --------------------------------------------------------------------------------------------


def asked(action: str, version: Version | None, *versions: Version, given: str | None = None, path: str = "") -> Asked:
    return Asked(
        action, "GET", path, "m", given, version, versions, {}, is_ready=True, server="", body=b"",
        counted=lambda _: Counted(),
    )  # fmt: skip


def test_the_states_of_versions() -> None:
    ready = OneVersion(HALF)
    failed = OneVersion(HALF, state="FAILED", reason="its files are damaged")
    loading = OneVersion(HALF, state="LOADING")
    body = orjson.loads(tf_serving.describe(asked("status", ready, loading, failed, ready)).body)
    fine = {"error_code": "OK", "error_message": ""}
    assert body == {
        "model_version_status": [
            {"version": "7", "state": "LOADING", "status": fine},
            {
                "version": "7",
                "state": "END",
                "status": {"error_code": "INTERNAL", "error_message": "its files are damaged"},
            },
            {"version": "7", "state": "AVAILABLE", "status": fine},
        ]
    }
    one = orjson.loads(tf_serving.describe(asked("status", ready, loading, ready, given="7")).body)
    assert one == {"model_version_status": [{"version": "7", "state": "AVAILABLE", "status": fine}]}
    all_ = orjson.loads(tf_serving.describe(asked("models", None, ready)).body)
    assert all_ == {"models": [{"name": "m", **one}]}


def test_the_metadata_of_every_signature() -> None:
    usual = compiled(Tensor("x", "float32", (1,)), aliases=("serve",), graph_names=GraphNames(("x:0",), ("y:0",)))
    other = compile_contract(
        Contract("m", "7", (Tensor("inputs", "string", ()),), (Tensor("outputs", "float32", ()),),
                 signature="sum", method=METHOD_REGRESS)
    )  # fmt: skip
    version = OneVersion(usual, signatures={"sum": other})
    body = orjson.loads(tf_serving.describe(asked("metadata", version, version)).body)

    def tensor(dtype: str, name: str, *sizes: str) -> dict[str, Any]:
        dim = [{"size": size, "name": ""} for size in sizes]
        return {"dtype": dtype, "tensor_shape": {"dim": dim, "unknown_rank": False}, "name": name}

    predict = {
        "inputs": {"x": tensor("DT_FLOAT", "x:0", "-1", "1")},
        "outputs": {"y": tensor("DT_FLOAT", "y:0", "-1", "1")},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    regress = {
        "inputs": {"inputs": tensor("DT_STRING", "sum_inputs:0", "-1")},
        "outputs": {"outputs": tensor("DT_FLOAT", "StatefulPartitionedCall:0", "-1")},
        "method_name": "tensorflow/serving/regress",
        "defaults": {},
    }
    assert body == {
        "model_spec": {"name": "m", "signature_name": "", "version": "7"},
        "metadata": {
            "signature_def": {"signature_def": {"serving_default": predict, "serve": predict, "sum": regress}}
        },
    }


def test_there_is_no_metadata_of_what_is_not_loaded() -> None:
    rendered = tf_serving.describe(asked("metadata", None, given="3", path="/v1/models/m/versions/3/metadata"))
    assert (rendered.status, rendered.body) == (404, b'{"error":"Servable not found for request: Specific(m, 3)"}')


# -- refusals ----------------------------------------------------------------------------------------------------------

MODEL = "/v1/models/m"


@pytest.mark.parametrize(
    ("code", "status", "verb", "path", "model", "given", "expected"),
    [
        pytest.param("NOT_FOUND", 404, "POST", "/v1/foo", None, None, (400, "Malformed request: POST /v1/foo"),
                     id="no such route"),
        pytest.param("METHOD_NOT_ALLOWED", 405, "DELETE", MODEL, None, None,
                     (400, "Malformed request: DELETE /v1/models/m"), id="no such verb"),
        pytest.param("NOT_FOUND", 404, "POST", f"{MODEL}:predict", "m", None,
                     (404, "Servable not found for request: Latest(m)"), id="unknown model"),
        pytest.param("NOT_FOUND", 404, "POST", f"{MODEL}/versions/7:predict", "m", "7",
                     (404, "Servable not found for request: Specific(m, 7)"), id="unknown version"),
        pytest.param("NOT_FOUND", 404, "POST", f"{MODEL}/versions/9223372036854775808:predict", "m",
                     "9223372036854775808",
                     (400, "Failed to convert version: 9223372036854775808 to numeric."), id="beyond an int64"),
        pytest.param("NOT_FOUND", 404, "POST", f"{MODEL}/labels/x:predict", "m", "x",
                     (400, "Unrecognized servable version label: x"), id="unknown label"),
        pytest.param("NOT_FOUND", 404, "GET", MODEL, "m", None,
                     (404, "Could not find any versions of model m"), id="status of an unknown model"),
        pytest.param("NOT_FOUND", 404, "GET", f"{MODEL}/versions/7", "m", "7",
                     (404, "Could not find version 7 of model m"), id="status of an unknown version"),
        pytest.param("NOT_FOUND", 404, "GET", f"{MODEL}/metadata", "m", None,
                     (404, "Servable not found for request: Latest(m)"), id="metadata of an unknown model"),
        pytest.param("BAD_INPUT", 400, "POST", f"{MODEL}:predict", "m", None, (400, "words"), id="bad input"),
        pytest.param("OVERLOADED", 503, "POST", f"{MODEL}:predict", "m", None, (503, "words"), id="overloaded"),
        pytest.param("NOT_READY", 503, "POST", f"{MODEL}:predict", "m", None, (503, "words"), id="not ready"),
        pytest.param("TIMEOUT", 504, "POST", f"{MODEL}:predict", "m", None, (504, "words"), id="too late"),
        pytest.param("PREDICT_FAILED", 500, "POST", f"{MODEL}:predict", "m", None, (500, "words"), id="failed"),
    ],
)  # fmt: skip
def test_refusals(
    code: str, status: int, verb: str, path: str, model: str | None, given: str | None, expected: tuple[int, str]
) -> None:
    rendered = tf_serving.refuse(Fault(code, "words", status, verb, path, model, given))
    assert (rendered.status, orjson.loads(rendered.body)) == (expected[0], {"error": expected[1]})
    assert rendered.content_type == "application/json"
