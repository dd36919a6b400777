"""What a user's `contract.json` may say of a model, held against what the model itself says.

Owns the checks of every key and the reasons given for a refusal. Renaming inputs or outputs is not offered. Knows
nothing of files: `narrow` is handed the parsed object.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from models import keywords
from models.contract import FLOATS, Contract, Example, Field, Image, LogRules, Tensor
from models.errors import LoadError
from models.wording import clip, quoted

_ROUTE = re.compile(r"/[a-z0-9_/-]+")
_MAX_NAME = 64  # also the most of a key that a message repeats, so that a field's pointer is never cut
_MAX_TEXT = 4000
_MAX_SIDE = 4096
_MIN_EVIDENT_SIDE = 4  # below this a block of numbers is hardly a picture
_RESERVED = ("features", "instances")  # keys of the general forms of a request
_COLOURS = {1: "grey", 3: "rgb"}
_OF_OBJECTS = frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"})
_CAPTURES = ("none", "hash", "auto", "full")
_PIXEL_INTEGERS = ("uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")  # those that hold 0..255


def narrow(contract: Contract, user: Mapping[str, Any]) -> Contract:
    """The contract as derived from the model, with what `contract.json` adds to it.

    Raises:
        LoadError: an unknown key, a wrong type, or something the model contradicts; one line that says what to write.
    """
    if not isinstance(user, Mapping):
        raise _error("it must hold a JSON object")
    for key in user:
        if key not in _KEYS:
            raise _error(f"unknown key {quoted(str(key))}; {_choices(str(key), tuple(_KEYS))}")
    for key, apply in _KEYS.items():  # in this order: an image asks for the labels, request_schema for the fields
        if key in user:
            contract = apply(contract, user[key])
    return contract


def narrow_other(other: Contract, usual: Contract) -> Contract:
    """The contract of a model's further signature, with what the usual one's (narrowed) says of the whole model.

    What it says of inputs and outputs holds where they are the same. What the log must not hold of the usual inputs
    may hide anywhere in others, so of those it holds nothing.
    """
    alike = replace(
        other,
        description=usual.description,
        null_for_nan=usual.null_for_nan,
        isolate=usual.isolate,
        max_rows=usual.max_rows,
        log=usual.log,
    )
    if other.outputs == usual.outputs:
        alike = replace(alike, labels=usual.labels)
    if other.inputs == usual.inputs:
        return replace(alike, fields=usual.fields, request_schema=usual.request_schema)
    if usual.log.omit:
        return replace(alike, log=replace(usual.log, omit=tuple(tensor.name for tensor in other.inputs)))
    return alike


def derive_image(contract: Contract) -> Image | None:
    """How pictures reach a model that is evidently an image classifier, None for any other; pixels become 0..1.

    Evident: one float input of shape (h, w), (h, w, 1) or (h, w, 3) with sides of 4 to 4096, and one float output of
    shape (k,) with k >= 2.
    """
    if len(contract.inputs) != 1 or (class_count(contract) or 0) < 2 or contract.outputs[0].shape == (1,):
        return None
    tensor = contract.inputs[0]
    sides, channels = tensor.shape[:2], tensor.shape[2:]
    if tensor.dtype not in FLOATS or len(sides) != 2 or channels not in ((), (1,), (3,)):
        return None
    if not all(side is not None and _MIN_EVIDENT_SIDE <= side <= _MAX_SIDE for side in sides):
        return None
    return _image(contract, {"input": tensor.name})


def class_count(contract: Contract) -> int | None:
    """How many classes the model tells apart, None if its output is no scores of classes.

    Scores are one float output of shape (k,); of shape (1,) only with two labels: then it is the second one's
    probability. An open k is as many as there are labels.
    """
    if len(contract.outputs) != 1 or contract.outputs[0].dtype not in FLOATS or len(contract.outputs[0].shape) != 1:
        return None
    size = contract.outputs[0].shape[0]
    if size is None:
        return len(contract.labels) or None
    if size == 1:
        return 2 if len(contract.labels) == 2 else None
    return size or None


def is_classifier(contract: Contract) -> bool:
    """Whether the model is offered for classification: its contract has labels or an image."""
    return bool(contract.labels or contract.image) and class_count(contract) is not None


def _error(problem: str) -> LoadError:
    return LoadError(f"contract.json: {problem}")


def _choices(key: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    return f"did you mean {quoted(close[0])}?" if close else f"use only {', '.join(known)}"


def _is_name(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= _MAX_NAME and value.isprintable()


def _is_positive(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # NaN is not


def _object(value: Any, where: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _error(f"{where} must be an object with {', '.join(known)}")
    for key in value:
        if key not in known:
            raise _error(f"{where}: unknown key {quoted(str(key))}; {_choices(str(key), known)}")
    return value


def _list(value: Any, where: str, of: str) -> list[Any]:
    if not isinstance(value, list):
        raise _error(f"{where} must be a list of {of}")
    return value


def _different(names: tuple[str, ...], where: str) -> None:
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise _error(f"{where} holds {quoted(twice)} twice; each name must be different")


# ---------------------------------------------------------------------------------------------- one key each


def _description(contract: Contract, value: Any) -> Contract:
    if type(value) is not str or len(value) > _MAX_TEXT:
        raise _error(f"description must be a string of at most {_MAX_TEXT} characters")
    return replace(contract, description=value)


def _fields(contract: Contract, value: Any) -> Contract:
    fields = tuple(_field(entry, f"fields {index}") for index, entry in enumerate(_list(value, "fields", "names")))
    if len(contract.inputs) != 1:
        raise _error(f"fields name the columns of a model's only input; this model has {len(contract.inputs)}")
    shape = contract.inputs[0].shape
    size = {0: 1, 1: shape[0] if shape else None}.get(len(shape))
    if size is None:
        raise _error(f"fields need an input that is a vector of fixed length; this model's has {_shape(shape)} per row")
    if len(fields) != size:
        raise _error(f"fields names {len(fields)} columns, the model's input has {size}; name each in order")
    _different(tuple(field.name for field in fields), "fields")
    return replace(contract, fields=fields)


def _field(entry: Any, where: str) -> Field:
    if isinstance(entry, str):
        entry = {"name": entry}
    entry = _object(entry, where, ("name", "schema", "description"))
    name, schema, description = entry.get("name"), entry.get("schema", {}), entry.get("description", "")
    if not _is_name(name):
        raise _error(f"{where}: name must be a string of 1 to {_MAX_NAME} printable characters")
    if name in _RESERVED:
        raise _error(f"{where}: the name {name} is taken by the general form of a request; choose another")
    if type(description) is not str or len(description) > _MAX_TEXT:
        raise _error(f"{where}: description must be a string of at most {_MAX_TEXT} characters")
    keywords.check(schema, f"contract.json: {where}: schema")
    return Field(name, dict(schema), description)


def _request_schema(contract: Contract, value: Any) -> Contract:
    keywords.check(value, "contract.json: request_schema")
    if not contract.fields:
        if len(contract.inputs) == 1 and (not _OF_OBJECTS.isdisjoint(value) or value.get("type") == "object"):
            raise _error("request_schema speaks of the only input's value, which is no object; or name its fields")
        return replace(contract, request_schema=dict(value))
    # Rows of a model with fields may also come as plain lists, which a schema of the object does not hold; so what it
    # says goes to the fields, and what cannot go there is refused.
    names = tuple(field.name for field in contract.fields)
    allowed = ("type", "properties", "required", "additionalProperties", "title", "description")
    if set(value) - set(allowed) or value.get("type", "object") != "object":
        raise _error(f"request_schema of a model with fields may be an object with {', '.join(allowed)} only")
    if type(value.get("additionalProperties", False)) is not bool:
        raise _error("request_schema: additionalProperties must be true or false: there are no others than the fields")
    for name in (*value.get("properties", ()), *value.get("required", ())):
        if name not in names:
            raise _error(f"request_schema names {quoted(name)}, which is no field; {_choices(name, names)}")
    properties = value.get("properties", {})
    fields = (
        replace(field, schema=keywords.both(field.schema, properties.get(field.name, {}))) for field in contract.fields
    )
    return replace(contract, fields=tuple(fields))


def _labels(contract: Contract, value: Any) -> Contract:
    labels = tuple(_list(value, "labels", "the classes' names"))
    if not all(_is_name(label) for label in labels):
        raise _error(f"labels must be strings of 1 to {_MAX_NAME} printable characters")
    _different(labels, "labels")
    labelled = replace(contract, labels=labels)
    count = class_count(labelled)
    if count is None:
        raise _error(f"labels need scores of classes: {_scores_wanted(contract)}")
    if len(labels) != count:
        raise _error(f"labels names {len(labels)} classes, the model's output has {count}; name each in order")
    return labelled


def _scores_wanted(contract: Contract) -> str:
    outputs = ", ".join(f"{clip(t.name, _MAX_NAME)} {t.dtype} {_shape(t.shape)}" for t in contract.outputs[:4])
    return (
        "one float output of shape (k,) with k >= 2, or (1,) and two labels;"
        f" this model has {len(contract.outputs)}: {outputs}"
    )


def _image_key(contract: Contract, value: Any) -> Contract:
    if class_count(contract) is None:
        raise _error(f"image is for classifiers: {_scores_wanted(contract)}")
    return replace(contract, image=_image(contract, value))


def _image(contract: Contract, value: Any) -> Image:
    value = _object(value, "image", ("input", "width", "height", "colour", "scale", "offset"))
    tensor = _image_input(contract, value.get("input"))
    height, width, channels = (*tensor.shape, None)[:3]
    wanted = _COLOURS[channels or 1]
    colour = value.get("colour", wanted)
    if colour != wanted:
        raise _error(f'image: colour must be "{wanted}" for an input of shape {_shape(tensor.shape)}')
    integer = tensor.dtype in _PIXEL_INTEGERS
    scale, offset = value.get("scale", 1.0 if integer else 1.0 / 255.0), value.get("offset", 0.0)
    if not _is_finite(scale) or scale == 0 or not _is_finite(offset):
        raise _error("image: scale and offset must be finite numbers, scale not 0; the model sees pixel*scale+offset")
    if integer and (scale, offset) != (1, 0):
        raise _error(f"image: an input of {tensor.dtype} takes pixels as they are: scale 1, offset 0")
    return Image(
        input=tensor.name,
        width=_side(value, "width", width),
        height=_side(value, "height", height),
        colour=wanted,
        scale=float(scale),
        offset=float(offset),
    )


def _image_input(contract: Contract, name: Any) -> Tensor:
    if len(contract.inputs) != 1:
        raise _error("image needs a model with one input: a picture is all that such a request holds")
    tensor = contract.inputs[0]
    if name not in (None, tensor.name):
        raise _error(f"image: input must be {quoted(tensor.name)}, the model's only one")
    if tensor.dtype not in (*FLOATS, *_PIXEL_INTEGERS):
        raise _error(f"image: an input of {tensor.dtype} cannot hold pixels of 0 to 255")
    if len(tensor.shape) not in (2, 3) or (len(tensor.shape) == 3 and tensor.shape[2] not in _COLOURS):
        raise _error(f"image: the input must have shape (h, w), (h, w, 1) or (h, w, 3), not {_shape(tensor.shape)}")
    return tensor


def _side(value: Mapping[str, Any], key: str, own: int | None) -> int:
    """The width or height in pixels: the model's own, or for a model that takes any size the one written."""
    side = value.get(key, own)
    if side is None:
        raise _error(f"image: the model takes any {key}; write the {key} in pixels to resize pictures to")
    if not _is_positive(side) or side > _MAX_SIDE:
        raise _error(f"image: {key} must be a whole number from 1 to {_MAX_SIDE}")
    if own not in (None, side):
        raise _error(f"image: {key} {side} does not fit the model's input; write {own} or leave it out")
    return int(side)


