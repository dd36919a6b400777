"""TensorFlow Serving's classify and regress: lists of features -> rows, and scores or values -> results.

Owns how a feature's JSON becomes a tf.Example's, and how features reach a model that has no signature for Examples: by
the contract's fields, or by the inputs' names. Knows nothing of how Examples are written as bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.contract import FLOATS, METHOD_CLASSIFY, METHOD_PREDICT, METHOD_REGRESS, Contract, Tensor
from models.dialects.dialect import Call, Outputs, Request
from models.dialects.tfs_json import shown, writable
from models.dialects.tfs_predict import Form, checked, checked_outputs, fitted, number, refuse_too_many, text
from models.dialects.tfs_tensors import base64_bytes, dense, explain, is_base64
from models.errors import BadInput, BadOutput
from models.narrowing import class_count
from models.schema import Compiled
from models.tensors import Array, dumps
from models.tf_example import Bytes, Feature, Floats, Ints, serialize
from models.wording import clip

METHODS = {"classify": METHOD_CLASSIFY, "regress": METHOD_REGRESS}
_NOUNS = {"classify": "classification", "regress": "regression"}
_KINDS = {bool: "False", dict: "Object", list: "Array", type(None): "Null"}
_EXAMPLES = "examples"


def parse(compiled: Compiled, body: dict[str, Any], call: Call) -> Request:
    """The rows of a classify or regress body. Raises BadInput and TooLarge."""
    contract, action = compiled.contract, call.action
    examples = _examples(body, compiled, call)
    form = Form("classify" if action == "classify" else "regress")
    if contract.method == METHODS[action]:
        if [(tensor.dtype, tensor.shape) for tensor in contract.inputs] != [("string", ())]:
            raise BadInput("Expected one input Tensor.")
        rows = [_serialized(example) for example in examples]
        return checked(compiled, [rows], [np.fromiter(rows, object, len(rows))], form)
    if contract.method != METHOD_PREDICT or not answers(contract, action):
        raise BadInput(
            f"Expected {_NOUNS[action]} signature method_name to be {METHODS[action]}. Was: {clip(contract.method, 64)}"
        )
    columns = _columns(contract, examples)
    arrays = [_array(column, tensor) for column, tensor in zip(columns, contract.inputs, strict=True)]
    return checked(compiled, columns, arrays, form)


def _examples(body: dict[str, Any], compiled: Compiled, call: Call) -> list[dict[str, Any]]:
    """Each example's features, the common ones among them."""
    context = body.get("context", {})
    if _EXAMPLES not in body:
        reason = f"When method is {call.action}, key '{_EXAMPLES}' is expected and was not found"
        raise BadInput(f"JSON Value: {shown(body)} {reason}")
    examples = body[_EXAMPLES]
    if type(examples) is not list:
        raise BadInput(f"JSON Value: {shown(body)} Expecting '{_EXAMPLES}' value to be an list/array")
    if not examples:
        raise BadInput(f"JSON Value: {shown(body)} '{_EXAMPLES}' value is an empty array")
    refuse_too_many(len(examples), compiled, call)
    for example in (context, *examples):
        if type(example) is not dict:
            raise BadInput(f"Example must be JSON object but got JSON {_kind(example)}")
    return [{**context, **example} for example in examples] if context else examples


def _kind(value: Any) -> str:
    if value is True:
        return "True"
    return _KINDS.get(type(value), "String" if type(value) is str else "Number")


# ---------------------------------------------------------------------------------------------- tf.Examples


def _serialized(example: dict[str, Any]) -> bytes:
    try:
        return serialize({name: _feature(name, value) for name, value in example.items()})
    except UnicodeEncodeError:
        raise BadInput("a feature's name or value holds a lone surrogate") from None


def _feature(name: str, value: Any) -> Feature:
    """A feature of the kind that its values have: whole numbers and booleans, decimals, or strings."""
    values = value if type(value) is list else [value]
    kinds = set(map(type, values))
    if not kinds:
        return None
    if kinds <= {int, bool}:
        if not all(-(2**63) <= one < 2**63 for one in values):
            raise BadInput(f"Feature: {clip(name, 64)} has uint64 element. Only int64 is supported.")
        return Ints([int(one) for one in values])
    if kinds == {float}:
        with np.errstate(over="ignore"):
            beyond = np.isinf(np.array(values, "float32")) & np.isfinite(values)
        if beyond.any():
            worst = values[int(beyond.argmax())]
            raise BadInput(f"Cannot convert JSON value: {shown(worst)} to float without loss of precision.")
        return Floats(values)
    if kinds <= {str, dict} and all(type(one) is str or is_base64(one) for one in values):
        return Bytes([one.encode() if type(one) is str else base64_bytes(one) for one in values])
    raise _mixed(name, values)


