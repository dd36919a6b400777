"""The application inside a foreign WSGI server. Owns when it attaches: late, once per process, again after a loss."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

from batching.blocking import BlockingClient
from batching.control import ControlChannel
from batching.errors import BatchingError, NoWorker
from front import timing
from front.answering import guard_of
from front.catalog import cataloguer
from front.halves import REASONS
from front.recorder import open_journal
from front.refusals import error_response, request_id
from prediction_log.journal import Journal

FIRST_SNAPSHOT_S = 5.0


class Attached:
    """A WSGI callable. Safe for threads; a fork after import (gunicorn --preload) is fine: nothing is open yet."""

    def __init__(
        self, path: str, create_app: Callable[[BlockingClient, Journal | None], Any], default_model: str | None
    ) -> None:
        self._path = path
        self._create_app = create_app
        self._default_model = default_model
        self._lock = threading.Lock()
        self._pid = 0
        self._client: BlockingClient | None = None
        self._journal: Journal | None = None
        self._app: Any = None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            app = self._attached()
        except (OSError, BatchingError):
            response = error_response(NoWorker(), request_id(environ.get("HTTP_X_REQUEST_ID")))
            response.headers.append(timing.total(0.0))
            length = ("Content-Length", str(len(response.body)))
            start_response(f"{response.status} {REASONS[response.status]}", [*response.headers, length])
            return [response.body]
        answer: Iterable[bytes] = app(environ, start_response)
        return answer

    def _hear(self, message: dict[str, Any]) -> None:
        if message["type"] == "read_keys" and self._app is not None:
            guard_of(self._app).read_keys_again()

    def _attached(self) -> Any:
        """The application with a living client. Raises OSError or BatchingError where there is no supervisor."""
        client = self._client
        if client is not None and self._pid == os.getpid() and not client.lost:
            return self._app
        with self._lock:
            client = self._client
            if client is None or self._pid != os.getpid() or client.lost:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    sock.connect(self._path)
                except OSError:
                    sock.close()
                    raise
                self._client = BlockingClient(ControlChannel(sock), cataloguer(self._default_model), self._hear)
                self._client.wait_until(lambda catalog: catalog.serial > 0, FIRST_SNAPSHOT_S)
                if self._journal is not None and self._pid == os.getpid():
                    self._journal.close()  # the one before; a parent's, after a fork, is not ours to close
                client = self._client
                self._journal = open_journal(client.hello["spool"], client.slot, client.tell_condition)
                self._app = self._create_app(client, self._journal)
                self._pid = os.getpid()
            return self._app
