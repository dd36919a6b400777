"""Requests with a header that came before: decided once, and anew when models, keys or anything else has changed."""

from __future__ import annotations

import json
import signal
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.fake_folders import Disk
from tests.faults.base import faulty_server
from tests.faults.reloading import MODEL
from tests.front.conftest import BEARER, KEY
from tests.front.test_loop import answers_in, connect, everything
from tests.harness import SOON_S, Server, fake_http_server, wait_until

ORIGIN = "https://page.example"


def request(body: bytes, *fields: str, path: str = "/predict/double") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def ask(sock: socket.socket, data: bytes) -> tuple[int, dict[str, str], Any]:
    """The one answer to a request on a connection that stays."""
    sock.sendall(data)
    received = b""
    while not (separated := received.partition(b"\r\n\r\n"))[1] or len(separated[2]) < _length(separated[0]):
        received += sock.recv(65536)
    ((status, headers, body),) = answers_in(received)
    return status, headers, json.loads(body)


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])


def test_each_body_behind_the_same_header_gets_its_own_answer() -> None:
    with fake_http_server([{"name": "double"}], fronts=1) as server:
        sock = connect(server)
        found = [ask(sock, request(b'{"features": [%d.5]}' % number)) for number in range(8)]
        assert [body["prediction"] for _, _, body in found] == [2 * number + 1.0 for number in range(8)]
        assert len({headers["X-Request-Id"] for _, headers, _ in found}) == 8
        bad = [ask(sock, request(b'{"features": [%b]}' % value)) for value in (b'"x"', b"1.5", b"nul", b"2.5")]
        assert [status for status, _, _ in bad] == [400, 200, 400, 200]
        # In pieces, pipelined, and with the body far behind its header.
        whole = request(b'{"features": [3.5]}')
        for piece in (whole[:30], whole[30:75], whole[75:-4]):
            sock.sendall(piece)
        assert ask(sock, whole[-4:])[2]["prediction"] == 7.0
        sock.sendall(whole * 20 + request(b'{"features": [4.5]}', "Connection: close"))
        answers = [json.loads(body)["prediction"] for _, _, body in answers_in(everything(sock))]
        assert answers == [7.0] * 20 + [9.0]


def test_what_a_header_says_holds_for_each_request_with_it() -> None:
    with fake_http_server([{"name": "double"}], fronts=1, allowed_origins=ORIGIN) as server:
        sock = connect(server)
        body = b'{"features": [1.5]}'
        for _ in range(5):
            _, headers, _ = ask(sock, request(body, f"Origin: {ORIGIN}"))
            assert headers["Access-Control-Allow-Origin"] == ORIGIN
            assert ask(sock, request(body, "X-Request-Id: mine"))[1]["X-Request-Id"] == "mine"
            assert ask(sock, request(body, "X-Request-Timeout-Ms: 0"))[0] == 400
            assert ask(sock, request(body, "Accept-Encoding: gzip"))[0] == 200
            assert ask(sock, request(body, path="/predict/double?version=9"))[0] == 404
            assert ask(sock, request(body, path="/predict/none"))[0] == 404
        sock.close()


def test_a_key_that_was_taken_away_opens_nothing_though_it_did_before(keys: dict[str, Any]) -> None:
    with fake_http_server([{"name": "double"}], fronts=1, **keys) as server:
        sock = connect(server)
        known = request(b'{"features": [1.5]}', f"Authorization: {BEARER}{KEY}")
        assert [ask(sock, known)[0] for _ in range(5)] == [200] * 5
        Path(keys["api_key_file"]).write_text("another-key-of-more-than-32-characters\n")
        server.signal(signal.SIGHUP)
        wait_until(lambda: ask(sock, known)[0] == 401, SOON_S, "the key is refused")
        assert [ask(sock, known)[0] for _ in range(5)] == [401] * 5
        sock.close()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    disk = Disk(tmp_path)
    disk.put(MODEL, 1, factor=1)
    return disk


def served_by(server: Server, sock: socket.socket) -> str:
    status, _, body = ask(sock, request(b'{"features": [1.0]}', path=f"/predict/{MODEL}"))
    assert status == 200, body
    return str(body["model_version"])


def test_a_new_version_answers_the_header_that_the_old_one_answered(disk: Disk) -> None:
    with faulty_server([], model_dir=str(disk.root), reload_settle_s=0.1, fronts=1) as server:
        sock = connect(server)
        assert [served_by(server, sock) for _ in range(5)] == ["1"] * 5
        disk.put(MODEL, 2, factor=2)
        wait_until(lambda: served_by(server, sock) == "2", SOON_S, "version 2 answers")
        assert [served_by(server, sock) for _ in range(5)] == ["2"] * 5
        sock.close()


def test_a_share_goes_to_the_canary_however_often_the_same_header_comes(disk: Disk) -> None:
    disk.put(MODEL, 2, factor=2)
    disk.say(MODEL, "versions.json", labels={"stable": 1, "trial": 2}, canary={"to": "trial", "share": 0.5})
    with faulty_server([], model_dir=str(disk.root), fronts=1) as server:
        sock = connect(server)
        found = Counter(served_by(server, sock) for _ in range(200))
        assert found.keys() == {"1", "2"}
        assert min(found.values()) > 40  # of 100; eight standard deviations
        sock.close()
