"""A corpus of bytes, good and bad, against a whole server: each is answered as it must be, and nothing behind bad bytes
is ever run. After the ideas of the public suites (h1spec, gunicorn's and llhttp's invalid requests, request smuggling).
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from front.heads import Heads
from front.parser import Parser
from tests.harness import SOON_S, Server, fake_http_server

BODY = b'{"features": [1.5]}'
GET, POST = b"GET /health HTTP/1.1\r\n", b"POST /predict HTTP/1.1\r\n"
HOST = b"Host: h\r\n"
CHUNKED = POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
# What a smuggler hopes to have run. Its answer would be a second one.
SECOND = POST + HOST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY

BAD: dict[str, tuple[bytes, int]] = {
    # the request line
    "no version": (b"GET /health \r\n\r\n", 400),
    "HTTP/0.9": (b"GET /health\r\n\r\n", 400),
    "HTTP/9.9": (b"GET /health HTTP/9.9\r\n" + HOST + b"\r\n", 505),
    "HTTP/1.2": (b"GET /health HTTP/1.2\r\n" + HOST + b"\r\n", 505),
    "HTTP/2.0": (b"GET /health HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "two digits": (b"GET /health HTTP/1.10\r\n" + HOST + b"\r\n", 400),
    "no dot": (b"GET /health HTTP/11\r\n" + HOST + b"\r\n", 400),
    "lower case version": (b"GET /health http/1.1\r\n" + HOST + b"\r\n", 400),
    "space after the version": (b"GET /health HTTP/1.1 \r\n" + HOST + b"\r\n", 400),
    "words before the method": (b"Extra lineGET /health HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "lower case method": (b"get /health HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "method with a bracket": (b"GE(T /health HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "endless method": (b"G" * 33 + b" /health HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "two spaces": (b"GET  /health HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a tab": (b"GET\t/health HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a space in the target": (b"GET /he alth HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a fragment": (b"GET /health#part HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "raw bytes in the target": (b"GET /h\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "NUL in the target": (b"GET /\x00 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no slash": (b"GET health HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "an asterisk for GET": (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "CONNECT": (b"CONNECT h:443 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "another scheme": (b"GET file:///etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a target without a host": (b"GET http:///health HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a target with a user": (b"GET http://a@h/health HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "only line feeds": (b"GET /health HTTP/1.1\nHost: h\n\n", 400),
    "a line feed in the header": (GET + b"Host: h\nX: y\r\n\r\n", 400),
    "a carriage return in the header": (GET + HOST + b"X: a\rY: b\r\n\r\n", 400),
    "a stray carriage return": (GET + HOST + b"\rX: y\r\n\r\n", 400),
    "a space before the request": (b" " + GET + HOST + b"\r\n", 400),
    "a line feed before the request": (b"\n" + GET + HOST + b"\r\n", 400),
    # header fields
    "a name with brackets": (GET + HOST + b"X-Invalid[]: test\r\n\r\n", 400),
    "a name with a space": (GET + HOST + b"X Y: test\r\n\r\n", 400),
    "a space before the colon": (GET + HOST + b"X : test\r\n\r\n", 400),
    "no name": (GET + HOST + b": test\r\n\r\n", 400),
    "no colon": (GET + HOST + b"X\r\n\r\n", 400),
    "a folded line": (GET + HOST + b"X: a\r\n b\r\n\r\n", 400),
    "a folded first line": (GET + b" X: a\r\n" + HOST + b"\r\n", 400),
    "NUL in a name": (GET + HOST + b"X\x00: a\r\n\r\n", 400),
    "NUL in a value": (GET + HOST + b"X: a\x00\r\n\r\n", 400),
    "BEL in a value": (GET + HOST + b"X: a\x07\r\n\r\n", 400),
    "DEL in a value": (GET + HOST + b"X: a\x7f\r\n\r\n", 400),
    "raw bytes in a name": (GET + HOST + b"X\xe9: a\r\n\r\n", 400),
    "too long a header": (GET + HOST + b"X: " + b"x" * 33_000, 431),
    "too many fields": (GET + HOST + b"X: y\r\n" * 200 + b"\r\n", 431),
    "too long a request line": (b"GET /" + b"x" * 33_000, 431),
    # Host
    "no Host": (GET + b"\r\n", 400),
    "two Hosts": (GET + HOST + HOST + b"\r\n", 400),
    "two Hosts in any case": (GET + HOST + b"hOST: i\r\n\r\n", 400),
    "an empty Host": (GET + b"Host:\r\n\r\n", 400),
    "a list of Hosts": (GET + b"Host: a, b\r\n\r\n", 400),
    "a Host with a path": (GET + b"Host: h/x\r\n\r\n", 400),
    "a Host with a user": (GET + b"Host: a@h\r\n\r\n", 400),
    "a Host with a bad port": (GET + b"Host: h:x\r\n\r\n", 400),
    # Content-Length
    "a negative length": (POST + HOST + b"Content-Length: -1\r\n\r\n", 400),
    "an overflowing length": (POST + HOST + b"Content-Length: -123456789123456789123456789\r\n\r\n", 400),
    "a length in words": (POST + HOST + b"Content-Length: abc\r\n\r\n", 400),
    "an empty length": (POST + HOST + b"Content-Length:\r\n\r\n", 400),
    "a signed length": (POST + HOST + b"Content-Length: +19\r\n\r\n" + BODY, 400),
    "a length with an underscore": (POST + HOST + b"Content-Length: 1_9\r\n\r\n" + BODY, 400),
    "a length with a space": (POST + HOST + b"Content-Length: 1 9\r\n\r\n" + BODY, 400),
    "a length of another script": (POST + HOST + b"Content-Length: \xb2\r\n\r\n" + BODY, 400),
    "5,000 digits": (POST + HOST + b"Content-Length: " + b"1" * 5000 + b"\r\n\r\n", 400),
    "two lengths": (POST + HOST + b"Content-Length: 19\r\nContent-Length: 19\r\n\r\n" + BODY, 400),
    "a list of lengths": (POST + HOST + b"Content-Length: 19, 19\r\n\r\n" + BODY, 400),
    "too long a body": (POST + HOST + b"Content-Length: 100001\r\n\r\n", 413),
    "too long a body, asked first": (POST + HOST + b"Expect: 100-continue\r\nContent-Length: 100001\r\n\r\n", 413),
    "two types": (POST + HOST + b"Content-Type: a/b\r\nContent-Type: a/b\r\n\r\n", 400),
    # Transfer-Encoding
    "length and coding": (CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "coding in HTTP/1.0": (CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n", 400),
    "two codings": (CHUNKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (CHUNKED.replace(b"chunked", b"chunked, chunked") + b"0\r\n\r\n", 400),
    "gzip": (CHUNKED.replace(b"chunked", b"gzip") + b"0\r\n\r\n", 501),
    "gzip and chunked": (CHUNKED.replace(b"chunked", b"gzip, chunked") + b"0\r\n\r\n", 501),
    "chunked and identity": (CHUNKED.replace(b"chunked", b"chunked, identity") + b"0\r\n\r\n", 501),
    "an empty coding": (CHUNKED.replace(b"chunked", b"") + b"0\r\n\r\n", 400),
    "a comma before": (CHUNKED.replace(b"chunked", b", chunked") + b"0\r\n\r\n", 400),
    "a quoted coding": (CHUNKED.replace(b"chunked", b'"chunked"') + b"0\r\n\r\n", 501),
    "a vertical tab before": (CHUNKED.replace(b" chunked", b"\x0bchunked") + b"0\r\n\r\n", 400),
    "a coding with a parameter": (CHUNKED.replace(b"chunked", b"chunked;a=b") + b"0\r\n\r\n", 501),
    # chunks
    "no size": (CHUNKED + b"\r\n0\r\n\r\n", 400),
    "a size that is none": (CHUNKED + b"xyz\r\n", 400),
    "a negative size": (CHUNKED + b"-1\r\n", 400),
    "a prefixed size": (CHUNKED + b"0x13\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    "a space after the size": (CHUNKED + b"13 \r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    "a line feed after the size": (CHUNKED + b"13\n" + BODY + b"\r\n0\r\n\r\n", 400),
    "a line feed in an extension": (CHUNKED + b"13;a\n" + BODY + b"\r\n0\r\n\r\n", 400),
    "a carriage return in an extension": (CHUNKED + b"13;a\rb\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    "too large a size": (CHUNKED + b"fffffffffffffffff\r\n", 400),
    "too large a chunk": (CHUNKED + b"186a1\r\n", 413),
    "too short a chunk": (CHUNKED + b"14\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    "too long a chunk": (CHUNKED + b"12\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    "a chunk ended by a line feed": (CHUNKED + b"13\r\n" + BODY + b"\n0\r\n\r\n", 400),
    "a malformed trailer": (CHUNKED + b"13\r\n" + BODY + b"\r\n0\r\nno colon\r\n\r\n", 400),
    "a trailer with a line feed": (CHUNKED + b"13\r\n" + BODY + b"\r\n0\r\na: b\nc: d\r\n\r\n", 400),
}  # fmt: skip

# What must be served, status by status.
GOOD: dict[str, tuple[bytes, list[int]]] = {
    "plain": (GET + HOST + b"\r\n", [200]),
    "no Host in HTTP/1.0": (b"GET /health HTTP/1.0\r\n\r\n", [200]),
    "odd case, a tab, an empty value": (GET + b"hoSt:\texample.com\r\nempty:\r\n\r\n", [200]),
    "a value of spaces": (GET + HOST + b"X-Empty:  \t \r\n\r\n", [200]),
    "raw bytes in a value": (GET + HOST + b"X: \xe9\xff\r\n\r\n", [200]),
    "Expect without a body": (GET + HOST + b"Expect: 100-continue\r\n\r\n", [200]),
    "Expect with its body": (SECOND.replace(HOST, HOST + b"Expect: 100-continue\r\n"), [200]),
    "empty lines before": (b"\r\n\r\n" + GET + HOST + b"\r\n", [200]),
    "an empty line between": (SECOND + b"\r\n" + GET + HOST + b"\r\n", [200, 200]),
    "an absolute target": (b"GET http://h/health?a=b HTTP/1.1\r\nHost: i\r\n\r\n", [200]),
    "an absolute target without a path": (b"GET http://h HTTP/1.1\r\nHost: h\r\n\r\n", [200]),
    "an IPv6 Host": (GET + b"Host: [::1]:8080\r\n\r\n", [200]),
    "OPTIONS of all": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", [404]),
    "OPTIONS of a route": (b"OPTIONS /predict HTTP/1.1\r\n" + HOST + b"\r\n", [405]),
    "another method": (b"BREW /health HTTP/1.1\r\n" + HOST + b"\r\n", [405]),
    "percent signs": (b"GET /%68ealth HTTP/1.1\r\n" + HOST + b"\r\n", [200]),
    "broken percent signs": (b"GET /%zz%00 HTTP/1.1\r\n" + HOST + b"\r\n", [404]),
    "a length of zero": (POST + HOST + b"Content-Length: 0\r\n\r\n", [400]),
    "a length with zeros": (SECOND.replace(b": 19", b": 0019"), [200]),
    "a body for GET": (GET + HOST + b"Content-Length: 5\r\n\r\nhello", [200]),
    "a name with an underscore is no length": (GET + HOST + b"Content_Length: 50\r\n\r\n", [200]),
    "chunks": (CHUNKED + b"5\r\n" + BODY[:5] + b"\r\nE\r\n" + BODY[5:] + b"\r\n0\r\n\r\n", [200]),
    "chunks in any case": (CHUNKED.replace(b"chunked", b"CHUNKED") + b"13\r\n" + BODY + b"\r\n0\r\n\r\n", [200]),
    "extensions": (CHUNKED + b'13;a=b ;c="d e"\r\n' + BODY + b"\r\n0;e\r\n\r\n", [200]),
    "a trailer": (CHUNKED + b"13\r\n" + BODY + b"\r\n0\r\na: b\r\nc: d\r\n\r\n", [200]),
    "five in a row": ((SECOND + GET + HOST + b"\r\n") * 2 + SECOND, [200] * 5),
    "close among others": (GET + HOST + b"Connection: TE, Close\r\n\r\n" + SECOND, [200]),
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with fake_http_server([{"name": "double"}], max_body_bytes=100_000, allowed_hosts="*") as running:
        yield running


def exchange(server: Server, data: bytes, most: int | None = None) -> list[tuple[int, bytes]]:
    """(status, body) of all answers until the server closes, or until there are `most`."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), SOON_S) as sock:
        sock.sendall(data)
        answers = []
        received = b""
        while True:
            while (end := received.find(b"\r\n\r\n")) >= 0:
                head, rest = received[:end], received[end + 4 :]
                status = int(head.split()[1])
                found = re.search(rb"Content-Length: (\d+)", head)
                length = int(found.group(1)) if found else 0
                if len(rest) < length:
                    break
                if status != 100:
                    answers.append((status, rest[:length]))
                received = rest[length:]
            piece = sock.recv(65536) if most is None or len(answers) < most else b""
            if not piece:
                assert received == b""
                return answers
            received += piece


