"""An inference request of the Open Inference Protocol: its JSON and binary parts -> rows, and what is wanted back.

Owns the request's members and Triton's words for what is wrong with them. Knows nothing of answers' bodies.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import orjson

from models import explanation, numbers
from models.body import loads
from models.contract import Contract, Tensor
from models.dialects import oip_binary
from models.dialects.dialect import Call, Request
from models.dialects.oip_datatypes import BFLOAT16, DTYPE_OF, datatype_of, dims_of, shape_text
from models.errors import BadInput, TooLarge, Unimplemented
from models.forms import ROWS
from models.schema import Compiled
from models.tensors import Array, Item, dumps, fits, from_json
from models.wording import clip, under

_MAX_SIZE = 2**31 - 1  # of one dimension: more rows or columns than this never fit in memory
_MAX_ELEMENTS = 2**40
_MAX_RANK = 32
_MAX_NAME = 64
_NOT_SHARED = "shared memory is not offered: client and server need not be on one machine; send the tensor itself"


class Wanted(NamedTuple):
    """An output of the answer: which of the contract's, in which way, and as how many classes (0: as it is)."""

    output: int
    binary: bool
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What the answer must hold besides the model's name. id: as it was given, None without."""

    id: str | None
    wanted: tuple[Wanted, ...]


def parse(compiled: Compiled, call: Call) -> Request:
    """The rows of a request: one item, since all of them have one shape.

    Raises:
        BadInput: anything that does not fit the protocol, the model or its contract.
        TooLarge: the JSON has more bytes than the call allows, or holds too many lists.
        Unimplemented: shared memory or sequences.
    """
    size = oip_binary.json_size(call.header(oip_binary.HEADER.lower()), len(call.body))
    if size == 0:
        return _raw(compiled, call)
    if (json_bytes := len(call.body) if size is None else size) > call.max_json_bytes:
        raise TooLarge(f"the request's JSON has {json_bytes} bytes, at most {call.max_json_bytes} are taken")
    if size is None and json_bytes >= numbers.BYTES_MIN:
        body, cut = numbers.cut_out(call.body, "data")
        if cut:
            # Whatever is wrong is found again below, and told by what the client has sent.
            with suppress(BadInput, TooLarge, Unimplemented):
                return _read(compiled, call, None, _put_back(loads(body), cut))
    try:
        members = loads(call.body if size is None else call.body[:size])
    except BadInput as fault:
        fault.message = f"failed to parse the request JSON buffer: {fault.message}"
        fault.args = (fault.message,)
        raise
    return _read(compiled, call, size, members)


def _put_back(members: dict[str, Any], cut: dict[str, Array]) -> dict[str, Any]:
    """Numbers for the words that stand for them, each in its input. Raises BadInput where one stands elsewhere."""
    for entry in _list(members.get("inputs"), "inputs"):
        if type(entry.get("data")) is str and entry["data"] in cut:
            entry["data"] = cut.pop(entry["data"])
    if cut:
        raise _unparsed("data")
    return members


def _read(compiled: Compiled, call: Call, size: int | None, members: dict[str, Any]) -> Request:
    contract = compiled.contract
    parameters = _object(members.get("parameters"), "parameters")
    timeout_s, priority = _schedule(contract, parameters)
    reply = Reply(_id(members), _wanted(contract, members, in_binary=_flag(parameters, "binary_data_output")))
    arrays, rows = _Inputs(contract, call, size).read(members.get("inputs"))
    _refuse_what_the_contract_rules_out(compiled, arrays)
    return Request((Item(arrays, range(rows)),), rows, many=True, timeout_s=timeout_s, priority=priority, form=reply)


def _raw(compiled: Compiled, call: Call) -> Request:
    contract = compiled.contract
    if len(contract.inputs) != 1:
        raise BadInput(
            f"Raw request must only have 1 input to be deduced but got {len(contract.inputs)} inputs in"
            f" '{contract.name}' model configuration"
        )
    array = oip_binary.raw_array(call.body, contract.inputs[0], contract.name)
    _refuse_what_the_contract_rules_out(compiled, (array,))
    wanted = tuple(Wanted(index, binary=True) for index in range(len(contract.outputs)))
    return Request((Item((array,), range(1)),), 1, many=True, form=Reply(None, wanted))


