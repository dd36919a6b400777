"""JSON Schema of the native dialect's bodies, for its documentation: of each model's own requests and answers.

Owns what the document says; that the server says the same is shown by tests that send what it describes. Knows nothing
of HTTP beyond the media types in which pictures come.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from models.contract import Contract, Example
from models.dialects.native import TOP_MAX
from models.dialects.schema_parts import (
    BASE64,
    closed,
    either,
    exact_instance,
    listed,
    nested,
    opened,
    output_leaf,
    plain_png,
)
from models.forms import ROWS, Form
from models.keywords import Schema
from models.narrowing import class_count
from models.schema import Compiled
from models.tensors import dumps

# A longer example helps nobody to read it.
EXAMPLE_BYTES_MAX = 4096
# `format` is a word for people and for generators of test data: what it stands for is in the description.
PICTURE = {
    **BASE64,
    "format": "picture",
    "description": "PNG, JPEG, GIF, BMP or WEBP as base64; a data: URI will do, too",
}
PICTURE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/bmp", "image/webp")
_OK: Schema = {"const": True}
_TEXT: Schema = {"type": "string"}

Content = dict[str, dict[str, Any]]
"""Media type -> {"schema", "examples"}, as OpenAPI has it."""


def request_schema(compiled: Compiled, max_rows: int) -> Schema:
    """What a body must satisfy: a form of one row, or many of them as instances."""
    contract = compiled.contract
    described = {"description": contract.description} if contract.description else {}
    title = f"a request to {contract.name}"
    return {"title": title, **described, "anyOf": [_form(contract, form, max_rows) for form in compiled.forms]}


def _form(contract: Contract, form: Form, max_rows: int) -> Schema:
    instance = exact_instance(contract, form)
    if not form.many:
        return {"title": form.title, **instance}
    return {"title": form.title, **closed({ROWS: listed(instance, 1, _most(contract, max_rows))})}


def _most(contract: Contract, max_rows: int) -> int:
    return min(max_rows, contract.max_rows or max_rows)


def picture_schema(compiled: Compiled, max_rows: int) -> Schema:
    """The same for an image classifier, which takes pictures in JSON beside the rows of numbers."""
    one = opened({"image": PICTURE})
    rows = either(
        listed(one, 1, _most(compiled.contract, max_rows)), listed(PICTURE, 1, _most(compiled.contract, max_rows))
    )
    pictures = [{"title": "a picture", **one}, {"title": "pictures", **opened({ROWS: rows})}]
    schema = request_schema(compiled, max_rows)
    return {**schema, "anyOf": [*pictures, *schema["anyOf"]]}


def picture_content(compiled: Compiled) -> Content:
    """How else a picture may come: a form, a file in a form, a raw body."""
    form = {"title": "a form with a picture", **opened({"image": PICTURE})}
    file = {"type": "string", "contentMediaType": "image/*", "format": "picture-file"}
    sample = base64.b64encode(plain_png()).decode()
    return {
        "multipart/form-data": {
            "schema": {"title": "a form with a file", **opened({"image": file})},
            "encoding": {"image": {"contentType": ", ".join(PICTURE_TYPES)}},
        },
        "application/x-www-form-urlencoded": {"schema": form, "example": {"image": sample}},
        **{media: {"schema": {"contentMediaType": media}} for media in PICTURE_TYPES},
    }


# ---------------------------------------------------------------------------------------------- answers


def answer_schema(contract: Contract, action: str) -> Schema:
    """The body of a 200, for one row and for many."""
    version = {"type": "string", "description": "of the model, whose answer this is"}
    if action == "classify":
        one = _ranked(contract)
        many = closed({"ok": _OK, "predictions": listed(closed(one), 1), "model_version": version})
        return {"anyOf": [closed({"ok": _OK, **one, "model_version": version}), many]}
    row = _row(contract, flat=action == "predict")
    if action == "advanced":  # each output with its row dimension
        columns = _row(contract, flat=False, rows=True)
        return {
            "anyOf": [
                closed({"ok": _OK, key: columns, "model_version": version}) for key in ("prediction", "predictions")
            ]
        }
    return {
        "anyOf": [
            closed({"ok": _OK, "prediction": row, "model_version": version}),
            closed({"ok": _OK, "predictions": listed(row, 1), "model_version": version}),
        ]
    }


def _row(contract: Contract, *, flat: bool, rows: bool = False) -> Schema:
    """One row's outputs, or (rows) all rows' of each; the only one bare, a plain number where it is all there is."""
    outputs = {}
    for tensor in contract.outputs:
        leaf = output_leaf(tensor, null_for_nan=contract.null_for_nan)
        shape = () if flat and tensor.shape == (1,) else tensor.shape
        outputs[tensor.name] = listed(nested(leaf, shape), 1) if rows else nested(leaf, shape)
    return next(iter(outputs.values())) if len(outputs) == 1 else closed(outputs)


def _ranked(contract: Contract) -> dict[str, Schema]:
    count = class_count(contract) or 1
    number: Schema = {"type": "integer", "minimum": 0, "maximum": count - 1}
    label: Schema = {"enum": list(dict.fromkeys(contract.labels))} if contract.labels else _TEXT
    best = closed({"class": number, "label": label, "score": {"type": "number"}})
    return {
        "predicted_class": number,
        "label": label,
        "top": {**listed(best, 1, min(count, TOP_MAX)), "description": "the best classes in order"},
    }


# ---------------------------------------------------------------------------------------------- examples


def request_examples(compiled: Compiled, action: str) -> dict[str, dict[str, Any]]:
    """Bodies to send, by a name: the sample, the same as rows, those of the contract, a picture where one will do."""
    found = dict(_requests(compiled, action))
    return {
        name: {"summary": summary, "value": value}
        for name, (summary, value) in found.items()
        if len(dumps(value)) <= EXAMPLE_BYTES_MAX
    }


def _requests(compiled: Compiled, action: str) -> Iterator[tuple[str, tuple[str, Any]]]:
    contract = compiled.contract
    if action == "classify" and contract.image is not None and not any(map(is_picture, contract.examples)):
        yield "picture", ("a white square", {"image": base64.b64encode(plain_png()).decode()})
    if compiled.sample is not None:
        yield "sample", ("a sample", compiled.sample)
        form = compiled.form_of(compiled.sample)
        if form is not None and not form.many:
            row = compiled.sample if form.kind == "fields" or len(form.keys) > 1 else compiled.sample[form.keys[0]]
            yield "rows", ("several rows", {ROWS: [row] * min(2, contract.max_rows or 2)})
    for index, example in enumerate(contract.examples, 1):
        if example.request != compiled.sample and (action == "classify" or not is_picture(example)):
            yield f"example_{index}", (f"example {index} of the contract", example.request)


def is_picture(example: Example) -> bool:
    """Whether a contract's example sends a picture."""
    request = example.request
    rows = request.get(ROWS) if isinstance(request, dict) else None
    first = rows[0] if isinstance(rows, list) and rows else request
    return isinstance(first, str) or (isinstance(first, dict) and isinstance(first.get("image"), str))


