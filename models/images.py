"""Pictures as the caller sent them -> pixels as the model wants them; base64 text -> bytes.

Owns which formats are read, what is refused before a pixel is decoded, and how a picture of any kind becomes upright
8-bit rgb or grey of the contract's size. Knows nothing of HTTP, of tensors, or of scaling to floats.

Formats: PNG, JPEG, GIF, BMP and WEBP, what browsers send and `tf.io.decode_image` reads. Not TIFF: a dozen codecs
behind one name, a header anywhere in the file, floats without an agreed white. Not AVIF or HEIC: whole video decoders.

The bytes are hostile. Each format's header is walked here first, in bounded steps, because Pillow's own readers can be
made to spin or to allocate (endless segments, growing EXIF, compressed text, animation canvases) before the size of the
picture is known. The readers are called directly: `PIL.Image.open` also looks at process-wide limits and warns through
process-wide filters, neither of which belongs to a thread. Nothing here changes global state, so calls may run in
parallel; Pillow releases the interpreter lock while it decodes and resizes (not while it decodes WEBP).

Colour profiles and gamma are ignored, as almost every training pipeline does.
"""

from __future__ import annotations

import binascii
import re
import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image as Pillow
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from models.errors import BadInput, ModelsError, TooLarge, UnsupportedMedia

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.ImageFile import ImageFile

    from models.contract import Image

# Triangle filter, widened when shrinking: what `tf.image.resize(method="bilinear", antialias=True)` computes, and where
# nothing shrinks also what Keras' default (bilinear without antialias) does. That default would skip most pixels of a
# large photo, so that the answer hung on its noise.
_FILTER = Pillow.Resampling.BILINEAR
# A JPEG is decoded at 1/2, 1/4 or 1/8 while that leaves at least this many times the target's width and height.
_JPEG_OVERSAMPLING = 2
_MAX_SIDE = 65_535  # pixels: what JPEG and GIF can say; bounds the cost of freak shapes
_MAX_PARTS = 65_536  # PNG chunks or GIF blocks: at most 0.1 s to walk
_MAX_SEGMENTS = 4_096  # JPEG segments before the pixels; cameras write fewer than 100
_MAX_SCANS = 64  # passes of a progressive JPEG; encoders write about 10, and each walks the whole picture
_BAND_PIXELS = 1 << 18  # converted at a time, so that a large picture has no second copy of its size

_MAGIC = re.compile(
    rb"(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<JPEG>\xff\xd8\xff)|(?P<GIF>GIF8[79]a)|(?P<WEBP>RIFF.{4}WEBP)"
    rb"|(?P<BMP>BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0)"
    rb"|(?P<TIFF>II[*+]\0|MM\0[*+])|(?P<AVIF>.{4}ftypavi[fs])|(?P<HEIC>.{4}ftyp(?:he[iv][cxms]|mif1|msf1))",
    re.DOTALL,
)
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


class _Header(NamedTuple):
    """What is known before decoding.

    data: the file without what is not needed (text, profiles, later frames of a PNG).
    held: the decoder's own store, in pixels of 4 bytes; 0 where it streams into the picture.
    orientation: EXIF's 1..8.
    """

    width: int
    height: int
    data: bytes
    held: int = 0
    orientation: int = 1


def sniff(data: bytes) -> str | None:
    """The picture's format by its first bytes, None when they are no picture's.

    "PNG", "JPEG", "GIF", "BMP" and "WEBP" can be decoded; "TIFF", "AVIF" and "HEIC" are known by name only.
    """
    found = _MAGIC.match(data)
    return found.lastgroup if found else None


def decode(data: bytes, image: Image, *, max_pixels: int, squeeze: bool = False) -> np.ndarray:
    """The picture as uint8 of shape (height, width, 3) for rgb or (height, width, 1) for grey; C order, read-only.

    squeeze: grey without its channel axis, (height, width), for an input whose shape has two dimensions.
    max_pixels: the largest width x height accepted. A decoder that keeps the whole picture in a store of its own must
    fit it into max_pixels x 4 bytes, which allows a quarter of the pixels to WEBP, and to a progressive JPEG all of
    them with the usual chroma subsampling or two thirds without.

    The picture is turned upright (EXIF), transparent parts show white paper, an animation gives its first frame,
    16 bits are scaled to 8, and the whole is stretched to the contract's size; at that size already, no pixel changes.
    A JPEG at least twice the contract's size is decoded at reduced scale. Measured on photos against decoding in full:
    0.5 of 255 off in the mean, 5 at the 99.9th percentile, 9 at the most, for half to a fifth of the time.

    Raises UnsupportedMedia for other formats and TooLarge for too many pixels (both from the header alone), BadInput
    for what is damaged or cut short. JPEG has no checksums: damage amid its pixels is decoded as it comes.
    """
    name = sniff(data)
    if name not in _FORMATS:
        problem = f"{name} pictures are not accepted" if name else "this is not a picture in a known format"
        raise UnsupportedMedia(f"{problem}; send PNG, JPEG, GIF, BMP or WEBP")
    try:
        pixels = _read(data, name, image, max_pixels)
    except (ModelsError, MemoryError):  # the latter is our lack, not the caller's
        raise
    except Exception:  # noqa: BLE001 - OSError, SyntaxError, KeyError, struct.error...: readers raise what they meet
        pixels = None  # and the error is not chained, since the reader's frames would keep the picture's memory alive
    if pixels is None:
        raise BadInput(f"the {name} picture is damaged or cut short")
    shape = (image.height, image.width) if squeeze else (image.height, image.width, len(pixels.getbands()))
    return np.frombuffer(pixels.tobytes(), np.uint8).reshape(shape)


