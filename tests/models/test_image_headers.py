"""Pictures in other formats, too large, damaged, cut short or malicious: a plain error, soon and in little memory."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from models.contract import Image
from models.errors import BadInput, ModelsError, TooLarge, UnsupportedMedia
from models.image_headers import orientation_of
from models.images import decode, sniff
from tests.models import image_corpus as corpus
from tests.models.image_corpus import HEIGHT, WIDTH, Pixels, chunk, photo, png, save

PICTURES = corpus.of_every_kind()
QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def wanted(size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image:
    return Image(input="pixels", width=size[0], height=size[1])


def read(data: bytes, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Pixels:
    return decode(data, wanted(size), max_pixels=25_000_000)


# ---- names ----


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello, this is text and no picture at all", "not a picture in a known format"),
        (b"\x89PNG\r\n\x1a", "not a picture in a known format"),
        (b"GIF88a" + bytes(40), "not a picture in a known format"),
        (b"BM, said the text, and went on for a while", "not a picture in a known format"),
        (save(photo(), "TIFF"), "TIFF pictures are not accepted"),
        (b"\0\0\0\x1cftypavif" + bytes(20), "AVIF pictures are not accepted"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC pictures are not accepted"),
    ],
    ids=["text", "half a signature", "gif of no version", "text like bmp", "tiff", "avif", "heic"],
)
def test_other_formats_are_unsupported_and_named(data: bytes, message: str) -> None:
    with pytest.raises(UnsupportedMedia, match=f"{message}.*; send PNG, JPEG, GIF, BMP or WEBP"):
        read(data)


@pytest.mark.parametrize("name", PICTURES)
def test_sniff_names_the_format(name: str) -> None:
    assert sniff(PICTURES[name]) == name.split(maxsplit=1)[0].upper().replace("APNG", "PNG")


def test_sniff_knows_what_is_no_picture() -> None:
    assert sniff(b"") is sniff(b"%PDF-1.7") is sniff(b'{"image": "..."}') is None


def with_frame(marker: int, bits: int = 8) -> bytes:
    data = PICTURES["jpeg 4:2:0"]
    at = data.index(b"\xff\xc0")
    return data[: at + 1] + bytes([marker]) + data[at + 2 : at + 4] + bytes([bits]) + data[at + 5 :]


def test_the_jpeg_of_the_next_test_is_whole() -> None:
    assert np.array_equal(read(with_frame(0xC0)), read(PICTURES["jpeg 4:2:0"]))


@pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xC7, 0xC9, 0xCA, 0xCB, 0xCF], ids=hex)
def test_a_jpeg_that_browsers_do_not_read_is_unsupported(marker: int) -> None:
    with pytest.raises(UnsupportedMedia, match="baseline or progressive"):
        read(with_frame(marker))


def test_a_jpeg_of_12_bits_is_unsupported() -> None:
    with pytest.raises(UnsupportedMedia, match="8 bits"):
        read(with_frame(0xC1, bits=12))


def test_run_length_bmp_is_unsupported() -> None:
    data = bytearray(PICTURES["bmp P"])
    data[30:34] = b"\1\0\0\0"
    with pytest.raises(UnsupportedMedia, match="compressed BMP"):
        read(bytes(data))


def oversized() -> dict[str, bytes]:
    sof = PICTURES["jpeg 4:2:0"].index(b"\xff\xc0")
    jpeg = bytearray(PICTURES["jpeg 4:2:0"])
    jpeg[sof + 5 : sof + 9] = b"\xff\xff\xff\xff"
    gif, frame = bytearray(PICTURES["gif L"]), bytearray(PICTURES["gif L"])
    gif[6:10] = b"\xff" * 4
    at = corpus.gif_frame(PICTURES["gif L"])
    frame[at + 5 : at + 9] = b"\xff" * 4
    bmp, flipped, wide = (bytearray(PICTURES["bmp RGB"]) for _ in range(3))
    bmp[18:26] = b"\0\0\1\0" * 2
    flipped[22:26] = b"\0\0\0\xff"
    wide[18:22] = b"\xff" * 4
    bombs = {
        "png of 187 KB that unfolds to 8000 x 8000": corpus.flat_png(8000, 8000, 8, 2, 24_000),
        "png header of 2 Gpx a side": corpus.SIGNATURE + corpus.header(2**31 - 1, 2**31 - 1, 8, 2) + bytes(40),
        "png of one row": corpus.SIGNATURE + corpus.header(70_000, 1, 1, 0) + bytes(40),
        "jpeg of 65535 a side": bytes(jpeg),
        "gif screen of 65535 a side": bytes(gif),
        "gif frame of 65535 a side": bytes(frame),
        "bmp of 65536 a side": bytes(bmp),
        "bmp of 16 million rows from the top": bytes(flipped),
        "bmp of 4 billion columns": bytes(wide),
        "webp of 16383 a side": corpus.webp_with_size(16_383, 16_383),
        "webp over a quarter of the pixels": save(Pillow.new("RGB", (2600, 2600)), "WEBP", lossless=True, method=0),
    }
    assert 180_000 < len(bombs["png of 187 KB that unfolds to 8000 x 8000"]) < 190_000
    return bombs


@pytest.mark.parametrize(("name", "data"), oversized().items(), ids=oversized())
def test_a_picture_too_large_is_refused_by_its_header(name: str, data: bytes) -> None:
    started = time.process_time()
    with pytest.raises(TooLarge, match=r"^the picture has \d+ x \d+ pixels; .*at most \d+ .*accepted$"):
        read(data)
    assert time.process_time() - started < 0.05, f"{name}: measured 0.1 ms"


def test_max_pixels_itself_is_accepted() -> None:
    data = save(photo(30, 20), "PNG")
    decode(data, wanted(), max_pixels=600)
    with pytest.raises(TooLarge, match="30 x 20 pixels; at most 599"):
        decode(data, wanted(), max_pixels=599)


def test_a_progressive_jpeg_is_limited_by_what_its_decoder_stores() -> None:
    """2 bytes a coefficient: 6 bytes a pixel at 4:4:4, 3 at 4:2:0, where a pixel of the limit stands for 4 bytes."""
    fine, usual = (save(photo(80, 80), "JPEG", progressive=True, subsampling=s) for s in (0, 2))
    decode(fine, wanted(), max_pixels=9600)
    decode(usual, wanted(), max_pixels=6400)
    with pytest.raises(TooLarge, match="80 x 80 pixels; encoded like this, at most 6399"):
        decode(fine, wanted(), max_pixels=9599)


def test_a_jpeg_whose_colours_come_one_after_the_other_is_stored_too() -> None:
    data = bytearray(save(photo(80, 80), "JPEG", subsampling=0))
    data[corpus.scans(bytes(data))[0] + 4] = 1  # components in the first scan
    with pytest.raises(TooLarge, match="80 x 80 pixels; encoded like this, at most"):
        decode(bytes(data), wanted(), max_pixels=9599)


def test_memory_stays_within_a_hundred_mebibytes_of_a_picture_at_the_limit() -> None:
    """25 million pixels of 4 bytes are 95.4 MiB; measured at the most 101.7. Its own process, whose peak is its own."""
    program = """
