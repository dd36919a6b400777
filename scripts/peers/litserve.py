"""LitServe with its batching: two API servers before one process with the model."""

# No `from __future__ import annotations`: LitServe reads decode_request's annotation as an object.

import sys
from typing import Annotated, Any

import litserve
import numpy as np
from pydantic import BaseModel, Field

from peers.model import FEATURES, MAX_BATCH, PICTURES, Model, decode

BATCH_TIMEOUT_S = 0.002
API_SERVERS = 2


class Numbers(BaseModel):
    """A row."""

    features: Annotated[list[float], Field(min_length=FEATURES, max_length=FEATURES)]


class Picture(BaseModel):
    """A base64 JPEG."""

    image: str


class Api(litserve.LitAPI):
    """The steps that LitServe asks for."""

    def setup(self, device: Any) -> None:
        self._model = Model()

    def decode_request(self, request: Picture if PICTURES else Numbers) -> Any:  # type: ignore[valid-type]
        return decode(request.image) if PICTURES else request.features

    def batch(self, inputs: list[Any]) -> Any:
        return np.asarray(inputs, np.float32)

    def predict(self, rows: Any) -> Any:
        return self._model.predict(rows)

    def unbatch(self, answers: Any) -> Any:
        return answers

    def encode_response(self, answer: Any) -> Any:
        return {"prediction": answer}


if __name__ == "__main__":
    api = Api(max_batch_size=MAX_BATCH, batch_timeout=BATCH_TIMEOUT_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True, timeout=60)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=API_SERVERS,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
