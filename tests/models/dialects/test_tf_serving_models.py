"""TensorFlow Serving's dialect on real SavedModels: its own examples rebuilt, loaded, asked and answered."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from models.contract import Contract
from models.dialects import tf_serving
from models.schema import compile_contract
from tests.models.conftest import Load
from tests.models.dialects.calls import OneVersion, call

Ask = Callable[[str, str, str], str]


@pytest.fixture
def ask(load: Load) -> Ask:
    """The answer of a small model by name to a body, by way of the dialect."""

    def asked(name: str, action: str, body: str) -> str:
        model = load(name)
        version = version_of(model)
        request = tf_serving.parse(version, call(action, body.encode()))
        chosen = model if request.signature is None else model.others[request.signature]
        compiled = version.compiled if request.signature is None else version.signatures[request.signature]
        outputs = [chosen.run(list(item.arrays)) for item in request.items]
        return tf_serving.render(compiled, request, outputs).body.decode()

    return asked


def version_of(model: Any) -> OneVersion:
    """As a front knows it: by what crossed the processes as JSON."""
    made = {
        name: compile_contract(Contract.from_json(orjson.loads(orjson.dumps(one.description))))
        for name, one in {"": model, **model.others}.items()
    }
    return OneVersion(made.pop(""), signatures=made)


@pytest.mark.parametrize(
    ("name", "action", "body", "expected"),
    [
        pytest.param(
            "half_plus_three", "predict", '{"instances": [1.0,2.0,5.0]}', '{"predictions":[3.5,4.0,5.5]}',
            id="the documentation's predict",
        ),
        pytest.param(
            "half_plus_three", "regress",
            '{"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}',
            '{"results":[3.5,4.0]}', id="the documentation's regress",
        ),
        pytest.param("half_plus_two", "predict", '{"instances": [[1.0]]}', '{"predictions":[[2.5]]}',
                     id="half_plus_two"),
        pytest.param(
            "half_plus_two", "predict", '{"signature_name": "same", "inputs": [1.0]}', '{"outputs":[2.5]}',
            id="an alias",
        ),
        pytest.param(
            "half_plus_two", "regress",
            '{"signature_name": "regress_x2_to_y3", "context": {"x2": 4.0}, "examples": [{"x": 1.0}]}',
            '{"results":[5.0]}', id="another regression, with a context",
        ),
        pytest.param(
            "half_plus_two", "classify", '{"signature_name": "classify_x_to_y", "examples": [{"x": 20.0}]}',
            '{"results":[[["",12.0]]]}', id="scores without labels",
        ),
        pytest.param(
            "half_plus_two", "regress", '{"examples": [{"x": 1.0}]}', '{"results":[2.5]}',
            id="regress by the input's name",
        ),
        pytest.param(
            "iris", "classify", '{"examples": [{"a": [1.0, 2.0], "name": "ann", "age": 3, "words": ["u", "v"]}]}',
            '{"results":[[["is ann",4.0],["other",4.0]]]}', id="labels and scores",
        ),
        pytest.param(
            "iris", "classify",
            '{"signature_name": "classes", "examples": [{"a": [1.0, 2.0], "name": {"b64": "YW5u"}}]}',
            '{"results":[[["is ann",0.0],["other",0.0]]]}', id="labels alone",
        ),
        pytest.param(
            "iris", "regress", '{"signature_name": "sum", "examples": [{"a": [1.0, 2.0]}, {"a": [0.5, NaN]}]}',
            '{"results":[3.0,NaN]}', id="a regression of NaN",
        ),
        pytest.param(
            "text", "predict", '{"instances": ["abc", {"b64": "ZGU="}]}',
            '{"predictions":[{"output_0":"ABC","output_1":3},{"output_0":"DE","output_1":2}]}', id="text",
        ),
        pytest.param(
            "exported", "predict",
            '{"signature_name": "serve", "inputs": {"left": [[0.0,0.0,0.0]], "right": [[0.0,0.0]]}}',
            '{"outputs":{"output_0":[[0.0,0.0,0.0,0.0]],"output_1":[[0.0]]}}', id="exported by Keras",
        ),
        pytest.param(
            "octets", "predict", '{"instances": [{"b64": "/w=="}]}',
            '{"predictions":[{"plain":"1","raw_bytes":{"b64":"/w=="}}]}', id="bytes",
        ),
    ],
)  # fmt: skip
def test_a_real_model_answers(ask: Ask, name: str, action: str, body: str, expected: str) -> None:
    assert ask(name, action, body) == expected


def test_an_example_of_tensorflows_own_making_is_one_instance(ask: Ask) -> None:
    from tests.models.test_signatures import serialized

    text = orjson.dumps({"b64": base64.b64encode(serialized(x=[1.0])).decode()}).decode()
    body = f'{{"signature_name": "regress_x_to_y", "instances": [{text}]}}'
    assert ask("half_plus_two", "predict", body) == '{"predictions":[[2.5]]}'


def test_a_row_sent_alone_gives_the_bits_of_the_native_dialect(load: Load) -> None:
    from models.dialects import native

    model = load("sequential")
    version = version_of(model)
    row = np.random.default_rng(5).normal(size=10).tolist()
    answers = []
    for dialect, key in ((native, "prediction"), (tf_serving, "predictions")):
        body = {"features": row} if dialect is native else {"instances": [row]}
        request = dialect.parse(version, call("predict", orjson.dumps(body)))
        outputs = [model.run(list(item.arrays)) for item in request.items]
        value = orjson.loads(dialect.render(version.compiled, request, outputs).body)[key]
        answers.append(np.float32(np.ravel(value)[0]).tobytes())
    assert answers[0] == answers[1]


def test_the_metadata_names_the_graphs_tensors(load: Load) -> None:
    from models.dialects.tfs_describe import metadata

    body = orjson.loads(metadata(version_of(load("half_plus_two"))))
    signatures = body["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {
        "serving_default", "same", "classify_x_to_y", "regress_x_to_y", "regress_x2_to_y3"
    }  # fmt: skip
    assert signatures["serving_default"]["inputs"]["x"]["name"] == "x:0"
    assert signatures["classify_x_to_y"]["inputs"]["inputs"]["dtype"] == "DT_STRING"
