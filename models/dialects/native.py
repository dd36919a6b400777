"""The native dialect: a JSON body or a picture -> rows for the model, and the model's outputs -> a JSON body.

Owns the bodies of /predict, /classify and of the routes that contracts claim, and what is said of models at /models.
Knows nothing of routing, of errors' statuses or of how rows are computed.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from models import numbers
from models.body import loads
from models.contract import Contract, Image, Tensor
from models.dialects.dialect import Asked, Call, Fault, Outputs, Rendered, Request, Route, Version, usable
from models.errors import BadInput, BadOutput, TooLarge
from models.forms import ROWS, Form
from models.images import decode
from models.narrowing import class_count, is_classifier
from models.schema import Compiled, explain
from models.tensors import Array, Item, dumps, fits, from_json, to_json
from models.uploads import pictures
from models.wording import Parts

NAME = "native"
PREFIX = ""
ROUTES: tuple[Route, ...] = (
    Route("POST", "/predict", "predict", infers=True),
    Route("POST", "/predict/{model}", "predict", infers=True),
    Route("POST", "/classify", "classify", infers=True),
    Route("POST", "/classify/{model}", "classify", infers=True),
    Route("GET", "/models", "models"),
    Route("GET", "/models/{model}", "model"),
)
TOP_DEFAULT, TOP_MAX = 3, 1000
ONE_ROW = range(1)
ERROR_BYTES_MAX = 2048

# ---------------------------------------------------------------------------------------------- body -> rows


def parse(version: Version, call: Call) -> Request:
    """The rows that a body asks about; for the action "classify" pictures in any of their ways, too.

    Instances whose unknown sizes differ become several items. The request's form is what `render` needs: the action,
    and for "classify" how many classes to name.

    Raises:
        BadInput: no JSON, or not of any form the contract takes; with path, expectation and a sample.
        TooLarge: more bytes than `max_json_bytes`, more rows than `max_rows` or the contract's own, or a bomb.
    """
    compiled = usable(version)
    contract = compiled.contract
    if call.action != "classify":
        return _tensors(compiled, call, call.action)
    if not is_classifier(contract):
        raise BadInput(f"model {contract.name} is not a classifier: it has neither labels nor an image input")
    form = ("classify", _top(call.query("top")))
    if contract.image is not None:
        # More could never be queued, and each costs some time before anything is known of it.
        max_rows = call.most_rows(contract)
        content_type = call.header("content-type") or ""
        found = pictures(call.body, content_type, max_json_bytes=call.max_json_bytes, max_rows=max_rows)
        if found is not None:
            return _pixels(contract, contract.image, *found, call.max_image_pixels, form)
    return _tensors(compiled, call, form)


def _top(text: str | None) -> int:
    if text is None:
        return TOP_DEFAULT
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= TOP_MAX):
        raise BadInput(f"top must be a whole number from 1 to {TOP_MAX}")
    return int(text)


def _pixels(
    contract: Contract, image: Image, encoded: list[bytes], as_instances: bool, max_pixels: int, form: Any
) -> Request:
    flat = len(contract.inputs[0].shape) == 2
    rows = []
    for position, data in enumerate(encoded):
        try:
            rows.append(decode(data, image, max_pixels=max_pixels, squeeze=flat))
        except BadInput as error:
            error.path = f"/instances/{position}" if as_instances else "/image"
            raise
    item = Item((np.stack(rows),), range(len(rows)))
    return Request((item,), len(rows), as_instances, pictures=encoded, form=form)


def _tensors(compiled: Compiled, call: Call, asked: Any) -> Request:
    body, max_rows = call.body, call.max_rows
    if len(body) > call.max_json_bytes:
        raise TooLarge(f"the body has {len(body)} bytes, at most {call.max_json_bytes} are taken")
    if compiled.plain is not None and len(body) >= numbers.BYTES_MIN:
        plain = _plain(compiled, compiled.plain, call, asked)
        if plain is not None:
            return plain
    try:
        value = loads(body)
        form = compiled.form_of(value)
        if form is None:
            _refuse_too_many(compiled.contract.max_rows, value)
            raise explain(compiled, value)
        if form.many:
            _refuse_too_many(max_rows, value)
        inputs = compiled.contract.inputs
        key = form.keys[0] if form.kind == "inputs" and len(inputs) == 1 else None
        if key is not None and not form.many:  # one row of one input, as most requests are
            array = from_json([value[key]], inputs[0], _locator(form, 0), validated=True)
            return Request((Item((array,), ONE_ROW),), 1, False, key, form=asked)
        instances: list[Any] = value[ROWS] if form.many else [value]
        return Request(_items(compiled.contract, form, instances), len(instances), form.many, key, form=asked)
    except BadInput as fault:
        fault.sample = compiled.shown_sample
        raise


def _plain(compiled: Compiled, tensor: Tensor, call: Call, asked: Any) -> Request | None:
    """A body that is nothing but numbers; None for any other."""
    array = numbers.instances(call.body, tensor, call.most_rows(compiled.contract))
    if array is not None:
        return Request((Item((array,), range(len(array))),), len(array), True, form=asked)
    found = numbers.one(call.body, tensor)
    if found is not None:
        key, array = found
        return Request((Item((array,), ONE_ROW),), 1, False, key, form=asked)
    return None


def _refuse_too_many(max_rows: int | None, value: dict[str, Any]) -> None:
    rows = value.get(ROWS)
    if max_rows is not None and isinstance(rows, list) and len(rows) > max_rows:
        raise TooLarge(f"the body holds {len(rows)} rows, at most {max_rows} are taken at once")


def _items(contract: Contract, form: Form, instances: list[Any]) -> tuple[Item, ...]:
    columns = _columns(form, instances)
    try:
        arrays = [
            from_json(column, tensor, validated=True) for column, tensor in zip(columns, contract.inputs, strict=True)
        ]
    except BadInput:
        if len(instances) > 1 and any(None in tensor.shape for tensor in contract.inputs):
            return _grouped(contract, form, columns)
        for index, (column, tensor) in enumerate(zip(columns, contract.inputs, strict=True)):
            from_json(column, tensor, _locator(form, index), validated=True)  # the same again, with its place
        raise
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


def render(compiled: Compiled, request: Request, outputs: Outputs) -> Rendered:
    """The answer to a request, in the way that it asked. Raises BadOutput; see the three ways."""
    if request.form == "predict":
        return Rendered(render_predict(compiled, request, outputs))
    if request.form == "advanced":
        return Rendered(render_advanced(compiled, request, outputs))
    return Rendered(render_classify(compiled, request, outputs, top=request.form[1]))


def render_predict(compiled: Compiled, request: Request, outputs: Outputs) -> bytes:
    """The body of /predict: each row's outputs by name, the only one bare; a plain number where a row has just one.

    outputs: for each item its outputs in the contract's order, each of shape (rows of the item, *shape of one row).

    Raises:
        BadOutput: other rows or shapes than the contract promises, or NaN where it is not allowed.
    """
    tensors = compiled.contract.outputs
    if len(tensors) == 1:
        column = _column(compiled.contract, request, outputs, 0, flat=True)
        return _body(compiled, request, column if request.many else column[0])
    columns = [_column(compiled.contract, request, outputs, index, flat=True) for index in range(len(tensors))]
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
    if len(request.items) == 1:
        return _part(contract, request.items[0], outputs[0], index, flat)
    parts = [_part(contract, item, arrays, index, flat) for item, arrays in zip(request.items, outputs, strict=True)]
    rows: list[Any] = [None] * request.count
    for item, part in zip(request.items, parts, strict=True):
        for row, value in zip(item.rows, part, strict=True):
            rows[row] = value
    return rows


def _part(contract: Contract, item: Item, arrays: Sequence[Array], index: int, flat: bool) -> Any:
    array = _checked(contract, item, arrays, index)
    if flat and contract.outputs[index].shape == (1,):
        array = array.reshape(-1)
    return to_json(array, null_for_nan=contract.null_for_nan)


def _checked(contract: Contract, item: Item, arrays: Sequence[Array], index: int) -> Array:
    if len(arrays) != len(contract.outputs):
        raise BadOutput(f"the model answered with {len(arrays)} outputs, its contract has {len(contract.outputs)}")
    array, shape = arrays[index], (len(item.rows), *contract.outputs[index].shape)
    if not fits(array.shape, shape):
        raise BadOutput(f"the model answered with shape {array.shape}, expected {shape}")
    return array


# ---------------------------------------------------------------------------------------------- documentation


def describe(asked: Asked) -> Rendered:
    """GET /models and GET /models/<model>: state, contract, JSON Schema, a sample body and how to send it."""
    if asked.action == "model" and asked.version is not None:
        return Rendered(dumps({"ok": True, **describe_version(asked.version, asked.base_url)}))
    models = [describe_version(version, asked.base_url) for version in asked.versions]
    return Rendered(dumps({"ok": True, "default": asked.default, "models": models}))


def describe_version(version: Version, base_url: str) -> dict[str, Any]:
    """Sample and command line are None where there is none to read, as for a large picture in numbers."""
    state = {"name": version.name, "version": version.version, "state": version.state, "reason": version.reason}
    compiled = version.compiled
    if compiled is None:
        return state
    base = base_url.rstrip("/")
    curl = f"curl -d {shlex.quote(dumps(compiled.sample).decode())} {shlex.quote(f'{base}/predict/{version.name}')}"
    described = {
        **state,
        "contract": compiled.contract.to_json(),
        "json_schema": compiled.json_schema,
        "sample": compiled.sample,
        "curl": None if compiled.sample is None else curl,
    }
    if compiled.contract.image is not None:
        described["curl_picture"] = f"curl -F image=@picture.png {base}/classify/{version.name}"
    return {**described, "batch_seconds": version.costs, "calibration": version.calibration}


# ---------------------------------------------------------------------------------------------- refusals


def refuse(fault: Fault) -> Rendered:
    """The body that explains a refusal, at most 2 KiB: what does not fit of a sample or an expectation is left out."""
    body: dict[str, Any] = {
        "ok": False, "error": fault.code, "message": fault.message[:400], "request_id": fault.request_id,
    }  # fmt: skip
    extras = {"path": fault.pointer, "expected": fault.expected, "sample": fault.sample, "reason": fault.reason}
    body |= {key: value for key, value in extras.items() if value is not None}
    encoded = dumps(body)
    while len(encoded) > ERROR_BYTES_MAX and {"sample", "expected"} & body.keys():
        body.pop("sample" if "sample" in body else "expected")
        encoded = dumps(body)
    return Rendered(encoded, status=fault.status)
