"""Folders that others have made, real SavedModels in them, served without any file added; loaded from kept copies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from models.repository import scan
from models.runtime import load
from models.shelf import Shelf
from tests.models.test_repository import found


def half_plus_two(folder: Path, name: str) -> Path:
    """As TensorFlow Serving's test data: y = x / 2 + 2, and a file among its assets that it reads when it is loaded."""
    import tensorflow as tf

    words = folder.parent / "words.txt"
    words.parent.mkdir(parents=True, exist_ok=True)
    words.write_text(f"{name}\n")
    module = tf.Module()
    module.asset = tf.saved_model.Asset(str(words))
    module.table = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            module.asset.asset_path,
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        ),
        -1,
    )
    module.half = tf.Variable(0.5)

    def y(x: object) -> dict[str, object]:
        known = tf.cast(module.table.lookup(tf.constant([name])), tf.float32)  # 0, as it is the first line
        return {"y": x * module.half + 2.0 + known}

    module.y = tf.function(y, input_signature=[tf.TensorSpec((None, 1), tf.float32, "x")])
    tf.saved_model.save(module, str(folder), {"serving_default": module.y})
    words.unlink()
    return folder


def test_a_folder_made_for_tensorflow_serving_serves_from_its_copies(tmp_path: Path) -> None:
    root = tmp_path / "models"
    half_plus_two(root / "half_plus_two" / "00000123", "half")
    assert (root / "half_plus_two" / "00000123" / "assets" / "words.txt").exists()
    assert found(scan(root)) == [("half_plus_two", "123", "saved_model", None)]
    with closing(Shelf(root)) as shelf:
        kept = shelf.keep(scan(root)[0])
        shutil.rmtree(root / "half_plus_two")
        model = load(kept.to_json(), {})
        (answer,) = model.run([np.array([[1.0], [2.0], [5.0]], np.float32)])
    np.testing.assert_allclose(answer, [[2.5], [3.0], [4.5]])


def test_what_keras_exports_serves_from_its_copy(zoo: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(zoo("exported"), tmp_path / "models" / "exported" / "1")
    (reference,) = scan(tmp_path / "models")
    assert (reference.kind, reference.refusal) == ("saved_model", None)
    row = [np.ones((1, 3), np.float32), np.ones((1, 2), np.float32)]
    with closing(Shelf(tmp_path / "models")) as shelf:
        kept = load(shelf.keep(reference).to_json(), {}).run(row)
    for ours, theirs in zip(kept, load(reference.to_json(), {}).run(row), strict=True):
        np.testing.assert_array_equal(ours, theirs)
