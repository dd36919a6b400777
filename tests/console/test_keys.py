"""The console of a server that wants keys: asked once, kept for the tab, and what a lesser key leaves shut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.console.pages import choose, console, keep, settled
from tests.front.conftest import ADMIN_KEY, KEY
from tests.harness import Server, fake_http_server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Predictions take KEY or ADMIN_KEY, the server's state ADMIN_KEY."""
    folder: Path = tmp_path_factory.mktemp("keys")
    (folder / "keys").write_text(f"{KEY}\n{ADMIN_KEY}\n")
    (folder / "admin").write_text(ADMIN_KEY)
    files: dict[str, Any] = {"api_key_file": str(folder / "keys"), "admin_key_file": str(folder / "admin")}
    with fake_http_server([{"name": "double"}], **files) as running:
        yield running


def give(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use it").click()


def test_a_key_is_asked_for_once_and_kept_for_the_tab(browser: Browser, guarded: Server) -> None:
    with console(browser, guarded.url, refused=(401,)) as page:
        dialog = page.get_by_role("dialog", name="This server wants a key")
        expect(dialog).to_be_visible()
        keep(page, "key")
        give(page, "a-key-that-nobody-here-knows-of-at-all")
        expect(dialog).to_contain_text("does not know this key")
        give(page, ADMIN_KEY)
        expect(dialog).to_be_hidden()
        expect(page.locator("#live-text")).to_have_text("Ready")
        choose(page, "double")
        page.get_by_role("button", name="Send").click()
        settled(page)
        expect(page.locator("#answer-status")).to_contain_text("200")
        page.get_by_text("The same from a terminal").click()
        expect(page.locator("#curl")).to_contain_text('-H "Authorization: Bearer $KEY"')
        assert ADMIN_KEY not in page.content()
        page.reload()
        expect(page.locator("#live-text")).to_have_text("Ready")
        expect(dialog).to_be_hidden()
        assert page.evaluate("sessionStorage.getItem('key')") == ADMIN_KEY
        assert page.evaluate("localStorage.length") == 0


def test_a_key_for_predictions_alone_still_opens_the_form(browser: Browser, guarded: Server) -> None:
    with console(browser, guarded.url, refused=(401, 403)) as page:
        give(page, KEY)
        expect(page.locator("#traffic-closed")).to_contain_text("opens predictions, but not the server's state")
        expect(page.locator("#live-text")).to_have_text("Connected")
        page.get_by_role("button", name="Send").click()
        settled(page)
        expect(page.locator("#answer-status")).to_contain_text("200")
        keep(page, "lesser_key")
        page.get_by_role("button", name="Use another key").click()
        give(page, ADMIN_KEY)
        expect(page.locator("#live-text")).to_have_text("Ready")
        expect(page.locator("#charts")).to_be_visible()


def test_whoever_gives_no_key_is_not_asked_again(browser: Browser, guarded: Server) -> None:
    with console(browser, guarded.url, refused=(401,)) as page:
        dialog = page.get_by_role("dialog", name="This server wants a key")
        page.get_by_role("button", name="Not now").click()
        expect(dialog).to_be_hidden()
        page.get_by_role("button", name="Key", exact=True).click()
        expect(dialog).to_be_visible()
