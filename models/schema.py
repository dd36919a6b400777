"""A contract compiled for answering requests: the published JSON Schema, the checks, a sample, the explanations.

Owns what a front needs of a model to take a request's body, made once per snapshot. Knows nothing of arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import orjson

from models import explanation
from models.contract import Contract, Example, Tensor
from models.errors import BadInput, LoadError
from models.forms import ROWS, Form, forms_of
from models.keywords import Schema
from models.numbers import plain_rows
from models.sampling import sample

# An error's body is at most 2 KiB, and has a message, a path and an expectation to hold beside the sample.
_MAX_SHOWN_SAMPLE_BYTES = 1000
# A longer sample helps nobody to read it, and making and checking one of a 4096 x 4096 picture would take seconds.
_MAX_SAMPLE_VALUES = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """A contract, ready for requests. Nothing in it may be changed: requests share it.

    forms: every form of a request; single: those of one row; rows: those under "instances".
    json_schema: what a body must satisfy (JSON Schema 2020-12), an anyOf of the forms.
    sample: a body that passes; None for rows of more than 10,000 values, as of a large picture in numbers.
    shown_sample: the same, or None where it is too long for an error's body.
    plain: the only input, where its rows are nothing but floats of one shape; see models.numbers.
    """

    contract: Contract
    forms: tuple[Form, ...]
    single: tuple[Form, ...]
    rows: tuple[Form, ...]
    json_schema: Schema
    sample: Any
    shown_sample: Any
    plain: Tensor | None = None

    def form_of(self, body: dict[str, Any]) -> Form | None:
        """The form that accepts the body, None if there is none."""
        for form in self.rows if ROWS in body else ():
            if form.accepts(body):
                return form
        for form in self.single:
            if form.accepts(body):
                return form
        return None


def compile_contract(contract: Contract) -> Compiled:
    """Compile it; takes about a millisecond.

    Raises:
        LoadError: an example that is no request for this model, or ranges and schemas that no request can satisfy.
    """
    forms = forms_of(contract)
    for index, example in enumerate(contract.examples):
        if not _has_picture(contract, example) and not any(form.accepts(example.request) for form in forms):
            fault = explanation.explain(forms, example.request)
            raise LoadError(f"contract.json: examples {index}: request: {fault.message}")
    body = _sample(contract, forms)
    return Compiled(
        contract=contract,
        forms=forms,
        single=tuple(form for form in forms if not form.many),
        rows=tuple(form for form in forms if form.many),
        json_schema={
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"a request to {contract.name}",
            **({"description": contract.description} if contract.description else {}),
            "anyOf": [form.schema for form in forms],
        },
        sample=body,
        shown_sample=body if len(orjson.dumps(body)) <= _MAX_SHOWN_SAMPLE_BYTES else None,
        plain=plain_rows(contract),
    )


def explain(compiled: Compiled, body: dict[str, Any]) -> BadInput:
    """Why the body is of no form: the first fault in document order, what was expected, and a sample that passes."""
    fault = _rows_without_instances(compiled, body) or explanation.explain(compiled.forms, body)
    fault.sample = compiled.shown_sample
    return fault


def _rows_without_instances(compiled: Compiled, body: dict[str, Any]) -> BadInput | None:
    """The usual mistake: {"features": [[…], […]]} where rows were meant."""
    form = explanation.meant(compiled.forms, body)
    if form.many or form.kind != "inputs" or len(body) != 1 or len(compiled.contract.inputs) != 1:
        return None
    rows = body.get(form.keys[0])
    bare = next(form for form in compiled.rows if form.kind == "bare")
    if not isinstance(rows, list) or not bare.accepts({ROWS: rows}):
        return None
    return BadInput(
        f'"{form.keys[0]}" takes one row and holds a list of {len(rows)}; send rows as {{"{ROWS}": [row, …]}}',
        path=f"/{form.keys[0]}",
        expected=f'one row, or rows under "{ROWS}"',
    )


def _sample(contract: Contract, forms: tuple[Form, ...]) -> Any:
    for example in contract.examples:
        if any(form.accepts(example.request) for form in forms):
            return example.request
    if sum(math.prod(size or 0 for size in tensor.shape) for tensor in contract.inputs) > _MAX_SAMPLE_VALUES:
        return None
    try:
        return sample(forms[0].schema)
    except LookupError:
        reason = "no request was found that satisfies its ranges and schemas; mend them or add an example of one"
        raise LoadError(f"contract.json: {reason}") from None


def _has_picture(contract: Contract, example: Example) -> bool:
    """Whether the request sends a picture, which is not for these forms to judge."""
    request = example.request
    rows = request.get(ROWS) if isinstance(request, dict) else None
    first = rows[0] if isinstance(rows, list) and rows else request
    return contract.image is not None and (isinstance(first, str) or (isinstance(first, dict) and "image" in first))
