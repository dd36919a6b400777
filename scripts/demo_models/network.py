"""The digits' network: finds the ink, whatever its place, size and colour, then classifies it. Owns the layers.

Written in Keras's own operations and layers only, so that it loads in safe mode, without any code of ours.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

SIDE = 32  # pixels of the input's side; pictures of any size are resized to it
INNER = 16  # pixels of the side that the ink is brought to; the data has 8
CLASSES = 10
INK = 0.35  # of the contrast: where a stroke begins


def network() -> Any:
    """A model of (rows, 32, 32, 1) floats in 0..1, light ink on dark or dark on light, to 10 probabilities."""
    picture = keras.Input((SIDE, SIDE, 1), name="image")
    x = _framed(_light_on_dark(ops.squeeze(picture, -1)))
    x = _convolved(_convolved(x, 16), 24)
    x = _convolved(_convolved(layers.MaxPooling2D()(x), 32), 48)
    x = _convolved(layers.MaxPooling2D()(x), 64)
    x = layers.Dropout(0.4)(layers.Flatten()(x))
    x = layers.Dropout(0.3)(layers.Dense(96, activation="relu")(x))
    return keras.Model(picture, layers.Dense(CLASSES, activation="softmax", name="probabilities")(x), name="digits")


def _convolved(x: Any, filters: int) -> Any:
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    return layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))


def _light_on_dark(x: Any) -> Any:
    """(rows, side, side) at full contrast, with the colour of most of its edge as 0: that is the paper."""
    dark = ops.min(x, axis=(1, 2), keepdims=True)
    x = (x - dark) / ops.maximum(ops.max(x, axis=(1, 2), keepdims=True) - dark, 0.05)
    edge = ops.concatenate([x[:, 0, :], x[:, -1, :], x[:, :, 0], x[:, :, -1]], axis=1)
    paper = ops.expand_dims(ops.mean(edge, axis=1, keepdims=True), -1)
    return ops.where(paper > 0.5, 1.0 - x, x)


def _framed(x: Any) -> Any:
    """(rows, 16, 16, 1): the smallest square around the ink, resampled. An empty picture stays empty."""
    top, bottom = _extent(ops.max(x, axis=2))
    left, right = _extent(ops.max(x, axis=1))
    side = ops.maximum(ops.maximum(bottom - top, right - left), 4.0)
    x = ops.matmul(_sampling(top, bottom, side), x)
    x = ops.matmul(x, ops.transpose(_sampling(left, right, side), (0, 2, 1)))
    return ops.expand_dims(x, -1)


def _extent(profile: Any) -> tuple[Any, Any]:
    """(rows, side) -> where the ink begins and ends, in pixels from the edge, each (rows, 1, 1)."""
    begins, ends = np.arange(SIDE, dtype="float32")[None], np.arange(1, SIDE + 1, dtype="float32")[None]
    ink = profile > INK
    first = ops.min(ops.where(ink, begins, float(SIDE)), axis=1, keepdims=True)
    last = ops.max(ops.where(ink, ends, 0.0), axis=1, keepdims=True)
    return ops.expand_dims(first, -1), ops.expand_dims(last, -1)


def _sampling(first: Any, last: Any, side: Any) -> Any:
    """(rows, 16, 32): the weights that resample a length of `side` pixels about the middle of first and last.

    Linear interpolation, widened where it shrinks, as Pillow and TensorFlow do with antialiasing.
    """
    places = ((np.arange(INNER, dtype="float32") + 0.5) / INNER - 0.5)[None, :, None]
    pixels = (np.arange(SIDE, dtype="float32") + 0.5)[None, None, :]
    width = ops.maximum(side / INNER, 1.0)
    centres = (first + last) / 2.0 + side * places
    return ops.relu(1.0 - ops.absolute(centres - pixels) / width) / width
