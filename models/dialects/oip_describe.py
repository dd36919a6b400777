"""What the Open Inference Protocol says of a server and its models: health, metadata, configuration, statistics, index.

Owns the bodies. Knows nothing of inference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from models.body import loads
from models.contract import Contract, Tensor
from models.dialects.dialect import Asked, Counted, Rendered, Version
from models.dialects.oip_datatypes import config_type_of, datatype_of, dims_of
from models.errors import BadInput
from models.tensors import dumps

# What of Triton's extensions is really there. Parameters of our own are none of them: no model here could read them.
EXTENSIONS = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "statistics",
)
PLATFORM, BACKEND = "tensorflow_savedmodel", "tensorflow"
_NOT_YET = 503


def describe(asked: Asked) -> Rendered:
    """The answer to a question. Raises BadInput for a body that is none."""
    return _QUESTIONS[asked.action](asked)


def not_ready(model: str, version: str | None, reason: str | None) -> str:
    """Why a version cannot be asked, in Triton's words and then our own."""
    which = f"'{model}' version {version}" if version else f"'{model}'"
    return f"Request for unknown model: {which} is not at ready state" + (f": {reason}" if reason else "")


# ---------------------------------------------------------------------------------------------- the server


def _live(asked: Asked) -> Rendered:
    return Rendered(dumps({"live": True}))


def _ready(asked: Asked) -> Rendered:
    return Rendered(dumps({"ready": asked.is_ready}), status=200 if asked.is_ready else _NOT_YET)


def _server(asked: Asked) -> Rendered:
    name, _, version = asked.server.partition(" ")
    return Rendered(dumps({"name": name, "version": version, "extensions": EXTENSIONS}))


def _index(asked: Asked) -> Rendered:
    only_ready = loads(asked.body).get("ready", False) if asked.body.strip() else False
    if type(only_ready) is not bool:
        raise BadInput("Unable to parse 'ready'")
    return Rendered(
        dumps([_indexed(version) for version in asked.versions if version.state == "READY" or not only_ready])
    )


def _indexed(version: Version) -> dict[str, str]:
    state = version.state if version.state in ("READY", "LOADING") else "UNAVAILABLE"
    reason = version.reason or ("unloaded" if version.state == "UNLOADED" else "")
    return {"name": version.name, "version": version.version, "state": state, "reason": reason}


# ---------------------------------------------------------------------------------------------- a model


def _of_model(describe: Callable[[Asked, Version, Contract], Any]) -> Callable[[Asked], Rendered]:
    """For what can be said only of a version that a worker has loaded."""

    def answer(asked: Asked) -> Rendered:
        version = asked.version
        if version is None or version.state != "READY" or version.compiled is None:
            reason = version.reason if version else None
            text = not_ready(asked.model or "", version.version if version else asked.given, reason)
            return Rendered(dumps({"error": text}), status=_NOT_YET)
        return Rendered(dumps(describe(asked, version, version.compiled.contract)))

    return answer


def _model_ready(asked: Asked) -> Rendered:
    is_ready = asked.version is not None and asked.version.state == "READY"
    return Rendered(dumps({"name": asked.model, "ready": is_ready}), status=200 if is_ready else _NOT_YET)


def _metadata(asked: Asked, version: Version, contract: Contract) -> Any:
    return {
        "name": version.name,
        "versions": [one.version for one in _served(asked)],
        "platform": PLATFORM,
        "inputs": [_tensor(tensor) for tensor in contract.inputs],
        "outputs": [_tensor(tensor) for tensor in contract.outputs],
    }


def _served(asked: Asked) -> list[Version]:
    """The model's versions that answer, oldest first as Triton has them."""
    return [version for version in reversed(asked.versions) if version.state == "READY"]


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": datatype_of(tensor.dtype), "shape": [-1, *dims_of(tensor)]}


def _config(asked: Asked, version: Version, contract: Contract) -> Any:
    """As Triton's ModelConfig; what has no meaning here is left at its default."""
    measured = sorted(int(rows) for rows in version.costs)
    return {
        "name": version.name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "version_policy": {"specific": {"versions": [int(one.version) for one in _served(asked)]}},
        "max_batch_size": contract.max_rows or max(measured, default=1),
        "input": [
            {
                **_configured(tensor),
                "format": "FORMAT_NONE",
                "is_shape_tensor": False,
                "allow_ragged_batch": False,
                "optional": False,
            }
            for tensor in contract.inputs
        ],
        "output": [
            {**_configured(tensor), "label_filename": "", "is_shape_tensor": False} for tensor in contract.outputs
        ],
        "batch_input": [],
        "batch_output": [],
        "instance_group": [{"name": version.name, "kind": "KIND_CPU", "count": 1}],
        "dynamic_batching": {"preferred_batch_size": measured},
        "parameters": {},
        "response_cache": {"enable": False},
        "model_transaction_policy": {"decoupled": False},
    }


def _configured(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "data_type": config_type_of(tensor.dtype), "dims": dims_of(tensor)}


# ---------------------------------------------------------------------------------------------- statistics


def _statistics(asked: Asked) -> Rendered:
    """Of every version that answers; of one alone where it was named."""
    if asked.given is not None and asked.version is not None:
        return _one_version(asked)
    return Rendered(dumps({"model_stats": _counted(asked, _served(asked))}))


def _counted(asked: Asked, versions: Iterable[Version]) -> list[dict[str, Any]]:
    return [_stats(version, asked.counted(version)) for version in versions]


_one_version = _of_model(lambda asked, version, _: {"model_stats": _counted(asked, [version])})


def _stats(version: Version, counted: Counted) -> dict[str, Any]:
    """Fractions of a second become the nanoseconds that Triton counts in."""
    nothing = _duration(0, 0.0)
    return {
        "name": version.name,
        "version": version.version,
        "last_inference": round(counted.last_answer_s * 1000),
        "inference_count": counted.rows,
        "execution_count": counted.batches,
        "inference_stats": {
            "success": _duration(counted.answered, counted.answered_s),
            "fail": _duration(counted.failed, counted.failed_s),
            "queue": _duration(counted.items, counted.queue_s),
            "compute_input": nothing,
            "compute_infer": _duration(counted.batches, counted.compute_s),
            "compute_output": nothing,
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "response_stats": {},
        "batch_stats": [],
        "memory_usage": [],
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(seconds * 1e9)}


_QUESTIONS: dict[str, Callable[[Asked], Rendered]] = {
    "live": _live,
    "ready": _ready,
    "server": _server,
    "index": _index,
    "model_ready": _model_ready,
    "metadata": _of_model(_metadata),
    "config": _of_model(_config),
    "stats": _statistics,
}