def rows(server: Server) -> float:
    """How many rows the model has had."""
    ((_, body),) = exchange(server, b"GET /metrics HTTP/1.0\r\n\r\n")
    return sum(
        float(line.split()[-1]) for line in body.decode().splitlines() if line.startswith("inference_rows_total")
    )


@pytest.mark.parametrize("name", BAD)
def test_bad_bytes_are_refused_once_and_nothing_behind_them_is_run(server: Server, name: str) -> None:
    data, expected = BAD[name]
    before = rows(server)
    ((status, body),) = exchange(server, data + SECOND)
    assert status == expected
    told = json.loads(body)
    assert told["ok"] is False
    assert told["message"].startswith("the HTTP request cannot be accepted: ")
    assert rows(server) == before


@pytest.mark.parametrize("name", GOOD)
def test_good_bytes_are_served(server: Server, name: str) -> None:
    data, expected = GOOD[name]
    closes = b"Close" in data or b"HTTP/1.0" in data
    assert [status for status, _ in exchange(server, data, None if closes else len(expected))] == expected


# Begun and not ended: nothing is said, and nothing is closed.
WHOLE = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r"


@pytest.mark.parametrize("end", range(1, len(WHOLE) + 1))
def test_the_beginning_of_a_request_is_waited_for(end: int) -> None:
    parser = Parser(HEADS)
    assert parser.received(WHOLE[:end]) == end
    assert parser.begun
    assert not parser.completed