import sys
from models.contract import Image
from models.images import decode
from tests.models.image_corpus import chunk, flat_png, photo, save

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

def mark():
    with open("/proc/self/clear_refs", "w") as marks:
        marks.write("5")
    return status("VmRSS")

image = Image("x", 224, 224)
for kind in ("PNG", "JPEG", "WEBP"):
    decode(save(photo(300, 300), kind), image, max_pixels=25_000_000)
for data in (
    flat_png(5000, 5000, 8, 6, 20_000),
    flat_png(5000, 5000, 16, 0, 10_000, chunk(b"tRNS", b"\\0\\0")),
    flat_png(381, 65_535, 8, 6, 1524),
    save(photo(2400, 2400, "RGBA"), "WEBP", quality=50, method=0),
):
    before = mark()
    decode(data, image, max_pixels=25_000_000)
    print(status("VmHWM") - before)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    grown = [float(line) for line in run.stdout.split()]
    assert len(grown) == 4
    assert max(grown) < 106, grown


# ---- damaged, cut short, malicious ----


@given(st.binary(max_size=80), st.sampled_from([b"", b"II*\0", b"MM\0*", b"Exif\0\0II*\0\x08\0\0\0"]))
@QUICK
def test_any_exif_gives_an_orientation(body: bytes, start: bytes) -> None:
    assert orientation_of(start + body) in range(1, 9)


