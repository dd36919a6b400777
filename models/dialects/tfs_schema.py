"""JSON Schema of TensorFlow Serving's bodies for one model, for the documentation.

Owns what the document says of predict, classify and regress, and of the descriptions. What JSON Schema cannot say
(columns of one length, bare NaN) is said in words there. Knows nothing of HTTP.
"""

from __future__ import annotations

from typing import Any

from models.contract import METHOD_PREDICT, USUAL_SIGNATURE
from models.dialects.dialect import Version
from models.dialects.native_schema import EXAMPLE_BYTES_MAX
from models.dialects.schema_parts import (
    BYTES,
    bounded,
    closed,
    either,
    is_narrowed,
    listed,
    nested,
    opened,
    output_leaf,
    values_of,
)
from models.dialects.tfs_examples import METHODS, answers
from models.forms import leaf_schema
from models.keywords import Schema
from models.schema import Compiled
from models.tensors import dumps

_TEXT: Schema = {"type": "string"}


def offers(compiled: Compiled, action: str) -> bool:
    """Whether the usual signature answers this; another one, named in the body, may do so where this does not."""
    contract = compiled.contract
    if action == "predict":
        return True
    return contract.method == METHODS[action] or (contract.method == METHOD_PREDICT and answers(contract, action))


def request_schema(version: Version, compiled: Compiled, action: str, max_rows: int) -> Schema:
    """The body of a request to the usual signature."""
    most = min(max_rows, compiled.contract.max_rows or max_rows)
    signature = {"signature_name": {"enum": _names(version, compiled)}}
    if action == "predict":
        forms = _predict_forms(compiled, most)
        return {
            "title": f"a predict request to {compiled.contract.name}",
            "anyOf": [opened({**form, **signature}, *signature) for form in forms],
        }
    features = _features(compiled, action)
    body = {"examples": listed(features, 1, most), "context": _context(features), **signature}
    return {"title": f"a {action} request to {compiled.contract.name}", **opened(body, "context", *signature)}


def _names(version: Version, compiled: Compiled) -> list[str]:
    """Of the signature that is meant where none is named."""
    contract = compiled.contract
    names = {"", contract.signature, *contract.aliases}
    if USUAL_SIGNATURE not in version.signatures:
        names.add(USUAL_SIGNATURE)
    return sorted(names)


def _predict_forms(compiled: Compiled, most: int) -> list[dict[str, Schema]]:
    """Rows (bare, or objects by the inputs' names) and columns."""
    contract = compiled.contract
    values = {name: _inhabited(_taken(compiled, name, value)) for name, value in values_of(compiled).items()}
    by_name = closed(values)
    if len(values) > 1:
        by_column = opened({name: listed(value, 1, most) for name, value in values.items()})
        return [{"instances": listed(by_name, 1, most)}, {"inputs": by_column}]
    ((name, value),) = values.items()
    leaf = bounded(leaf_schema(contract.inputs[0].dtype), contract.inputs[0].dtype)
    leaf = _taken(compiled, name, leaf)
    shape = contract.inputs[0].shape
    rows = [listed(value, 1, most)]
    columns = [listed(value, 1, most)]
    if shape == (1,) and not is_narrowed(contract):
        rows.append(listed(leaf, 1, most))
        columns.append(listed(leaf, 1, most))
    if shape in ((), (1,)):
        columns.append(value if shape == () else leaf)
    named = closed({name: either(value, leaf) if shape == (1,) else value})
    return [
        *({"instances": one} for one in rows),
        {"instances": listed(named, 1, most)},
        *({"inputs": one} for one in columns),
        {"inputs": opened({name: either(*columns)})},
    ]


def _taken(compiled: Compiled, name: str, value: Schema) -> Schema:
    """A string may come as bytes in base64, too; one that is held to a contract is the text that it stands for."""
    dtype = next(tensor.dtype for tensor in compiled.contract.inputs if tensor.name == name)
    if dtype != "string" or is_narrowed(compiled.contract):
        return value
    return _with_bytes(value)


def _inhabited(schema: Schema) -> Schema:
    """Shapes come from the values here, so lists of lists that are empty have none."""
    if schema.get("type") != "array" or schema.get("items", {}).get("type") != "array":
        return schema
    return {"minItems": 1, **schema, "items": _inhabited(schema["items"])}


def _with_bytes(schema: Schema) -> Schema:
    if schema.get("type") == "array":
        return {**schema, "items": _with_bytes(schema["items"])}
    return {"anyOf": [schema, BYTES]}


