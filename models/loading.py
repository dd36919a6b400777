"""From a model on disk to something that can be called. Imports TensorFlow; models.runtime sets it up first.

Owns the kinds of models (.keras, .h5, SavedModels with and without signatures), what their inputs are called, and why
one cannot be loaded, in words that are safe to show. Knows nothing of compiling, batches or contracts.
"""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.saved_model.loader_impl import parse_saved_model

from models.contract import METHOD_CLASSIFY, METHOD_PREDICT, METHOD_REGRESS, USUAL_SIGNATURE
from models.errors import LoadError
from models.signatures import Signature, signatures_of

log = logging.getLogger("inference.models")

_DAMAGED = "its files are damaged or incomplete"
# Reasons by what the message of TensorFlow or Keras has in it, most telling first; the message itself stays in the log.
_REASONS = (
    (r"Op type not registered '(\w{1,64})'", "it uses the operation {0}, which this TensorFlow does not have"),
    (r"`Lambda`|safe_mode|unsafe|not allowed|disallowed", "it holds a Lambda layer or other code, which is not run"),
    (r"Could not locate|not a KerasSaveable|Unknown (?:layer|object)", "it needs a custom class, which is not loaded"),
    (r"could not be deserialized|Could not deserialize", "its configuration does not fit this version of Keras"),
    (r"No model config found", "it holds weights only, not the model"),
    (r"No such file|Failed to find any matching files", "a file of the model is missing"),
    (r"MetaGraph", "its saved_model.pb has no graph to serve"),
    (r"could not be loaded|shape of the target|Layer count mismatch", "its weights do not fit its configuration"),
    (r"Cannot parse|Error parsing|Unable to (?:synchronously )?open|Data loss|corrupt|checksum|Bad CRC", _DAMAGED),
    (r"accessible `\.keras` zip|no item named|Expected a model\.weights|Read less bytes|truncated", _DAMAGED),
)


@dataclass(frozen=True)
class Input:
    """One input as the model itself has it. `spec` has the row dimension first: None, or the only size it takes."""

    name: str
    spec: tf.TensorSpec


@dataclass(frozen=True)
class Program:
    """A loaded model: what it takes, and how to call it.

    call: takes one tensor for each input, in their order; gives a tensor, or a list or dictionary of them.
    output_names: of outputs that come without a name of their own; empty where nobody named them.
    owner: holds the variables, and must live as long as the program.
    any_rows: a fixed row dimension may be an accident: Keras notes the size of the first batch a model was fed.
    signature: what the SavedModel says of it. others: makes the program of each further signature, by its name.
    """

    inputs: tuple[Input, ...]
    call: Callable[..., Any]
    output_names: tuple[str, ...]
    owner: Any
    any_rows: bool = False
    signature: Signature = field(default_factory=Signature)
    others: Mapping[str, Callable[[], Program]] = field(default_factory=dict)


def load_program(path: Path, kind: str, signature: str | None = None) -> Program:
    """The model at `path`, of a kind as in models.repository; `signature` names a SavedModel's signature or function.

    Raises LoadError where its inputs cannot be served, and whatever Keras and TensorFlow raise: see `explain`.
    """
    return _saved_model(path, signature) if kind == "saved_model" else _checked(_keras_model(path))


def _checked(program: Program) -> Program:
    if not program.inputs:
        raise LoadError("the model takes no inputs")
    for one in program.inputs:
        _check_input(one)
    return program


def explain(error: Exception, path: Path) -> str:
    """Why loading failed, safe to show: no path and no text of TensorFlow's."""
    if isinstance(error, MemoryError | tf.errors.ResourceExhaustedError):
        return "there is not enough memory to load it"
    if not path.exists():
        return "a file of the model is missing"
    newer = _saved_by_newer_keras(path)
    if newer is not None:
        return f"it was saved by Keras {newer}, which is newer than the {keras.__version__} here"
    text = f"{type(error).__name__}: {error}".replace(str(path), "")
    for pattern, reason in _REASONS:
        if found := re.search(pattern, text):
            return reason.format(*found.groups())
    return "loading failed; the server's log has the details"


