"""What a picture's first bytes say: format, size, orientation, and which parts of it a decoder should see.

Owns the walks through the five formats' headers; decodes nothing and knows nothing of Pillow. The bytes are hostile:
every walk takes a bounded number of steps whatever they say, and refuses a size as soon as it has read it.
Running off the end raises struct.error or IndexError, which the caller takes for a picture cut short.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from models.errors import BadInput, TooLarge, UnsupportedMedia

_MAX_SIDE = 65_535  # pixels: what JPEG and GIF can say; bounds the cost of freak shapes
_MAX_CHUNKS = 16_384  # of a PNG; libpng writes 8 KiB of pixels into each; 50 ms to walk and decode
_MAX_BLOCKS = 65_536  # of a GIF before its first frame; 255 bytes each; 20 ms
_MAX_SEGMENTS = 4_096  # of a JPEG before its pixels; cameras write fewer than 100
_MAX_JUNK = 65_536  # bytes between them
_MAX_SCANS = 32  # passes of a progressive JPEG: encoders write 6 to 18; each walks the whole picture, 20 ms at 25 Mpx

_MAGIC = re.compile(
    rb"(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<JPEG>\xff\xd8\xff)|(?P<GIF>GIF8[79]a)|(?P<WEBP>RIFF.{4}WEBP)"
    rb"|(?P<BMP>BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0)"
    rb"|(?P<TIFF>II[*+]\0|MM\0[*+])|(?P<AVIF>.{4}ftypavi[fs])|(?P<HEIC>.{4}ftyp(?:he[iv][cxms]|mif1|msf1))",
    re.DOTALL,
)


class Header(NamedTuple):
    """What is known before decoding.

    width, height: pixels as stored, before `orientation` (EXIF's 1..8) is applied.
    data: the file without what is not needed (text, profiles, later frames of a PNG).
    """

    width: int
    height: int
    data: bytes
    orientation: int = 1


def sniff(data: bytes) -> str | None:
    """The picture's format by its first bytes, None when they are no picture's.

    "PNG", "JPEG", "GIF", "BMP" and "WEBP" can be decoded; "TIFF", "AVIF" and "HEIC" are known by name only.
    """
    found = _MAGIC.match(data)
    return found.lastgroup if found else None


def _check_size(width: int, height: int, max_pixels: int, *, held: int = 0) -> None:
    """held: what the decoder keeps in a store of its own, in pixels of 4 bytes."""
    if not (width and height):
        raise BadInput("the picture has no pixels")
    if width * height > max_pixels:
        raise TooLarge(f"the picture has {width} x {height} pixels; at most {max_pixels} are accepted")
    if max(width, height) > _MAX_SIDE:
        raise TooLarge(f"the picture has {width} x {height} pixels; at most {_MAX_SIDE} on a side are accepted")
    if held > max_pixels:
        share = width * height * max_pixels // held
        raise TooLarge(f"the picture has {width} x {height} pixels; encoded like this, at most {share} are accepted")


def _png(data: bytes, max_pixels: int) -> Header:
    """Verifies every checksum up to IEND and keeps what makes the still picture."""
    view = memoryview(data)
    kind, width, height = struct.unpack_from(">4sII", data, 12)
    if kind != b"IHDR":
        raise BadInput("the PNG picture is damaged: it does not begin with its header")
    _check_size(width, height, max_pixels)
    kept = [view[:8]]
    kinds: set[bytes] = set()
    orientation, start = 1, 8
    for _ in range(_MAX_CHUNKS):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + length + 12
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(view[start + 4 : end - 4]) != checksum:
            raise BadInput("the PNG picture is damaged: a checksum is wrong")
        if kind == b"IHDR" and kind in kinds:
            raise BadInput("the PNG picture is damaged: it has two headers")
        kinds.add(kind)
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(view[start:end])
        elif kind == b"eXIf":
            orientation = orientation_of(data[start + 8 : end - 4])
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
    return Header(width, height, still, orientation)


_MARKER = re.compile(rb"\xff([^\xff\x00])", re.DOTALL)
_BODYLESS = frozenset((b"\x01", *(bytes((m,)) for m in range(0xD0, 0xD8))))
_AFTER_SCAN = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")  # amid pixels libjpeg passes over the others
_SCAN, _END, _EXIF, _PROGRESSIVE = b"\xda", b"\xd9", b"\xe1", b"\xc2"
_DECODABLE = frozenset((b"\xc0", b"\xc1", _PROGRESSIVE))  # what browsers read: no lossless, hierarchical or arithmetic
_FRAMES = frozenset(bytes((m,)) for m in range(0xC0, 0xD0)) - {b"\xc4", b"\xc8", b"\xcc"}
_KEPT = frozenset((b"\xc4", b"\xdb", b"\xdd", b"\xe0", b"\xee"))  # Huffman, quantization, restarts, JFIF, Adobe


def _jpeg(data: bytes, max_pixels: int) -> Header:
    """Leaves out metadata, which Pillow would parse and join; of use are the orientation and Adobe's colours."""
    view = memoryview(data)
    kept = [view[:2]]
    frame: tuple[int, int, int, int] | None = None
    progressive, orientation = False, 1
    for marker, start, end in _jpeg_segments(data):
        if marker in _FRAMES:
            if marker not in _DECODABLE or data[start + 4 : start + 5] != b"\x08":  # bits a sample
                raise UnsupportedMedia("this kind of JPEG is not accepted; send one of 8 bits, baseline or progressive")
            frame, progressive = _jpeg_frame(data, start + 5), marker == _PROGRESSIVE
            _check_size(*frame[:2], max_pixels)
            kept.append(view[start:end])
        elif marker == _EXIF and data.startswith(b"Exif\0\0", start + 4):
            orientation = orientation_of(data[start + 10 : end])
        elif marker in _KEPT:
            kept.append(view[start:end])
        elif marker == _SCAN and frame:
            width, height, components, blocks = frame
            stores = progressive or data[start + 4] < components  # later passes add to the coefficients
            if stores:
                _check_size(width, height, max_pixels, held=32 * blocks)
                _check_scans(data, start)
            return Header(width, height, b"".join((*kept, view[start:])), orientation)
    raise BadInput("the JPEG picture is damaged or cut short")


def _jpeg_segments(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Marker, start and end of the segments up to the first scan's header."""
    position, junk = 2, _MAX_JUNK
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, position, position + junk)
        if not found:
            return
        marker, start = found[1], found.start()
        junk -= start - position
        position = start + 2
        if marker not in _BODYLESS:
            position += struct.unpack_from(">H", data, position)[0]
            yield marker, start, position
        if marker == _SCAN:
            return


def _check_scans(data: bytes, position: int) -> None:
    """The segments between the scans are stepped over, or what stands in them could pass for the picture's end."""
    scans = 0
    for _ in range(_MAX_SEGMENTS):
        found = _AFTER_SCAN.search(data, position)
        if not found or found[1] == _END:
            return
        scans += found[1] == _SCAN
        if scans > _MAX_SCANS:
            break
        position = found.end() + struct.unpack_from(">H", data, found.end())[0]
    raise BadInput("the JPEG picture has too many passes")


def _jpeg_frame(data: bytes, start: int) -> tuple[int, int, int, int]:
    """Width, height, components, and blocks of 64 coefficients (of 2 bytes) in all components."""
    height, width, components = struct.unpack_from(">HHB", data, start)
    sampling = [divmod(data[start + 6 + 3 * i], 16) for i in range(components)]
    across, down = (max(axis) for axis in zip(*sampling, strict=True))
    blocks = sum(-(-width * h // (8 * across)) * -(-height * v // (8 * down)) for h, v in sampling)
    return width, height, components, blocks


def _gif(data: bytes, max_pixels: int) -> Header:
    """The first frame may reach beyond the screen, and enlarges it then."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (6 << (flags & 7) if flags & 0x80 else 0)
    in_extension = False  # a chain of blocks that one of length 0 ends
    for _ in range(_MAX_BLOCKS):
        if in_extension:
            in_extension = data[position] > 0
            position += 1 + data[position]
        elif data[position : position + 1] == b"!":
            in_extension = True
            position += 2
        elif data[position : position + 1] == b",":
            left, top, across, down = struct.unpack_from("<HHHH", data, position + 1)
            width, height = max(width, left + across), max(height, top + down)
            _check_size(width, height, max_pixels)
            return Header(width, height, data)
        else:
            raise BadInput("the GIF picture is damaged or has no frame")
    raise BadInput("the GIF picture is in too many parts")


def _bmp(data: bytes, max_pixels: int) -> Header:
    compression = 0
    if data[14:18] == b"\x0c\0\0\0":
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height, compression = struct.unpack_from("<Ii4xI", data, 18)
    height = abs(height)  # below zero: rows from the top
    _check_size(width, height, max_pixels)
    if compression not in (0, 3):  # none, and none with bit masks; Pillow unpacks run lengths in Python, a byte a turn
        raise UnsupportedMedia("compressed BMP pictures are not accepted; send an uncompressed one or PNG")
    return Header(width, height, data)


def _webp(data: bytes, max_pixels: int) -> Header:
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
    _check_size(width, height, max_pixels, held=4 * width * height)
    return Header(width, height, data)


_ORIENTATION_TAG = 0x0112


def orientation_of(exif: bytes) -> int:
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
                return int(value) if value in range(1, 9) else 1
    except struct.error:
        pass
    return 1


_WALKS: dict[str, Callable[[bytes, int], Header]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "GIF": _gif,
    "BMP": _bmp,
    "WEBP": _webp,
}


def read_header(data: bytes, name: str, max_pixels: int) -> Header:
    """The header of a picture whose format is `name`; see `images.decode` for `max_pixels` and the errors."""
    return _WALKS[name](data, max_pixels)