def _read(data: bytes, name: str, image: Image, max_pixels: int) -> Pillow.Image:
    """The upright picture in the contract's size and colour."""
    walk, reader = _FORMATS[name]
    header = walk(data)
    _check_size(header, max_pixels)
    source = reader(BytesIO(header.data))
    if source.size != (header.width, header.height):
        raise BadInput(f"the {name} picture contradicts itself about its size")
    exif = source.info.get("exif")
    orientation = _orientation(exif) if exif else header.orientation
    size = (image.width, image.height) if orientation < _SIDEWAYS else (image.height, image.width)
    target = "L" if image.colour == "grey" else "RGB"
    extent: tuple[float, float] = source.size
    if isinstance(source, JpegImageFile):
        reduced = source.draft(target, (_JPEG_OVERSAMPLING * size[0], _JPEG_OVERSAMPLING * size[1]))
        extent = reduced[1][2:] if reduced else extent  # fractional: the last reduced pixel may cover a part only
    source.load()
    if name == "PNG":
        _scale_colour_key(source, depth=header.data[24])
    colourless = source.mode in ("1", "L", "LA", "I;16")
    pixels = _fit(source, "L" if colourless else target, size, extent)
    if orientation in _UPRIGHT:
        pixels = pixels.transpose(_UPRIGHT[orientation])
    return pixels if pixels.mode == target else pixels.convert(target)


def _check_size(header: _Header, max_pixels: int) -> None:
    width, height, held = header.width, header.height, header.held
    if not (width and height):
        raise BadInput("the picture has no pixels")
    if width * height > max_pixels:
        raise TooLarge(f"the picture has {width} x {height} pixels; at most {max_pixels} are accepted")
    if max(width, height) > _MAX_SIDE:
        raise TooLarge(f"the picture has {width} x {height} pixels; at most {_MAX_SIDE} on a side are accepted")
    if held > max_pixels:
        share = width * height * max_pixels // held
        raise TooLarge(f"the picture has {width} x {height} pixels; encoded like this, at most {share} are accepted")


# ---- headers: bounded walks that decode nothing; running off the end raises struct.error or IndexError ----


