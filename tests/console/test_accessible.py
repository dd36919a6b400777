"""Every state of the console before axe: WCAG 2.2 AA and good practice, at two widths, light and dark."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.console.conftest import MODELS
from tests.console.pages import AXE_TAGS, SCHEMES, choose, console, draw, keep, settled, violations
from tests.faults.asking import post
from tests.front.conftest import ADMIN_KEY, KEY
from tests.harness import Server, fake_http_server

WIDTHS = (390, 1280)


def held(page: Page, state: str) -> list[str]:
    """What is wrong with this state, at both widths and in both colours: what axe finds, and whether it is too wide.

    Nothing but colours depends on the scheme, so in the dark only they are looked at again.
    """
    found = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            wrong = violations(page, AXE_TAGS if scheme == "light" else ["cat.color"])
            found += [f"{state}, {width}, {scheme}: {one}" for one in wrong]
        keep(page, f"{state}_{width}")
        wide = page.evaluate("document.documentElement.scrollWidth")
        found += [f"{state}: {wide} pixels wide, the window {width}"] if wide > width else []
    return found


def send(page: Page) -> None:
    page.get_by_role("button", name="Send").click()
    settled(page)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("keys")
    (folder / "keys").write_text(KEY)
    (folder / "admin").write_text(ADMIN_KEY)
    files: dict[str, Any] = {"api_key_file": str(folder / "keys"), "admin_key_file": str(folder / "admin")}
    with fake_http_server(MODELS[:2], **files) as running:
        yield running


def test_axe_finds_nothing_while_models_are_tried(browser: Browser, server: Server) -> None:
    found = []
    with console(browser, server.url, refused=(400,)) as page:
        choose(page, "pictures")
        draw(page, [[(0.3, 0.2), (0.7, 0.2), (0.5, 0.8)]])
        settled(page)
        post(server.url, "/predict/vector", {"features": [1.0] * 10})
        post(server.url, "/predict/vector", {"features": [1.0]})
        expect(page.locator("#requests-rows .badge.bad").first).to_be_visible()
        for details in page.locator("summary").all():
            details.click()
        found += held(page, "drawing")
        page.locator("#answer").get_by_role("button", name="Wrong").click()
        found += held(page, "judging")
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("tab", name="Picture").click()
        found += held(page, "picture")
        choose(page, "rent")
        page.get_by_label("rooms", exact=True).fill("many")
        send(page)
        found += held(page, "refused")
        choose(page, "flowers")
        page.get_by_role("tab", name="JSON").click()
        send(page)
        found += held(page, "json")
        choose(page, "vector")
        send(page)
        found += held(page, "vector")
    assert found == []


def test_axe_finds_nothing_where_keys_are_wanted(browser: Browser, guarded: Server) -> None:
    found = []
    with console(browser, guarded.url, refused=(401, 403)) as page:
        expect(page.get_by_role("dialog")).to_be_visible()
        found += held(page, "asked")
        page.get_by_label("Key", exact=True).fill(KEY)
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#traffic-closed")).to_be_visible()
        found += held(page, "closed")
    assert found == []


def test_axe_finds_nothing_when_all_is_lost(browser: Browser) -> None:
    found = []
    with fake_http_server([{"name": "double"}]) as running, console(browser, running.url, lost=True) as page:
        worker = running.worker()
        os.kill(worker, signal.SIGSTOP)
        try:
            expect(page.locator("#banners")).to_contain_text("has not responded")
            found += held(page, "degraded")
        finally:
            os.kill(worker, signal.SIGCONT)
        running.signal()
        running.wait()
        expect(page.locator("#banners")).to_contain_text("does not answer")
        found += held(page, "away")
    assert found == []
