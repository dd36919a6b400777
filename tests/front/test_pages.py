"""Web pages: a closed set of files, each with its type, its policy, and no byte sent twice."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from front.pages import COMPRESS_BYTES_MAX, CONSOLE, DOCUMENTATION, FOLDER, POLICIES, TYPES, Pages
from front.refusals import Refusal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "page.html").write_text("<p>words</p>" * 100)
    (tmp_path / "parts" / "code.js").write_text("let x\n" * 100)
    (tmp_path / "packed.js.gz").write_bytes(gzip.compress(b"let y\n" * 100))
    (tmp_path / "notes.md").write_text("not for the web")
    (tmp_path / ".hidden.js").write_text("nor this")
    (tmp_path.parent / "outside.js").write_text("nor that")
    return tmp_path


def headers(pages: Pages, name: str, **environ: str) -> dict[str, str]:
    return dict(pages.answer(name, environ).headers)


@pytest.mark.parametrize(
    ("name", "content_type", "body"),
    [
        ("page.html", "text/html; charset=utf-8", b"<p>words</p>" * 100),
        ("parts/code.js", "text/javascript; charset=utf-8", b"let x\n" * 100),
        ("packed.js", "text/javascript; charset=utf-8", b"let y\n" * 100),
    ],
)
def test_a_file_comes_with_its_type_compressed_for_those_who_take_it(
    folder: Path, name: str, content_type: str, body: bytes
) -> None:
    pages = Pages(folder)
    plain = pages.answer(name, {})
    packed = pages.answer(name, {"HTTP_ACCEPT_ENCODING": "gzip, br"})
    assert (plain.status, plain.body, dict(plain.headers)["Content-Type"]) == (200, body, content_type)
    assert dict(packed.headers)["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == body


@pytest.mark.parametrize(
    "name",
    ["nothing.html", "notes.md", ".hidden.js", "../outside.js", "parts", "parts/../page.html", "packed.js.gz"],
)
def test_only_the_listed_files_are_there(folder: Path, name: str) -> None:
    with pytest.raises(Refusal, match="no such page"):
        Pages(folder).answer(name, {})


def test_a_browser_that_has_a_file_is_told_so(folder: Path) -> None:
    pages = Pages(folder)
    etag = headers(pages, "page.html")["ETag"]
    assert pages.answer("page.html", {"HTTP_IF_NONE_MATCH": f'"another", {etag}'}).status == 304
    assert pages.answer("page.html", {"HTTP_IF_NONE_MATCH": '"another"'}).status == 200
    assert headers(pages, "parts/code.js")["ETag"] != etag


def test_every_file_says_that_it_is_what_it_says_and_may_do_nothing(folder: Path) -> None:
    said = headers(Pages(folder), "parts/code.js")
    assert said["X-Content-Type-Options"] == "nosniff"
    assert said["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("name", [CONSOLE, DOCUMENTATION])
def test_a_page_may_load_from_this_server_alone(name: str) -> None:
    rules = dict(rule.split(" ", 1) for rule in POLICIES[name].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"
    assert not re.search(r"https?:|\*|unsafe", POLICIES[name])


def test_whatever_lies_in_the_folder_is_served() -> None:
    pages = Pages()
    for path in FOLDER.rglob("*"):
        if path.is_file():
            name = path.relative_to(FOLDER).as_posix().removesuffix(".gz")
            assert Path(name).suffix in TYPES, name
            assert path.suffix == ".gz" or path.stat().st_size <= COMPRESS_BYTES_MAX, f"gzip {name}"
            assert pages.answer(name, {}).body
