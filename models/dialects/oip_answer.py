"""The answer to an inference request: a model's outputs -> JSON, raw bytes behind it, or the best classes.

Owns the body. Knows nothing of requests but what `oip_request.Reply` says of the answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.contract import Contract
from models.dialects.dialect import Outputs, Rendered, Request
from models.dialects.oip_binary import HEADER, raw_bytes
from models.dialects.oip_datatypes import datatype_of_array
from models.dialects.oip_request import Wanted
from models.errors import BadInput, BadOutput
from models.tensors import Array, dumps, fits, to_json

BINARY = "application/octet-stream"


def render(contract: Contract, request: Request, outputs: Outputs) -> Rendered:
    """The answer, in the protocol's own type where an output is wanted in binary.

    Raises:
        BadOutput: other rows or shapes than the contract promises, NaN where JSON must carry it, or none to rank.
        BadInput: bytes that are no text are wanted as JSON.
    """
    reply, tensors = request.form, []
    blobs: list[bytes | memoryview] = []
    for wanted in reply.wanted:
        array = _checked(contract, request.count, outputs, wanted)
        tensor: dict[str, Any] = {
            "name": contract.outputs[wanted.output].name,
            "datatype": datatype_of_array(array),
            "shape": array.shape,
        }
        if wanted.binary:
            blob = raw_bytes(array)
            tensor["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            tensor["data"] = _data(contract, tensor["name"], array)
        tensors.append(tensor)
    named = {"model_name": contract.name, "model_version": contract.version}
    text = dumps({**named, **({} if reply.id is None else {"id": reply.id}), "outputs": tensors})
    if not blobs:
        return Rendered(text)
    return Rendered(b"".join((text, *blobs)), BINARY, ((HEADER, str(len(text))),))


def _checked(contract: Contract, rows: int, outputs: Outputs, wanted: Wanted) -> Array:
    (arrays,) = outputs  # all rows have one shape, so there is one item
    if len(arrays) != len(contract.outputs):
        raise BadOutput(f"the model answered with {len(arrays)} outputs, its contract has {len(contract.outputs)}")
    array, shape = arrays[wanted.output], (rows, *contract.outputs[wanted.output].shape)
    if not fits(array.shape, shape):
        raise BadOutput(f"the model answered with shape {array.shape}, expected {shape}")
    return _best_classes(contract, array, wanted.classes) if wanted.classes else array


def _data(contract: Contract, name: str, array: Array) -> Any:
    """Flat, in row-major order. Only binary can carry bytes that are no text."""
    data = to_json(array.reshape(-1), null_for_nan=contract.null_for_nan)
    if isinstance(data, list) and not all(type(element) is str for element in data):
        raise BadInput(f"output '{name}' holds bytes that are not UTF-8; ask for it with 'binary_data' true")
    return data


def _best_classes(contract: Contract, array: Array, classes: int) -> Array:
    """For each row its best classes in order, as text: value, index and, where there are labels, the label."""
    scores = array.reshape(len(array), -1)
    if scores.dtype.kind not in "fiu" or (scores.dtype.kind == "f" and np.isnan(scores).any()):
        raise BadOutput("the model answered with NaN, or with no numbers: no class is the best")
    count = scores.shape[1]
    # Ascending and backwards, since unsigned numbers cannot be negated; among equals the lower index comes first.
    best = count - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :classes]
    labels = [f":{label}" for label in contract.labels] if len(contract.labels) == count else [""] * count
    form = "%f:%d%s" if scores.dtype.kind == "f" else "%d:%d%s"
    texts = (
        (form % (value, index, labels[index])).encode()
        for row, indices in zip(scores, best.tolist(), strict=True)
        for index, value in zip(indices, row[indices].tolist(), strict=True)
    )
    return np.fromiter(texts, object, best.size).reshape(best.shape)