@pytest.mark.parametrize("name", PICTURES)
@given(data=st.data())
@settings(QUICK, max_examples=60)
def test_damage_raises_only_our_errors_in_plain_words(name: str, data: st.DataObject) -> None:
    bytes_ = bytearray(PICTURES[name])
    for _ in range(data.draw(st.integers(0, 3))):
        bytes_[data.draw(st.integers(0, len(bytes_) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        start, stop = (data.draw(st.integers(0, len(bytes_))) for _ in range(2))
        bytes_ = bytes_[:start] + bytes_[stop:] if data.draw(st.booleans()) else bytes_[:stop]
    try:
        pixels = read(bytes(bytes_), (9, 7))
    except ModelsError as error:
        assert_plain(error)
    else:
        assert pixels.shape == (7, 9, 3)


def assert_plain(error: ModelsError) -> None:
    assert isinstance(error, BadInput | TooLarge | UnsupportedMedia)
    message = str(error)
    assert len(message) < 200
    for word in ("PIL", "illow", "Error", "Exception", "object", "/", "0x", "byte "):
        assert word not in message
    assert error.__cause__ is error.__context__ is None


@pytest.mark.parametrize("name", [name for name in PICTURES if "png" in name and "piece" not in name])
def test_no_changed_byte_of_a_png_goes_unnoticed(name: str) -> None:
    """Pillow alone takes a wrong checksum of the pixels and whatever follows them."""
    whole = PICTURES[name]
    for position in range(0, len(whole), 1 + len(whole) // 300):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        with pytest.raises(ModelsError):
            read(bytes(damaged))


@pytest.mark.parametrize("name", [name for name in PICTURES if "animated" not in name])
def test_half_a_picture_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"cut short|damaged"):
        read(PICTURES[name][: len(PICTURES[name]) // 2])


@pytest.mark.parametrize("name", [name for name in PICTURES if "png" in name and "piece" not in name])
def test_no_part_of_a_png_is_a_png(name: str) -> None:
    whole = PICTURES[name]
    for length in range(0, len(whole), 1 + len(whole) // 100):
        with pytest.raises(ModelsError):
            read(whole[:length])


def bad_pngs() -> dict[str, tuple[bytes, str]]:
    """After PngSuite's broken ones, and some more."""
    samples = np.asarray(photo())
    good = png(samples, 8, 2)
    pixels = good[33:-12]
    head, tail = corpus.SIGNATURE + corpus.header(WIDTH, HEIGHT, 8, 2), chunk(b"IEND", b"")
    indexed = png(np.zeros((4, 4, 1), np.uint8), 8, 3)

    def kind(depth: int, colour: int) -> bytes:
        return corpus.SIGNATURE + corpus.header(WIDTH, HEIGHT, depth, colour) + pixels + tail

    return {
        "carriage return added": (good[:5] + b"\r" + good[5:], "known format"),
        "line feed lost": (good[:5] + good[6:], "known format"),
        "wrong checksum of the header": (good[:29] + b"\0\0\0\0" + good[33:], "checksum"),
        "wrong checksum of the pixels": (good[:-16] + b"\0\0\0\0" + good[-12:], "checksum"),
        "colour type 1": (kind(8, 1), "damaged"),
        "colour type 9": (kind(8, 9), "damaged"),
        "depth 0": (kind(0, 2), "damaged"),
        "depth 3": (kind(3, 2), "damaged"),
        "depth 99": (kind(99, 2), "damaged"),
        "no pixels": (head + tail, "damaged"),
        "no end": (head + pixels, "cut short"),
        "pixels cut short": (head + chunk(b"IDAT", good[41:-500]) + tail, "cut short"),
        "pixels of another kind": (head + chunk(b"IDAT", b"not compressed at all") + tail, "damaged"),
        "palette missing": (indexed, "palette"),
        "no header": (corpus.SIGNATURE + pixels + tail, "begin with its header"),
        "two headers": (head + corpus.header(9, 9, 8, 2) + pixels + tail, "two headers"),
        "no width": (corpus.SIGNATURE + corpus.header(0, 5, 8, 2) + pixels + tail, "no pixels"),
        "unknown part that must be understood": (head + chunk(b"NEWS", b"") + pixels + tail, "extension"),
        "part of 2 GB": (head + b"\x7f\xff\xff\xffIDAT" + pixels, "cut short"),
        "too many parts": (head + chunk(b"teXt", b"") * 20_000 + pixels + tail, "too many parts"),
    }


@pytest.mark.parametrize(("data", "message"), bad_pngs().values(), ids=bad_pngs().keys())
def test_broken_pngs_are_refused_with_a_reason(data: bytes, message: str) -> None:
    with pytest.raises(ModelsError, match=message) as caught:
        read(data)
    assert_plain(caught.value)


def test_an_empty_picture_is_said_to_be_empty() -> None:
    with pytest.raises(BadInput, match="empty"):
        read(b"")


@pytest.mark.parametrize("name", ["gif L", "bmp RGB", "jpeg L"])
def test_a_picture_without_pixels_is_refused(name: str) -> None:
    data = bytearray(PICTURES[name])
    if name == "gif L":
        at = corpus.gif_frame(PICTURES[name])
        data[6:10] = data[at + 5 : at + 9] = bytes(4)
    else:
        at = 18 if name == "bmp RGB" else data.index(b"\xff\xc0") + 5
        data[at : at + 4] = bytes(4)
    with pytest.raises(BadInput, match="no pixels"):
        read(bytes(data))


def malicious() -> dict[str, bytes]:
    """Small steps without end, each of which made Pillow alone spin or swell for seconds."""
    jpeg, gif = PICTURES["jpeg 4:2:0"], PICTURES["gif L"]
    progressive = PICTURES["jpeg progressive"]
    last = progressive[corpus.scans(progressive)[-1] : -2]
    hidden = corpus.jpeg_segment(0xFE, b"\xff\xd9") + last
    many = 4_000_000
    return {
        "jpeg padding": jpeg[:2] + b"\xff" * (8 * many),
        "jpeg junk": jpeg[:2] + b"\xff\0" * many,
        "jpeg empty segments": jpeg[:2] + corpus.jpeg_segment(0xFE, b"") * (many // 4) + jpeg[2:],
        "jpeg of two frames": with_two_frames(jpeg),
        "jpeg of 100 scans": progressive[:-2] + last * 100 + b"\xff\xd9",
        "jpeg of 100 scans behind a false end": progressive[:-2] + hidden * 100 + b"\xff\xd9",
        "gif comment without end": gif[: corpus.gif_frame(gif)] + b"!\xfe" + b"\1a" * many,
        "gif of no frame": gif[: corpus.gif_frame(gif)] + b";",
        "bmp of a huge palette": PICTURES["bmp P"][:46] + b"\0\0\0\1" + PICTURES["bmp P"][50:],
    }


def with_two_frames(jpeg: bytes) -> bytes:
    at = jpeg.index(b"\xff\xc0")
    end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return jpeg[:end] + jpeg[at:]


@pytest.mark.parametrize("data", malicious().values(), ids=malicious().keys())
def test_malicious_pictures_are_refused_soon(data: bytes) -> None:
    started = time.process_time()
    with pytest.raises(BadInput) as caught:
        read(data)
    assert time.process_time() - started < 0.25, "measured at most 10 ms"
    assert_plain(caught.value)


def test_metadata_costs_nothing_and_harms_nothing() -> None:
    """Text that unfolds to 1 GiB, profiles, and EXIF that Pillow alone would join in quadratic time: 3 s and more."""
    zeros = save(Pillow.new("L", (2048, 2048)), "PNG")  # any zlib stream will do
    text = chunk(b"zTXt", b"a\0\0" + zeros[41:-16])
    packed = png(np.asarray(photo()), 8, 2, before=[text] * 256 + [chunk(b"iCCP", b"a")], after=[text] * 256)
    exif = corpus.jpeg_segment(0xE1, b"Exif\0\0" + bytes(65_000))
    jpeg = corpus.with_segments(PICTURES["jpeg 4:2:0"], *[exif] * 300)
    started = time.process_time()
    assert np.array_equal(read(packed), np.asarray(photo()))
    assert np.array_equal(read(jpeg), read(PICTURES["jpeg 4:2:0"]))
    assert time.process_time() - started < 0.25, "measured 15 ms"


def test_what_follows_a_jpeg_is_not_looked_at() -> None:
    """A film (motion photos), another picture (MPO), or anything."""
    for name in ("jpeg 4:2:0", "jpeg progressive"):
        assert np.array_equal(read(PICTURES[name] + b"\xff\xda" * 1000), read(PICTURES[name]))
