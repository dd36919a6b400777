"""The web pages: the files of front/static, and what a browser must be told about each of them.

Owns their names (a closed set, read from the disk once), types, caching and Content-Security-Policy. Knows nothing of
what they show: they hold no data, so they need no key.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from front.halves import Response
from front.refusals import Refusal

FOLDER = Path(__file__).resolve().parent / "static"
CONSOLE, DOCUMENTATION = "console.html", "docs.html"

# What is not listed here is not sent.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}
# Longer files lie in the folder compressed already (name.js.gz): that would hold up the front's loop.
COMPRESS_BYTES_MAX = 256 * 1024

_OWN = "script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
POLICIES = {
    CONSOLE: f"default-src 'none'; {_OWN}; style-src 'self'; img-src 'self' data: blob:; "
    "require-trusted-types-for 'script'",
    DOCUMENTATION: f"default-src 'none'; {_OWN}; style-src 'self'; img-src 'self' data:",  # its pictures are data:
}
_SAFE = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


class Page(NamedTuple):
    """One file. gzip: its bytes compressed, None where that does not pay."""

    content_type: str
    plain: bytes
    gzip: bytes | None
    etag: str


class Pages:
    """All files of a folder, by their paths in it; each is read when it is first asked for."""

    def __init__(self, folder: Path = FOLDER) -> None:
        files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        self._files = {path.relative_to(folder).as_posix().removesuffix(".gz"): path for path in files}
        self._pages: dict[str, Page] = {}

    def answer(self, name: str, environ: Mapping[str, Any]) -> Response:
        """A file; 304 where the browser has it already. Raises Refusal where there is none of that name."""
        page = self._page(name)
        headers = [
            ("Content-Type", page.content_type),
            ("ETag", page.etag),
            ("Cache-Control", "no-cache"),  # kept, but asked for again: another version of the server has other pages
            ("Content-Security-Policy", POLICIES.get(name, "default-src 'none'; frame-ancestors 'none'")),
            ("Vary", "Accept-Encoding"),
            *_SAFE,
        ]
        body = page.plain
        if page.gzip is not None and "gzip" in environ.get("HTTP_ACCEPT_ENCODING", ""):
            body = page.gzip
            headers.append(("Content-Encoding", "gzip"))
        known = (tag.strip() for tag in environ.get("HTTP_IF_NONE_MATCH", "").split(","))
        return Response(304 if page.etag in known else 200, headers, body)

    def _page(self, name: str) -> Page:
        path = self._files.get(name)
        kind = None if path is None else TYPES.get(Path(name).suffix)
        if path is None or kind is None:
            raise Refusal("NOT_FOUND", "there is no such page; the console is at / and the documentation at /docs")
        if name not in self._pages:
            self._pages[name] = _read(path, kind)
        return self._pages[name]


def _read(path: Path, content_type: str) -> Page:
    data = path.read_bytes()
    if path.suffix == ".gz":
        plain, packed = gzip.decompress(data), data
    else:
        plain = data
        packed = gzip.compress(data, mtime=0) if len(data) <= COMPRESS_BYTES_MAX else data
    smaller = packed if len(packed) < len(plain) else None
    # Weak, since the same one stands for the plain bytes and for the compressed ones.
    return Page(content_type, plain, smaller, f'W/"{sha256(plain).hexdigest()[:32]}"')
