"""Ray Serve: one replica with its batching, on this machine alone."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, Any

import orjson
import ray
from pydantic import BaseModel, Field, ValidationError
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from peers.model import FEATURES, MAX_BATCH, Model

WAIT_S = 0.005
STORE_BYTES = 100 * 2**20


class Numbers(BaseModel):
    """A row."""

    features: Annotated[list[float], Field(min_length=FEATURES, max_length=FEATURES)]


class Small:
    """The model in a replica."""

    def __init__(self) -> None:
        self._model = Model()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=WAIT_S)
    async def predict(self, rows: list[Any]) -> list[Any]:
        return self._model.predict(rows)

    async def __call__(self, request: Request) -> Response:
        try:
            row = Numbers.model_validate_json(await request.body()).features
        except ValidationError as error:
            return Response(error.json(include_url=False), 422, media_type="application/json")
        return Response(orjson.dumps({"prediction": await self.predict(row)}), media_type="application/json")


def main(port: int) -> None:
    """Serve until SIGTERM, then end all that was started."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        object_store_memory=STORE_BYTES,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"enable_access_log": False})
    deployment = serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1})(Small)
    serve.run(deployment.bind(), route_prefix="/predict")
    try:
        signal.pause()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