def _shape(shape: tuple[int | None, ...]) -> str:
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    return f"({sizes},)" if len(shape) == 1 else f"({sizes})"


def _examples(contract: Contract, value: Any) -> Contract:
    examples = []
    for index, entry in enumerate(_list(value, "examples", "objects with request and answer")):
        where = f"examples {index}"
        entry = _object(entry, where, ("request", "answer", "tolerance"))  # noqa: PLW2901
        tolerance = entry.get("tolerance", Example.tolerance)
        if not isinstance(entry.get("request"), dict):
            raise _error(f"{where}: request must be a request's body, a JSON object")
        if not _is_finite(tolerance) or tolerance < 0:
            raise _error(f"{where}: tolerance must be a number of at least 0, absolute and relative at once")
        examples.append(Example(entry["request"], entry.get("answer"), float(tolerance)))
    return replace(contract, examples=tuple(examples))


def _routes(contract: Contract, value: Any) -> Contract:
    routes = tuple(_list(value, "routes", 'paths such as "/advanced_predict"'))
    for route in routes:
        if type(route) is not str or not _ROUTE.fullmatch(route) or len(route) > _MAX_NAME:
            shown = quoted(route) if isinstance(route, str) else "one that is no string"
            raise _error(f"routes: {shown} must be / and a-z, 0-9, _, -, /, at most {_MAX_NAME} characters")
    _different(routes, "routes")
    return replace(contract, routes=routes)


