"""What a model takes and gives. Owns the names, dtypes, shapes and their narrowing by `contract.json`.

Knows nothing of TensorFlow, HTTP or batching. A contract crosses process boundaries as JSON: the worker derives it
from the model, the supervisor publishes it, and each front compiles it (`models.schema`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "float32", "float64")
DTYPES = ("bool", *INTEGERS, *FLOATS, "string")

# What a SavedModel's signature does, in TensorFlow Serving's words.
METHOD_PREDICT = "tensorflow/serving/predict"
METHOD_CLASSIFY = "tensorflow/serving/classify"
METHOD_REGRESS = "tensorflow/serving/regress"
USUAL_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Tensor:
    """One named input or output.

    dtype: one of DTYPES (numpy's names; "string" is variable-length bytes).
    shape: of ONE row, without the leading row dimension; None where any size goes. () is a scalar per row.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Field:
    """One named column of a vector input. `schema` narrows its number: a JSON Schema of the allowed keywords."""

    name: str
    schema: dict[str, Any] = field(default_factory=dict)
    description: str = ""


@dataclass(frozen=True)
class Image:
    """How a picture becomes one row of `input`.

    width, height: pixels. colour: "rgb" (3 channels) or "grey" (1 channel; no channel axis if the input has none).
    The model sees `pixel * scale + offset` with pixels 0..255; the pixels travel as uint8 and are scaled in the worker.
    """

    input: str
    width: int
    height: int
    colour: str = "rgb"
    scale: float = 1.0 / 255.0
    offset: float = 0.0


@dataclass(frozen=True)
class Example:
    """A request body and its answer; `tolerance` is absolute and relative at once."""

    request: Any
    answer: Any = None
    tolerance: float = 1e-4


@dataclass(frozen=True)
class LogRules:
    """How much of a model's requests the prediction log keeps; None leaves it to the server's settings.

    capture: "none", "hash", "auto" or "full", of inputs. sample: the share of answered requests, 0 to 1; 0 logs nothing
    at all. omit: fields whose values are never written, not even to the spool.
    """

    capture: str | None = None
    sample: float | None = None
    omit: tuple[str, ...] = ()


@dataclass(frozen=True)
class GraphNames:
    """What a SavedModel's graph calls the inputs and outputs, in the contract's order, such as "serving_default_x:0".

    Empty where the model has no such names.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contract:
    """Everything a front must know of one version of one model.

    fields: ordered named columns of the only input (then a vector); empty when there are none.
    request_schema: further JSON Schema for one instance, merged by allOf; keywords restricted (models.keywords).
    labels: class names by index, empty when unknown; a contract with labels or an image is a classifier.
    routes: extra routes that belong to this model, such as "/advanced_predict".
    null_for_nan: a non-finite output is sent as null instead of failing the request.
    max_rows: rows in one call at the most, None for no bound (a fixed batch dimension is the runtime's own affair).
    signature: which of a SavedModel's this is of. aliases: other names of the same one.
    method: what it does: one of the METHOD_… here, or whatever its maker wrote.
    """

    name: str
    version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    description: str = ""
    fields: tuple[Field, ...] = ()
    request_schema: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    image: Image | None = None
    examples: tuple[Example, ...] = ()
    routes: tuple[str, ...] = ()
    null_for_nan: bool = False
    isolate: bool = False
    max_rows: int | None = None
    log: LogRules = LogRules()
    signature: str = USUAL_SIGNATURE
    aliases: tuple[str, ...] = ()
    method: str = METHOD_PREDICT
    graph_names: GraphNames = GraphNames()

    def to_json(self) -> dict[str, Any]:
        """A JSON-safe dictionary; `from_json` gives an equal contract back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Contract:
        """The inverse of `to_json`, for data we wrote ourselves; `narrow` is for what a user wrote."""
        values = dict(data)
        for key in ("inputs", "outputs"):
            values[key] = tuple(Tensor(t["name"], t["dtype"], tuple(t["shape"])) for t in data[key])
        values["fields"] = tuple(Field(**f) for f in data["fields"])
        values["examples"] = tuple(Example(**e) for e in data["examples"])
        values["labels"] = tuple(data["labels"])
        values["routes"] = tuple(data["routes"])
        values["aliases"] = tuple(data["aliases"])
        values["graph_names"] = GraphNames(**{key: tuple(names) for key, names in data["graph_names"].items()})
        values["log"] = LogRules(**{**data["log"], "omit": tuple(data["log"]["omit"])})
        values["image"] = Image(**data["image"]) if data["image"] else None
        return cls(**values)
