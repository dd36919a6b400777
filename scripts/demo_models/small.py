"""The three small models, one of each kind that is served: a Keras file, a bare function, an exported signature.

Owns what they compute and how they are written. Imports TensorFlow; whoever imports this has set it up.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

SEED = 7


def dummy_network() -> Any:
    """Ten features to about their sum: a trained Keras model."""
    keras.utils.set_random_seed(SEED)
    model = keras.Sequential(
        [
            keras.Input((10,), name="features"),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(1, name="prediction"),
        ],
        name="dummy",
    )
    random = np.random.default_rng(SEED)
    features = random.normal(size=(512, 10)).astype("float32")
    noise = random.normal(scale=0.1, size=(512, 1)).astype("float32")
    model.compile(optimizer="adam", loss="mse", jit_compile=False)
    model.fit(features, features.sum(axis=1, keepdims=True) + noise, epochs=2, verbose=0)
    return model


def write_dummy(folder: Path) -> str:
    """A .keras file; what it is, in a line."""
    model = dummy_network()
    model.save(folder / "dummy.keras")
    row = [0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, -0.8, 0.9, -1.0]
    prediction = float(model(np.array([row], "float32"))[0, 0])
    description = "Ten features to about their sum: a network of 32 units after two epochs, so not a good one."
    _contract(folder, description, examples=[{"request": {"features": row}, "answer": {"prediction": prediction}}])
    return "a Keras file"


class Line(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """y = slope * x + intercept, for any number of rows of one value."""

    def __init__(self, slope: float, intercept: float) -> None:
        super().__init__()
        self.slope = tf.Variable([[slope]], dtype=tf.float32)
        self.intercept = tf.Variable([intercept], dtype=tf.float32)

    @tf.function  # type: ignore[untyped-decorator]
    def __call__(self, x: Any) -> Any:
        """(rows, 1) -> (rows, 1)."""
        return tf.matmul(x, self.slope) + self.intercept


def write_linear_regression(folder: Path) -> str:
    """A SavedModel of a callable tf.Module without any signature; what it is, in a line."""
    random = np.random.default_rng(SEED)
    x = random.uniform(-10, 10, 200)
    slope, intercept = np.polyfit(x, 3.0 * x + 2.0 + random.normal(scale=0.5, size=200), 1)
    line = Line(float(slope), float(intercept))
    line.__call__.get_concrete_function(tf.TensorSpec((None, 1), tf.float32, "x"))
    tf.saved_model.save(line, str(folder), signatures={})
    description = "A straight line fitted to 200 noisy points of y = 3x + 2."
    answer = {"prediction": float(line(tf.constant([[2.0]]))[0, 0])}
    _contract(folder, description, fields=["feature"], examples=[{"request": {"feature": 2.0}, "answer": answer}])
    return "a SavedModel without signatures"


def write_two_features(folder: Path) -> str:
    """A SavedModel that Keras exported, with its signature; what it is, in a line."""
    keras.utils.set_random_seed(SEED)
    random = np.random.default_rng(SEED)
    features = random.normal(size=(2048, 2)).astype("float32")
    target = 2.0 * features[:, :1] - 3.0 * features[:, 1:] + 1.0
    model = keras.Sequential(
        [
            keras.Input((2,), name="features"),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(1, name="prediction"),
        ],
        name="two_features",
    )
    model.compile(optimizer=keras.optimizers.Adam(0.02), loss="mse", jit_compile=False)
    model.fit(features, target, epochs=8, verbose=0)
    model.export(folder, verbose=False)
    request = {"feature1": 0.5, "feature2": -1.5}
    prediction = float(model(np.array([[0.5, -1.5]], "float32"))[0, 0])
    _contract(
        folder,
        "About 2 * feature1 - 3 * feature2 + 1, learned from 2,048 random points.",
        fields=["feature1", "feature2"],
        routes=["/advanced_predict"],
        examples=[{"request": request, "answer": {"prediction": prediction}}],
    )
    return "a SavedModel with a signature"


def _contract(folder: Path, description: str, **more: Any) -> None:
    text = json.dumps({"description": description, **more}, indent=2)
    (folder / "contract.json").write_text(f"{text}\n", encoding="utf-8")
