"""What TensorFlow Serving says of models without asking them: states of versions, and their signatures.

Owns these three bodies. 64-bit integers are strings in them, as protobuf writes them. Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.contract import INTEGERS, Contract, Tensor
from models.dialects.dialect import Asked, Version
from models.tensors import dumps

# Our states in the original's words; what failed is at its end there.
_STATES = {"LOADING": "LOADING", "READY": "AVAILABLE", "FAILED": "END", "UNLOADED": "END"}
_DTYPES = {
    "bool": "DT_BOOL", "string": "DT_STRING", "float16": "DT_HALF", "float32": "DT_FLOAT", "float64": "DT_DOUBLE",
    **{name: f"DT_{name.upper()}" for name in INTEGERS},
}  # fmt: skip


def status(asked: Asked) -> bytes:
    """The states of the version that was named, or of all of the model."""
    named = asked.given is not None and asked.version is not None
    versions: Sequence[Version] = [asked.version] if named and asked.version else asked.versions
    return dumps({"model_version_status": [_status(version) for version in versions]})


def models(asked: Asked) -> bytes:
    """All models with the states of their versions; the original has no such list."""
    found: dict[str, list[dict[str, Any]]] = {}
    for version in asked.versions:
        found.setdefault(version.name, []).append(_status(version))
    return dumps({"models": [{"name": name, "model_version_status": states} for name, states in found.items()]})


def _status(version: Version) -> dict[str, Any]:
    fault = {"error_code": "INTERNAL", "error_message": version.reason or ""}
    fine = {"error_code": "OK", "error_message": ""}
    return {
        "version": version.version,
        "state": _STATES.get(version.state, "UNKNOWN"),
        "status": fault if version.state == "FAILED" else fine,
    }


def metadata(version: Version) -> bytes:
    """What each signature takes and gives."""
    signatures: dict[str, Any] = {}
    for compiled in (version.compiled, *version.signatures.values()):
        if compiled is not None:
            contract = compiled.contract
            signatures |= dict.fromkeys((contract.signature, *contract.aliases), _signature(contract))
    spec = {"name": version.name, "signature_name": "", "version": version.version}
    return dumps({"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}})


def _signature(contract: Contract) -> dict[str, Any]:
    names = contract.graph_names
    inputs = names.inputs or [f"{contract.signature}_{tensor.name}:0" for tensor in contract.inputs]
    outputs = names.outputs or [f"StatefulPartitionedCall:{index}" for index in range(len(contract.outputs))]
    return {
        "inputs": {tensor.name: _tensor(tensor, name) for tensor, name in zip(contract.inputs, inputs, strict=True)},
        "outputs": {tensor.name: _tensor(tensor, name) for tensor, name in zip(contract.outputs, outputs, strict=True)},
        "method_name": contract.method,
        "defaults": {},
    }


def _tensor(tensor: Tensor, name: str) -> dict[str, Any]:
    sizes = (-1, *(-1 if size is None else size for size in tensor.shape))
    dim = [{"size": str(size), "name": ""} for size in sizes]
    return {
        "dtype": _DTYPES[tensor.dtype],
        "tensor_shape": {"dim": dim, "unknown_rank": False},
        "name": name,
    }
