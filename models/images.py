"""Pictures as the caller sent them -> pixels as the model wants them; base64 text -> bytes.

Owns which formats are read and how a picture of any kind becomes upright 8-bit rgb or grey of the contract's size.
Knows nothing of HTTP, of tensors, or of scaling to floats.

Formats: PNG, JPEG, GIF, BMP and WEBP, what browsers send and `tf.io.decode_image` reads. Not TIFF: a dozen codecs
behind one name, a header anywhere in the file, floats without an agreed white. Not AVIF or HEIC: whole video decoders.

The bytes are hostile. `image_headers` walks them before Pillow sees any, because Pillow's readers can be made to spin
or to allocate (endless segments, growing EXIF, compressed text, animation canvases) before the picture's size is known.
The readers are called directly: `PIL.Image.open` also looks at process-wide limits and warns through process-wide
filters, neither of which belongs to a thread. Nothing here changes global state, so calls may run in parallel; Pillow
releases the interpreter lock while it decodes, converts and resizes.

Colour profiles and gamma are ignored, as almost every training pipeline does.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from io import BytesIO
from math import ceil

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from models.contract import Image
from models.errors import BadInput, ModelsError, TooLarge, UnsupportedMedia
from models.image_headers import orientation_of, read_header, sniff

__all__ = ["decode", "from_base64", "sniff"]

_READERS: dict[str, Callable[[BytesIO], ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "WEBP": WebPImageFile,
}
# Triangle filter, widened when shrinking: within 1 of 255 of `tf.image.resize(method="bilinear", antialias=True)`, and
# where nothing shrinks also of Keras' default. That default, without antialias, skips most pixels of a large photo, so
# that the answer would hang on its noise (on average 6 of 255 away, 640x427 to 224x224). Pillow's own default, bicubic,
# sharpens beyond what either does (1.5 away).
_FILTER = Pillow.Resampling.BILINEAR
# A JPEG is decoded at 1/2, 1/4 or 1/8 while that leaves at least this many times the target's width and height. The
# loss is in the docstring of `decode`; it is twice as large at 2 and half as large at 3. 2.4 still halves 1920x1080 for
# 224x224, which then takes 11 instead of 16 ms.
_JPEG_OVERSAMPLING = 2.4
_BAND_PIXELS = 1 << 18  # converted at a time, so that a large picture has no second copy of its size
_UPRIGHT = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
_SIDEWAYS = 5  # orientations from here on swap width and height


def decode(data: bytes, image: Image, *, max_pixels: int, squeeze: bool = False) -> npt.NDArray[np.uint8]:
    """The picture as uint8 of shape (height, width, 3) for rgb or (height, width, 1) for grey; C order, read-only.

    squeeze: grey without its channel axis, (height, width), for an input whose shape has two dimensions.
    max_pixels: the largest width x height accepted. A decoder that keeps the whole picture in a store of its own must
    fit it into max_pixels x 4 bytes, which allows a quarter of the pixels to WEBP, and to a progressive JPEG all of
    them with the usual chroma subsampling or two thirds without.

    The picture is turned upright (EXIF), transparent parts show white paper, an animation gives its first frame,
    16 bits are scaled to 8, and the whole is stretched to the contract's size; at that size already, no pixel changes.
    A JPEG of some five times the contract's size or more is decoded at reduced scale: over 340 photos and sizes 0.2 of
    255 away from decoding in full on average (0.8 for the worst), 99.9 % of the values within 2 (13 for the worst).

    Raises UnsupportedMedia for other formats and TooLarge for too many pixels (both from the header alone), BadInput
    for what is damaged or cut short. JPEG has no checksums: damage amid its pixels is decoded as it comes.
    """
    if not data:
        raise BadInput("the picture is empty")
    name = sniff(data)
    if name not in _READERS:
        problem = f"{name} pictures are not accepted" if name else "this is not a picture in a known format"
        raise UnsupportedMedia(f"{problem}; send PNG, JPEG, GIF, BMP or WEBP")
    try:
        pixels = _read(data, name, image, max_pixels)
    except (ModelsError, MemoryError):  # the latter is our lack, not the caller's
        raise
    except Pillow.DecompressionBombError:  # a limit of the whole process, which two readers ask on their own
        raise TooLarge("the picture has more pixels than its reader accepts") from None
    except Exception:  # noqa: BLE001 - OSError, SyntaxError, KeyError, struct.error...: readers raise what they meet
        pixels = None  # and the error is not chained, since the reader's frames would keep the picture's memory alive
    if pixels is None:
        raise BadInput(f"the {name} picture is damaged or cut short")
    shape = (image.height, image.width) if squeeze else (image.height, image.width, len(pixels.getbands()))
    return np.frombuffer(pixels.tobytes(), np.uint8).reshape(shape)


def _read(data: bytes, name: str, image: Image, max_pixels: int) -> Pillow.Image:
    """The upright picture in the contract's size and colour."""
    header = read_header(data, name, max_pixels)
    source = _READERS[name](BytesIO(header.data))
    if source.size != (header.width, header.height):
        raise BadInput(f"the {name} picture contradicts itself about its size")
    exif = source.info.get("exif")
    orientation = orientation_of(exif) if exif else header.orientation
    size = (image.width, image.height) if orientation < _SIDEWAYS else (image.height, image.width)
    target = "L" if image.colour == "grey" else "RGB"
    extent: tuple[float, float] = source.size
    if isinstance(source, JpegImageFile):
        reduced = source.draft(None, (ceil(_JPEG_OVERSAMPLING * size[0]), ceil(_JPEG_OVERSAMPLING * size[1])))
        extent = reduced[1][2:] if reduced else extent  # fractional: the last reduced pixel may cover a part only
    source.load()
    if name == "PNG":
        _scale_colour_key(source, depth=header.data[24])
    colourless = source.mode in ("1", "L", "LA", "I;16")
    pixels = _fit(source, "L" if colourless else target, size, extent)
    if orientation in _UPRIGHT:
        pixels = pixels.transpose(_UPRIGHT[orientation])
    return pixels if pixels.mode == target else pixels.convert(target)


