"""Small real models of every kind, written to disk on demand. Imports TensorFlow, so import it inside a fixture.

A writer takes a folder and writes one model into it: a SavedModel, or one .keras or .h5 file. Each is a few lines whose
answer a test can work out by itself.
"""

from __future__ import annotations

import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.runtime import import_tensorflow

import_tensorflow()

import keras  # noqa: E402 - TensorFlow is set up first
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

Writer = Callable[[Path], None]
WRITERS: dict[str, Writer] = {}
DTYPES = (
    tf.bool, tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64,
    tf.float16, tf.float32, tf.float64, tf.string,
)  # fmt: skip


def writer(write: Writer) -> Writer:
    """Register a writer under its function's name."""
    WRITERS[write.__name__] = write
    return write


def write(name: str, folder: Path) -> Path:
    """Have the named model written; where it is, as a reference's path would say."""
    folder.mkdir(parents=True)
    with warnings.catch_warnings():  # Keras warns of what these models do on purpose
        warnings.simplefilter("ignore")
        keras.utils.set_random_seed(1)
        WRITERS[name](folder)
    files = [path for path in folder.iterdir() if path.suffix in (".keras", ".h5")]
    return files[0] if files else folder


def save_function(folder: Path, function: Any, *specs: Any, signatures: Any = None) -> None:
    """A SavedModel of a tf.Module whose __call__ is `function`, traced once; without signatures unless given."""
    module = tf.Module()
    compiled = tf.function(function, input_signature=specs, autograph=False)
    module.__call__ = compiled
    tf.saved_model.save(module, str(folder), signatures=signatures or {})


def rows(*shape: int | None, dtype: Any = tf.float32, name: str | None = None) -> Any:
    """The specification of a tensor with any number of rows."""
    return tf.TensorSpec((None, *shape), dtype, name)


# -- what is served ----------------------------------------------------------------------------------------------------


@writer
def sequential(folder: Path) -> None:
    model = keras.Sequential([keras.Input((10,), name="features"), layers.Dense(32, "relu"), layers.Dense(1, name="y")])
    model.save(folder / "sequential.keras")


def _functional() -> Any:
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    both = layers.Concatenate()([left, right])
    return keras.Model([left, right], [layers.Dense(4, name="a")(both), layers.Dense(1, name="b")(both)])


@writer
def lists(folder: Path) -> None:
    _functional().save(folder / "lists.keras")


@writer
def dictionaries(folder: Path) -> None:
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    keras.Model({"p": left, "q": right}, {"sum": left + right, "difference": left - right}).save(folder / "d.keras")


@writer
def exported(folder: Path) -> None:
    _functional().export(folder, verbose=False)


@writer
def legacy(folder: Path) -> None:
    keras.Sequential([keras.Input((3,)), layers.Dense(2)]).save(folder / "legacy.h5")


@writer
def bare_function(folder: Path) -> None:
    save_function(folder, lambda x: x * 3.0 + 2.0, rows(1, name="x"))


@writer
def with_signature(folder: Path) -> None:
    module = tf.Module()
    module.double = tf.function(lambda b, a: {"twice": b * 2.0, "same": a}, input_signature=[rows(2), rows(1)])
    tf.saved_model.save(module, str(folder), {"serving_default": module.double})


@writer
def two_signatures(folder: Path) -> None:
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": x * 2.0}, input_signature=[rows(1, name="x")])
    module.triple = tf.function(lambda x: {"y": x * 3.0}, input_signature=[rows(1, name="x")])
    tf.saved_model.save(module, str(folder), {"double": module.double, "triple": module.triple})


class Traced(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """A function without an input_signature: each way it is called leaves a trace."""

    @tf.function  # type: ignore[untyped-decorator]
    def __call__(self, x: Any, training: bool = False) -> Any:
        return x * (100.0 if training else 2.0)


@writer
def several_traces(folder: Path) -> None:
    module = Traced()
    module(tf.ones((1, 3)))
    module(tf.ones((5, 3)), training=True)
    module.__call__.get_concrete_function(rows(3, name="x"), training=True)
    module.__call__.get_concrete_function(rows(3, name="x"))
    tf.saved_model.save(module, str(folder), signatures={})


@writer
def untraced(folder: Path) -> None:
    tf.saved_model.save(Traced(), str(folder), signatures={})


@writer
def every_dtype(folder: Path) -> None:
    def same(**tensors: Any) -> dict[str, Any]:
        return {f"{name}_out": tf.identity(tensor) for name, tensor in tensors.items()}

    module = tf.Module()
    module.same = tf.function(same)
    specs = {f"{dtype.name}_in": rows(2, dtype=dtype) for dtype in DTYPES}
    tf.saved_model.save(module, str(folder), module.same.get_concrete_function(**specs))


@writer
def bfloat16(folder: Path) -> None:
    save_function(folder, lambda x: x * tf.constant(2, tf.bfloat16), rows(3, dtype=tf.bfloat16))


@writer
def half_precision(folder: Path) -> None:
    keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="mixed_float16")]).save(folder / "half.keras")


