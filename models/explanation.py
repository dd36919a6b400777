"""Why a body fits none of the forms: which form it was meant to be, and the first place where it leaves it.

jsonschema is the judge; the words are ours, because its messages repeat the whole instance. Knows nothing of arrays.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry

from models.errors import BadInput
from models.forms import ROWS, Form
from models.keywords import count_words, words
from models.wording import Parts, clip, found, place, pointer, quoted

_MAX_WORDS = 300
_MAX_KEYS_COMPARED = 8
# Comparing names is quadratic in their length.
_MAX_NAME_COMPARED = 64


def explain(forms: Sequence[Form], body: dict[str, Any]) -> BadInput:
    """The fault of a body that no form accepts: the first one in document order, by the form it comes closest to.

    Always a BadInput: where the two validators disagree, or the body is too deep to walk, without a place.
    """
    form = meant(forms, body)
    try:
        errors: list[Any] = list(judge(form).iter_errors(body))
        first = min(errors, key=lambda error: _position(body, error), default=None)
        if first is not None:
            return _fault(first)
    except RecursionError:
        pass
    return BadInput(f"the body does not fit the form: {form.title}", path="", expected=_shown(words(form.schema)))


def meant(forms: Sequence[Form], body: dict[str, Any]) -> Form:
    """The form whose keys the body has most of, or whose keys its own look like; the first one if none."""
    rows = body.get(ROWS)
    if ROWS in body and not any(ROWS in form.keys for form in forms):
        forms = [form for form in forms if form.many]
        instance = rows[0] if isinstance(rows, list) and rows else None
    else:
        forms = [form for form in forms if not form.many]
        instance = body
    if not isinstance(instance, dict):
        return next((form for form in forms if form.kind == "bare" and rows), forms[0])
    names = [clip(name, _MAX_NAME_COMPARED) for name in list(instance)[:_MAX_KEYS_COMPARED]]

    def likeness(form: Form) -> tuple[int, int]:
        exact = sum(key in instance for key in form.keys)
        return exact, sum(bool(difflib.get_close_matches(name, form.keys, 1)) for name in names)

    return max(forms, key=likeness)


def _position(body: Any, error: Any) -> tuple[float, ...]:
    """Where in the document the fault shows: what is missing shows only at the end of its container."""
    order: list[float] = []
    node = body
    for part in error.absolute_path:
        order.append(list(node).index(part) if isinstance(node, dict) else int(part))
        node = node[part]
    match error.validator:
        case "required" | "minItems" | "minProperties":
            order.append(math.inf)
        case "maxItems":
            order.append(error.validator_value)
        case "additionalProperties":
            order.append(list(node).index(_first_unknown(node, error.schema)))
    return tuple(order)


def _first_unknown(instance: dict[str, Any], schema: Any) -> str:
    return next(key for key in instance if key not in schema.get("properties", {}))


def _fault(error: Any) -> BadInput:
    parts: Parts = tuple(error.absolute_path)
    instance, schema = error.instance, error.schema
    expected = _shown(words(schema))
    match error.validator:
        case "required":
            missing = next(name for name in error.validator_value if name not in instance)
            problem = f"{quoted(missing)} is missing" if not parts else f"{place(parts)} lacks {quoted(missing)}"
        case "additionalProperties":
            known = tuple(schema.get("properties", {}))
            unknown = _first_unknown(instance, schema)
            parts = (*parts, unknown)
            close = difflib.get_close_matches(
                clip(unknown, _MAX_NAME_COMPARED), [k for k in known if k not in instance], 1
            )
            problem = f"unknown key {quoted(unknown)}" + (f", did you mean {quoted(close[0])}?" if close else "")
            expected = _shown("only the keys " + ", ".join(map(quoted, known)))
        case "minItems" | "maxItems":
            items = schema.get("items") or {}
            noun = words({"type": items["type"]}, plural=True) if "type" in items else "values"
            count = count_words(schema, "minItems", "maxItems")
            problem = f"{place(parts)} holds {len(instance)} {noun}, expected {count}"
        case _:
            problem = f"{place(parts)} must be {expected}, got {found(instance)}"
    return BadInput(problem, path=pointer(parts), expected=expected)


def _shown(text: str) -> str:
    return clip(text, _MAX_WORDS)


# ---------------------------------------------------------------------------------------------- the judge

_CHUNK = 1024
_Keyword = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]


class _QuietList(list[Any]):
    def __repr__(self) -> str:
        return "a list"


class _QuietDict(dict[str, Any]):
    def __repr__(self) -> str:
        return "an object"


def _quiet(keyword: _Keyword) -> _Keyword:
    """In every message jsonschema repeats the instance: 0.4 s for 8 MB of numbers that nobody will read."""

    def quiet(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if isinstance(instance, list):
            instance = _QuietList(instance)
        elif isinstance(instance, dict):
            instance = _QuietDict(instance)
        yield from keyword(validator, value, instance, schema) or ()

    return quiet


def _items(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Only the first element with a fault is walked into; the compiled validator finds it, by chunks and then singly.

    Elements beyond maxItems are none that could come first.
    """
    if not validator.is_type(instance, "array"):
        return
    accepts, accepts_chunk = _compiled(orjson.dumps(value)), _compiled(orjson.dumps({"items": value}))
    begin, end = len(schema.get("prefixItems", ())), min(len(instance), schema.get("maxItems", len(instance)))
    for start in range(begin, end, _CHUNK):
        stop = min(start + _CHUNK, end)
        if accepts_chunk(instance[start:stop]):
            continue
        for index in range(start, stop):
            if not accepts(instance[index]):
                yield from validator.descend(instance[index], value, path=index)
                return


@lru_cache(maxsize=256)
def _compiled(schema: bytes) -> Callable[[Any], bool]:
    return jsonschema_rs.Draft202012Validator(orjson.loads(schema)).is_valid


def _additional_properties(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Of keys that are not allowed the first will do: there may be half a million, and each would be named."""
    if value is False and validator.is_type(instance, "object"):
        unknown = next((key for key in instance if key not in schema.get("properties", {})), None)
        instance = {} if unknown is None else {unknown: None}
    yield from Draft202012Validator.VALIDATORS["additionalProperties"](validator, value, instance, schema) or ()


_Judge: Any = extend(  # type: ignore[no-untyped-call]  # its stubs leave it open
    Draft202012Validator,
    {
        **{name: _quiet(keyword) for name, keyword in Draft202012Validator.VALIDATORS.items()},
        "items": _quiet(_items),
        "additionalProperties": _quiet(_additional_properties),
    },
)


def judge(form: Form) -> Any:
    """The form's validator by jsonschema; its registry is empty and fetches nothing."""
    return _Judge(form.schema, registry=Registry())
