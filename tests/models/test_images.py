"""Every kind of picture gives the pixels of Pillow's plain route, from any thread, and leaves nothing behind."""

from __future__ import annotations

import gc
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

from models.contract import Image
from models.errors import BadInput, TooLarge
from models.images import decode
from tests.models import image_corpus as corpus
from tests.models.image_corpus import HEIGHT, WIDTH, Pixels, chunk, photo, png, save

MAX_PIXELS = 25_000_000
PICTURES = corpus.of_every_kind()
SIZES = {"at its size": (WIDTH, HEIGHT), "shrunk": (14, 11), "grown": (90, 50), "across": (60, 8)}


def wanted(size: tuple[int, int] = (WIDTH, HEIGHT), colour: str = "rgb") -> Image:
    return Image(input="pixels", width=size[0], height=size[1], colour=colour)


def read(data: bytes, size: tuple[int, int] = (WIDTH, HEIGHT), colour: str = "rgb") -> Pixels:
    return decode(data, wanted(size, colour), max_pixels=MAX_PIXELS)


def plain_route(data: bytes, size: tuple[int, int], colour: str) -> Pixels:
    """What anybody would write with Pillow, for small and well-meant pictures."""
    with Pillow.open(BytesIO(data)) as opened:
        picture = ImageOps.exif_transpose(opened)
    if picture.has_transparency_data:
        paper = Pillow.new("RGBA", picture.size, "white")
        picture = Pillow.alpha_composite(paper, picture.convert("RGBA"))
    picture = picture.convert("RGB").convert("L" if colour == "grey" else "RGB")
    return np.asarray(picture.resize(size, Pillow.Resampling.BILINEAR)).reshape(size[1], size[0], -1)


def furthest(one: Pixels, other: Pixels) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


# ---- pixels of every kind ----


