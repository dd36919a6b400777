"""Pictures for tests: one of every kind, made by Pillow where it can and by hand where it cannot.

Knows nothing of the code under test. All are deterministic and small, except those made to be too large.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

WIDTH, HEIGHT = 37, 29  # odd and unequal, so that swapped axes and rounded blocks show
SIGNATURE = b"\x89PNG\r\n\x1a\n"
Pixels = npt.NDArray[Any]


def save(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int = WIDTH, height: int = HEIGHT, mode: str = "RGB") -> Image.Image:
    """Smooth gradients, edges and a little noise; the alpha of RGBA and LA runs from 0 to 255."""
    y, x = np.mgrid[0:height, 0:width]
    u, v = x / width, y / height
    noise = np.random.default_rng(1).normal(0, 0.02, (height, width))
    disc = ((u - 0.4) ** 2 + (v - 0.5) ** 2 < 0.05) * 0.5
    bands = (0.2 + 0.6 * u + noise, 0.8 - 0.5 * v + disc * 0.3, 0.3 + 0.3 * np.sin(9 * u) * np.cos(7 * v) + disc)
    alpha = (255 * (u + v) / 2).astype(np.uint8)
    colours = Image.fromarray((np.clip(np.stack(bands, axis=2), 0, 1) * 255).astype(np.uint8))
    if mode in ("RGBA", "LA"):
        opaque = colours.convert(mode)
        opaque.putalpha(Image.fromarray(alpha))
        return opaque
    return colours.convert(mode)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, depth: int, colour: int, *, interlaced: bool = False) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def pack(samples: Pixels, depth: int) -> bytes:
    """Rows of PNG samples (height, width, channels) without filter: a zero byte and the bits of each row."""
    flat = samples.reshape(samples.shape[0], -1)
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in flat]
    else:
        bits = np.unpackbits(flat.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - depth :]
        rows = [np.packbits(row.reshape(-1)).tobytes() for row in bits]
    return b"".join(b"\0" + row for row in rows)


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(
    samples: Pixels,
    depth: int,
    colour: int,
    *,
    before: Sequence[bytes] = (),
    after: Sequence[bytes] = (),
    interlaced: bool = False,
    piece: int = 8192,
) -> bytes:
    """A PNG of `samples` (height, width, channels), with chunks before and after its pixels, which come in pieces."""
    height, width = samples.shape[:2]
    passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [samples]
    pixels = zlib.compress(b"".join(pack(part, depth) for part in passes if part.size))
    pieces = [chunk(b"IDAT", pixels[i : i + piece]) for i in range(0, len(pixels), piece)]
    first = header(width, height, depth, colour, interlaced=interlaced)
    return SIGNATURE + b"".join([first, *before, *pieces, *after, chunk(b"IEND", b"")])


def flat_png(width: int, height: int, depth: int, colour: int, row_bytes: int, *before: bytes) -> bytes:
    """A PNG of zeros, however large, in a few KB; made without holding it."""
    packer, block = zlib.compressobj(9), bytes(1 + row_bytes)
    many = max(1, (1 << 20) // len(block))
    parts = [packer.compress(block * many) for _ in range(height // many)]
    pixels = b"".join([*parts, packer.compress(block * (height % many)), packer.flush()])
    chunks = [header(width, height, depth, colour), *before, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(chunks)


def exif(orientation: int, order: str = "<") -> bytes:
    """A directory of two entries, of which the second is the orientation; in a JPEG "Exif" and two zeros precede it."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(f"{order}HHIHH", 0x0100, 3, 1, 640, 0) + struct.pack(
        f"{order}HHIHH", 0x0112, 3, 1, orientation, 0
    )
    return start + struct.pack(f"{order}IH", 8, 2) + entries + bytes(4)


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def ycck(jpeg: bytes) -> bytes:
    """The CMYK JPEG, said to be in Adobe's YCCK: the last byte of the Adobe segment is the transform."""
    at = jpeg.index(b"Adobe")
    return jpeg[: at + 11] + b"\2" + jpeg[at + 12 :]


def scans(jpeg: bytes) -> list[int]:
    """Offsets of the scans' headers."""
    return [i for i in range(len(jpeg)) if jpeg.startswith(b"\xff\xda", i)]


