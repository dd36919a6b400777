"""Models that are served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import layers

DTYPES = (
    tf.bool, tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64,
    tf.float16, tf.float32, tf.float64, tf.string,
)  # fmt: skip


def save_function(folder: Path, function: Any, *specs: Any) -> None:
    """A SavedModel of a tf.Module whose __call__ is `function`, traced once; without signatures."""
    module = tf.Module()
    compiled = tf.function(function, input_signature=specs, autograph=False)
    module.__call__ = compiled
    tf.saved_model.save(module, str(folder), signatures={})


def rows(*shape: int | None, dtype: Any = tf.float32, name: str | None = None) -> Any:
    """The specification of a tensor with any number of rows."""
    return tf.TensorSpec((None, *shape), dtype, name)


def sequential(folder: Path) -> None:
    model = keras.Sequential([keras.Input((10,), name="features"), layers.Dense(32, "relu"), layers.Dense(1, name="y")])
    model.save(folder / "sequential.keras")


def _functional() -> Any:
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    both = layers.Concatenate()([left, right])
    return keras.Model([left, right], [layers.Dense(4, name="a")(both), layers.Dense(1, name="b")(both)])


def lists(folder: Path) -> None:
    _functional().save(folder / "lists.keras")


def dictionaries(folder: Path) -> None:
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    keras.Model({"p": left, "q": right}, {"sum": left + right, "difference": left - right}).save(folder / "d.keras")


def exported(folder: Path) -> None:
    _functional().export(folder, verbose=False)


def legacy(folder: Path) -> None:
    keras.Sequential([keras.Input((3,)), layers.Dense(2)]).save(folder / "legacy.h5")


def bare_function(folder: Path) -> None:
    save_function(folder, lambda x: x * 3.0 + 2.0, rows(1, name="x"))


def with_signature(folder: Path) -> None:
    module = tf.Module()
    module.double = tf.function(lambda b, a: {"twice": b * 2.0, "same": a}, input_signature=[rows(2), rows(1)])
    tf.saved_model.save(module, str(folder), {"serving_default": module.double})


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


def several_traces(folder: Path) -> None:
    module = Traced()
    module(tf.ones((1, 3)))
    module(tf.ones((5, 3)), training=True)
    module.__call__.get_concrete_function(rows(3, name="x"), training=True)
    module.__call__.get_concrete_function(rows(3, name="x"))
    tf.saved_model.save(module, str(folder), signatures={})


def every_dtype(folder: Path) -> None:
    def same(**tensors: Any) -> dict[str, Any]:
        return {f"{name}_out": tf.identity(tensor) for name, tensor in tensors.items()}

    module = tf.Module()
    module.same = tf.function(same)
    specs = {f"{dtype.name}_in": rows(2, dtype=dtype) for dtype in DTYPES}
    tf.saved_model.save(module, str(folder), module.same.get_concrete_function(**specs))


def bfloat16(folder: Path) -> None:
    save_function(folder, lambda x: x * tf.constant(2, tf.bfloat16), rows(3, dtype=tf.bfloat16))


def half_precision(folder: Path) -> None:
    keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="mixed_float16")]).save(folder / "half.keras")


def sequence(folder: Path) -> None:
    words = keras.Input((None,), dtype="int32", name="words")
    x = layers.GRU(3)(layers.Embedding(50, 4)(words))
    keras.Model(words, layers.Dense(2)(x)).save(folder / "sequence.keras")


def tagger(folder: Path) -> None:
    values = keras.Input((None, 2), name="values")
    keras.Model(values, layers.Conv1D(3, 3, padding="valid")(values)).save(folder / "tagger.keras")


def keras_scalar(folder: Path) -> None:
    x = keras.Input((), name="x")
    keras.Model(x, x * 2.0).save(folder / "scalar.keras")


def scalar(folder: Path) -> None:
    save_function(folder, lambda x: x * 2.0, rows(name="x"))


def text(folder: Path) -> None:
    save_function(folder, lambda x: (tf.strings.upper(x), tf.strings.length(x)), rows(dtype=tf.string, name="x"))


def fixed_rows(folder: Path) -> None:
    save_function(folder, lambda x: tf.reduce_sum(x, 1), tf.TensorSpec((4, 10), tf.float32, "x"))


def fixed_rows_keras(folder: Path) -> None:
    x = keras.Input(batch_shape=(4, 6), name="x")
    keras.Model(x, keras.ops.reshape(x * 2.0, (4, 3, 2))).save(folder / "fixed.keras")


def fitted(folder: Path) -> None:
    model = keras.Sequential([layers.Dense(3)])
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(tf.ones((64, 4)), tf.ones((64, 3)), verbose=0)
    model.save(folder / "fitted.keras")


def unknown_output_rank(folder: Path) -> None:
    def loosened(x: Any) -> Any:
        return tf.raw_ops.PlaceholderWithDefault(input=x * 2.0, shape=None)

    save_function(folder, loosened, rows(3, name="x"))


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


def picky(folder: Path) -> None:
    def pictures_only(x: Any) -> Any:
        return tf.map_fn(lambda one: tf.cast(tf.shape(tf.io.decode_png(one))[0], tf.int32), x, tf.int32)

    save_function(folder, pictures_only, rows(dtype=tf.string, name="x"))


def picture(folder: Path) -> None:
    model = keras.Sequential(
        [keras.Input((8, 6, 3), name="image"), layers.Flatten(), layers.Dense(4, name="scores", dtype="float32")]
    )
    model.save(folder / "picture.keras")


def picture_bytes(folder: Path) -> None:
    def mean(x: Any) -> Any:
        return tf.reduce_mean(tf.cast(x, tf.float32), axis=(1, 2))

    save_function(folder, mean, rows(8, 6, 3, dtype=tf.uint8, name="image"))


def picture_any_size(folder: Path) -> None:
    save_function(folder, lambda x: tf.reduce_mean(x, axis=(1, 2)), rows(None, None, 3, dtype=tf.float64, name="image"))
