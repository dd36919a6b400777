"""mosec: a server in Rust that hands batches to a Python process. Numbers go straight to the model, pictures by two."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from mosec import Runtime, Server, ValidationError, Worker

from peers.model import FEATURES, MAX_BATCH, PICTURES, Model, decode

WAIT_MS = 1  # the least it knows
TIMEOUT_S = 60


class Numbers(msgspec.Struct):
    """A row."""

    features: Annotated[list[float], msgspec.Meta(min_length=FEATURES, max_length=FEATURES)]


class Picture(msgspec.Struct):
    """A base64 JPEG."""

    image: str


class Json(Worker):
    """Checks and parses with msgspec, which mosec's documentation names as the fastest."""

    _decoder: Any = msgspec.json.Decoder(Picture if PICTURES else Numbers)
    _encoder = msgspec.json.Encoder()

    def deserialize(self, data: bytes) -> Any:
        try:
            return self._decoder.decode(data)
        except msgspec.DecodeError as error:
            raise ValidationError(str(error)) from error

    def serialize(self, data: Any) -> bytes:
        return self._encoder.encode(data)


class Decode(Json):
    """The first stage of pictures."""

    def forward(self, data: Picture) -> Any:
        try:
            return decode(data.image)
        except (ValueError, OSError) as error:
            raise ValidationError(str(error)) from error


class Compute(Json):
    """The model, with batches."""

    def __init__(self) -> None:
        super().__init__()
        self._model = Model()

    def forward(self, data: list[Any]) -> list[Any]:
        rows = data if PICTURES else [one.features for one in data]
        return [{"prediction": one} for one in self._model.predict(rows)]


if __name__ == "__main__":
    server = Server()
    compute = Runtime(Compute, max_batch_size=MAX_BATCH, max_wait_time=WAIT_MS, timeout=TIMEOUT_S)
    stages = [Runtime(Decode, num=1, timeout=TIMEOUT_S), compute] if PICTURES else [compute]
    server.register_runtime({"/predict": stages})
    server.run()
