"""A picture in all the ways clients send one: form field, file, raw body, JSON. Owns finding it, not decoding it.

Runs in the thread pool, so nothing here touches the application's request object; it works on the body and its type.
Only the one field is looked for, by searches that cost nothing beside receiving the body: Bottle's parser takes 18 s
for 60 MB of line ends in one part, and the standard library's as long for 60 MB of "%41" (measured).
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_to_bytes

from models.body import loads
from models.errors import BadInput, TooLarge
from models.images import from_base64, sniff

FIELD = "image"
_EXPECTED = (
    "a picture as the form field or file 'image', as the raw body, or as JSON "
    '{"image": "<base64>"} or {"instances": [{"image": "<base64>"}]}'
)
_PARTS_MAX = 100
_PART_HEAD_BYTES_MAX = 4096
_BOUNDARY = re.compile(r"""boundary=(?:"([^"\r\n]{1,200})"|([^\s;,"]{1,200}))""", re.IGNORECASE)
_DISPOSITION = re.compile(rb"^content-disposition:\s*form-data\s*(;.*)$", re.IGNORECASE | re.MULTILINE)
_FIELD_NAME = re.compile(rb""";\s*name=(?:"([^"]*)"|([^\s;"]+))""", re.IGNORECASE)
_FILE_NAME = re.compile(rb";\s*filename\*?=", re.IGNORECASE)
_DATA_URI_BYTES_MAX = 300


def pictures(body: bytes, content_type: str, *, max_json_bytes: int, max_rows: int) -> tuple[list[bytes], bool] | None:
    """(encoded pictures, whether they came as instances); None for JSON that holds tensors instead of pictures.

    Raises BadInput where there is no picture, TooLarge for too long JSON or too many pictures in it. Content-Type only
    matters where the body needs it: the boundary of multipart. Plain `curl --data-binary` sends a form's type with a
    raw body.
    """
    if not body:
        raise BadInput("the body is empty", expected=_EXPECTED)
    if content_type.lower().startswith("multipart/form-data"):
        return [_from_multipart(body, content_type)], False
    if sniff(body) is not None:
        return [body], False
    if body.lstrip()[:1] == b"{":
        if len(body) > max_json_bytes:
            raise TooLarge(f"the body has {len(body)} bytes of JSON, at most {max_json_bytes} are taken")
        return _from_json(body, max_rows)
    if content_type.lower().startswith("image/"):
        return [body], False  # the decoder says what is wrong with it
    return [_from_form(body)], False


def _from_multipart(body: bytes, content_type: str) -> bytes:
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise BadInput("the multipart body cannot be read: its type names no boundary", expected=_EXPECTED)
    delimiter = b"--" + (boundary[1] or boundary[2]).encode("latin-1", "replace")
    position = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    delimiter = b"\r\n" + delimiter
    for _ in range(_PARTS_MAX):
        start = position + len(delimiter) - 2
        if position == 1 or body[start : start + 2] == b"--":  # there is none, or this was the last
            raise BadInput("the form has no field 'image'", expected=_EXPECTED)
        head_end = body.find(b"\r\n\r\n", start, start + _PART_HEAD_BYTES_MAX)
        end = body.find(delimiter, head_end + 2)
        if head_end < 0 or end < 0:
            raise BadInput("the multipart body cannot be read: a part of it has no end", expected=_EXPECTED)
        told = _DISPOSITION.search(body[start:head_end].replace(b"\r", b""))
        name = _FIELD_NAME.search(told[1]) if told else None
        if told and name and (name[1] or name[2]) == FIELD.encode():
            content = body[head_end + 4 : end]
            is_picture = _FILE_NAME.search(told[1]) or sniff(content) is not None  # some clients name no file
            return content if is_picture else from_base64(content)
        position = end + 2
    raise BadInput(f"the form has more than {_PARTS_MAX} parts", expected=_EXPECTED)


def _from_form(body: bytes) -> bytes:
    """The escapes of base64's own characters are from_base64's to undo; those of a data URI's head are undone here."""
    if not body.isascii():
        raise BadInput("the body is neither a picture, nor a form, nor JSON", expected=_EXPECTED)
    name = FIELD.encode() + b"="
    start = 0 if body.startswith(name) else body.find(b"&" + name) + 1
    if not start and not body.startswith(name):
        raise BadInput("the form has no field 'image'", expected=_EXPECTED)
    value = body[start + len(name) :].partition(b"&")[0].replace(b"+", b" ")
    if value[:5].lower() == b"data%" or value[:5].lower() == b"data:":
        comma = re.search(rb"%2C|,", value[:_DATA_URI_BYTES_MAX], re.IGNORECASE)
        if comma:
            value = unquote_to_bytes(value[: comma.end()]) + value[comma.end() :]
    return from_base64(value)


def _from_json(body: bytes, max_rows: int) -> tuple[list[bytes], bool] | None:
    value = loads(body)
    if FIELD in value:
        return [_decoded(value[FIELD], "/image")], False
    instances = value.get("instances")
    if not isinstance(instances, list) or not instances or not _is_picture(instances[0]):
        return None
    if len(instances) > max_rows:
        raise TooLarge(f"{len(instances)} pictures; at most {max_rows} are taken at once")
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
