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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from models.errors import LoadError

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
    """

    inputs: tuple[Input, ...]
    call: Callable[..., Any]
    output_names: tuple[str, ...]
    owner: Any
    any_rows: bool = False


def load_program(path: Path, kind: str, signature: str | None = None) -> Program:
    """The model at `path`, of a kind as in models.repository; `signature` names a SavedModel's signature or function.

    Raises LoadError where its inputs cannot be served, and whatever Keras and TensorFlow raise: see `explain`.
    """
    program = _saved_model(path, signature) if kind == "saved_model" else _keras_model(path)
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
    loaded = tf.saved_model.load(str(path))
    signatures = dict(loaded.signatures)
    functions = {name: getattr(loaded, name) for name in dir(loaded) if _is_function(loaded, name)}
    if wanted is not None and wanted not in {*signatures, *functions}:
        raise LoadError(f"it has no signature {wanted!r}; there are: {', '.join([*signatures, *functions])[:200]}")
    name = wanted or _usual(signatures, "serving_default", "signature")
    if name in signatures:
        _refuse_disguised(signatures[name], functions.values())
        return _from_signature(signatures[name], loaded)
    name = wanted or _usual(functions, "__call__", "function")
    if name is None:
        raise LoadError("it has no signature and no function that could be called")
    return _from_function(functions[name].concrete_functions, loaded)


def _is_function(loaded: Any, name: str) -> bool:
    return isinstance(getattr(getattr(loaded, name, None), "concrete_functions", None), list)


def _usual(choices: Mapping[str, Any], usual: str, what: str) -> str | None:
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


def _from_signature(function: Any, owner: Any) -> Program:
    """Signatures take and give dictionaries, whose order on disk means nothing: sorted by name."""
    _, specs = function.structured_input_signature
    names = sorted(specs)
    inputs = tuple(Input(name, specs[name]) for name in names)

    def call(*rows: Any) -> Any:
        outputs = function(**dict(zip(names, rows, strict=True)))
        return dict(sorted(outputs.items()))

    return Program(inputs, call, (), owner)


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
