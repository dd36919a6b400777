"""A picture in all the ways clients send one: form field, file, raw body, JSON. Owns finding it, not decoding it.

Runs in the thread pool, so nothing here touches the application's request object; it works on the body and its type.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any
from urllib.parse import parse_qs

from bottle import BaseRequest, FileUpload, HTTPError

from models.body import loads
from models.errors import BadInput
from models.images import from_base64, sniff

FIELD = "image"
_EXPECTED = (
    "a picture as the form field or file 'image', as the raw body, or as JSON "
    '{"image": "<base64>"} or {"instances": [{"image": "<base64>"}]}'
)
_FIELDS_MAX = 100


class _InMemory(BaseRequest):
    """Bottle's form parser with room for the largest body that the front lets through, so that no part meets a disk."""

    MEMFILE_MAX = 1 << 30


def pictures(body: bytes, content_type: str, *, max_json_bytes: int) -> tuple[list[bytes], bool] | None:
    """(encoded pictures, whether they came as instances); None for JSON that holds tensors instead of pictures.

    Raises BadInput where there is no picture. Content-Type only matters where the body needs it: the boundary of
    multipart. Plain `curl --data-binary` sends a form's type with a raw body.
    """
    if not body:
        raise BadInput("the body is empty", expected=_EXPECTED)
    if content_type.lower().startswith("multipart/form-data"):
        return [_from_multipart(body, content_type)], False
    if sniff(body) is not None:
        return [body], False
    if body.lstrip()[:1] == b"{":
        return _from_json(body, max_json_bytes)
    if content_type.lower().startswith("image/"):
        return [body], False  # the decoder says what is wrong with it
    return [_from_form(body)], False


def _from_multipart(body: bytes, content_type: str) -> bytes:
    environ = {"wsgi.input": BytesIO(body), "CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(len(body))}
    try:
        form = _InMemory(environ).POST
    except (HTTPError, ValueError):  # a Content-Length inside a part that is no number
        raise BadInput("the multipart body cannot be read", expected=_EXPECTED) from None
    value = form.get(FIELD)
    if value is None:
        raise BadInput("the form has no field 'image'", expected=_EXPECTED)
    if isinstance(value, FileUpload):
        return bytes(value.file.read())
    return from_base64(value)


def _from_form(body: bytes) -> bytes:
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=_FIELDS_MAX)
    except (UnicodeDecodeError, ValueError):
        raise BadInput("the body is neither a picture, nor a form, nor JSON", expected=_EXPECTED) from None
    if FIELD not in fields:
        raise BadInput("the form has no field 'image'", expected=_EXPECTED)
    return from_base64(fields[FIELD][0])


def _from_json(body: bytes, max_json_bytes: int) -> tuple[list[bytes], bool] | None:
    value = loads(body)
    if FIELD in value:
        return [_decoded(value[FIELD], "/image")], False
    instances = value.get("instances")
    if not isinstance(instances, list) or not instances or not _is_picture(instances[0]):
        return None
    found = []
    for position, instance in enumerate(instances):
        if not _is_picture(instance):
            raise BadInput(
                "not a picture like the first instance",
                path=f"/instances/{position}",
                expected='{"image": "<base64>"} or a base64 string',
            )
        text = instance[FIELD] if isinstance(instance, dict) else instance
        path = f"/instances/{position}" + ("/image" if isinstance(instance, dict) else "")
        found.append(_decoded(text, path))
    return found, True


def _is_picture(instance: Any) -> bool:
    return isinstance(instance, str) or (isinstance(instance, dict) and FIELD in instance)


def _decoded(text: Any, path: str) -> bytes:
    if not isinstance(text, str):
        raise BadInput("not a string", path=path, expected="a picture as base64 text")
    try:
        return from_base64(text)
    except BadInput as error:
        raise BadInput(error.message, path=path, expected=error.expected) from None
