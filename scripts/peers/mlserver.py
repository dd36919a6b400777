"""MLServer with a model of our own, adaptive batching on; settings.json and model-settings.json are the catalogue's."""

from __future__ import annotations

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse

from peers.model import FEATURES, Model


class Small(MLModel):
    """The small model. It answers batches, and MLServer divides them."""

    async def load(self) -> bool:
        self._model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        if rows.ndim != 2 or rows.shape[1] != FEATURES:
            raise InferenceError(f"features must have {FEATURES} numbers a row")
        answers = self._model(rows.astype(np.float32, copy=False))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("prediction", answers)])
