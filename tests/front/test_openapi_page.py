"""The documentation page in a real browser: it lists each model's operations and sends what is tried out."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page

from front.pages import FOLDER
from tests.chromium import chromium
from tests.documented import DOUBLE, HOUSE
from tests.front.conftest import KEY
from tests.harness import Server, fake_http_server


class Seen(NamedTuple):
    """A page, what it has printed on the browser's console, and whom it has asked."""

    page: Page
    printed: list[str]
    asked: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def seen(browser: Browser) -> Iterator[Seen]:
    with browser.new_context() as context:
        seen = Seen(context.new_page(), [], [])
        seen.page.on("console", lambda message: seen.printed.append(f"{message.type}: {message.text}"))
        seen.page.on("pageerror", lambda error: seen.printed.append(f"error: {error}"))
        seen.page.on("request", lambda request: seen.asked.append(request.url))
        yield seen


def try_out(seen: Seen, server: Server, path: str) -> str:
    """Send the sample of an operation; what is shown of the answer."""
    operation = seen.page.locator(f'.opblock:has([data-path="{path}"])').first
    operation.locator(".opblock-summary-control").click()
    operation.locator(".execute").click()
    answer = operation.locator(".live-responses-table .response").first
    answer.wait_for()
    assert all(url.startswith(f"{server.url}/") for url in seen.asked), seen.asked
    return answer.inner_text()


def test_the_packaged_copy_names_its_version_and_asks_nobody_else() -> None:
    folder = FOLDER / "docs"
    script = gzip.decompress((folder / "swagger-ui-bundle.js.gz").read_bytes()).decode()
    style = (folder / "swagger-ui.css").read_text()
    (version,) = re.findall(r"^/\*! swagger-ui-dist (5\.\d+\.\d+);", script)
    assert version in (folder / "README.txt").read_text()
    assert "Apache License" in (folder / "swagger-ui.LICENSE.txt").read_text()
    for text in (script, style):
        assert "sourceMappingURL" not in text
        assert "validator.swagger.io" not in text
    assert not re.search(r"url\(['\"]?https?:|@import", style)


def test_the_page_lists_a_models_operations_and_tries_one_out(seen: Seen) -> None:
    with fake_http_server([HOUSE, DOUBLE], default_model="house") as server:
        seen.page.goto(f"{server.url}/docs")
        seen.page.locator('.opblock [data-path="/v2/models/house/infer"]').wait_for()
        answered = try_out(seen, server, "/predict/house")
    assert answered.startswith("200")
    assert '"ok": true' in answered
    assert not seen.printed


def test_the_page_asks_for_a_key_and_keeps_it_for_the_tab(seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY)
    with fake_http_server([HOUSE], api_key_file=str(tmp_path / "keys")) as server:
        seen.page.goto(f"{server.url}/docs")
        seen.page.get_by_label("Key").fill("a-wrong-key-of-more-than-32-characters")
        seen.page.get_by_role("button", name="Show").click()
        seen.page.get_by_text("This key does not open").wait_for()
        seen.page.get_by_label("Key").fill(KEY)
        seen.page.get_by_role("button", name="Show").click()
        assert try_out(seen, server, "/predict/house").startswith("200")
        assert seen.page.evaluate("sessionStorage.getItem('key')") == KEY
    # The browser itself prints that the document was refused, once without a key and once with the wrong one.
    assert [line for line in seen.printed if "401" not in line] == []