def _mixed(name: str, values: list[Any]) -> BadInput:
    """What to say of the first value that is of no kind, or of another than the first."""
    kinds = {bool: "int64", int: "int64", float: "float", str: "bytes", dict: "bytes"}
    for one in values:
        if type(one) not in kinds or (type(one) is dict and not is_base64(one)):
            return BadInput(f"Feature: {clip(name, 64)} has element with unexpected JSON type: {_kind(one)}")
        if kinds[type(one)] != kinds[type(values[0])]:
            break
    return BadInput(f"Unexpected element type in feature: {clip(name, 64)} expecting type: {kinds[type(values[0])]}")


# ---------------------------------------------------------------------------------------------- other models


def answers(contract: Contract, action: str) -> bool:
    """Whether what the model gives is evidently classes, or one value for each row."""
    if action == "classify":
        return class_count(contract) is not None
    return [tensor.shape in ((), (1,)) and tensor.dtype in FLOATS for tensor in contract.outputs] == [True]


def _columns(contract: Contract, examples: list[dict[str, Any]]) -> list[list[Any]]:
    """Each input's value in every example. Raises BadInput unless each has exactly the model's features."""
    fields = [field.name for field in contract.fields]
    names = fields or [tensor.name for tensor in contract.inputs]
    wanted = set(names)
    for index, example in enumerate(examples):
        if example.keys() != wanted:
            raise BadInput(
                f"Failed to process element: {index} of '{_EXAMPLES}' list. JSON object: {shown(example)} keys must be"
                f" equal to: {clip(','.join(names), 200)}"
            )
    if not fields:
        return [[example[name] for example in examples] for name in names]
    rows = [[_lone(example[name]) for name in names] for example in examples]
    return [rows if contract.inputs[0].shape else [row[0] for row in rows]]


def _lone(value: Any) -> Any:
    """A feature is a list; one of a single value is that value."""
    return value[0] if type(value) is list and len(value) == 1 else value


def _array(column: list[Any], tensor: Tensor) -> Array:
    if tensor.shape in ((), (1,)):
        column[:] = map(_lone, column)
    try:
        array = dense(column, tensor.dtype)
    except (ValueError, OverflowError, FloatingPointError, BadInput):
        index, fault = explain(column, tensor.dtype)
        raise BadInput(f"Failed to process element: {index} of '{_EXAMPLES}' list. Error: {fault}") from None
    return fitted(array, tensor)[0]


# ---------------------------------------------------------------------------------------------- results


def render(contract: Contract, request: Request, outputs: Outputs) -> bytes:
    """The body of an answer: for each example its pairs of label and score, or its value. Raises BadOutput."""
    arrays = checked_outputs(contract, request, outputs)
    if request.form.kind == "regress":
        return dumps({"results": writable(_values(contract, arrays))})
    labels, scores = _classes(contract, arrays)
    ready: Any = scores
    if not np.isfinite(scores).all():
        ready = [[number(score) for score in row] for row in scores]
    results = [list(zip(names, row, strict=True)) for names, row in zip(labels, ready, strict=True)]
    return dumps({"results": results})


def _values(contract: Contract, arrays: list[Array]) -> Array:
    named = {tensor.name: array for tensor, array in zip(contract.outputs, arrays, strict=True)}
    values = named["outputs"] if contract.method == METHOD_REGRESS and "outputs" in named else arrays[0]
    if values.dtype.kind != "f" or values.size != len(values):
        raise BadOutput(f"Expected one regression value for each example, got the shape {values.shape}")
    return values.reshape(-1)


def _classes(contract: Contract, arrays: list[Array]) -> tuple[list[list[Any]], Array]:
    """Labels and scores, both (rows, classes); a label is "" where there is none, a score 0."""
    named = {tensor.name: array for tensor, array in zip(contract.outputs, arrays, strict=True)}
    classes: Array | None = named.get("classes")
    scores: Array | None = named.get("scores")
    if contract.method != METHOD_CLASSIFY:
        classes, scores = None, arrays[0]
        if scores.shape[1] == 1:  # of two classes, the second one's probability
            scores = np.concatenate((1 - scores, scores), axis=1)
    if classes is None and scores is None:
        raise BadOutput('Expected classification signature outputs to contain at least one of "classes" or "scores"')
    if any(array is not None and array.ndim != 2 for array in (classes, scores)):
        raise BadOutput("Expected Tensor shape: [batch_size num_classes]")
    if scores is None:
        scores = np.zeros_like(classes, "float32")
    if classes is not None:
        if classes.shape != scores.shape:
            raise BadOutput("Tensors class and score should match in dim_size(1)")
        return [[text(bytes(one)) for one in row] for row in classes], scores
    count = len(scores[0])
    labels = contract.labels if len(contract.labels) == count else ("",) * count
    return [list(labels)] * len(scores), scores
