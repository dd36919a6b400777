"""Answers that take long are made beside the loop, and fail alone."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable

import pytest

from front.halves import Response
from front.labour import Labour
from tests.faults.asking import get
from tests.harness import fake_http_server

BODY = b'{"long":"' + b"x" * 5000 + b'"}'
HEADERS = [("Content-Type", "application/json")]


class Inline:
    """A loop whose pool is a thread that is waited for."""

    def in_pool(self, make: Callable[[], Response], answer: Callable[[Response], None]) -> None:
        made: list[Response] = []
        thread = threading.Thread(target=lambda: made.append(make()))
        thread.start()
        thread.join()
        answer(made[0])


def made(labour: Labour) -> Response:
    heard: list[Response] = []
    labour.begin(Inline(), heard.append)
    (response,) = heard
    return response


@pytest.mark.parametrize("way", [made, lambda labour: labour.complete(None)], ids=["in a loop", "in a thread"])
@pytest.mark.parametrize(("accepts", "coding"), [(None, None), ("gzip", "gzip"), ("identity", None)])
def test_it_is_made_and_finished_and_sent_as_the_client_takes_it(
    way: Callable[[Labour], Response], accepts: str | None, coding: str | None
) -> None:
    labour = Labour(lambda: Response(200, HEADERS, BODY), "id", accepts)
    labour.finish = lambda response: response._replace(headers=[*response.headers, ("X-Finished", "yes")])
    response = way(labour)
    headers = dict(response.headers)
    assert (response.status, headers["X-Finished"], headers.get("Content-Encoding")) == (200, "yes", coding)
    assert (gzip.decompress(response.body) if coding else response.body) == BODY


def test_a_defect_while_it_is_made_is_told_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Response:
        raise RuntimeError("secret detail")

    response = made(Labour(make, "id", None))
    assert response.status == 500
    assert json.loads(response.body)["error"] == "INTERNAL_ERROR"
    assert b"secret" not in response.body
    assert "secret detail" in caplog.text


def test_the_document_leaves_compressed_for_those_who_take_it() -> None:
    with fake_http_server([{"name": "double", "kind": "double"}]) as server:
        packed = get(server.url, "/openapi.json", Accept_Encoding="gzip")
        plain = get(server.url, "/openapi.json")
    assert packed.headers["content-encoding"] == "gzip"
    assert "server-timing" in packed.headers
    assert gzip.decompress(packed.body) == plain.body
