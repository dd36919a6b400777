"""service-streamer: threads of Flask under gunicorn queue rows, and its own thread calls the model."""

from __future__ import annotations

import sys
from typing import Any

import orjson
from flask import Flask, Response, request
from gunicorn.app.base import BaseApplication
from service_streamer import ThreadedStreamer

from peers.model import FEATURES, MAX_BATCH, Model

LATENCY_S, THREADS = 0.005, 64


def application() -> Flask:
    """The app with the model behind it; made in the process that serves."""
    streamer = ThreadedStreamer(Model().predict, batch_size=MAX_BATCH, max_latency=LATENCY_S)
    app = Flask(__name__)

    @app.post("/predict")
    def predict() -> Response:
        row = orjson.loads(request.get_data())["features"]
        if len(row) != FEATURES or not all(isinstance(one, int | float) for one in row):
            return Response(status=422)
        (answer,) = streamer.predict([row])
        return Response(orjson.dumps({"prediction": answer}), mimetype="application/json")

    return app


class Gunicorn(BaseApplication):
    """gunicorn from within: one process, many threads."""

    def __init__(self, port: int) -> None:
        self._port = port
        super().__init__()

    def load_config(self) -> None:
        settings: dict[str, Any] = {
            "bind": f"127.0.0.1:{self._port}",
            "workers": 1,
            "worker_class": "gthread",
            "threads": THREADS,
            "loglevel": "warning",
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return application()


if __name__ == "__main__":
    Gunicorn(int(sys.argv[1])).run()
