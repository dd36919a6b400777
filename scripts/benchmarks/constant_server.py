"""What the server is measured against: an ordinary Bottle application under waitress, one process, a constant answer.

A program of its own: `python -m benchmarks.constant_server THREADS` takes a free port and prints it.
"""

from __future__ import annotations

import logging
import sys

import bottle
from waitress import create_server


def application() -> bottle.Bottle:
    """POST /predict answers the same whatever is sent; the body is received, and not looked at."""
    app = bottle.Bottle()

    @app.post("/predict")  # type: ignore[untyped-decorator]
    def predict() -> dict[str, object]:
        return {"ok": True, "prediction": 1.234, "model_version": "1"}

    return app


def main(threads: int) -> None:
    """Serve until a signal. All else is waitress's default."""
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it would warn of every request that has to wait
    server = create_server(application(), host="127.0.0.1", port=0, threads=threads)
    print(f"listening on http://127.0.0.1:{server.effective_port}", flush=True)
    server.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