def named(structure: Any, names: Sequence[str], what: str) -> list[tuple[str, Any]]:
    """The members of a tensor, a list or a dictionary of tensors with their names, in order; names made unique.

    names: for those without a key. what: "inputs" or "outputs". Raises LoadError for anything nested or composite.
    """
    if isinstance(structure, Mapping):
        members = [(str(key), value) for key, value in structure.items()]
    elif isinstance(structure, list | tuple):
        keys = getattr(structure, "_fields", names if len(names) == len(structure) else None)
        members = list(zip(keys or [f"{what[:-1]}_{i}" for i in range(len(structure))], structure, strict=True))
    else:
        members = [(names[0] if len(names) == 1 else f"{what[:-1]}_0", structure)]
    taken: set[str] = set()
    result = []
    for name, member in members:
        if isinstance(member, Mapping | list | tuple):
            raise LoadError(f"its {what} are nested: {name!r} is itself a collection")
        unique = name
        while unique in taken:
            unique = f"{name}_{len(taken)}"
        taken.add(unique)
        result.append((unique, member))
    return result


def _keras_model(path: Path) -> Program:
    """A .keras or .h5 file. Never compiled (no optimizer is needed) and never allowed to bring code of its own."""
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    sequential = isinstance(model, keras.Sequential)
    try:
        structure = model.inputs[0] if sequential else model.input
    except (AttributeError, TypeError, ValueError):
        raise LoadError("it does not say what it takes: build it (give it an Input) before saving it") from None
    tensors = keras.tree.flatten(structure)
    members = named(structure, [tensor.name for tensor in tensors], "inputs")
    for name, tensor in members:
        if tensor.sparse or getattr(tensor, "ragged", False):
            raise LoadError(f"its input {name!r} is a sparse or ragged tensor")
    inputs = tuple(Input(name, tf.TensorSpec(tensor.shape, tensor.dtype, name)) for name, tensor in members)
    stateful = any(getattr(layer, "stateful", False) for layer in _layers(model))

    def call(*rows: Any) -> Any:
        return model(keras.tree.pack_sequence_as(structure, rows), training=False)

    output_names = (model.layers[-1].name,) if sequential else tuple(getattr(model, "output_names", ()))
    return Program(inputs, call, output_names, model, any_rows=not stateful)


def _layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)


def _saved_model(path: Path, wanted: str | None) -> Program:
    meta_graph, tags = _meta_graph(path)
    loaded = tf.saved_model.load(str(path), tags)
    signatures = dict(loaded.signatures)
    functions = {name: getattr(loaded, name) for name in dir(loaded) if _is_function(loaded, name)}
    if wanted is not None and wanted not in {*signatures, *functions}:
        raise LoadError(f"it has no signature {wanted!r}; there are: {', '.join([*signatures, *functions])[:200]}")
    methods = {name: meta_graph.signature_def[name].method_name for name in signatures}
    predicting = [name for name, method in methods.items() if method == METHOD_PREDICT]
    only = predicting[0] if len(predicting) == 1 else None
    name = wanted or (only if USUAL_SIGNATURE not in signatures else None) or _usual(signatures)
    known = signatures_of(meta_graph, signatures, name)

    def program(signature: Signature) -> Program:
        function = signatures[signature.name]
        _refuse_disguised(function, functions.values())
        return _checked(replace(_from_signature(function, signature.method, loaded), signature=signature))

    others = {one.name: partial(program, one) for one in known if one.name != name}
    if name in signatures:
        return replace(program(known[0]), others=others)
    name = wanted or _usual(functions, "__call__", "function")
    if name is None:
        raise LoadError("it has no signature and no function that could be called")
    function = _from_function(functions[name].concrete_functions, loaded)
    return _checked(replace(function, signature=Signature(wanted or USUAL_SIGNATURE), others=others))


def _meta_graph(path: Path) -> tuple[Any, list[str] | None]:
    """The graph to serve, and its tags where they are needed to tell it from others (one for a GPU, say)."""
    graphs = list(parse_saved_model(str(path)).meta_graphs)
    plain = [graph for graph in graphs if list(graph.meta_info_def.tags) == [tf.saved_model.SERVING]]
    if len(graphs) > 1 and plain:
        return plain[0], [tf.saved_model.SERVING]
    if not graphs:
        raise LoadError("its saved_model.pb has no graph to serve")
    return graphs[0], None


def _is_function(loaded: Any, name: str) -> bool:
    return isinstance(getattr(getattr(loaded, name, None), "concrete_functions", None), list)


def _usual(choices: Mapping[str, Any], usual: str = USUAL_SIGNATURE, what: str = "signature") -> str | None:
    """The usual one, or the only one; None when there is none. Raises LoadError when it would be a guess."""
    if usual in choices or len(choices) < 2:
        return usual if usual in choices else next(iter(choices), None)
    raise LoadError(
        f"it has no {what} {usual!r} but several others; name one in its contract: {', '.join(choices)[:200]}"
    )


