"""What a SavedModel says of its signatures: their methods, what the graph calls their tensors, and which are the same.

Owns how to tell that two names mean one computation. Handed TensorFlow's parsed MetaGraphDef, of which it reads a few
fields; knows nothing else of TensorFlow, and nothing of loading or compiling.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from models.contract import METHOD_PREDICT, USUAL_SIGNATURE

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


@dataclass(frozen=True)
class Signature:
    """One computation that a SavedModel offers.

    aliases: other names of the same. inputs, outputs: what the graph calls each tensor, by its name in the signature.
    """

    name: str = USUAL_SIGNATURE
    method: str = METHOD_PREDICT
    aliases: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


def signatures_of(meta_graph: Any, names: Iterable[str], first: str | None) -> list[Signature]:
    """Those of the given names, each computation once: `first` before the others, which come sorted by name."""
    known = {name: meta_graph.signature_def[name] for name in names if name in meta_graph.signature_def}
    identify = _Identity(meta_graph.graph_def)
    found: dict[Hashable, Signature] = {}
    for name in sorted(known, key=lambda name: (name != first, name)):
        same = identify(known[name])
        if same in found:
            found[same] = replace(found[same], aliases=(*found[same].aliases, name))
        else:
            found[same] = _signature(name, known[name])
    return list(found.values())


def _signature(name: str, definition: Any) -> Signature:
    return Signature(
        name,
        definition.method_name or METHOD_PREDICT,
        inputs={key: info.name for key, info in definition.inputs.items()},
        outputs={key: info.name for key, info in definition.outputs.items()},
    )


class _Identity:
    """Equal for signatures that take the same inputs to the same outputs by the same nodes.

    TensorFlow 2 wraps each signature in a function of its own, so that of two names of one function (Keras exports
    every model as `serve` and `serving_default`) the wrappers are equal but for their names.
    """

    def __init__(self, graph: Any) -> None:
        self.nodes = {node.name: node for node in graph.node}
        self.functions = {function.signature.name: function for function in graph.library.function}

    def __call__(self, definition: Any) -> Hashable:
        fed = {info.name.partition(":")[0]: key for key, info in definition.inputs.items()}
        outputs = {key: self._origin(info.name, fed) for key, info in definition.outputs.items()}
        wrapped = all(isinstance(origin, tuple) for origin in outputs.values())
        inputs = {
            key: (info.dtype, info.tensor_shape.SerializeToString(), "" if wrapped else info.name)
            for key, info in definition.inputs.items()
        }
        return definition.method_name, *(tuple(sorted(one.items())) for one in (inputs, outputs))

    def _origin(self, tensor: str, fed: Mapping[str, str]) -> Hashable:
        """Where a tensor comes from: a function's body with what is passed to it, else just its name."""
        name, _, place = tensor.partition(":")
        node = self.nodes.get(name)
        if node is None or node.op not in _CALLS or node.attr["f"].func.name not in self.functions:
            return tensor
        body = type(self.functions[node.attr["f"].func.name])()
        body.CopyFrom(self.functions[node.attr["f"].func.name])
        body.signature.name = ""
        body.ClearField("arg_attr")  # holds numbers that are counted on from function to function
        passed = tuple(("fed", fed[one]) if one in fed else ("node", one) for one in node.input)
        return place, passed, body.SerializeToString(deterministic=True)
