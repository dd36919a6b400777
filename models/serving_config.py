"""TensorFlow Serving's `models.config`: which models there are, where they lie, and which versions are served.

The file is protobuf text, a ModelServerConfig with a model_config_list. It is read with protobuf itself, from message
types made here, as those of TensorFlow Serving come only with its own package; imported only where there is a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import LoadError

FILE = "models.config"
FILE_BYTES_MAX = 1024 * 1024

# Message -> its fields as (name, number, type); a type in brackets is repeated (as a map is, in
# the text).
_MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "Latest": [("num_versions", 1, "uint32")],
    "All": [],
    "Specific": [("versions", 1, "[int64]")],
    "Policy": [("latest", 100, "Latest"), ("all", 101, "All"), ("specific", 102, "Specific")],
    "Collector": [("type", 1, "string"), ("filename_prefix", 2, "string")],
    "Sampling": [("sampling_rate", 1, "double")],
    "Logging": [("log_collector_config", 1, "Collector"), ("sampling_config", 2, "Sampling")],
    "Label": [("key", 1, "string"), ("value", 2, "int64")],
    "Model": [
        ("name", 1, "string"),
        ("base_path", 2, "string"),
        ("model_type", 3, "int32"),
        ("model_platform", 4, "string"),
        ("logging_config", 6, "Logging"),
        ("model_version_policy", 7, "Policy"),
        ("version_labels", 8, "[Label]"),
    ],
    "Models": [("config", 1, "[Model]")],
    "Server": [("model_config_list", 1, "Models")],
}


@dataclass(frozen=True)
class Served:
    """One model of the file. base_path: as it stands there, perhaps another machine's; rules: as in a versions.json."""

    name: str
    base_path: str
    rules: dict[str, Any]


def read_config(path: Path) -> dict[str, Served]:
    """The models by name. Raises LoadError with what is wrong with the file."""
    from google.protobuf import text_format  # type: ignore[import-untyped]

    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise LoadError(f"{FILE} is larger than {FILE_BYTES_MAX // 1024**2} MiB")
        parsed = text_format.Parse(path.read_text("utf-8"), _server_class()())
    except text_format.ParseError as error:
        raise LoadError(f"{FILE}: {str(error)[:200]}") from None
    except UnicodeDecodeError:
        raise LoadError(f"{FILE} is not UTF-8") from None
    except OSError as error:
        raise LoadError(f"{FILE} cannot be read: {error.strerror}") from None
    served: dict[str, Served] = {}
    for model in parsed.model_config_list.config:
        if not model.name or not model.base_path:
            raise LoadError(f"{FILE}: a model has no name or no base_path")
        if model.name in served:
            raise LoadError(f"{FILE}: the model {model.name[:64]!r} is there twice")
        served[model.name] = Served(model.name, model.base_path, _rules(model))
    return served


def _rules(model: Any) -> dict[str, Any]:
    rules: dict[str, Any] = {}
    if model.version_labels:
        rules["labels"] = {label.key: label.value for label in model.version_labels}
    if model.HasField("model_version_policy"):
        policy = model.model_version_policy
        if policy.HasField("all"):
            rules["policy"] = "all"
        elif policy.specific.versions:
            rules["policy"] = f"specific:{','.join(map(str, policy.specific.versions))}"
        else:
            rules["policy"] = f"latest:{policy.latest.num_versions or 1}"
    return rules


def _server_class() -> Any:
    from google.protobuf import (
        descriptor_pb2,
        descriptor_pool,
        message_factory,
    )

    file = descriptor_pb2.FileDescriptorProto(name=FILE, package="serving", syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in _MESSAGES.items():
        made = file.message_type.add(name=message)
        for name, number, type_name in fields:
            repeated, kind = type_name.startswith("["), type_name.strip("[]")
            field = made.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in _MESSAGES:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".serving.{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("serving.Server"))
