"""BentoML with its adaptive batching. Its latency bound is wide, as it answers 503 beyond it."""

# No `from __future__ import annotations`: BentoML reads these annotations as objects.

from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import DType, Shape

from peers.model import FEATURES, MAX_BATCH, PICTURES, Model, decode

LATENCY_MS = 20_000 if PICTURES else 1000
COMMON = {"traffic": {"timeout": 60}, "metrics": {"enabled": False}, "logging": {"access": {"enabled": False}}}


class Numbers:
    """The small model."""

    def __init__(self) -> None:
        self._model = Model()

    @bentoml.api(route="/predict", batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=LATENCY_MS)
    def predict(
        self, features: Annotated[np.ndarray, DType("float32"), Shape((-1, FEATURES))]
    ) -> Annotated[np.ndarray, DType("float32")]:
        return self._model(features)[:, 0]


class Pictures:
    """MobileNetV2."""

    def __init__(self) -> None:
        self._model = Model()

    @bentoml.api(route="/predict", batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=LATENCY_MS)
    def predict(self, image: list[str]) -> list[int]:
        return self._model.predict([decode(one) for one in image])


Served = bentoml.service(name="small", workers=1 if PICTURES else 2, **COMMON)(Pictures if PICTURES else Numbers)