def _png(data: bytes) -> _Header:
    """Verifies every checksum up to IEND and keeps what makes the still picture."""
    view = memoryview(data)
    width, height = struct.unpack_from(">II", data, 16)
    kept, kinds = [view[:8]], set()
    orientation, start = 1, 8
    for _ in range(_MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + length + 12
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(view[start + 4 : end - 4]) != checksum:
            raise BadInput("the PNG picture is damaged: a checksum is wrong")
        if (kind == b"IHDR") != (not kinds):
            raise BadInput("the PNG picture is damaged: its header is not where it belongs")
        kinds.add(kind)
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(view[start:end])
        elif kind == b"eXIf":
            orientation = _orientation(data[start + 8 : end - 4])
        elif not kind[0] & 0x20:  # capital letter: whoever does not know this chunk must not show the picture
            raise UnsupportedMedia("the PNG picture needs an extension that is not known here")
        start = end
        if kind == b"IEND":
            break
    else:
        raise BadInput("the PNG picture is in too many parts")
    if data[25:26] == b"\3" and b"PLTE" not in kinds:  # colour type 3: indexed
        raise BadInput("the PNG picture is damaged: its palette is missing")
    still = data if sum(map(len, kept)) == start else b"".join(kept)
    return _Header(width, height, still, orientation=orientation)


_MARKER = re.compile(rb"\xff([^\xff\x00])", re.DOTALL)
_BODYLESS = frozenset((b"\x01", *(bytes((m,)) for m in range(0xD0, 0xD8))))
_SCAN, _EXIF, _PROGRESSIVE = b"\xda", b"\xe1", b"\xc2"
_DECODABLE = frozenset((b"\xc0", b"\xc1", _PROGRESSIVE))  # what browsers read: no lossless, hierarchical or arithmetic
_FRAMES = frozenset(bytes((m,)) for m in range(0xC0, 0xD0)) - {b"\xc4", b"\xc8", b"\xcc"}
_KEPT = frozenset((b"\xc4", b"\xdb", b"\xdd", b"\xe0", b"\xee"))  # Huffman, quantization, restarts, JFIF, Adobe


def _jpeg(data: bytes) -> _Header:
    """Leaves out metadata, which Pillow would parse and join; of use are the orientation and Adobe's colours."""
    view = memoryview(data)
    kept = [view[:2]]
    frame: tuple[int, int, int, int] | None = None
    progressive, orientation, position = False, 1, 2
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, position)
        if not found:
            break
        marker, start = found[1], found.start()
        if marker in _BODYLESS:
            position = start + 2
            continue
        position = start + 2 + struct.unpack_from(">H", data, start + 2)[0]
        if marker == _SCAN:
            if not frame:
                break
            if data.count(b"\xff\xda", start) > _MAX_SCANS:
                raise BadInput("the JPEG picture has too many passes")
            width, height, components, blocks = frame
            stores = progressive or data[start + 4] < components  # later passes add to the coefficients
            whole = b"".join((*kept, view[start:]))
            return _Header(width, height, whole, held=32 * blocks if stores else 0, orientation=orientation)
        if marker in _FRAMES:
            if marker not in _DECODABLE or data[start + 4 : start + 5] != b"\x08":  # bits a sample
                raise UnsupportedMedia("this kind of JPEG is not accepted; send a baseline or progressive one of 8 bits")
            if frame:
                raise BadInput("the JPEG picture is damaged: it has two headers")
            frame, progressive = _jpeg_frame(data, start + 5), marker == _PROGRESSIVE
            kept.append(view[start:position])
        elif marker == _EXIF and data.startswith(b"Exif\0\0", start + 4):
            orientation = _orientation(data[start + 10 : position])
        elif marker in _KEPT:
            kept.append(view[start:position])
    raise BadInput("the JPEG picture is damaged or cut short")


