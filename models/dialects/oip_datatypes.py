"""The Open Inference Protocol's names for what a tensor holds, and shapes as it writes them.

Owns the names only; the bytes are `oip_binary`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.contract import Tensor
from models.errors import BadOutput
from models.tensors import Array

DTYPE_OF = {
    "BOOL": "bool",
    **{f"{kind.upper()}{bits}": f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BYTES": "string",
}
BFLOAT16 = "BF16"  # no dtype of ours: it travels in binary only, and is widened to float32
_DATATYPE_OF = {dtype: datatype for datatype, dtype in DTYPE_OF.items()}


def datatype_of(dtype: str) -> str:
    """The protocol's name of a contract's dtype."""
    return _DATATYPE_OF[dtype]


def datatype_of_array(array: Array) -> str:
    """The protocol's name of what an output holds. Raises BadOutput where it has none."""
    if array.dtype.kind in "OSU":
        return "BYTES"
    try:
        return _DATATYPE_OF[array.dtype.name]
    except KeyError:
        reason = f"the model answered with dtype {array.dtype.name}, which the protocol cannot carry"
        raise BadOutput(reason) from None


def config_type_of(dtype: str) -> str:
    """The same in a model's configuration, where bytes are strings: TYPE_FP32, TYPE_STRING."""
    return "TYPE_STRING" if dtype == "string" else f"TYPE_{_DATATYPE_OF[dtype]}"


def dims_of(tensor: Tensor) -> list[int]:
    """The sizes of one row, -1 where any goes."""
    return [-1 if size is None else size for size in tensor.shape]


def shape_text(shape: Sequence[int]) -> str:
    """A shape as Triton writes it in its messages: [-1,10]."""
    return f"[{','.join(map(str, shape))}]"