@writer
def sequence(folder: Path) -> None:
    words = keras.Input((None,), dtype="int32", name="words")
    x = layers.GRU(3)(layers.Embedding(50, 4)(words))
    keras.Model(words, layers.Dense(2)(x)).save(folder / "sequence.keras")


@writer
def tagger(folder: Path) -> None:
    values = keras.Input((None, 2), name="values")
    keras.Model(values, layers.Conv1D(3, 3, padding="valid")(values)).save(folder / "tagger.keras")


@writer
def keras_scalar(folder: Path) -> None:
    x = keras.Input((), name="x")
    keras.Model(x, x * 2.0).save(folder / "scalar.keras")


@writer
def scalar(folder: Path) -> None:
    save_function(folder, lambda x: x * 2.0, rows(name="x"))


@writer
def text(folder: Path) -> None:
    save_function(folder, lambda x: (tf.strings.upper(x), tf.strings.length(x)), rows(dtype=tf.string, name="x"))


@writer
def fixed_rows(folder: Path) -> None:
    save_function(folder, lambda x: tf.reduce_sum(x, 1), tf.TensorSpec((4, 10), tf.float32, "x"))


@writer
def fixed_rows_keras(folder: Path) -> None:
    x = keras.Input(batch_shape=(4, 6), name="x")
    keras.Model(x, keras.ops.reshape(x * 2.0, (4, 3, 2))).save(folder / "fixed.keras")


@writer
def fitted(folder: Path) -> None:
    model = keras.Sequential([layers.Dense(3)])
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(tf.ones((64, 4)), tf.ones((64, 3)), verbose=0)
    model.save(folder / "fitted.keras")


@writer
def unknown_output_rank(folder: Path) -> None:
    def loosened(x: Any) -> Any:
        return tf.raw_ops.PlaceholderWithDefault(input=x * 2.0, shape=None)

    save_function(folder, loosened, rows(3, name="x"))


@writer
def counting(folder: Path) -> None:
    module = tf.Module()
    module.calls = tf.Variable(0)

    def count(x: Any) -> Any:
        module.calls.assign_add(1)
        return x

    module.__call__ = tf.function(count, input_signature=[rows(1, dtype=tf.int32, name="x")])
    module.count = tf.function(lambda x: x * 0 + module.calls, input_signature=[rows(1, dtype=tf.int32, name="x")])

    def both(x: Any) -> dict[str, Any]:
        return {"x": count(x), "calls": x * 0 + module.calls}

    module.both = tf.function(both, input_signature=[rows(1, dtype=tf.int32, name="x")])
    tf.saved_model.save(module, str(folder), module.both)


@writer
def picky(folder: Path) -> None:
    def pictures_only(x: Any) -> Any:
        return tf.map_fn(lambda one: tf.cast(tf.shape(tf.io.decode_png(one))[0], tf.int32), x, tf.int32)

    save_function(folder, pictures_only, rows(dtype=tf.string, name="x"))


@writer
def picture(folder: Path) -> None:
    model = keras.Sequential(
        [keras.Input((8, 6, 3), name="image"), layers.Flatten(), layers.Dense(4, name="scores", dtype="float32")]
    )
    model.save(folder / "picture.keras")


@writer
def picture_bytes(folder: Path) -> None:
    def mean(x: Any) -> Any:
        return tf.reduce_mean(tf.cast(x, tf.float32), axis=(1, 2))

    save_function(folder, mean, rows(8, 6, 3, dtype=tf.uint8, name="image"))


@writer
def picture_any_size(folder: Path) -> None:
    save_function(folder, lambda x: tf.reduce_mean(x, axis=(1, 2)), rows(None, None, 3, dtype=tf.float64, name="image"))


# -- what is refused ---------------------------------------------------------------------------------------------------


@writer
def with_lambda(folder: Path) -> None:
    keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2)]).save(folder / "lambda.keras")


@writer
def lambda_in_h5(folder: Path) -> None:
    keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2)]).save(folder / "lambda.h5")