def gif_frame(gif: bytes) -> int:
    """Offset of the descriptor of a first frame in the corner; its width and height stand 5 bytes further."""
    return gif.index(b",\0\0\0\0", 13)


def webp_with_size(width: int, height: int) -> bytes:
    """The header of an extended WEBP with this canvas, and nothing in it."""
    body = (
        b"WEBPVP8X" + struct.pack("<II", 10, 0) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def colours(mode: str = "RGB", count: int = 3, size: tuple[int, int] = (WIDTH, HEIGHT)) -> list[Image.Image]:
    """Frames of one colour each, the first of them red."""
    names = ["red", "lime", "blue"]
    return [Image.new("RGB", size, names[i % 3]).convert(mode) for i in range(count)]


def animation(kind: str, mode: str = "RGB", count: int = 3, **options: Any) -> bytes:
    frames = colours(mode, count)
    return save(frames[0], kind, save_all=True, append_images=frames[1:], duration=40, **options)


def _palette_with_alpha() -> bytes:
    picture = photo().convert("P", palette=Image.Palette.ADAPTIVE, colors=64)
    return save(picture, "PNG", transparency=bytes(range(0, 256, 4)))


def of_every_kind() -> dict[str, bytes]:
    """Name -> file; Pillow reads each of them rightly by itself."""
    palette = photo().convert("P", palette=Image.Palette.ADAPTIVE)
    cmyk = save(photo().convert("CMYK"), "JPEG", quality=95)
    return {
        "png 1": save(photo(mode="1"), "PNG"),
        "png L": save(photo(mode="L"), "PNG"),
        "png L with a transparent grey": save(photo(mode="L"), "PNG", transparency=128),
        "png LA": save(photo(mode="LA"), "PNG"),
        "png P": save(palette, "PNG"),
        "png P with a transparent entry": save(palette, "PNG", transparency=3),
        "png P with alpha": _palette_with_alpha(),
        "png P of 4 bits": save(photo().convert("P", palette=Image.Palette.ADAPTIVE, colors=11), "PNG", bits=4),
        "png RGB": save(photo(), "PNG"),
        "png RGB with a transparent colour": save(photo(), "PNG", transparency=photo().getpixel((5, 5))),
        "png RGBA": save(photo(mode="RGBA"), "PNG"),
        "png RGB interlaced": png(np.asarray(photo()), 8, 2, interlaced=True),
        "png RGB in pieces of one byte": png(np.asarray(photo()), 8, 2, piece=1),
        "png RGBA of 16 bits": png(np.asarray(photo(mode="RGBA")).astype(np.uint16) * 257, 16, 6),
        "png LA of 16 bits": png(np.asarray(photo(mode="LA")).astype(np.uint16) * 257, 16, 4),
        "apng RGBA": animation("PNG", "RGBA"),
        "jpeg L": save(photo(mode="L"), "JPEG"),
        "jpeg 4:4:4": save(photo(), "JPEG", quality=92, subsampling=0),
        "jpeg 4:2:0": save(photo(), "JPEG", quality=92, subsampling=2),
        "jpeg progressive": save(photo(), "JPEG", progressive=True),
        "jpeg with restarts": save(photo(), "JPEG", restart_marker_blocks=1),
        "jpeg CMYK": cmyk,
        "jpeg YCCK": ycck(cmyk),
        "jpeg in RGB": save(photo(), "JPEG", keep_rgb=True),
        "gif P": save(palette, "GIF"),
        "gif L": save(photo(mode="L"), "GIF"),
        "gif P with a transparent entry": save(palette, "GIF", transparency=7),
        "gif animated": animation("GIF", "P"),
        "bmp 1": save(photo(mode="1"), "BMP"),
        "bmp L": save(photo(mode="L"), "BMP"),
        "bmp P": save(palette, "BMP"),
        "bmp RGB": save(photo(), "BMP"),
        "bmp RGBA": save(photo(mode="RGBA"), "BMP"),
        "webp RGB": save(photo(), "WEBP", quality=90),
        "webp RGBA": save(photo(mode="RGBA"), "WEBP", quality=90),
        "webp RGB lossless": save(photo(), "WEBP", lossless=True),
        "webp RGBA lossless": save(photo(mode="RGBA"), "WEBP", lossless=True),
        "webp animated": animation("WEBP", "RGBA"),
    }