def _max_rows(contract: Contract, value: Any) -> Contract:
    if value is not None and not _is_positive(value):
        raise _error("max_rows must be a whole number of at least 1, or null for no bound")
    return replace(contract, max_rows=value)


def _null_for_nan(contract: Contract, value: Any) -> Contract:
    return replace(contract, null_for_nan=_flag("null_for_nan", value))


def _isolate(contract: Contract, value: Any) -> Contract:
    return replace(contract, isolate=_flag("isolate", value))


def _log(contract: Contract, value: Any) -> Contract:
    value = _object(value, "log", ("capture", "sample", "omit"))
    capture, sample = value.get("capture"), value.get("sample")
    if capture not in (None, *_CAPTURES):
        raise _error(f"log: capture must be one of {', '.join(_CAPTURES)}")
    if sample is not None and not (_is_finite(sample) and 0 <= sample <= 1):
        raise _error("log: sample must be a number from 0 to 1")
    omit = tuple(_list(value.get("omit", []), "log: omit", "names of fields"))
    known = tuple(one.name for one in contract.fields) or tuple(tensor.name for tensor in contract.inputs)
    for name in omit:
        if name not in known:
            raise _error(f"log: omit holds {quoted(str(name))}; there are: {', '.join(known)}")
    return replace(contract, log=LogRules(capture, sample, omit))


def _flag(key: str, value: Any) -> bool:
    if type(value) is not bool:
        raise _error(f"{key} must be true or false")
    return value


_KEYS: dict[str, Callable[[Contract, Any], Contract]] = {
    "description": _description,
    "fields": _fields,
    "request_schema": _request_schema,
    "labels": _labels,
    "image": _image_key,
    "examples": _examples,
    "routes": _routes,
    "null_for_nan": _null_for_nan,
    "isolate": _isolate,
    "max_rows": _max_rows,
    "log": _log,
}