def _jpeg_frame(data: bytes, start: int) -> tuple[int, int, int, int]:
    """Width, height, components, and blocks of 64 coefficients (of 2 bytes) in all components."""
    height, width, components = struct.unpack_from(">HHB", data, start)
    sampling = [divmod(data[start + 6 + 3 * i], 16) for i in range(components)]
    across, down = (max(axis) for axis in zip(*sampling, strict=True))
    blocks = sum(-(-width * h // (8 * across)) * -(-height * v // (8 * down)) for h, v in sampling)
    return width, height, components, blocks


def _gif(data: bytes) -> _Header:
    """The first frame may reach beyond the screen, and enlarges it then."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (6 << (flags & 7) if flags & 0x80 else 0)
    in_extension = False  # a chain of blocks that one of length 0 ends
    for _ in range(_MAX_PARTS):
        if in_extension:
            in_extension = data[position] > 0
            position += 1 + data[position]
        elif data[position : position + 1] == b"!":
            in_extension = True
            position += 2
        elif data[position : position + 1] == b",":
            left, top, across, down = struct.unpack_from("<HHHH", data, position + 1)
            return _Header(max(width, left + across), max(height, top + down), data)
        else:
            raise BadInput("the GIF picture is damaged or has no frame")
    raise BadInput("the GIF picture is in too many parts")


def _bmp(data: bytes) -> _Header:
    if data[14:18] == b"\x0c\0\0\0":
        width, height = struct.unpack_from("<HH", data, 18)
        return _Header(width, height, data)
    width, height, compression = struct.unpack_from("<Ii4xI", data, 18)
    if compression not in (0, 3):  # none, and none with bit masks; Pillow unpacks run lengths in Python, a byte a turn
        raise UnsupportedMedia("compressed BMP pictures are not accepted; send an uncompressed one or PNG")
    return _Header(width, abs(height), data)  # below zero: rows from the top


def _webp(data: bytes) -> _Header:
    """Two canvases of the animation decoder, its answer and the picture make four stores."""
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return _Header(width, height, data, held=4 * width * height)


def _orientation(exif: bytes) -> int:
    """Tag 0x0112 of EXIF's first directory, 1..8; 1 where there is none or the directory cannot be read."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == _ORIENTATION_TAG:
                return value if value in _UPRIGHT else 1
    except struct.error:
        pass
    return 1


_ORIENTATION_TAG = 0x0112
_FORMATS: dict[str | None, tuple[Callable[[bytes], _Header], Callable[[BytesIO], ImageFile]]] = {
    "PNG": (_png, PngImageFile),
    "JPEG": (_jpeg, JpegImageFile),
    "GIF": (_gif, GifImageFile),
    "BMP": (_bmp, BmpImageFile),
    "WEBP": (_webp, WebPImageFile),
}


# ---- pixels ----


def _scale_colour_key(source: ImageFile, depth: int) -> None:
    """The one colour that a PNG without alpha declares transparent is in the file's depth, Pillow's pixels are not."""
    key = source.info.get("transparency")
    if source.mode == "L" and depth < _BYTE and isinstance(key, int):
        source.info["transparency"] = key * (255 // ((1 << depth) - 1))
    elif source.mode == "RGB" and depth > _BYTE and isinstance(key, tuple):
        source.info["transparency"] = tuple(sample >> 8 for sample in key)


_BYTE = 8  # bits


def _fit(im: Pillow.Image, mode: str, size: tuple[int, int], extent: tuple[float, float]) -> Pillow.Image:
    """The first `extent` (width, height) of the picture, flattened to `mode` and resized to `size`.

    The filter is separable; like Pillow's own this narrows the rows first, but a tall and thin picture is shortened
    first, or it would swell on the way (1 x 60,000 to 224 x 224).
    """
    if extent == im.size == size:
        return _flatten(im, mode)
    tall = 2 * im.width * size[1] < size[0] * im.height
    for axis in (1, 0) if tall else (0, 1):
        im = _resize_axis(im, mode, axis, size[axis], extent[axis])
    return im


def _resize_axis(im: Pillow.Image, mode: str, axis: int, length: int, extent: float) -> Pillow.Image:
    """Flattened to `mode`, and `extent` pixels across (axis 0) or down (axis 1) resized to `length`; band by band."""
    breadth = im.size[1 - axis]
    step = max(1, _BAND_PIXELS // im.size[axis])
    parts = []
    for start in range(0, breadth, step):
        stop = min(start + step, breadth)
        box = (start, 0, stop, im.height) if axis else (0, start, im.width, stop)
        band = _flatten(im.crop(box) if step < breadth else im, mode)
        if axis:
            part = band.resize((band.width, length), _FILTER, (0, 0, band.width, extent))
        else:
            part = band.resize((length, band.height), _FILTER, (0, 0, extent, band.height))
        parts.append((part, box[:2]))
    if len(parts) == 1:
        return part
    whole = Pillow.new(mode, (breadth, length) if axis else (length, breadth))
    for part, corner in parts:
        whole.paste(part, corner)
    return whole


def _flatten(im: Pillow.Image, mode: str) -> Pillow.Image:
    """In `mode` ("L" or "RGB"), as it looks on white paper."""
    if im.mode == "I;16":  # Pillow would clip to 255
        deep = np.asarray(im)
        grey = ((deep - (deep >> 8) + 128) >> 8).astype(np.uint8)  # deep / 257, rounded
        if "transparency" in im.info:
            grey[deep == im.info["transparency"]] = 255
        return Pillow.fromarray(grey)
    if im.mode in ("LA", "RGBA") or "transparency" in im.info:
        ink = im if im.mode == "RGBA" else im.convert("RGBA")
        im = Pillow.new("RGB", im.size, "white")
        im.paste(ink, mask=ink)
    elif im.mode == "CMYK":  # to grey by way of what is seen
        im = im.convert("RGB")
    return im if im.mode == mode else im.convert(mode)


# ---- base64 ----

_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_LINE_BREAKS = b"\t\n\v\f\r"
_ESCAPES = ((b"%2B", b"+"), (b"%2F", b"/"), (b"%3D", b"="), (b"%0A", b""), (b"%0D", b""), (b"%20", b" "))
_ACCEPTABLE = re.compile(rb"(?:[A-Za-z0-9+/_\s-]|%(?:2[BF]|3D|0[AD]|20))*+", re.IGNORECASE)
_MAX_DATA_URI_HEADER = 256  # bytes up to the comma


def from_base64(text: str | bytes) -> bytes:
    """The bytes that a base64 text stands for.

    Taken: the standard or the URL-safe alphabet, a data URI (its media type is not looked at), padding or none, line
    breaks and blanks, and what forms do to it: %2B and its like, and blanks that were '+' (a text that has blanks
    between its characters but neither '+' nor '-' nor '_', and whose length is right only with them).

    Raises BadInput, with the offset of the first bad character, for anything else; nothing is skipped silently.
    """
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise BadInput(f"the base64 text has a character that is not ASCII at offset {error.start}") from None
    offset = _data_uri_header(raw)
    body = raw[offset:]
    if b"%" in body:
        for escape, plain in _ESCAPES:
            body = body.replace(escape, plain).replace(escape.lower(), plain)
    body = body.translate(None, _LINE_BREAKS).strip(b" ")
    ...
