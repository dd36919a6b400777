"""The model as the users of a server without one of its own would call it at its fastest. Runs in the peers' processes.

The small model: compiled by XLA for batches of 1, 2, 4 … 64, and smaller ones padded; one thread, since it has no work
for two. Pictures: a traced function of any batch on all cores, where XLA is slower. What to serve says the environment:
BENCH_MODEL, a .keras file, and BENCH_KIND, "numbers" or "pictures".
"""

from __future__ import annotations

import base64
import gc
import io
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np

PICTURES = os.environ.get("BENCH_KIND") == "pictures"
FEATURES = int(os.environ.get("BENCH_FEATURES", "10"))
MAX_BATCH = 16 if PICTURES else 64
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Model:
    """Loaded, compiled and warm."""

    def __init__(self) -> None:
        import keras
        import tensorflow as tf

        if not PICTURES:
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        model = keras.models.load_model(os.environ["BENCH_MODEL"])
        self._constant = tf.constant
        shape = tuple(model.input_shape[1:])
        call = tf.function(lambda rows: model(rows, training=False), jit_compile=not PICTURES)
        sizes = (None,) if PICTURES else SIZES
        self._functions = {n: call.get_concrete_function(tf.TensorSpec((n, *shape), tf.float32)) for n in sizes}
        for size in SIZES:
            self(np.zeros((size, *shape), np.float32))
        # TensorFlow leaves a million objects: each full collection would stop the process for 0.2 s.
        gc.collect()
        gc.freeze()

    def __call__(self, rows: Any) -> Any:
        """Float32 rows, at most 64, to what the model says of each."""
        count = len(rows)
        if PICTURES:
            return self._functions[None](self._constant(rows)).numpy()
        size = next(one for one in SIZES if one >= count)
        if size > count:
            padded = np.zeros((size, *rows.shape[1:]), np.float32)
            padded[:count] = rows
            rows = padded
        return self._functions[size](self._constant(rows)).numpy()[:count]

    def predict(self, rows: list[Any]) -> list[Any]:
        """What is answered to each: a number, or of a picture its class."""
        answers = self(np.asarray(rows, np.float32))
        found: list[Any] = (answers.argmax(1) if PICTURES else answers[:, 0]).tolist()
        return found


def decode(text: str) -> Any:
    """A base64 picture to the model's float32 pixels. Raises ValueError or OSError for what is none."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
        pixels = image.convert("RGB")
    if pixels.size != (224, 224):
        pixels = pixels.resize((224, 224), Image.Resampling.BILINEAR)
    return np.asarray(pixels, np.float32) * np.float32(1 / 127.5) - np.float32(1)