class Custom(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A class that nobody registers."""

    def call(self, x: Any) -> Any:
        return x


@writer
def custom_class(folder: Path) -> None:
    keras.Sequential([keras.Input((3,)), Custom()]).save(folder / "custom.keras")


@writer
def unbuilt(folder: Path) -> None:
    keras.Sequential([layers.Dense(3)]).save(folder / "unbuilt.keras")


@writer
def sparse_input(folder: Path) -> None:
    x = keras.Input((5,), sparse=True)
    keras.Model(x, layers.Dense(2)(x)).save(folder / "sparse.keras")


@writer
def nested_inputs(folder: Path) -> None:
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    keras.Model({"p": {"deep": left}, "q": right}, left + right).save(folder / "nested.keras")


@writer
def nested_outputs(folder: Path) -> None:
    save_function(folder, lambda x: {"a": {"deep": x}, "b": x}, rows(3))


@writer
def not_a_zip(folder: Path) -> None:
    (folder / "damaged.keras").write_bytes(b"not a model")


def _rewritten(folder: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """The sequential model's archive with each member as `change` has it, or without it."""
    sequential(folder)
    whole = folder / "whole.zip"
    (folder / "sequential.keras").rename(whole)
    with zipfile.ZipFile(whole) as before, zipfile.ZipFile(folder / "changed.keras", "w") as after:
        for name in before.namelist():
            content = change(name, before.read(name))
            if content is not None:
                after.writestr(name, content)
    whole.unlink()


@writer
def without_configuration(folder: Path) -> None:
    _rewritten(folder, lambda name, content: None if name == "config.json" else content)


@writer
def without_weights(folder: Path) -> None:
    _rewritten(folder, lambda name, content: None if name.startswith("model.weights") else content)


@writer
def damaged_weights(folder: Path) -> None:
    _rewritten(folder, lambda name, content: b"damaged" if name.startswith("model.weights") else content)


@writer
def other_weights(folder: Path) -> None:
    _rewritten(folder, lambda name, content: content.replace(b'"units": 1,', b'"units": 2,'))


@writer
def unknown_argument(folder: Path) -> None:
    _rewritten(folder, lambda name, content: content.replace(b'"units": 32', b'"units": 32, "novelty": 1'))


@writer
def newer_keras(folder: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        if name == "metadata.json":
            return b'{"keras_version": "99.1.0"}'
        return content.replace(b'"units": 32', b'"units": 32, "novelty": 1')

    _rewritten(folder, change)


@writer
def weights_only(folder: Path) -> None:
    keras.Sequential([keras.Input((3,)), layers.Dense(2)]).save_weights(folder / "only.weights.h5")


@writer
def garbage(folder: Path) -> None:
    (folder / "saved_model.pb").write_bytes(b"garbage" * 20)


@writer
def unknown_operation(folder: Path) -> None:
    counting(folder)
    graph = folder / "saved_model.pb"
    graph.write_bytes(graph.read_bytes().replace(b"AssignAddVariableOp", b"AssignOddVariableOp"))


@writer
def without_variables(folder: Path) -> None:
    counting(folder)
    shutil.rmtree(folder / "variables")


@writer
def truncated_variables(folder: Path) -> None:
    counting(folder)
    shard = folder / "variables" / "variables.data-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:2])


@writer
def unknown_rank(folder: Path) -> None:
    save_function(folder, lambda x: x, tf.TensorSpec(None, tf.float32, "x"))


@writer
def no_rows_in(folder: Path) -> None:
    save_function(folder, lambda x: x, tf.TensorSpec((), tf.float32, "x"))


@writer
def no_rows_out(folder: Path) -> None:
    save_function(folder, tf.reduce_sum, rows(3))


@writer
def one_row_out(folder: Path) -> None:
    save_function(folder, lambda x: tf.reduce_sum(x, 0, keepdims=True), rows(3))


@writer
def twice_the_rows(folder: Path) -> None:
    save_function(folder, lambda x: tf.concat([x, x], 0), rows(3))


@writer
def different_rows(folder: Path) -> None:
    save_function(folder, lambda x, y: (x, y), tf.TensorSpec((4, 1)), tf.TensorSpec((3, 1)))


@writer
def complex_numbers(folder: Path) -> None:
    save_function(folder, lambda x: tf.cast(x, tf.complex64), rows(3))


@writer
def ragged_input(folder: Path) -> None:
    save_function(folder, lambda x: tf.reduce_sum(x, 1), tf.RaggedTensorSpec((None, None), tf.float32))


@writer
def ragged_signature(folder: Path) -> None:
    module = tf.Module()
    spec = tf.RaggedTensorSpec((None, None), tf.float32)
    module.__call__ = tf.function(lambda x: tf.reduce_sum(x, 1), input_signature=[spec])
    tf.saved_model.save(module, str(folder))


@writer
def ragged_output(folder: Path) -> None:
    save_function(folder, tf.RaggedTensor.from_tensor, rows(3))


@writer
def no_function(folder: Path) -> None:
    tf.saved_model.save(tf.Module(), str(folder))


@writer
def constant_output(folder: Path) -> None:
    save_function(folder, lambda x: {"y": x, "nothing": None}, rows(3))
