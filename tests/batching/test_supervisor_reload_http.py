"""Models change while the whole server answers over HTTP, with fake models and fronts of our own."""

from __future__ import annotations

import json
import threading
import urllib.request
from typing import Any

from tests.batching.load import version
from tests.harness import SOON_S, Server, fake_http_server, gate, wait_until


def predict(server: Server) -> tuple[str, float]:
    """The version that answers, and by what it multiplies. Raises HTTPError."""
    body = json.dumps({"features": [1.0]}).encode()
    with urllib.request.urlopen(urllib.request.Request(server.url + "/predict", body), timeout=SOON_S) as response:
        answer: dict[str, Any] = json.load(response)
    return answer["model_version"], answer["prediction"]


def test_no_request_fails_while_a_newer_version_loads_or_is_refused_or_serves() -> None:
    wrong: list[Any] = []
    stopped = threading.Event()
    with gate() as a_gate, fake_http_server([version(1)], planned=True, fronts=2, rollback_s=0.0) as server:

        def go_on_asking() -> None:
            while not stopped.is_set() and not wrong:
                try:
                    found, factor = predict(server)
                except OSError as error:
                    wrong.append(error)
                else:
                    if factor != float(found):
                        wrong.append((found, factor))

        threads = [threading.Thread(target=go_on_asking) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            server.planner.want([version(2, kind="held", gate=a_gate.path)])
            held = a_gate.next_call()
            assert predict(server) == ("1", 1.0)
            held.let_go()
            wait_until(lambda: predict(server) == ("2", 2.0), SOON_S, "version 2 serves")
            server.planner.want([version(3, kind="refuses")])
            wait_until(lambda: server.planner.told("failed"), SOON_S, "version 3 is refused")
            assert predict(server) == ("2", 2.0)
            server.planner.want([version(1)])
            wait_until(lambda: predict(server) == ("1", 1.0), SOON_S, "version 1 serves again")
        finally:
            stopped.set()
            for thread in threads:
                thread.join()
    assert wrong == []