# ---- pixels ----


_BYTE = 8  # bits


def _scale_colour_key(source: ImageFile, depth: int) -> None:
    """The one colour that a PNG without alpha declares transparent is in the file's depth, Pillow's pixels are not."""
    key = source.info.get("transparency")
    if source.mode == "L" and depth < _BYTE and isinstance(key, int):
        source.info["transparency"] = key * (255 // ((1 << depth) - 1))
    elif source.mode == "RGB" and depth > _BYTE and isinstance(key, tuple):
        source.info["transparency"] = tuple(sample >> 8 for sample in key)


def _fit(im: Pillow.Image, mode: str, size: tuple[int, int], extent: tuple[float, float]) -> Pillow.Image:
    """The first `extent` (width, height) of the picture, flattened to `mode` and resized to `size`.

    The filter is separable; like Pillow's own this narrows the rows first, but a tall and thin picture is shortened
    first, or it would swell on the way (1 x 60,000 to 224 x 224).
    """
    if extent == im.size == size:
        return _flatten(im, mode)
    tall = 2 * im.width * size[1] < size[0] * im.height
    fitted = im
    for axis in (1, 0) if tall else (0, 1):
        fitted = _resize_axis(fitted, mode, axis, size[axis], extent[axis])
    return fitted


def _resize_axis(im: Pillow.Image, mode: str, axis: int, length: int, extent: float) -> Pillow.Image:
    """Flattened to `mode`, and `extent` pixels across (axis 0) or down (axis 1) resized to `length`; band by band."""
    breadth = im.size[1 - axis]
    step = max(1, _BAND_PIXELS // im.size[axis])
    if step >= breadth or (im.mode == mode and "transparency" not in im.info):
        return _stretch(_flatten(im, mode), axis, length, extent)
    whole = Pillow.new(mode, (breadth, length) if axis else (length, breadth))
    for start in range(0, breadth, step):
        stop = min(start + step, breadth)
        box = (start, 0, stop, im.height) if axis else (0, start, im.width, stop)
        whole.paste(_stretch(_flatten(im.crop(box), mode), axis, length, extent), box[:2])
    return whole


def _stretch(im: Pillow.Image, axis: int, length: int, extent: float) -> Pillow.Image:
    if axis:
        return im.resize((im.width, length), _FILTER, (0, 0, im.width, extent))
    return im.resize((length, im.height), _FILTER, (0, 0, extent, im.height))


def _flatten(im: Pillow.Image, mode: str) -> Pillow.Image:
    """In `mode` ("L" or "RGB"), as it looks on white paper."""
    if im.mode == "I;16":  # Pillow would clip to 255
        deep = np.asarray(im)
        grey = ((deep.astype(np.uint32) * 255 + 32_895) >> 16).astype(np.uint8)  # deep / 257, rounded
        if "transparency" in im.info:
            grey[deep == im.info["transparency"]] = 255
        return Pillow.fromarray(grey)
    if im.mode in ("LA", "RGBA") or "transparency" in im.info:
        ink = im if im.mode == "RGBA" else im.convert("RGBA")
        im = Pillow.new("RGB", im.size, "white")
        im.paste(ink, mask=ink)
    return im if im.mode == mode else im.convert(mode)


# ---- base64 ----

_DATA_URI = re.compile(rb"\s*data:([^,]{0,256}),", re.IGNORECASE)
_LINE_BREAKS = (b"\n", b"\r", b"\t", b"\v", b"\f")
_ESCAPES = ((b"%2B", b"+"), (b"%2F", b"/"), (b"%3D", b"="), (b"%0A", b"\n"), (b"%0D", b"\n"), (b"%20", b" "))
_FROM_URL_SAFE = bytes.maketrans(b"-_+/", b"+/!!")  # the other alphabet's characters become invalid
_GOOD = re.compile(rb"(?:[A-Za-z0-9+/\s]++|%2[BF]|%0[AD]|%20)*+", re.IGNORECASE)
_GOOD_URL_SAFE = re.compile(rb"(?:[A-Za-z0-9_\s-]++|%0[AD]|%20)*+", re.IGNORECASE)
_PRINTABLE = re.compile(rb"[!-~]")
# Where a text goes wrong is looked for in no longer one: 50 MB of line ends took a second, and no other thread ran.
_MAX_LOCATED_BYTES = 1 << 20


def from_base64(text: str | bytes) -> bytes:
    """The bytes that a base64 text stands for.

    Taken: the standard or the URL-safe alphabet, also in a data URI (whose media type is not looked at), with padding
    or without, with line breaks and blanks, and as forms mangle it: escaped as %2B and the like, or with a blank where
    a '+' was (when the text has none of '+', '-', '_', and its length is whole with the blanks or not without).

    Raises BadInput for anything else, naming the offset of the first bad character; nothing is skipped silently.
    """
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise BadInput(f"the base64 text has a character outside its alphabet at offset {error.start}") from None
    start = 0
    if raw[:64].lstrip()[:5].lower() == b"data:":
        header = _DATA_URI.match(raw)
        if not header or not header[1].lower().endswith(b";base64"):
            raise BadInput("the data URI does not hold base64: it must begin like data:image/png;base64,")
        start = header.end()
    body = raw[start:]
    if b"%" in body:
        for escape, plain in _ESCAPES:
            body = body.replace(escape, plain).replace(escape.lower(), plain)
    if any(line_break in body for line_break in _LINE_BREAKS):  # looking is much cheaper than rewriting
        body = body.translate(None, b"".join(_LINE_BREAKS))
    url_safe = b"-" in body or b"_" in body
    if b" " in body:
        body = _without_blanks(body, may_be_plus=not url_safe and b"+" not in body)
    if url_safe:
        body = body.translate(_FROM_URL_SAFE)
    digits = body.rstrip(b"=")
    missing = -len(digits) % 4
    if digits and len(body) - len(digits) <= missing:
        try:
            return binascii.a2b_base64(digits + b"=" * missing, strict_mode=True)
        except binascii.Error:
            pass
    raise _not_base64(raw, start, _GOOD_URL_SAFE if url_safe else _GOOD)


def _not_base64(raw: bytes, start: int, good: re.Pattern[bytes]) -> BadInput:
    if len(raw) > _MAX_LOCATED_BYTES:
        return BadInput("the base64 text is damaged or cut short")
    run = good.match(raw, start)
    end = run.end() if run else start
    rest = raw[end:].upper().replace(b"%3D", b"=").split()
    if not raw[start:].strip():
        return BadInput("the base64 text is empty")
    if not rest:
        return BadInput(f"the base64 text is cut short: it ends at offset {end} amid a byte")
    if not b"".join(rest).strip(b"="):
        return BadInput(f"the base64 text has the wrong padding at offset {end}")
    found = f"'{raw[end]:c}'" if _PRINTABLE.match(raw, end) else f"0x{raw[end]:02x}"
    return BadInput(f"the base64 text has a character outside its alphabet at offset {end}: {found}")


def _without_blanks(body: bytes, *, may_be_plus: bool) -> bytes:
    """Blanks are the layout's or were '+' before a form was read: whichever gives a whole number of quadruples."""
    joined = body.replace(b" ", b"")
    inner, whole = (part.replace(b" ", b"+") for part in (body.strip(b" "), body))
    if not may_be_plus:
        return joined
    for candidate in (inner, whole, joined):
        if len(candidate) % 4 == 0 and b"=+" not in candidate:
            return candidate
    return inner if len(inner) % 4 > 1 else joined
