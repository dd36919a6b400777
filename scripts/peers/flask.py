"""The recipe of many a tutorial: Flask, and model.predict in the handler."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
from flask import Flask, jsonify, request

model = keras.models.load_model(os.environ["BENCH_MODEL"])
model.predict(np.zeros((1, *model.input_shape[1:]), np.float32), verbose=0)
app = Flask(__name__)


@app.post("/predict")
def predict() -> Any:
    """One row, one call."""
    row = np.asarray([request.get_json()["features"]], np.float32)
    return jsonify(prediction=float(model.predict(row, verbose=0)[0, 0]))
