"""Models that are served."""

from __future__ import annotations

from functools import partial
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


def half_plus_two(folder: Path) -> None:
    """As TensorFlow Serving's own example: a graph of TensorFlow 1 whose signatures share the nodes, y = x / 2 + 2."""
    _half_plus(folder, 2.0, "regress_x_to_y")


def half_plus_three(folder: Path) -> None:
    _half_plus(folder, 3.0, "tensorflow/serving/regress")


def _half_plus(folder: Path, more: float, regress: str) -> None:
    v1, to = tf.compat.v1, tf.compat.v1.saved_model
    with v1.Graph().as_default(), v1.Session() as session:
        examples = v1.placeholder(tf.string, [None], name="tf_example")
        wanted = {
            "x": v1.io.FixedLenFeature([1], tf.float32),
            "x2": v1.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
        }
        parsed = v1.io.parse_example(examples, wanted)
        half = v1.Variable(0.5, name="a")
        x = tf.identity(parsed["x"], name="x")
        y = tf.add(half * x, more, name="y")
        y3 = tf.add(half * parsed["x2"], more + 1.0, name="y3")
        session.run(v1.global_variables_initializer())
        builder = to.Builder(str(folder / "written"))
        builder.add_meta_graph_and_variables(
            session,
            [to.tag_constants.SERVING],
            signature_def_map={
                "serving_default": to.predict_signature_def({"x": x}, {"y": y}),
                "same": to.predict_signature_def({"x": x}, {"y": y}),
                regress: to.regression_signature_def(examples, y),
                "regress_x2_to_y3": to.regression_signature_def(examples, y3),
                "classify_x_to_y": to.classification_signature_def(examples, None, y),
            },
        )
        builder.save()
    _move_up(folder)


def _move_up(folder: Path) -> None:
    """The builder of TensorFlow 1 wants to make its folder itself."""
    for path in (folder / "written").iterdir():
        path.rename(folder / path.name)
    (folder / "written").rmdir()


def iris(folder: Path) -> None:
    """A classifier of tf.Examples without a rank, as TensorFlow 1 wrote them: features a (2 floats), name, age, on."""
    v1, to = tf.compat.v1, tf.compat.v1.saved_model
    with v1.Graph().as_default(), v1.Session() as session:
        examples = v1.placeholder(tf.string, name="examples")
        wanted = {
            "a": v1.io.FixedLenFeature([2], tf.float32),
            "name": v1.io.FixedLenFeature([], tf.string, default_value=""),
            "age": v1.io.FixedLenFeature([], tf.int64, default_value=0),
            "words": v1.io.VarLenFeature(tf.string),
        }
        parsed = v1.io.parse_example(examples, wanted)
        count = tf.sparse.reduce_sum(
            tf.SparseTensor(
                parsed["words"].indices, tf.ones_like(parsed["words"].values, tf.float32), parsed["words"].dense_shape
            ),
            1,
        )
        first, second = parsed["a"][:, 0] + tf.cast(parsed["age"], tf.float32), parsed["a"][:, 1] + count
        scores = tf.stack([first, second], 1)
        rows = tf.shape(scores)[0]
        classes = tf.stack([tf.strings.join(["is ", parsed["name"]]), tf.tile(tf.constant(["other"]), [rows])], 1)
        builder = to.Builder(str(folder / "written"))
        builder.add_meta_graph_and_variables(
            session,
            [to.tag_constants.SERVING],
            signature_def_map={
                "serving_default": to.classification_signature_def(examples, classes, scores),
                "classes": to.classification_signature_def(examples, classes, None),
                "sum": to.regression_signature_def(examples, first + second),
            },
        )
        builder.save()
    _move_up(folder)


def default_and_broken(folder: Path) -> None:
    """The second signature has no rows, so it cannot be served; the first can."""
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": x * 2.0}, input_signature=[rows(1, name="x")])
    module.total = tf.function(lambda x: {"y": tf.reduce_sum(x)}, input_signature=[rows(1, name="x")])
    module.triple = tf.function(lambda z: {"y": z * 3.0}, input_signature=[rows(1, name="z")])
    tf.saved_model.save(
        module, str(folder), {"serving_default": module.double, "total": module.total, "triple": module.triple}
    )


def two_graphs(folder: Path) -> None:
    """One graph for serving and one with a further tag, as for a GPU."""
    v1, to = tf.compat.v1, tf.compat.v1.saved_model
    builder = to.Builder(str(folder / "written"))
    for index, tags in enumerate((["serve"], ["serve", "gpu"])):
        with v1.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [None, 1], name="x")
            signature = to.predict_signature_def({"x": x}, {"y": x * (index + 2.0)})
            add = builder.add_meta_graph if index else partial(builder.add_meta_graph_and_variables, session)
            add(tags, signature_def_map={"serving_default": signature})
    builder.save()
    _move_up(folder)


def octets(folder: Path) -> None:
    module = tf.Module()

    def told(x: Any) -> dict[str, Any]:
        return {"raw_bytes": tf.identity(x), "plain": tf.strings.as_string(tf.strings.length(x))}

    module.told = tf.function(told, input_signature=[rows(dtype=tf.string, name="x")])
    tf.saved_model.save(module, str(folder), module.told)


def elementwise(folder: Path) -> None:
    """Many small steps on many numbers: XLA makes one of them all, which is several times as fast."""

    def call(x: Any) -> Any:
        for _ in range(20):
            x = x * tf.sigmoid(x) + tf.math.softplus(x) - 0.7 * tf.math.erf(x)
        return x

    save_function(folder, call, rows(512, name="x"))


def drawing(folder: Path) -> None:
    """Adds noise of its own to what it is given."""
    save_function(folder, lambda x: x + tf.random.normal(tf.shape(x)), rows(3, name="x"))