def answer_examples(compiled: Compiled, action: str) -> dict[str, dict[str, Any]]:
    """Answers of the contract's examples, where they are whole."""
    contract, found = compiled.contract, {}
    for index, example in enumerate(contract.examples, 1):
        wanted = "predicted_class" if action == "classify" else "prediction"
        if isinstance(example.answer, dict) and wanted in example.answer and action == "predict":
            value = {"ok": True, **example.answer, "model_version": contract.version}
            found[f"example_{index}"] = {"summary": f"of example {index} of the contract", "value": value}
    return found


# ---------------------------------------------------------------------------------------------- descriptions


def version_schema() -> Schema:
    """One version as GET /models shows it."""
    state: dict[str, Schema] = {
        "name": _TEXT,
        "version": _TEXT,
        "state": {"enum": ["LOADING", "READY", "FAILED", "UNLOADED"]},
    }
    known: dict[str, Schema] = {
        "contract": {"type": "object", "description": "what it takes and gives, and what contract.json says of it"},
        "json_schema": {"type": "object", "description": "of a request's body (JSON Schema 2020-12)"},
        "sample": {"description": "a body that passes; null where it would be too long to read"},
        "curl": {"type": ["string", "null"], "description": "a line for the shell that sends the sample"},
        "curl_picture": {"type": "string"},
        "batch_seconds": {"type": "object", "additionalProperties": {"type": "number"}},
        "calibration": {"type": ["object", "null"]},
    }
    return opened({**state, "reason": {"type": ["string", "null"]}, **known}, *known)
