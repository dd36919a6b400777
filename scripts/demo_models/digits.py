"""Handwritten digits: trains the network on scikit-learn's real ones, holds a fifth of them out, and says how it does.

Owns the data, how it is varied while training, and the measuring, which goes the way of a posted picture: PNG, the
server's own decoding, the compiled model. The held-out digits decide nothing: neither when to stop nor what to keep.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image as Pillow
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from demo_models.network import CLASSES, SIDE, network
from models.contract import Image
from models.images import decode

SEED = 0
EPOCHS = 24
BATCH = 64
MIN_ACCURACY = 0.985  # on the held-out digits; below it something is broken
IMAGE = Image("image", SIDE, SIDE, "grey")


def write_digits(folder: Path, say: Callable[[str], None]) -> str:
    """A .keras file and its contract; what it is, in a line. Raises RuntimeError when it learned too little."""
    train, held_out = split_digits()
    model = trained(*train, say)
    figures = accuracies(model, *held_out)
    for how, figure in figures.items():
        say(f"{100 * figure:.2f} % of {len(held_out[1])} held-out digits are right, {how}")
    accuracy = figures["as they are"]
    if accuracy < MIN_ACCURACY:
        raise RuntimeError(f"only {100 * accuracy:.2f} % right, {100 * MIN_ACCURACY} % expected")
    model.save(folder / "digits.keras")
    contract = {
        "description": "Handwritten digits: a small convolutional network, trained on "
        f"{len(train[1])} of scikit-learn's digits; of {len(held_out[1])} others it gets {100 * accuracy:.2f} % right.",
        "labels": [str(digit) for digit in range(CLASSES)],
        "image": {"input": IMAGE.input, "width": SIDE, "height": SIDE, "colour": IMAGE.colour},
        "examples": [_example(*held_out)],
    }
    (folder / "contract.json").write_text(f"{json.dumps(contract, indent=2)}\n", encoding="utf-8")
    return "a Keras file"


def split_digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(digits, classes) to train on and held out: float32 (n, 8, 8) in 0..1 and int (n,); always the same fifth."""
    data = load_digits()
    digits = (data.images / 16).astype("float32")
    train, held_out, train_classes, held_out_classes = train_test_split(
        digits, data.target, test_size=0.2, stratify=data.target, random_state=SEED
    )
    return (train, train_classes), (held_out, held_out_classes)


def trained(digits: np.ndarray, classes: np.ndarray, say: Callable[[str], None]) -> Any:
    """The network, trained on ever new variations of these digits; less than a minute on two cores."""
    keras.utils.set_random_seed(SEED)
    random = np.random.default_rng(SEED)
    model = network()
    steps = -(-len(digits) // BATCH) * EPOCHS
    model.compile(
        optimizer=keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(3e-3, steps), weight_decay=1e-3),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.05),
        metrics=["accuracy"],
        jit_compile=False,  # compiled by XLA, convolutions take twice as long on a CPU
    )
    sources = enlarged(digits)
    targets = np.eye(CLASSES, dtype="float32")[classes]
    for epoch in range(1, EPOCHS + 1):
        result = model.fit(varied(sources, random), targets, batch_size=BATCH, verbose=0)
        if epoch % 4 == 0:
            say(f"epoch {epoch} of {EPOCHS}: {100 * result.history['accuracy'][-1]:.1f} % of the varied digits right")
    return model


def enlarged(digits: np.ndarray) -> np.ndarray:
    """(n, 8, 8) -> (3, n, 32, 32, 1): smooth, linear and in blocks, as they come out of different programs."""
    methods = ("bicubic", "bilinear", "nearest")
    pictures = [tf.image.resize(digits[..., None], (SIDE, SIDE), method).numpy() for method in methods]
    return np.stack(pictures).clip(0, 1)


