"""Small real models of every kind, written to disk on demand. Imports TensorFlow, so import it inside a fixture.

A writer takes a folder and writes one model into it: a SavedModel, or one .keras or .h5 file. Each is a few lines whose
answer a test can work out by itself.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from models.runtime import import_tensorflow

import_tensorflow()

import keras  # noqa: E402 - TensorFlow is set up first

import tests.models.zoo.refused as refused  # noqa: E402, PLR0402 - these import nothing from here
import tests.models.zoo.served as served  # noqa: E402, PLR0402


def write(name: str, folder: Path) -> Path:
    """Have the named model written; where it is, as a reference's path would say."""
    folder.mkdir(parents=True)
    with warnings.catch_warnings():  # Keras warns of what these models do on purpose
        warnings.simplefilter("ignore")
        keras.utils.set_random_seed(1)
        getattr(served if hasattr(served, name) else refused, name)(folder)
    files = [path for path in folder.iterdir() if path.suffix in (".keras", ".h5")]
    return files[0] if files else folder