HEADS = Heads(header_bytes_max=32 * 1024, body_bytes_max=100_000, server={})


def outcomes(pieces: list[bytes]) -> list[tuple[object, ...]]:
    """What the requests in a stream of pieces come to, up to the first that is refused."""
    found: list[tuple[object, ...]] = []
    parser = Parser(HEADS)
    for piece in pieces:
        data = piece
        while data:
            data = data[parser.received(data) :]
            if parser.completed:
                if parser.error is not None:
                    return [*found, (parser.error.code, parser.error.body)]
                environ = parser.environ()
                words = {name: value for name, value in environ.items() if isinstance(value, str)}
                found.append((parser.command, environ["PATH_INFO"], words, environ["wsgi.input"].read()))
                parser.close()
                parser = Parser(HEADS)
    parser.close()
    return found


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from([data for data, _ in [*BAD.values(), *GOOD.values()] if len(data) < 1000]), max_size=3),
    st.data(),
)
def test_how_bytes_are_cut_into_pieces_changes_nothing(stream: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected = outcomes([whole])
    got = outcomes(pieces)
    # In pieces a refusal may come earlier, and so for another of several reasons; what is served is the same.
    served = [one for one in expected if len(one) == 4]
    assert [one for one in got if len(one) == 4] == served
    assert len(got) >= len(expected)


@given(st.binary(max_size=400))
def test_no_bytes_make_the_parser_fail(data: bytes) -> None:
    outcomes([data])
    outcomes([CHUNKED + data])
    outcomes([GET + data])


def test_a_header_is_kept_from_the_second_time_on_but_none_with_a_secret() -> None:
    heads = Heads(header_bytes_max=32 * 1024, body_bytes_max=100, server={})
    plain = b"GET / HTTP/1.1\r\nHost: localhost"
    for number in range(3):
        assert len(heads.known) == (number > 1)
        heads.take(plain)
    for secret in (b"Authorization: Bearer x", b"authorization: Basic x", b"Cookie: a=b", b"Proxy-Authorization: x"):
        for _ in range(3):
            heads.take(plain + b"\r\n" + secret)
    assert [*heads.known] == [plain]


def test_what_is_kept_of_headers_is_bounded() -> None:
    heads = Heads(header_bytes_max=32 * 1024, body_bytes_max=100, server={})
    for number in range(6000):
        block = b"GET /%d HTTP/1.1\r\nHost: localhost" % number
        heads.take(block)
        heads.take(block)
    assert len(heads.known) <= 512
    for _ in range(2):
        heads.take(b"GET /%b HTTP/1.1\r\nHost: localhost" % (b"x" * 3000))
    assert all(len(block) < 2100 for block in heads.known)
