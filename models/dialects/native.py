"""The native dialect: a JSON body -> rows for the model, and the model's outputs -> a JSON body.

Owns the bodies of /predict, /advanced_predict and /classify. Knows nothing of routes, of errors' statuses or of how
rows are computed.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.body import loads
from models.contract import Contract
from models.errors import BadInput, BadOutput, TooLarge
from models.forms import ROWS, Form
from models.narrowing import class_count
from models.schema import Compiled, explain
from models.tensors import Array, Item, dumps, fits, from_json, to_json
from models.wording import Parts

Outputs = Sequence[Sequence[Array]]


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """Rows to be computed, and how to put the answers back.

    items: rows of one shape each; together every row of the request once.
    count: how many rows there are. many: they came as "instances", so the answer is a list too.
    value_key: the key of the value in each row, None where the row is the value or has several.
    pictures: as they came, still encoded, where the rows are pictures.
    """

    items: tuple[Item, ...]
    count: int
    many: bool
    value_key: str | None = None
    pictures: Sequence[bytes] = ()


# ---------------------------------------------------------------------------------------------- body -> rows


def parse(compiled: Compiled, body: bytes, *, max_json_bytes: int, max_rows: int) -> Request:
    """The rows that a body asks about.

    Instances whose unknown sizes differ become several items.

    Raises:
        BadInput: no JSON, or not of any form the contract takes; with path, expectation and a sample.
        TooLarge: more bytes than `max_json_bytes`, more rows than `max_rows` or the contract's own, or a bomb.
    """
    if len(body) > max_json_bytes:
        raise TooLarge(f"the body has {len(body)} bytes, at most {max_json_bytes} are taken")
    try:
        value = loads(body)
        form = compiled.form_of(value)
        if form is None:
            _refuse_too_many(compiled.contract.max_rows, value)
            raise explain(compiled, value)
        instances: list[Any] = value[ROWS] if form.many else [value]
        if form.many:
            _refuse_too_many(max_rows, value)
        key = form.keys[0] if form.kind == "inputs" and len(compiled.contract.inputs) == 1 else None
        return Request(_items(compiled.contract, form, instances), len(instances), form.many, key)
    except BadInput as fault:
        fault.sample = compiled.shown_sample
        raise


def _refuse_too_many(max_rows: int | None, value: dict[str, Any]) -> None:
    rows = value.get(ROWS)
    if max_rows is not None and isinstance(rows, list) and len(rows) > max_rows:
        raise TooLarge(f"the body holds {len(rows)} rows, at most {max_rows} are taken at once")


def _items(contract: Contract, form: Form, instances: list[Any]) -> tuple[Item, ...]:
    columns = _columns(form, instances)
    try:
        arrays = [
            from_json(column, tensor, _locator(form, index), validated=True)
            for index, (column, tensor) in enumerate(zip(columns, contract.inputs, strict=True))
        ]
    except BadInput:
        if len(instances) == 1 or all(None not in tensor.shape for tensor in contract.inputs):
            raise
        return _grouped(contract, form, columns)
    return (Item(tuple(arrays), range(len(instances))),)


def _columns(form: Form, instances: list[Any]) -> list[list[Any]]:
    """For each input its value in every instance."""
    if form.kind == "bare":
        return [instances]
    if form.kind == "inputs":
        return [[instance[key] for instance in instances] for key in form.keys]
    return [[[instance[key] for key in form.keys] for instance in instances]]


def _grouped(contract: Contract, form: Form, columns: list[list[Any]]) -> tuple[Item, ...]:
    """One item for each shape that rows have; the first row of a shape says where its item stands."""
    groups: dict[tuple[tuple[int, ...], ...], tuple[list[int], list[tuple[Array, ...]]]] = {}
    for row, values in enumerate(zip(*columns, strict=True)):
        arrays = tuple(
            from_json([value], tensor, _locator(form, index, row), validated=True)
            for index, (value, tensor) in enumerate(zip(values, contract.inputs, strict=True))
        )
        rows, parts = groups.setdefault(tuple(array.shape for array in arrays), ([], []))
        rows.append(row)
        parts.append(arrays)
    return tuple(
        Item(tuple(np.concatenate(column) for column in zip(*parts, strict=True)), tuple(rows))
        for rows, parts in groups.values()
    )


def _locator(form: Form, index: int, row: int = 0) -> Callable[[tuple[int, ...]], Parts]:
    """Where in the body an element of an input stands, by its indices in the array; the array begins with `row`."""

    def locate(indices: tuple[int, ...]) -> Parts:
        place: Parts = (ROWS, row + indices[0]) if form.many and indices else ()
        if form.kind == "inputs":
            return (*place, form.keys[index], *indices[1:])
        if form.kind == "fields" and len(indices) > 1:
            return (*place, form.keys[indices[1]])
        return (*place, *indices[1:])

    return locate


# ---------------------------------------------------------------------------------------------- outputs -> body


def render_predict(compiled: Compiled, request: Request, outputs: Outputs) -> bytes:
    """The body of /predict: each row's outputs by name, the only one bare; a plain number where a row has just one.

    outputs: for each item its outputs in the contract's order, each of shape (rows of the item, *shape of one row).

    Raises:
        BadOutput: other rows or shapes than the contract promises, or NaN where it is not allowed.
    """
    tensors = compiled.contract.outputs
    columns = [_column(compiled.contract, request, outputs, index, flat=True) for index in range(len(tensors))]
    if len(columns) == 1:
        return _body(compiled, request, columns[0] if request.many else columns[0][0])
    names = [tensor.name for tensor in tensors]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return _body(compiled, request, rows if request.many else rows[0])


def render_advanced(compiled: Compiled, request: Request, outputs: Outputs) -> bytes:
    """The body of /advanced_predict: as `render_predict`, but each output with its row dimension: [[y]] for one row."""
    tensors = compiled.contract.outputs
    columns = [_column(compiled.contract, request, outputs, index, flat=False) for index in range(len(tensors))]
    if len(columns) == 1:
        return _body(compiled, request, columns[0])
    return _body(compiled, request, {tensor.name: column for tensor, column in zip(tensors, columns, strict=True)})


def render_classify(compiled: Compiled, request: Request, outputs: Outputs, top: int) -> bytes:
    """The body of /classify: the class of the highest score, and the `top` best ones in order.

    Scores are passed on as the model gives them. NaN is never allowed here: no class could be named.

    Raises:
        BadInput: the model is no classifier.
        BadOutput: as `render_predict`; or a lone score, which must be a probability, outside 0..1.
    """
    contract = compiled.contract
    if class_count(contract) is None:
        raise BadInput(f"the model {contract.name} is no classifier", expected="a model whose outputs are classes")
    answers: list[Any] = [None] * request.count
    for item, arrays in zip(request.items, outputs, strict=True):
        for row, answer in zip(item.rows, _classes(contract, item, arrays, top), strict=True):
            answers[row] = answer
    if request.many:
        return _body(compiled, request, answers)
    return dumps({"ok": True, **answers[0], "model_version": contract.version})


def _classes(contract: Contract, item: Item, arrays: Sequence[Array], top: int) -> Iterator[dict[str, Any]]:
    scores = to_json(_checked(contract, item, arrays, 0))
    if scores.shape[1] == 1:
        if not ((scores >= 0) & (scores <= 1)).all():
            raise BadOutput("the model answered with a probability outside 0..1")
        scores = np.concatenate((1 - scores, scores), axis=1)
    if contract.labels and len(contract.labels) != scores.shape[1]:
        raise BadOutput(f"the model answered with {scores.shape[1]} classes, it has {len(contract.labels)} labels")
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    for row, classes in enumerate(best.tolist()):
        ranked = [{"class": c, "label": _label(contract, c), "score": scores[row, c]} for c in classes]
        yield {"predicted_class": ranked[0]["class"], "label": ranked[0]["label"], "top": ranked}


def _label(contract: Contract, index: int) -> str:
    return contract.labels[index] if contract.labels else str(index)


def _body(compiled: Compiled, request: Request, answer: Any) -> bytes:
    key = "predictions" if request.many else "prediction"
    return dumps({"ok": True, key: answer, "model_version": compiled.contract.version})


def _column(contract: Contract, request: Request, outputs: Outputs, index: int, *, flat: bool) -> Any:
    """One output in the request's order of rows, ready for `dumps`; one of a single value per row as plain values."""
    parts = []
    for item, arrays in zip(request.items, outputs, strict=True):
        array = _checked(contract, item, arrays, index)
        if flat and contract.outputs[index].shape == (1,):
            array = array.reshape(-1)
        parts.append(to_json(array, null_for_nan=contract.null_for_nan))
    if len(parts) == 1:
        return parts[0]
    rows: list[Any] = [None] * request.count
    for item, part in zip(request.items, parts, strict=True):
        for row, value in zip(item.rows, part, strict=True):
            rows[row] = value
    return rows


def _checked(contract: Contract, item: Item, arrays: Sequence[Array], index: int) -> Array:
    if len(arrays) != len(contract.outputs):
        raise BadOutput(f"the model answered with {len(arrays)} outputs, its contract has {len(contract.outputs)}")
    array, shape = arrays[index], (len(item.rows), *contract.outputs[index].shape)
    if not fits(array.shape, shape):
        raise BadOutput(f"the model answered with shape {array.shape}, expected {shape}")
    return array


# ---------------------------------------------------------------------------------------------- documentation


def describe(compiled: Compiled, base_url: str) -> dict[str, Any]:
    """The answer of GET /models/<model>: contract, JSON Schema, a sample body and a command line that sends it.

    Sample and command line are None where there is none to read, as for a large picture in numbers.
    """
    contract = compiled.contract
    url = f"{base_url.rstrip('/')}/predict/{contract.name}"
    curl = f"curl -d {shlex.quote(dumps(compiled.sample).decode())} {shlex.quote(url)}"
    return {
        "name": contract.name,
        "version": contract.version,
        "contract": contract.to_json(),
        "json_schema": compiled.json_schema,
        "sample": compiled.sample,
        "curl": None if compiled.sample is None else curl,
    }
