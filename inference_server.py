"""Point it at a Keras or TensorFlow model and it is an HTTP API: `python inference_server.py path/to/model`.

The sentence that the packages make up: the application and its routes, embedding, the command line. What may be slow
to import is imported where it is used: this module is also the entry of every child process, and a worker loads no
HTTP, a front no TensorFlow, the supervisor neither.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Self

    from bottle import Bottle

    from front.bulk import Bulk
    from front.openapi import Documents
    from models.contract import Contract
    from prediction_log.journal import Journal

__all__ = ["InferenceServer", "Settings", "create_app", "main", "wsgi"]
__version__ = "0.1.0"

HERE = Path(__file__).resolve().parent


def _require_own_packages() -> None:
    """`models` and `batching` are common names: say so where another package of that name would be imported."""
    for name in ("batching", "commands", "front", "models", "prediction_log"):
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != HERE / name:
            complaint = (
                f"inference_server needs its own package {name!r}, but Python finds "
                f"{'another one' if spec else 'none'} first: start it from another folder, or rename that one"
            )
            if __name__ == "__main__":
                sys.exit(complaint)
            raise ImportError(complaint)


_require_own_packages()

from front.settings import Settings  # noqa: E402 - only ours, so only now

# -- the application ---------------------------------------------------------------------------------------------------


def create_app(settings: Settings, client: Any, journal: Journal | None = None) -> Bottle:
    """The WSGI application. Pure: it starts nothing and reads only what it is given.

    client: its `view` is a front.catalog.Catalog, `counters` and `slot` count, `call` reaches the workers (a
    batching.blocking.BlockingClient). Where the environment has front.halves.DEFER, the front does the waiting.
    journal: where predictions are logged; None for no prediction log.
    """
    from bottle import request

    from front import metrics
    from front.administration import BODY_BYTES_MAX, Errand, parse_word
    from front.answering import EVERYTHING, JSON, Answering, answer_json, body, my_id, place_of, takes
    from front.application import Application
    from front.feedback import FEEDBACK_BYTES_MAX, parse_feedback
    from front.halves import Response
    from front.labour import Labour
    from front.overview import overview
    from front.pages import CONSOLE, DOCUMENTATION, Pages
    from front.predictions import Predictions
    from front.readiness import readiness
    from front.recorder import Recorder
    from front.refusals import Refusal, error_response
    from front.security import ADMIN, OPEN, PREDICT, Guard
    from front.speaking import Speaking
    from front.tally import Tally
    from models.dialects import native, open_inference, tf_serving

    tally = Tally(client.slot)
    recorder = Recorder(settings, journal, client.slot) if journal is not None else None
    guard = Guard(settings)
    predictions = Predictions(settings, client, guard, tally, recorder)
    answering = Answering(guard, tally, recorder)
    app = Application(client, answering.refuse)
    app.install(answering)
    server = f"inference-server {__version__}"
    pages = Pages()
    spoken = [
        Speaking(dialect, settings, client, predictions, server) for dialect in (native, tf_serving, open_inference)
    ]
    for speaking in spoken:
        speaking.install(app)

    @app.get("/health", key=OPEN)
    def health() -> Response:
        return answer_json({"ok": True, "status": "up"})

    @app.get("/ready", key=OPEN)
    def ready() -> Response:
        is_ready, value = readiness(client.view, client.counters, settings.predict_timeout_ms / 1000)
        return answer_json(value, 200 if is_ready else 503)

    @app.get("/metrics", key=ADMIN)
    def show_metrics() -> Response:
        text, content_type = metrics.render(client.counters, client.view.workers, __version__)
        return Response(200, [("Content-Type", content_type), ("X-Request-Id", my_id())], text)

    @app.get("/status", key=ADMIN)
    def status() -> Response:
        patience_s = settings.predict_timeout_ms / 1000
        has_log = journal is not None
        return answer_json(
            overview(client.view, client.counters, server=server, patience_s=patience_s, has_log=has_log)
        )

    @cache
    def documents() -> Documents:
        from front.openapi import Documents  # few ever ask for it, and every front would take longer to start

        return Documents(settings, __version__, has_log=journal is not None)

    @app.get("/openapi.json", key=PREDICT)
    def openapi() -> Labour:
        catalog, headers = client.view, [JSON, ("X-Request-Id", my_id())]
        accepts = request.environ.get("HTTP_ACCEPT_ENCODING")
        return Labour(lambda: Response(200, headers, documents().of(catalog)), my_id(), accepts)

    def page(name: str) -> Response:
        response = pages.answer(name, request.environ)
        response.headers.append(("X-Request-Id", my_id()))
        return response

    app.get("/", callback=lambda: page(CONSOLE), key=OPEN)
    app.get("/docs", callback=lambda: page(DOCUMENTATION), key=OPEN)
    app.get("/static/<name:path>", callback=page, key=OPEN, label="/static/{name}")

    @app.post("/reload", key=ADMIN)
    def reload() -> Any:
        action, model = parse_word(body(BODY_BYTES_MAX))
        return Errand(action, model, None, my_id(), native, place_of(model, None))

    @app.post("/feedback", key=PREDICT)
    def feedback() -> Response:
        told = parse_feedback(body(FEEDBACK_BYTES_MAX))
        if journal is None:
            raise Refusal("NOT_IMPLEMENTED", "this server keeps no prediction log: DATABASE_URL is not set")
        if not journal.feedback(told.request_id, told.row, told.label):
            raise Refusal("NOT_READY", "the prediction log cannot be written just now; try again in a moment")
        return answer_json({"ok": True, "request_id": told.request_id, "row": told.row})

    @app.route("/", method="ANY", key=PREDICT)
    @app.route(EVERYTHING, method="ANY", key=PREDICT)
    def other(path: str = "") -> Any:
        """Routes that a contract claims for its model; the rest is not here, or not with this verb."""
        entry = client.view.for_route(f"/{path}")
        allowed = ["POST"] if entry else [verb for verb in ("GET", "POST") if takes(app, verb)]
        if entry and request.method == "POST":
            return spoken[0].infer(entry, "advanced", f"/{path}", None, None)
        if not allowed:
            raise Refusal("NOT_FOUND", "there is no such route; GET /models lists the models")
        response = error_response(Refusal("METHOD_NOT_ALLOWED", f"this route takes {', '.join(allowed)}"), my_id())
        response.headers.append(("Allow", ", ".join(allowed)))
        return response

    return app


# -- embedding ---------------------------------------------------------------------------------------------------------


class InferenceServer:
    """A whole server as a context manager, in processes of its own; nothing of it survives the block.

    models: a model, or a folder of models. Further keywords are settings. `url` is where it listens, on a free port
    unless `port` says otherwise; `pid` is its supervisor's. Raises batching.errors.StartupFailed where no
    model can be served.
    """

    def __init__(
        self, models: str | os.PathLike[str] | None = None, *, start_timeout_s: float = 120.0, **settings: Any
    ) -> None:
        path = None if models is None else str(models)
        self._settings = replace(Settings.from_environment(), **{"port": 0, "model_path": path, **settings}).checked()
        self._start_timeout_s = start_timeout_s
        self.url = ""
        self.pid = 0

    def __enter__(self) -> Self:
        import json

        from batching.blocking import BlockingClient
        from batching.control import ControlChannel
        from front.catalog import cataloguer
        from front.recorder import Recorder, open_journal

        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "inference_server.py"), "--child", "supervisor", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        self.pid = self._process.pid
        stdin, self._stdout = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        stdin.write(json.dumps(asdict(self._settings)))
        stdin.close()
        first = json.loads(self._stdout.readline() or "{}")
        if "url" not in first:
            ours.close()
            self._give_up(first.get("reason", "the server ended at once"))
        self.url = first["url"]
        self._client = BlockingClient(ControlChannel(ours), cataloguer(self._settings.default_model))
        told = self._client.messages
        if not self._client.wait_until(lambda _: any(one["type"] == "ready" for one in told), self._start_timeout_s):
            reason = "the server was not ready in time"
            if self._client.lost:
                last = self._stdout.readline()
                reason = json.loads(last)["reason"] if last else "the server ended while it started"
            self._client.close()
            self._give_up(reason)
        client = self._client
        journal = open_journal(client.hello["spool"], client.slot, client.tell_condition)
        self._recorder = Recorder(self._settings, journal, client.slot) if journal is not None else None
        return self

    def _give_up(self, reason: str) -> None:
        from batching.errors import StartupFailed

        self._end()
        raise StartupFailed(reason)

    def predict(self, model: str, body: dict[str, Any], version: str | None = None) -> Any:
        """What POST /predict/<model> answers to `body`, through the same checks and batches, without HTTP.

        Returns the prediction, or the list of predictions for {"instances": [...]}. Raises what the checks and the
        batches raise: models.errors.BadInput, batching.errors.DeadlineExceeded and their like.
        """
        from front.predictions import predict

        return predict(self._client, self._settings, self._recorder, model, version, body)

    def bulk(self, model: str, version: str | None = None) -> Bulk:
        """A version to be asked about many rows at once, as arrays (front.bulk). Raises front.catalog.UnknownModel."""
        from front.bulk import Bulk

        return Bulk(self._client, self._client.view.find(model, version))

    def contract(self, model: str, version: str | None = None) -> Contract | None:
        """What a version takes and gives; None while no worker has said. Raises front.catalog.UnknownModel."""
        contract: Contract | None = self._client.view.find(model, version).contract
        return contract

    def __exit__(self, *_: object) -> None:
        if self._recorder is not None:
            self._recorder.journal.close()
        self._client.close()
        self._end()

    def _end(self) -> None:
        try:
            self._process.wait(self._settings.drain_timeout_s + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()


def wsgi(settings: Settings | None = None) -> Callable[..., Iterable[bytes]]:
    """An application for any WSGI server, attached to `inference_server.py worker --socket PATH` (WORKER_SOCKET).

    It attaches on the first request of each process, so a server may load it before it forks, and again when the
    workers' supervisor was replaced.
    """
    from front.attach import Attached

    chosen = settings or Settings.from_environment()
    if chosen.worker_socket is None:
        raise ValueError("WORKER_SOCKET must name the path given to: inference_server.py worker --socket PATH")
    return Attached(
        chosen.worker_socket, lambda client, journal: create_app(chosen, client, journal), chosen.default_model
    )


# -- processes and the command line ------------------------------------------------------------------------------------


def run_child(role: str, fd: int) -> int:
    """What the supervisor (or an embedding program) starts: one process of the server."""
    if role == "worker":
        from batching import worker

        worker.main(fd)
    elif role == "front":
        from front.process import main as front_main

        front_main(fd, create_app)
    elif role == "excerpt":
        from commands import excerpt

        return excerpt.main()
    elif role == "shipper":
        from commands import shipper

        shipper.main(fd)
    else:
        from commands.serve import serve_embedded

        return serve_embedded(fd)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code (README, "Exit codes")."""
    arguments = sys.argv[1:] if arguments is None else arguments
    from commands import logs

    if arguments[:1] == ["--child"]:
        logs.set_up(arguments[1])
        return run_child(arguments[1], int(arguments[2]))
    logs.set_up("log" if arguments[:1] == ["log"] else "supervisor")
    from commands.arguments import run

    return run(arguments, __version__, InferenceServer)


if __name__ == "__main__":
    sys.exit(main())
