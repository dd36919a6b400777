"""Rows of a file as a model's input, many at once: arrays without an object for each number, and the contract's checks.

Owns when that is safe: one input of floats of one size. Whatever is otherwise, and whatever does not fit the contract,
is None here: then each row goes the usual way (a dialect's `parse`), which says what is wrong with it.
"""

from __future__ import annotations

import math

import numpy as np

from models import numbers
from models.contract import Contract, Tensor
from models.forms import ROWS
from models.schema import Compiled
from models.tensors import Array

_DTYPES = ("float32", "float64")


def lone_floats(contract: Contract) -> Tensor | None:
    """The only input, where it is floats and every row of one size."""
    if len(contract.inputs) != 1:
        return None
    tensor = contract.inputs[0]
    return tensor if tensor.dtype in _DTYPES and None not in tensor.shape else None


def from_values(compiled: Compiled, values: bytes, rows: int, *, flat: bool = False) -> Array | None:
    """The input that so many rows make: the JSON of each row's value, with commas between.

    flat: a row is a plain list of all its numbers.
    """
    tensor = lone_floats(compiled.contract)
    if tensor is None:
        return None
    shape = (math.prod(size or 0 for size in tensor.shape),) if flat else tensor.shape
    body = b'{"%b":[%b]}' % (ROWS.encode(), values)
    doubles = numbers.instances(body, Tensor(tensor.name, "float64", shape), rows)
    return None if doubles is None or len(doubles) != rows else from_array(compiled, doubles)


def from_array(compiled: Compiled, array: Array) -> Array | None:
    """The input that an array makes, whose first axis are the rows; a row's numbers may lie in any shape."""
    tensor = lone_floats(compiled.contract)
    if tensor is None or array.dtype.kind not in "fiu" or not len(array):
        return None
    shape = tuple(size or 0 for size in tensor.shape)
    if array.dtype.itemsize > 8 or not _fits(array.shape[1:], shape) or not _is_exact(array):
        return None
    values = array.reshape(len(array), *shape)
    if _has_rules(compiled.contract):
        bare = next(form for form in compiled.rows if form.kind == "bare")
        if not bare.accepts({ROWS: values.tolist()}):
            return None
    return numbers.cast(values.reshape(-1), tensor, values.shape)


def _fits(row: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return row == shape or (len(row) == 1 and row[0] == math.prod(shape)) or (row == () and math.prod(shape) == 1)


def _is_exact(array: Array) -> bool:
    """Whether JSON could say it: finite, and not more digits than a double has."""
    if array.dtype.kind == "f":
        return bool(np.isfinite(array).all())
    return array.dtype.itemsize < 8 or bool((np.abs(array.astype(np.float64)) <= 2.0**53).all())


def _has_rules(contract: Contract) -> bool:
    return bool(contract.request_schema) or any(field.schema for field in contract.fields)