# ---------------------------------------------------------------------------------------------- members


def _unparsed(what: str) -> BadInput:
    return BadInput(f"Unable to parse '{clip(what, _MAX_NAME)}'")


def _object(value: Any, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if type(value) is not dict:
        raise _unparsed(what)
    return value


def _list(value: Any, what: str) -> list[dict[str, Any]]:
    if type(value) is not list or not all(type(entry) is dict for entry in value):
        raise _unparsed(what)
    return value


def _name(entry: dict[str, Any], key: str = "name") -> str:
    name = entry.get(key)
    if type(name) is not str:
        raise _unparsed(key)
    return name


def _flag(parameters: dict[str, Any], key: str) -> bool:
    value = parameters.get(key, False)
    if type(value) is not bool:
        raise _unparsed(key)
    return value


def _count(parameters: dict[str, Any], key: str) -> int:
    value = parameters.get(key, 0)
    if type(value) is not int or value < 0:
        raise _unparsed(key)
    return value


def _id(members: dict[str, Any]) -> str | None:
    return _name(members, "id") if members.get("id") is not None else None


def _schedule(contract: Contract, parameters: dict[str, Any]) -> tuple[float | None, int]:
    """How long the request may take and how urgent it is. Whatever else there is must be plain, and is ignored."""
    for key, value in parameters.items():
        if type(value) not in (str, bool, int, float):
            raise BadInput(
                f"parameter '{clip(key, _MAX_NAME)}' has invalid type. It should be either 'int', 'double', 'bool', or"
                " 'string'."
            )
        if key.startswith("triton_"):
            raise BadInput(
                "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified."
            )
    if parameters.get("sequence_id") or parameters.get("sequence_start") or parameters.get("sequence_end"):
        raise Unimplemented(
            f"sequences are not offered: model '{contract.name}' keeps no state between requests; leave out"
            " sequence_id, sequence_start and sequence_end"
        )
    timeout_us = _count(parameters, "timeout")
    return timeout_us / 1e6 if timeout_us else None, _count(parameters, "priority")


def _wanted(contract: Contract, members: dict[str, Any], *, in_binary: bool) -> tuple[Wanted, ...]:
    """The outputs that the answer holds, in the order asked for; all of them where none is named."""
    listed = members.get("outputs")
    if listed is None or listed == []:
        return tuple(Wanted(index, in_binary) for index in range(len(contract.outputs)))
    indices = {tensor.name: index for index, tensor in enumerate(contract.outputs)}
    wanted: dict[str, Wanted] = {}
    for entry in _list(listed, "outputs"):
        name, parameters = _name(entry), _object(entry.get("parameters"), "parameters")
        shown = clip(name, _MAX_NAME)
        if name not in indices:
            raise BadInput(f"unexpected inference output '{shown}' for model '{contract.name}'")
        if name in wanted:
            raise BadInput(f"output '{shown}' is requested twice for model '{contract.name}'")
        if "shared_memory_region" in parameters:
            raise Unimplemented(_NOT_SHARED)
        classes, dtype = _count(parameters, "classification"), contract.outputs[indices[name]].dtype
        if classes and dtype in ("string", "bool"):
            reason = f"due to unsupported type '{datatype_of(dtype)}'"
            raise BadInput(f"class result not available for output '{shown}' {reason}")
        binary = _flag(parameters, "binary_data") if "binary_data" in parameters else in_binary
        wanted[name] = Wanted(indices[name], binary, classes)
    return tuple(wanted.values())


# ---------------------------------------------------------------------------------------------- inputs


class _Inputs:
    """Reads the inputs of one request; those in binary follow one another in the body, in the order of the JSON.

    blob: where the bytes after the JSON begin, None where all of the body is JSON.
    """

    def __init__(self, contract: Contract, call: Call, blob: int | None) -> None:
        self._contract = contract
        self._body = call.body
        self._at = blob
        self._tensors = {tensor.name: tensor for tensor in contract.inputs}
        self._max_rows = call.most_rows(contract)
        self._rows = 0

    def read(self, listed: Any) -> tuple[tuple[Array, ...], int]:
        """The arrays in the contract's order, and how many rows each has."""
        model, arrays = self._contract.name, dict[str, Array]()
        for position, entry in enumerate(_list(listed, "inputs")):
            parameters = _object(entry.get("parameters"), "parameters")
            _refuse_other_than_one_source(entry, parameters)
            name = _name(entry)
            shown = clip(name, _MAX_NAME)
            tensor = self._tensors.get(name)
            if tensor is None:
                raise BadInput(f"unexpected inference input '{shown}' for model '{model}'")
            if name in arrays:
                raise BadInput(f"input '{shown}' already exists in request")
            datatype = self._datatype(entry, tensor, "data" in entry)
            shape = self._shape(entry, tensor)
            if "data" in entry:
                arrays[name] = _from_data(entry["data"], tensor, shape, position)
            else:
                arrays[name] = self._from_bytes(_count(parameters, "binary_data_size"), tensor, shape, datatype)
        if len(arrays) != len(self._tensors):
            raise self._missing(arrays)
        if self._at is not None and self._at != len(self._body):
            raise BadInput(f"unexpected additional input data for model '{model}'")
        return tuple(arrays[tensor.name] for tensor in self._contract.inputs), self._rows

    def _datatype(self, entry: dict[str, Any], tensor: Tensor, as_json: bool) -> str:
        datatype = _name(entry, "datatype")
        if datatype not in DTYPE_OF and datatype != BFLOAT16:
            known = ", ".join((*DTYPE_OF, BFLOAT16))
            raise BadInput(f"invalid datatype for input {tensor.name}: '{clip(datatype, 16)}' is none of {known}")
        if datatype == BFLOAT16 and as_json:
            raise BadInput(
                "receiving BF16 data via JSON is not supported. Please use the binary data format for input"
                f" {tensor.name}"
            )
        if DTYPE_OF.get(datatype, "float32") != tensor.dtype:
            raise BadInput(
                f"inference input '{tensor.name}' data-type is '{datatype}', but model '{self._contract.name}'"
                f" expects '{datatype_of(tensor.dtype)}'"
            )
        return datatype

    def _shape(self, entry: dict[str, Any], tensor: Tensor) -> tuple[int, ...]:
        """The shape as given, rows first, where it is one that the model takes."""
        model, shape = self._contract.name, entry.get("shape")
        if type(shape) is not list or len(shape) > _MAX_RANK:
            raise _unparsed("shape")
        if not shape:
            name = f"input '{tensor.name}' has no shape"
            raise BadInput(f"{name} but model requires batch dimension for '{model}'")
        if set(map(type, shape)) != {int} or min(shape) < 0 or max(shape) > _MAX_SIZE:
            raise _unparsed("shape")
        if not fits(tuple(shape[1:]), tensor.shape):
            raise BadInput(
                f"unexpected shape for input '{tensor.name}' for model '{model}'."
                f" Expected {shape_text([-1, *dims_of(tensor)])}, got {shape_text(shape)}"
            )
        rows = shape[0]
        if not 1 <= rows <= self._max_rows:
            bound = f"<= {self._max_rows}" if rows else ">= 1"
            raise BadInput(f"inference request batch-size must be {bound} for '{model}'")
        if self._rows not in (0, rows):
            raise BadInput(f"input '{tensor.name}' batch size does not match other inputs for '{model}'")
        if math.prod(filter(None, shape)) > _MAX_ELEMENTS:
            raise BadInput(f"input '{tensor.name}' of shape {shape_text(shape)} is too large for model '{model}'")
        self._rows = rows
        return tuple(shape)

    def _from_bytes(self, size: int, tensor: Tensor, shape: tuple[int, ...], datatype: str) -> Array:
        if self._at is None and size:
            raise BadInput(
                f"must specify valid '{oip_binary.HEADER}' in request header and 'binary_data_size' when passing inputs"
                " in binary data format"
            )
        start = self._at or 0
        model = self._contract.name
        if (lacking := start + size - len(self._body)) > 0:
            raise BadInput(
                f"unexpected size for input '{tensor.name}', expecting {lacking} additional bytes for model '{model}'"
            )
        array = oip_binary.array_at(
            self._body, start, size, tensor, shape, oip_binary.Where(tensor.name, model, datatype)
        )
        self._at = start + size if self._at is not None else None
        return array

    def _missing(self, arrays: dict[str, Array]) -> BadInput:
        given = ",".join(f"'{clip(name, _MAX_NAME)}'" for name in arrays)
        missing = ",".join(f"'{clip(name, _MAX_NAME)}'" for name in self._tensors if name not in arrays)
        return BadInput(
            f"expected {len(self._tensors)} inputs but got {len(arrays)} inputs for model '{self._contract.name}'."
            f" Got inputs [{given}], but missing required inputs [{missing}]. Please provide all required inputs."
        )


def _refuse_other_than_one_source(entry: dict[str, Any], parameters: dict[str, Any]) -> None:
    given = ["'data'"] if "data" in entry else []
    given += [f"'{key}'" for key in ("binary_data_size", "shared_memory_region") if key in parameters]
    if len(given) != 1:
        raise BadInput(
            "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters',"
            f" 'shared_memory_region' in 'parameters'. But {'set ' + ' '.join(given) if given else 'no field is set'}"
        )
    if "shared_memory_region" in parameters:
        raise Unimplemented(_NOT_SHARED)


def _from_data(data: Any, tensor: Tensor, shape: tuple[int, ...], position: int) -> Array:
    """The array that `data` makes, flat in row-major order or nested as the shape says."""
    if isinstance(data, np.ndarray):
        array = numbers.cast(data, tensor, shape)
        if array is None:
            raise _unparsed("data")
        return array
    if type(data) is not list:
        raise _unparsed("data")
    locate = under("inputs", position, "data")
    if len(shape) > 1 and data and type(data[0]) is list:
        if len(data) != shape[0]:
            raise _other_size(tensor, shape, f"{len(data)} lists")
        return from_json(data, Tensor(tensor.name, tensor.dtype, shape[1:]), locate)
    if len(data) != math.prod(shape):
        raise _other_size(tensor, shape, f"{len(data)} values")
    return from_json(data, Tensor(tensor.name, tensor.dtype, ()), locate).reshape(shape)


def _other_size(tensor: Tensor, shape: tuple[int, ...], got: str) -> BadInput:
    return BadInput(
        f"Unable to parse 'data': Shape does not match true shape of 'data' field: input '{tensor.name}' of shape"
        f" {shape_text(shape)} takes {math.prod(shape)} values, flat or nested as the shape says, got {got}"
    )


# ---------------------------------------------------------------------------------------------- the contract's own


def _refuse_what_the_contract_rules_out(compiled: Compiled, arrays: tuple[Array, ...]) -> None:
    """Hold the rows to ranges and schemas of contract.json, where it has any.

    Numbers are judged by their shortest text, as they stand in JSON: 0.1 in binary is no more than a maximum of 0.1.
    """
    contract = compiled.contract
    if not (contract.request_schema or any(field.schema for field in contract.fields)):
        return
    columns = [_values(tensor, array) for tensor, array in zip(contract.inputs, arrays, strict=True)]
    kind = "bare" if len(columns) == 1 else "inputs"
    names = [tensor.name for tensor in contract.inputs]
    rows = columns[0] if kind == "bare" else [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    form = next(form for form in compiled.rows if form.kind == kind)
    body = {ROWS: rows}
    if not form.accepts(body):
        fault = explanation.explain((form,), body)
        fault.message = fault.message.replace(f"/{ROWS}/", "row ", 1)
        fault.args = (fault.message,)
        raise fault


def _values(tensor: Tensor, array: Array) -> list[Any]:
    """One value for each row, as JSON has it. Raises BadInput for what no schema could speak of."""
    try:
        # NaN and infinities become null, which no schema of numbers takes.
        values: list[Any] = _decoded(array.tolist()) if tensor.dtype == "string" else orjson.loads(dumps(array))
    except UnicodeDecodeError:
        reason = "the model's contract says what strings it may be"
        raise BadInput(f"input '{tensor.name}' must be UTF-8: {reason}") from None
    return values


def _decoded(value: Any) -> Any:
    """Nested lists of bytes as text."""
    return [_decoded(part) for part in value] if isinstance(value, list) else value.decode()
