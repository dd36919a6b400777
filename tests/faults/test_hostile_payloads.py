"""Bodies made to hurt, through a whole server over HTTP: rows 29 and 30, and what one request may cost everybody."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from PIL import Image

from tests.faults.asking import LEAKS, Reply, connect, get, post, predict, trouble_of
from tests.faults.base import back_to_base, faulty_server
from tests.faults.front_load import others_wait, spent
from tests.faults.json_corpus import ENCODED, INVALID, NAUGHTY, TWICE, VALID
from tests.harness import Server
from tests.models.image_corpus import (
    SIGNATURE,
    animation,
    chunk,
    exif,
    flat_png,
    gif_frame,
    photo,
    save,
    webp_with_size,
)
from tests.models.image_corpus import header as png_header

LEVEL = 90  # the class of a grey picture is its brightness
MODELS: list[dict[str, Any]] = [
    {"name": "double"},
    {"name": "pair", "size": 2, "narrow": {"fields": [{"name": "feature1"}, {"name": "feature2"}]}},
    {"name": "picture", "shape": [8, 8, 1], "kind": "scores", "classes": 256, "narrow": {
        "image": {"input": "x", "width": 8, "height": 8, "colour": "grey", "scale": 1.0},
    }},
]  # fmt: skip
HEADERS = (
    "X-Request-Id", "X-Request-Timeout-Ms", "Content-Type", "Cookie", "Authorization", "Accept", "Content-Encoding",
    "X-Forwarded-Host", "User-Agent",
)  # fmt: skip
JSON_BYTES = 8 * 1024 * 1024
Figure = Callable[[int, str, str], None]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with faulty_server(MODELS, predict_timeout_ms=20_000) as running:
        assert predict(running.url, 1.0, "double").status == 200
        with ThreadPoolExecutor(8) as clients:  # every decoding thread has begun
            assert all(clients.map(lambda _: classify(running, GOOD["25 million pixels"], "").status == 200, range(8)))
        with back_to_base(running):
            yield running
            workers = running.children("worker")
            assert predict(running.url, 2.0, "double").json["prediction"] == 4.0
            assert running.children("worker") == workers
        assert "Traceback" not in running.log


def refused(reply: Reply, *statuses: int) -> str:
    """The message of a refusal that is as promised."""
    assert reply.status in statuses, reply
    assert trouble_of(reply.status, reply.headers, reply.body) == ""
    return str(reply.json["message"])


def must_be(reply: Reply, status: int) -> None:
    """Hold an answer to its status, and a refusal to what all promise."""
    if status == 200:
        assert reply.status == 200, reply
    else:
        refused(reply, status)


class Cost(NamedTuple):
    """What one request cost its front, and how long others waited meanwhile."""

    cpu_ms: float
    loop_ms: float
    wait_ms: float
    peak_mib: float


def measured(server: Server, ask: Callable[[], None], times: int) -> Cost:
    """The least of several: the rest is what else the machine had to do."""
    costs = []
    for _ in range(times):
        with others_wait(server) as waits, spent(server) as cost:
            ask()
        costs.append((cost.cpu_ms, cost.loop_ms, max(waits, default=0.0) * 1000, cost.peak_mib))
    return Cost(*map(min, zip(*costs, strict=True)))


def say(figure: Figure, row: int, name: str, cost: Cost, goal: Cost) -> None:
    """The figure beside its goal. What is over the goal, but within the bound that the test asserts, says so itself:
    "passed" is about the test.
    """
    over = [field for field, value, limit in zip(Cost._fields, cost, goal, strict=True) if value > limit]
    figure(
        row,
        f"<= {goal.cpu_ms:.0f} ms CPU, others wait <= {goal.wait_ms:.0f} ms, <= +{goal.peak_mib:.0f} MiB",
        f"{name}: {cost.cpu_ms:.1f} ms CPU ({cost.loop_ms:.1f} in the loop), others waited {cost.wait_ms:.0f} ms, "
        f"+{cost.peak_mib:.0f} MiB" + (f"; OVER THE GOAL: {', '.join(over)}" if over else ""),
    )


GOAL = Cost(cpu_ms=250, loop_ms=float("inf"), wait_ms=100, peak_mib=100)
TIGHT = GOAL._replace(cpu_ms=50)


# -- JSON --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INVALID)
def test_what_is_no_json_is_refused(server: Server, name: str) -> None:
    for body in (INVALID[name], b'{"features":[1.5],"more":' + INVALID[name] + b"}", b'{"features":[' + INVALID[name]):
        refused(post(server.url, "/predict/double", body), 400)


@pytest.mark.parametrize("name", VALID)
def test_json_is_read_however_odd_it_looks(server: Server, name: str) -> None:
    """It is refused for the key that nobody asked for, and for nothing else."""
    body = b'{"features":[1.5],"more":' + VALID[name] + b"}"
    assert "more" in refused(post(server.url, "/predict/double", body), 400)


@pytest.mark.parametrize("body", (TWICE | ENCODED).values(), ids=(TWICE | ENCODED).keys())
def test_keys_given_twice_and_other_encodings_are_refused(server: Server, body: bytes) -> None:
    message = refused(post(server.url, "/predict/double", body), 400)
    if body in TWICE.values():
        assert "twice" in message
    refused(post(server.url, "/feedback", body), 400, 413)
    refused(post(server.url, "/classify/picture", body), 400, 415)


def bomb(unit: bytes, size: int, *, begin: bytes = b'{"instances":[', end: bytes = b"1]}") -> bytes:
    return begin + unit * ((size - len(begin) - len(end)) // len(unit)) + end


MANY_KEYS = b"{" + b",".join(b'"%d":1' % n for n in range(700_000)) + b"}"
BOMBS = {
    "100,000 lists deep": ("/predict/double", b"[" * 100_000, 400),
    "100,000 objects deep": ("/predict/double", b'{"a":' * 100_000, 400),
    "4 MB of []": ("/predict/double", bomb(b"[],", 4_000_000), 413),
    "4 MB of {}": ("/predict/pair", bomb(b"{},", 4_000_000), 413),
    "199,000 of []": ("/predict/double", bomb(b"[],", 597_000), 400),
    "700,000 keys": ("/predict/double", MANY_KEYS, 413),
    "700,000 keys, one twice": ("/predict/double", MANY_KEYS[:-1] + b',"77":1}', 413),
    "one key 1,000,000 times": ("/predict/double", bomb(b'"a":1,', JSON_BYTES, begin=b"{", end=b'"a":1}'), 413),
    "8 MB of digits": ("/predict/double", bomb(b"9", JSON_BYTES), 400),
    "8 MB of colons": ("/predict/double", bomb(b":", JSON_BYTES, begin=b'{"x":"', end=b'"}'), 400),
    "8 MB of escaped colons": ("/predict/double", bomb(rb"\u003a", JSON_BYTES, begin=b'{"x":"', end=b'"}'), 400),
    "8 MB of backslashes": ("/predict/double", bomb(rb"\\", JSON_BYTES, begin=b'{"x":"', end=b'"}'), 400),
    "8 MB of blanks": ("/predict/double", b" " * JSON_BYTES, 400),
    "8 MB of line ends": ("/predict/double", b"\n" * (JSON_BYTES - 1) + b"x", 400),
    "8 MB of null": ("/predict/double", bomb(b"null,", JSON_BYTES), 400),
    "8 MB of strings": ("/predict/double", bomb(b'"",', JSON_BYTES), 400),
    "8 MB of numbers in one row": ("/predict/double", bomb(b"1,", JSON_BYTES, begin=b'{"features":['), 400),
    "8 MB of bad UTF-8": ("/predict/double", b'{"x":"' + b"a" * (JSON_BYTES - 10) + b'\xff"}', 400),
    "1,200,000 pictures": ("/classify/picture", bomb(b'"aGFs",', JSON_BYTES, end=b'""]}'), 413),
    "8 MB for /feedback": ("/feedback", bomb(b"a", JSON_BYTES, begin=b'{"label":"', end=b'"}'), 413),
    "1 byte too many": ("/predict/double", b" " * (JSON_BYTES + 1), 413),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_json_bomb_costs_little_and_nobody_waits_for_it(server: Server, name: str, figure: Figure) -> None:
    path, body, status = BOMBS[name]
    goal = TIGHT if "deep" in name else GOAL
    cost = measured(server, lambda: must_be(post(server.url, path, body), status), 3)
    say(figure, 29, name, cost, goal)
    assert cost.cpu_ms < (50 if goal is TIGHT else 1000)
    assert cost.wait_ms < 1000


# -- strings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", NAUGHTY, ids=lambda text: ascii(text)[:40])
def test_a_naughty_string_is_taken_for_a_string_wherever_it_stands(server: Server, text: str) -> None:
    written = len(server.log)
    raw = text.encode("utf-8")
    in_header = bytes(byte for byte in raw if byte not in b"\r\n\0")
    replies = [
        get(server.url, f"/{quote(text, safe='')}"),
        get(server.url, f"/models/{quote(text, safe='')}"),
        get(server.url, f"/models/double?version={quote(text, safe='')}"),
        get(server.url, f"/models/double?{quote(text, safe='')}={quote(text, safe='')}"),
        post(server.url, f"/predict/{quote(text, safe='')}", {"features": [1]}),
        post(server.url, "/predict/double", {"features": [text]}),
        post(server.url, "/predict/double", {"features": [1], text: 1}),
        post(server.url, "/predict/double", {text: text}),
        post(server.url, "/predict/double", raw),
        post(server.url, "/classify/picture", {"image": text}),
        post(server.url, "/classify/picture", f"image={quote(text, safe='')}".encode()),
        post(server.url, f"/classify/picture?top={quote(text, safe='')}", grey()),
        post(server.url, "/feedback", {"request_id": text, "label": text}),
        *(in_headers(server, name, in_header) for name in HEADERS),
    ]  # fmt: skip
    for reply in replies:
        assert reply.status in (200, 400, 404, 413, 415, 501), reply
        trouble = "" if reply.status == 200 else trouble_of(reply.status, reply.headers, reply.body)
        assert not trouble or LEAKS.search(text), "it may repeat what it was sent, and nothing else of the kind"
        assert "set-cookie" not in reply.headers
    assert len(server.log) == written, "nobody can write to the log by asking"


def in_headers(server: Server, name: str, value: bytes) -> Reply:
    """The answer to a request with such a header, which http.client would refuse to send."""
    body = b'{"features":[1]}'
    head = f"POST /predict/double HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    with connect(server.url) as sock:
        sock.sendall(head.encode() + name.encode() + b": " + value + b"\r\n\r\n" + body)
        with sock.makefile("rb") as answer:
            status, *lines = answer.read().partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    headers = {key.lower(): text for key, _, text in (line.partition(": ") for line in lines)}
    code = int(status.split()[1])
    names = {200: "", 400: "BAD_INPUT", 415: "UNSUPPORTED_MEDIA_TYPE"}
    told = {"ok": code == 200, "error": names.get(code), "message": "", "request_id": ""}
    return Reply(code, headers, json.dumps(told).encode() if code in names else b"")


# -- pictures ----------------------------------------------------------------------------------------------------------


def grey(kind: str = "PNG", size: tuple[int, int] = (16, 12), mode: str = "L", **options: object) -> bytes:
    return save(Image.new("L", size, LEVEL).convert(mode), kind, **options)


def classify(server: Server, body: bytes, content_type: str) -> Reply:
    return post(server.url, "/classify/picture", body, **({"Content_Type": content_type} if content_type else {}))


GOOD = {
    "grey": grey(),
    "16 bit": save(Image.new("I;16", (16, 12), LEVEL * 257), "PNG"),
    "1 pixel": grey(size=(1, 1)),
    "palette": grey(mode="P"),
    "alpha": grey(mode="LA"),
    "CMYK": grey("JPEG", mode="CMYK"),
    "rotated": grey("JPEG", exif=exif(6)),
    "progressive": grey("JPEG", progressive=True),
    "animated GIF": grey("GIF", save_all=True, append_images=[Image.new("L", (16, 12), 200)]),
    "animated PNG": grey("PNG", save_all=True, append_images=[Image.new("L", (16, 12), 200)]),
    "animated WEBP": grey(
        "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (16, 12), (9, 9, 9))], mode="RGB"
    ),
    "BMP": grey("BMP"),
    "25 million pixels": flat_png(5000, 5000, 8, 0, 5000),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_picture_of_every_kind_is_what_it_shows(server: Server, name: str, figure: Figure) -> None:
    with spent(server) as cost:
        reply = classify(server, GOOD[name], "")
    assert reply.status == 200, reply
    off = abs(reply.json["predicted_class"] - (0 if "million" in name else LEVEL))
    figure(30, "within 2/255, <= +100 MiB", f"{name}: off by {off}, {cost.cpu_ms:.0f} ms CPU, +{cost.peak_mib:.0f} MiB")
    assert off <= 2
    assert cost.peak_mib <= 150


UNFOLDED = (
    SIGNATURE
    + png_header(8000, 8000, 8, 2)
    + chunk(b"IDAT", zlib.compress(bytes(8000 * 24_001), 9))
    + chunk(b"IEND", b"")
)
PHOTO = photo(200, 200)
BAD = {
    "187 KB that unfold to 191 MB": (UNFOLDED, 413),
    "60,000 x 60,000 PNG": (
        SIGNATURE + png_header(60_000, 60_000, 8, 2) + chunk(b"IDAT", b"") + chunk(b"IEND", b""),
        413,
    ),
    "30,000 x 30,000 BMP": (grey("BMP")[:18] + (30_000).to_bytes(4, "little") * 2 + grey("BMP")[26:], 413),
    "65,535 x 65,535 GIF": (grey("GIF")[:6] + b"\xff" * 4 + grey("GIF")[10:], 413),
    "16,383 x 16,383 WEBP": (webp_with_size(16_383, 16_383), 413),
    "0 x 0": (SIGNATURE + png_header(0, 0, 8, 2) + chunk(b"IDAT", b"") + chunk(b"IEND", b""), 400),
    "a PNG cut short": (save(PHOTO, "PNG")[:-30], 400),
    "a JPEG cut short": (save(PHOTO, "JPEG")[:40], 400),
    "a WEBP cut short": (save(PHOTO, "WEBP")[:60], 400),
    "a changed byte": (save(PHOTO, "PNG")[:100] + b"\0" + save(PHOTO, "PNG")[101:], 400),
    "16 MB of chunks": (SIGNATURE + png_header(4, 4, 8, 2) + chunk(b"tEXt", b"") * 1_300_000, 400),
    "32 MB of JPEG padding": (save(PHOTO, "JPEG")[:2] + b"\xff" * 32_000_000, 400),
    "16 MB of GIF comment": (grey("GIF")[: gif_frame(grey("GIF"))] + b"!\xfe" + b"\1a" * 8_000_000, 400),
    "TIFF": (grey("TIFF"), 415),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(40), 415),
    "a PDF": (b"%PDF-1.7\n" + bytes(100), 400),
    "a ZIP": (b"PK\x03\x04" + bytes(100), 400),
    "HTML": (b"<html><script>", 400),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', 400),
    "nothing": (b"", 400),
    "60 MB of zeros": (bytes(60_000_000), 400),
    "a form of 60 MB of &": (b"&" * 60_000_000, 400),
    "a form of 20 million escapes": (b"image=" + b"%41" * 20_000_000, 400),
}


@pytest.mark.parametrize("name", BAD)
def test_a_picture_that_is_none_is_refused_at_little_cost(server: Server, name: str, figure: Figure) -> None:
    body, status = BAD[name]
    content_type = "image/png" if status == 415 else ""
    goal = TIGHT if "unfold" in name else GOAL
    is_small = len(body) < 1 << 20
    cost = measured(server, lambda: must_be(classify(server, body, content_type), status), 3 if is_small else 1)
    say(figure, 30, name, cost, goal)
    assert cost.cpu_ms < (50 if goal is TIGHT else 5000)
    assert cost.peak_mib < 100 or not is_small


@pytest.mark.parametrize("name", ["many parts", "many headers", "line ends", "no end", "no name", "two pictures"])
def test_a_form_made_to_hurt_is_refused_at_little_cost(server: Server, name: str, figure: Figure) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
    picture = part % b"image" + grey() + b"\r\n"
    body, status = {
        "many parts": ((part % b"a" + b"\r\n") * 1_000_000 + b"--x--\r\n", 400),
        "many headers": (b"--x\r\n" + b"A: b\r\n" * 9_000_000 + b"\r\n--x--\r\n", 400),
        "line ends": (part % b"image" + b"\r\n" * 25_000_000 + b"--x--\r\n", 400),
        "no end": (part % b"image" + b"-" * 50_000_000, 400),
        "no name": (b"--x\r\n\r\n" + grey() + b"\r\n--x--\r\n", 400),
        "two pictures": ((picture + picture + b"--x--\r\n").replace(b'"image"', b'"image"; filename="a"'), 200),
    }[name]
    content_type = 'multipart/form-data; boundary="x"'
    cost = measured(server, lambda: must_be(classify(server, body, content_type), status), 1)
    say(figure, 30, f"form, {name}", cost, GOAL)
    assert cost.cpu_ms < 5000


def test_pictures_as_base64_are_refused_like_others(server: Server) -> None:
    for name in ("187 KB that unfold to 191 MB", "a PNG cut short", "TIFF", "0 x 0"):
        body, status = BAD[name]
        text = base64.b64encode(body).decode()
        for value in ({"image": text}, {"instances": [{"image": text}]}):
            refused(post(server.url, "/classify/picture", value), status)


def test_an_animation_cut_short_is_refused(server: Server) -> None:
    refused(classify(server, animation("GIF")[:20], ""), 400)
