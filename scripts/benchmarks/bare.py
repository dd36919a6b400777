"""The least that a process with a model is: TensorFlow, the model loaded, and called once.

A program of its own: `python -m benchmarks.bare MODEL` says "loaded", then "called", and waits for the end of stdin.
"""

from __future__ import annotations

import sys


def main(path: str) -> None:
    """Import, load, call."""
    import keras
    import tensorflow as tf

    model = keras.models.load_model(path)
    print("loaded", flush=True)
    model(tf.zeros((1, *(size or 1 for size in model.input_shape[1:]))))
    print("called", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