def varied(sources: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(3, n, 32, 32, 1) -> (n, 32, 32, 1): each digit turned, slanted, scaled, shifted, its strokes thick or thin, hard
    or soft, in any contrast, with noise, light on dark or dark on light.
    """
    count = sources.shape[1]

    def some(share: float) -> np.ndarray:
        return np.less(random.random((count, 1, 1, 1)), share)

    def between(low: float, high: float) -> np.ndarray:
        return random.uniform(low, high, (count, 1, 1, 1)).astype("float32")

    x = sources[random.integers(0, len(sources), count), np.arange(count)]
    x = tf.raw_ops.ImageProjectiveTransformV3(
        images=x,
        transforms=_transforms(count, random),
        output_shape=(SIDE, SIDE),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    ).numpy()
    pen = 1 / (1 + np.exp(-(x - between(0.25, 0.6)) * between(6, 20)))  # the lower the threshold, the thicker
    x = np.where(some(0.5), pen, x ** between(0.6, 1.6))
    x = np.where(some(0.3), tf.nn.avg_pool2d(x, 3, 1, "SAME"), x)
    dark, light = np.where(some(0.5), between(0, 0.25), 0), np.where(some(0.5), between(0.6, 1), 1)
    x = dark + (light - dark) * x
    x = x + np.where(some(0.3), between(0, 0.05), 0) * random.standard_normal(x.shape, "float32")
    result: np.ndarray = np.where(some(0.5), 1 - x, x).clip(0, 1).astype("float32")
    return result


def _transforms(count: int, random: np.random.Generator) -> np.ndarray:
    """(count, 8) of ImageProjectiveTransformV3: from each place in the result to one in the source."""
    turn, slant = random.uniform(-0.26, 0.26, count), random.uniform(-0.2, 0.2, count)  # radians, and a share
    nearly_full = random.random(count) < 0.4  # as the data is; the others are drawn small into a large field
    scale = np.where(nearly_full, random.uniform(0.95, 1.05, count), random.uniform(0.4, 1.0, count))
    stretch = np.exp(random.uniform(-0.15, 0.15, count))
    across, down = scale * stretch, scale / stretch
    cos, sin = np.cos(turn), np.sin(turn)
    forward = np.array([[cos * across, (slant * cos - sin) * down], [sin * across, (cos + slant * sin) * down]])
    back = np.linalg.inv(forward.transpose(2, 0, 1))
    room = np.maximum(1, (1 - scale) * SIDE / 2)[:, None]
    middle = (SIDE - 1) / 2
    origin = middle - np.einsum("nij,nj->ni", back, middle + random.uniform(-1, 1, (count, 2)) * room)
    result = np.zeros((count, 8), "float32")
    result[:, [0, 1, 3, 4]] = back.reshape(count, 4)
    result[:, [2, 5]] = origin
    return result


def accuracies(model: Any, digits: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """The share that is classified right when posted as PNGs, in several ways to make pictures of them."""
    ways: dict[str, Callable[[Pillow.Image], Pillow.Image]] = {
        "as they are": lambda picture: picture,
        "dark on light": lambda picture: picture.point(lambda level: 255 - level),
        "at 280x280 in blocks": lambda picture: picture.resize((280, 280), Pillow.Resampling.NEAREST),
        "at 280x280 smoothed": lambda picture: picture.resize((280, 280), Pillow.Resampling.BICUBIC),
    }
    result = {}
    for how, change in ways.items():
        pixels = [decode(_png(change(_picture(digit))), IMAGE, max_pixels=280 * 280) for digit in digits]
        scores = model(np.stack(pixels).astype("float32") / 255, training=False)
        result[how] = float(np.mean(np.argmax(scores, axis=1) == classes))
    return result


def _picture(digit: np.ndarray) -> Pillow.Image:
    return Pillow.fromarray(np.round(digit * 255).astype("uint8"))


def _png(picture: Pillow.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _example(digits: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """The first held-out digit as a request."""
    request = {"image": base64.b64encode(_png(_picture(digits[0]))).decode()}
    return {"request": request, "answer": {"predicted_class": int(classes[0])}}