@pytest.mark.parametrize("colour", ["rgb", "grey"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("name", PICTURES)
def test_pixels_are_those_of_the_plain_route(name: str, size: tuple[int, int], colour: str) -> None:
    pixels = read(PICTURES[name], size, colour)
    assert pixels.shape == (size[1], size[0], 3 if colour == "rgb" else 1)
    assert furthest(pixels, plain_route(PICTURES[name], size, colour)) <= 2


def test_the_array_is_uint8_in_c_order_and_read_only() -> None:
    pixels = read(PICTURES["png RGB"])
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert not pixels.flags.writeable


def test_squeeze_drops_the_channel_of_grey() -> None:
    image = wanted(colour="grey")
    flat = decode(PICTURES["png L"], image, max_pixels=MAX_PIXELS, squeeze=True)
    assert flat.shape == (HEIGHT, WIDTH)
    assert np.array_equal(flat[:, :, None], read(PICTURES["png L"], colour="grey"))


@pytest.mark.parametrize("name", ["png RGB", "png L", "bmp RGB", "gif L", "webp RGB lossless", "png RGB interlaced"])
def test_a_picture_of_the_right_size_is_not_resampled(name: str) -> None:
    original = np.asarray(photo(mode="L" if name.endswith(" L") else "RGB").convert("RGB"))
    assert np.array_equal(read(PICTURES[name]), original)


def test_a_large_picture_is_resized_in_bands_to_the_same_bits() -> None:
    picture = photo(1500, 900, "RGBA")
    paper = Pillow.new("RGB", picture.size, "white")
    paper.paste(picture, mask=picture)
    expected = np.asarray(paper.resize((50, 40), Pillow.Resampling.BILINEAR))
    assert np.array_equal(read(save(picture, "PNG"), (50, 40)), expected)


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (3, 40_000), (40_000, 3)], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_thin_pictures_are_the_plain_route_s_too(size: tuple[int, int], mode: str) -> None:
    data = save(photo(*size, mode), "PNG")
    assert furthest(read(data, (20, 16)), plain_route(data, (20, 16), "rgb")) <= 2


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_of_every_depth_is_scaled_to_8_bits_and_rounded(depth: int) -> None:
    """Every value of the depth: of 16 bits all 65,536, which Pillow alone would clip to white."""
    count = 1 << depth
    width = min(count, 256)
    values = np.arange(count).reshape(-1, width, 1)
    pixels = read(png(values, depth, 0), (width, count // width), "grey")
    assert np.array_equal(pixels, np.round(values * 255 / (count - 1)))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_every_depth_is_white(depth: int) -> None:
    top = (1 << depth) - 1
    key = top // 2  # 0 of 1 bit
    values = np.array([[[key], [key + 1], [top]]])
    pixels = read(png(values, depth, 0, before=[chunk(b"tRNS", key.to_bytes(2, "big"))]), (3, 1), "grey")
    assert pixels.reshape(-1).tolist() == [255, round((key + 1) * 255 / top), 255]


@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_colour_of_every_depth_is_white(depth: int) -> None:
    factor = 257 if depth == 16 else 1
    values = np.array([[[10, 20, 30], [10, 20, 31]]]) * factor
    key = chunk(b"tRNS", values[0, 0].astype(">u2").tobytes())
    assert read(png(values, depth, 2, before=[key]), (2, 1))[0].tolist() == [[255, 255, 255], [10, 20, 31]]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("interlaced", [False, True], ids=["in rows", "interlaced"])
def test_palettes_of_every_depth(depth: int, interlaced: bool) -> None:
    count = 1 << depth
    palette = np.random.default_rng(depth).integers(0, 256, (count, 3), dtype=np.uint8)
    indices = np.arange(13 * 11).reshape(11, 13, 1) % count
    data = png(indices, depth, 3, before=[chunk(b"PLTE", palette.tobytes())], interlaced=interlaced)
    assert np.array_equal(read(data, (13, 11)), palette[indices[:, :, 0]])


def test_alpha_lies_on_white_paper() -> None:
    samples = np.array([[[200, 100, 0, 0], [200, 100, 0, 255], [200, 100, 0, 51]]])
    assert read(png(samples, 8, 6), (3, 1))[0].tolist() == [[255] * 3, [200, 100, 0], [244, 224, 204]]


def test_inverted_cmyk_is_read_as_adobe_writes_it() -> None:
    data = save(Pillow.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert furthest(read(data, (16, 16)), np.full((16, 16, 3), (255, 0, 0))) <= 3


# ---- turned, animated, reduced ----


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_is_turned_upright(kind: str, order: str, orientation: int) -> None:
    exif = (b"Exif\0\0" if kind == "JPEG" else b"") + corpus.exif(orientation, order)
    data = save(photo(), kind, exif=exif, quality=95, lossless=True, subsampling=0)
    with Pillow.open(BytesIO(data)) as turned:
        assert turned.getexif()[0x0112] == orientation
    upright = (WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH)
    for size in (upright, (20, 30)):
        assert furthest(read(data, size), plain_route(data, size, "rgb")) <= 2


def test_orientation_six_puts_the_left_edge_on_top() -> None:
    """By hand, not by Pillow: a camera held upright stores the picture lying on its side."""
    samples = np.array([[[1], [2], [3]], [[4], [5], [6]]])
    data = png(samples, 8, 0, before=[chunk(b"eXIf", corpus.exif(6))])
    assert read(data, (2, 3), "grey")[:, :, 0].tolist() == [[4, 1], [5, 2], [6, 3]]


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_unknown_orientation_is_none(orientation: int) -> None:
    data = save(photo(), "PNG", exif=corpus.exif(orientation))
    assert np.array_equal(read(data), np.asarray(photo()))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    data = corpus.animation(kind, count=200, lossless=True)
    assert furthest(read(data), np.full((HEIGHT, WIDTH, 3), (255, 0, 0))) <= 2


def test_later_frames_of_a_gif_are_not_looked_at() -> None:
    data = corpus.animation("GIF", "P", disposal=2)
    second = data.index(b"!\xf9", data.index(b"!\xf9") + 1)
    assert furthest(read(data[:second] + b"garbage"), np.full((HEIGHT, WIDTH, 3), (255, 0, 0))) <= 2


def test_later_frames_of_an_apng_are_not_looked_at() -> None:
    later = [chunk(b"fcTL", bytes(26)), chunk(b"fdAT", b"garbage"), chunk(b"fcTL", b"")]
    data = png(np.asarray(photo()), 8, 2, before=[chunk(b"acTL", bytes(8))], after=later)
    assert np.array_equal(read(data), np.asarray(photo()))


def test_a_gif_frame_beyond_the_screen_enlarges_it() -> None:
    data = save(photo(8, 6, "L"), "GIF")
    narrowed = data[:6] + b"\x04\0\x06\0" + data[10:]
    assert furthest(read(narrowed, (8, 6)), np.asarray(photo(8, 6, "L").convert("RGB"))) == 0


@pytest.mark.parametrize("colour", ["rgb", "grey"])
@pytest.mark.parametrize("size", [(100, 75), (60, 45), (224, 224), (31, 17)], ids=str)
def test_a_jpeg_decoded_at_reduced_scale_stays_near_the_full_one(size: tuple[int, int], colour: str) -> None:
    data = save(photo(1211, 907), "JPEG", quality=90)
    difference = np.abs(read(data, size, colour).astype(int) - plain_route(data, size, colour))
    assert difference.mean() <= 0.6
    assert np.percentile(difference, 99.9) <= 6


def test_a_reduced_jpeg_is_turned_upright_too() -> None:
    data = save(photo(1200, 800), "JPEG", quality=95, exif=b"Exif\0\0" + corpus.exif(6))
    difference = np.abs(read(data, (40, 90)).astype(int) - plain_route(data, (40, 90), "rgb"))
    assert difference.mean() <= 0.6


# ---- threads, limits of the process, memory ----


def test_many_threads_decode_at_once_as_one_does() -> None:
    expected = {name: read(data, (20, 15)) for name, data in PICTURES.items()}
    names = [name for name in PICTURES for _ in range(5)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda name: read(PICTURES[name], (20, 15)), names))
    for name, pixels in zip(names, results, strict=True):
        assert np.array_equal(pixels, expected[name])


def test_the_process_s_own_limit_and_warnings_are_neither_asked_nor_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 600)  # 37 x 29 lies between it and its double: Pillow would warn
    filters = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in PICTURES.values():
            read(data)
    assert Pillow.MAX_IMAGE_PIXELS == 600
    assert list(warnings.filters) == filters


def test_a_reader_s_own_limit_is_too_large_and_not_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(TooLarge, match="more pixels than its reader accepts"):
        read(PICTURES["webp RGB"])


@pytest.mark.parametrize("cut", [0, 1], ids=["whole", "cut short"])
@pytest.mark.parametrize("name", ["png RGBA", "png P", "jpeg 4:2:0", "gif P", "bmp RGB", "webp RGBA", "apng RGBA"])
def test_no_picture_outlives_the_call(name: str, cut: int) -> None:
    """Without the garbage collector, which a serving process may have frozen; an error holds none either."""
    data = PICTURES[name][: len(PICTURES[name]) // (1 + cut)]

    def pictures() -> int:
        return sum(isinstance(each, Pillow.Image) for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before, kept = pictures(), []
        for _ in range(3):
            try:
                read(data)
            except BadInput as error:
                kept.append(error)
        assert len(kept) == 3 * cut
        assert pictures() == before
    finally:
        gc.enable()