def _refuse_disguised(signature: Any, functions: Iterable[Any]) -> None:
    """TensorFlow writes a function of one ragged or sparse tensor as a signature of its parts, which are not rows."""
    for function in functions:
        for trace in function.concrete_functions:
            specs = [
                leaf for leaf in tf.nest.flatten(trace.structured_input_signature) if isinstance(leaf, tf.TypeSpec)
            ]
            parts = tf.nest.flatten(specs, expand_composites=True)
            if len(parts) > len(specs) and len(parts) == len(signature.structured_input_signature[1]):
                raise LoadError("it takes a sparse or ragged tensor")


def _from_signature(function: Any, method: str, owner: Any) -> Program:
    """Signatures take and give dictionaries, whose order on disk means nothing: sorted by name."""
    _, specs = function.structured_input_signature
    names = sorted(specs)
    inputs = tuple(Input(name, _with_rank(specs[name])) for name in names)

    def call(*rows: Any) -> Any:
        outputs = function(**dict(zip(names, rows, strict=True)))
        return {name: _with_rows(outputs[name], method, rows[0]) for name in sorted(outputs)}

    return Program(inputs, call, (), owner)


def _with_rank(spec: Any) -> tf.TensorSpec:
    """TensorFlow 1 let a placeholder of strings have no rank at all: then each row is one string (a tf.Example)."""
    if not isinstance(spec, tf.TensorSpec):
        raise LoadError("it takes a sparse or ragged tensor")
    if spec.dtype == tf.string and spec.shape.rank is None:
        return tf.TensorSpec((None,), tf.string, spec.name)
    return spec


def _with_rows(output: Any, method: str, rows: Any) -> Any:
    """An output of unknown rank has the one that its method calls for: [n] of a regression, [n, k] of classes."""
    if not tf.is_tensor(output) or output.shape.rank is not None or method not in (METHOD_CLASSIFY, METHOD_REGRESS):
        return output
    count = tf.shape(rows)[0]
    return tf.reshape(output, [count] if method == METHOD_REGRESS else [count, -1])


def _from_function(traces: Sequence[Any], owner: Any) -> Program:
    """A bare function: of the traces that were saved the one that takes most, with its constants as they were."""
    if not traces:
        raise LoadError("its function was saved without a trace: call it once, or give it an input_signature")
    function = max(traces, key=_generality)
    signature = function.structured_input_signature
    leaves = tf.nest.flatten(signature)
    for leaf in leaves:
        if isinstance(leaf, tf.TypeSpec) and not isinstance(leaf, tf.TensorSpec):
            raise LoadError("it takes a sparse or ragged tensor")
    specs = [leaf for leaf in leaves if isinstance(leaf, tf.TensorSpec)]
    members = named(specs, [spec.name or f"input_{i}" for i, spec in enumerate(specs)], "inputs")

    def call(*rows: Any) -> Any:
        given = iter(rows)
        filled = [next(given) if isinstance(leaf, tf.TensorSpec) else leaf for leaf in leaves]
        args, kwargs = tf.nest.pack_sequence_as(signature, filled)
        return function(*args, **kwargs)

    return Program(tuple(Input(name, spec) for name, spec in members), call, (), owner)


def _generality(function: Any) -> tuple[int, int, int]:
    """Orders traces: any number of rows before a fixed one, then not training before training, then free dimensions."""
    leaves = tf.nest.flatten(function.structured_input_signature)
    shapes = [leaf.shape for leaf in leaves if isinstance(leaf, tf.TensorSpec)]
    free_rows = sum(1 for shape in shapes if shape.rank and shape[0] is None)
    free = sum(list(shape).count(None) for shape in shapes if shape.rank is not None)
    return free_rows, -sum(leaf is True for leaf in leaves), free


def _check_input(one: Input) -> None:
    shape = one.spec.shape
    if shape.rank is None:
        raise LoadError(f"its input {one.name!r} may have any number of dimensions")
    if shape.rank == 0:
        raise LoadError(f"its input {one.name!r} has no row dimension, so requests cannot share a batch")


def _saved_by_newer_keras(path: Path) -> str | None:
    """The version that wrote a .keras file, if it is newer than the one here."""
    if path.suffix != ".keras":
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            version = re.match(r"[0-9.]{1,20}", json.loads(archive.read("metadata.json"))["keras_version"])
            return version[0] if version and version_of(version[0]) > version_of(keras.__version__) else None
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        return None


def version_of(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: (3, 14) for "3.14.0rc1" is (3, 14, 0)."""
    return tuple(int(part) for part in re.findall(r"[0-9]+", text)[:3])