def _features(compiled: Compiled, action: str) -> Schema:
    contract = compiled.contract
    if contract.method == METHODS[action]:  # the graph itself says which features there are
        one: list[Schema] = [{"type": "number"}, _TEXT, BYTES]
        return {"type": "object", "additionalProperties": either(*one, listed(either(*one)))}
    values = values_of(compiled)
    if contract.fields:
        (value,) = values.values()
        columns = value["prefixItems"] if "prefixItems" in value else [value.get("items", value)] * len(contract.fields)
        values = {field.name: column for field, column in zip(contract.fields, columns, strict=True)}
        return closed({name: either(column, listed(column, 1, 1)) for name, column in values.items()})
    features = {}
    for tensor in contract.inputs:
        value = _taken(compiled, tensor.name, values[tensor.name])
        leaf = _taken(compiled, tensor.name, bounded(leaf_schema(tensor.dtype), tensor.dtype))
        features[tensor.name] = value
        if tensor.shape in ((), (1,)):
            features[tensor.name] = either(leaf, listed(leaf, 1, 1)) if not is_narrowed(contract) else value
    return closed(features)


def _context(features: Schema) -> Schema:
    return {
        **{key: value for key, value in features.items() if key != "required"},
        "description": "features of every example that does not have them itself",
    }


# ---------------------------------------------------------------------------------------------- answers


def answer_schema(compiled: Compiled, action: str) -> Schema:
    """The body of a 200. Numbers may be bare NaN, Infinity and -Infinity there, as the original writes them."""
    if action == "regress":
        return opened({"results": listed({"type": "number"}, 1)})
    if action == "classify":
        pair = {**listed({"type": ["string", "number"]}, 2, 2), "description": "a label and its score"}
        return opened({"results": listed(listed(pair), 1)})
    rows, columns = {}, {}
    for tensor in compiled.contract.outputs:
        leaf = BYTES if tensor.dtype == "string" and tensor.name.endswith("_bytes") else output_leaf(tensor)
        row = nested(leaf, tensor.shape)
        rows[tensor.name] = either(row, leaf) if tensor.shape == (1,) else row
        columns[tensor.name] = either(rows[tensor.name], listed(rows[tensor.name], 1))
    lone = len(rows) == 1
    predictions = next(iter(rows.values())) if lone else closed(rows)
    outputs = next(iter(columns.values())) if lone else closed(columns)
    return {"anyOf": [opened({"predictions": listed(predictions, 1)}), opened({"outputs": outputs})]}


# ---------------------------------------------------------------------------------------------- examples


def request_examples(compiled: Compiled, action: str) -> dict[str, dict[str, Any]]:
    """The native sample in this dialect's forms, where it has one."""
    contract, form = compiled.contract, compiled.form_of(compiled.sample) if compiled.sample is not None else None
    if form is None or form.many:
        return {}
    by_field = form.kind == "fields" or form.keys == tuple(field.name for field in contract.fields)
    values = [compiled.sample[key] for key in form.keys]
    if by_field and contract.fields and contract.inputs[0].shape:
        values = [values]
    rows = dict(zip((tensor.name for tensor in contract.inputs), values, strict=True))
    found: dict[str, tuple[str, Any]] = {}
    if action == "predict":
        lone = len(rows) == 1
        found["rows"] = ("rows", {"instances": [next(iter(rows.values())) if lone else rows]})
        found["columns"] = ("columns", {"inputs": {name: [value] for name, value in rows.items()}})
    elif contract.method == METHOD_PREDICT:
        features: dict[str, Any] = rows
        if contract.fields:
            (value,) = rows.values()
            names = [field.name for field in contract.fields]
            features = dict(zip(names, value if contract.inputs[0].shape else [value], strict=True))
        found["examples"] = ("by the names of features", {"examples": [features]})
    return {
        name: {"summary": summary, "value": value}
        for name, (summary, value) in found.items()
        if len(dumps(value)) <= EXAMPLE_BYTES_MAX
    }


# ---------------------------------------------------------------------------------------------- descriptions


def refusal_schema() -> Schema:
    """The body of every refusal."""
    return opened({"error": _TEXT})


def status_schema() -> Schema:
    """States of versions."""
    status = closed({"error_code": _TEXT, "error_message": _TEXT})
    state = {"enum": ["LOADING", "AVAILABLE", "END", "UNKNOWN"]}
    return closed({"model_version_status": listed(closed({"version": _TEXT, "state": state, "status": status}))})


def models_schema() -> Schema:
    """All models with the states of their versions."""
    return closed({"models": listed(closed({"name": _TEXT, **status_schema()["properties"]}))})


def metadata_schema() -> Schema:
    """What each signature takes and gives."""
    dim = closed({"size": {**_TEXT, "description": "-1 where any goes"}, "name": _TEXT})
    shape = closed({"dim": listed(dim), "unknown_rank": {"type": "boolean"}})
    tensor = closed({"dtype": _TEXT, "tensor_shape": shape, "name": _TEXT})
    tensors = {"type": "object", "additionalProperties": tensor}
    signature = closed({"inputs": tensors, "outputs": tensors, "method_name": _TEXT, "defaults": {"type": "object"}})
    signatures = closed({"signature_def": {"type": "object", "additionalProperties": signature}})
    spec = closed({"name": _TEXT, "signature_name": _TEXT, "version": _TEXT})
    return closed({"model_spec": spec, "metadata": closed({"signature_def": signatures})})
