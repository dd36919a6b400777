"""Models that cannot be served, each for one reason."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from tests.models.zoo.served import Traced, counting, rows, save_function, sequential


def with_lambda(folder: Path) -> None:
    keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2)]).save(folder / "lambda.keras")


def lambda_in_h5(folder: Path) -> None:
    keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2)]).save(folder / "lambda.h5")


class Custom(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A class that nobody registers."""

    def call(self, x: Any) -> Any:
        return x


def custom_class(folder: Path) -> None:
    keras.Sequential([keras.Input((3,)), Custom()]).save(folder / "custom.keras")


def unbuilt(folder: Path) -> None:
    keras.Sequential([layers.Dense(3)]).save(folder / "unbuilt.keras")


def sparse_input(folder: Path) -> None:
    x = keras.Input((5,), sparse=True)
    keras.Model(x, layers.Dense(2)(x)).save(folder / "sparse.keras")


def nested_inputs(folder: Path) -> None:
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    keras.Model({"p": {"deep": left}, "q": right}, left + right).save(folder / "nested.keras")


def nested_outputs(folder: Path) -> None:
    save_function(folder, lambda x: {"a": {"deep": x}, "b": x}, rows(3))


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


def without_configuration(folder: Path) -> None:
    _rewritten(folder, lambda name, content: None if name == "config.json" else content)


def without_weights(folder: Path) -> None:
    _rewritten(folder, lambda name, content: None if name.startswith("model.weights") else content)


def damaged_weights(folder: Path) -> None:
    _rewritten(folder, lambda name, content: b"damaged" if name.startswith("model.weights") else content)


def other_weights(folder: Path) -> None:
    _rewritten(folder, lambda name, content: content.replace(b'"units": 1,', b'"units": 2,'))


def unknown_argument(folder: Path) -> None:
    _rewritten(folder, lambda name, content: content.replace(b'"units": 32', b'"units": 32, "novelty": 1'))


def newer_keras(folder: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        if name == "metadata.json":
            return b'{"keras_version": "99.1.0"}'
        return content.replace(b'"units": 32', b'"units": 32, "novelty": 1')

    _rewritten(folder, change)


def weights_only(folder: Path) -> None:
    keras.Sequential([keras.Input((3,)), layers.Dense(2)]).save_weights(folder / "only.weights.h5")


def garbage(folder: Path) -> None:
    (folder / "saved_model.pb").write_bytes(b"garbage" * 20)


def unknown_operation(folder: Path) -> None:
    counting(folder)
    graph = folder / "saved_model.pb"
    graph.write_bytes(graph.read_bytes().replace(b"AssignAddVariableOp", b"AssignOddVariableOp"))


def without_variables(folder: Path) -> None:
    counting(folder)
    shutil.rmtree(folder / "variables")


def truncated_variables(folder: Path) -> None:
    counting(folder)
    shard = folder / "variables" / "variables.data-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:2])


def unknown_rank(folder: Path) -> None:
    save_function(folder, lambda x: x, tf.TensorSpec(None, tf.float32, "x"))


def no_rows_in(folder: Path) -> None:
    save_function(folder, lambda x: x, tf.TensorSpec((), tf.float32, "x"))


def no_rows_out(folder: Path) -> None:
    save_function(folder, tf.reduce_sum, rows(3))


def one_row_out(folder: Path) -> None:
    save_function(folder, lambda x: tf.reduce_sum(x, 0, keepdims=True), rows(3))


def twice_the_rows(folder: Path) -> None:
    save_function(folder, lambda x: tf.concat([x, x], 0), rows(3))


def different_rows(folder: Path) -> None:
    save_function(folder, lambda x, y: (x, y), tf.TensorSpec((4, 1)), tf.TensorSpec((3, 1)))


def complex_numbers(folder: Path) -> None:
    save_function(folder, lambda x: tf.cast(x, tf.complex64), rows(3))


def ragged_input(folder: Path) -> None:
    save_function(folder, lambda x: tf.reduce_sum(x, 1), tf.RaggedTensorSpec((None, None), tf.float32))


def ragged_signature(folder: Path) -> None:
    module = tf.Module()
    spec = tf.RaggedTensorSpec((None, None), tf.float32)
    module.__call__ = tf.function(lambda x: tf.reduce_sum(x, 1), input_signature=[spec])
    tf.saved_model.save(module, str(folder))


def ragged_output(folder: Path) -> None:
    save_function(folder, tf.RaggedTensor.from_tensor, rows(3))


def no_function(folder: Path) -> None:
    tf.saved_model.save(tf.Module(), str(folder))


def constant_output(folder: Path) -> None:
    save_function(folder, lambda x: {"y": x, "nothing": None}, rows(3))


def untraced(folder: Path) -> None:
    tf.saved_model.save(Traced(), str(folder), signatures={})
