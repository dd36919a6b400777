"""A model's own examples, run before it serves: what passes, and how a wrong answer is described."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image as Picture

from models.contract import Contract, Example, Field, Image, Tensor
from models.errors import LoadError
from models.rehearsal import rehearse, replay
from models.tensors import Array

X, Y = Tensor("x", "float32", (2,)), Tensor("y", "float32", (1,))


class Computes:
    """Something that runs: outputs from inputs."""

    def __init__(self, compute: Callable[[Array], Array]) -> None:
        self.compute = compute

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        return [self.compute(inputs[0])]


SUM = Computes(lambda x: x.sum(axis=1, keepdims=True))


def contract(*examples: Example, **more: Any) -> Contract:
    return Contract("m", "1", **{"inputs": (X,), "outputs": (Y,), "examples": examples, **more})


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(Example({"features": [1, 2]}, {"prediction": 3}), id="the answer"),
        pytest.param(Example({"features": [1, 2]}, {"prediction": 3.0002}, tolerance=1e-4), id="within its tolerance"),
        pytest.param(Example({"features": [1, 2]}), id="no answer promised"),
        pytest.param(Example({"instances": [[1, 2], [3, 4]]}, {"predictions": [3, 7]}), id="rows"),
        pytest.param(Example({"features": [1, 2]}, {"ok": True, "model_version": "1"}), id="a part of the answer"),
    ],
)
def test_a_model_that_answers_as_promised_passes(example: Example) -> None:
    rehearse(SUM, contract(example))


@pytest.mark.parametrize(
    ("example", "model", "reason"),
    [
        pytest.param(
            Example({"features": [1, 2]}, {"prediction": 4}), SUM, "example 0 as promised: prediction is 3.0, not 4",
            id="another number",
        ),
        pytest.param(
            Example({"instances": [[1, 2], [3, 4]]}, {"predictions": [3, 8]}), SUM, "predictions is 7.0, not 8",
            id="another row",
        ),
        pytest.param(
            Example({"features": [1, 2]}, {"predictions": [3]}), SUM, "there is no predictions", id="another form"
        ),
        pytest.param(
            Example({"features": [1, 2]}, {"prediction": 3}), Computes(lambda x: x[:, :1] * np.nan), "NaN",
            id="no number",
        ),
        pytest.param(
            Example({"features": [1, 2]}), Computes(lambda x: x), "shape", id="another shape than the contract's"
        ),
        pytest.param(Example({"features": [1, 2]}), Computes(lambda x: x / None), "the server's log", id="an error"),
        pytest.param(Example({"features": [1]}), SUM, "request", id="a request that it does not take"),
    ],
)  # fmt: skip
def test_one_that_does_not_is_refused_with_the_difference(example: Example, model: Computes, reason: str) -> None:
    with pytest.raises(LoadError, match=reason) as caught:
        rehearse(model, contract(example))
    assert "/" not in caught.value.reason.replace("0/", "")


def test_an_example_of_a_contracts_own_route_keeps_its_row_dimension() -> None:
    fields = (Field("a"), Field("b"))
    example = Example({"a": 1, "b": 2}, {"prediction": [[3]]})
    rehearse(SUM, contract(example, fields=fields, routes=("/advanced_predict",)))


def test_a_picture_is_classified() -> None:
    out = io.BytesIO()
    Picture.new("L", (4, 4), 2).save(out, "PNG")
    request = {"image": base64.b64encode(out.getvalue()).decode()}
    classifier = contract(
        Example(request, {"predicted_class": 2, "label": "dim"}),
        inputs=(Tensor("x", "float32", (4, 4, 1)),),
        outputs=(Tensor("y", "float32", (3,)),),
        labels=("dark", "grey", "dim"),
        image=Image("x", 4, 4, "grey", 1.0),
    )
    rehearse(Computes(lambda x: np.eye(3, dtype=np.float32)[x.mean(axis=(1, 2, 3)).astype(int)]), classifier)


@pytest.fixture
def logged(tmp_path: Path) -> Callable[..., Path]:
    """Makes a file of logged requests."""

    def make(*rows: tuple[Any, Any]) -> Path:
        path = tmp_path / "logged"
        path.write_bytes(b"\n".join(orjson.dumps({"instance": row, "outputs": answer}) for row, answer in rows))
        return path

    return make


def test_logged_requests_are_answered_and_differences_told(
    logged: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "inference.models")
    replay(SUM, contract(), logged(([1, 2], 3.0), ([3, 4], 6.5), ([5, 6], {"other": "form"}), ({"x": [1, 1]}, 2)))
    assert "answers 4 logged requests, 2 of them otherwise than before (by 0.5 at most)" in caplog.text


@pytest.mark.parametrize(
    ("row", "model", "reason"),
    [
        pytest.param([1, 2, 3], SUM, "does not answer a logged request", id="a request that it does not take"),
        pytest.param([1, 2], Computes(lambda x: x[:, :1] * np.nan), "NaN", id="no number"),
        pytest.param([1, 2], Computes(lambda x: x / None), "fails on a logged request", id="an error"),
    ],
)
def test_a_model_that_cannot_answer_a_logged_request_is_refused(
    logged: Callable[..., Path], row: list[float], model: Computes, reason: str
) -> None:
    with pytest.raises(LoadError, match=reason):
        replay(model, contract(), logged(([1, 1], 2), (row, 3)))
