"""The console in a real browser: how tests open it, draw on it, and what they hold of every page they had open.

Owns that a page asks nobody but its server, and leaves nothing on the browser's log.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.harness import ROOT, SOON_S

ARTEFACTS = ROOT / ".cache" / "console"  # screenshots
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PAD = "canvas.pad"
SCHEMES: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")

expect.set_options(timeout=SOON_S * 1000)


@contextmanager
def console(browser: Browser, url: str, *, refused: tuple[int, ...] = (), lost: bool = False) -> Iterator[Page]:
    """The console of a server, open and told something. At the end: nobody else was asked, and nothing complained.

    refused: statuses that this test brings about; the browser itself notes each such answer. lost: the server is away
    for a while, which the browser notes, too.
    """
    complaints: list[str] = []
    asked: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        noted = [f"the server responded with a status of {status}" for status in refused]
        noted += ["net::ERR_"] if lost else []
        if not any(one in message.text for one in noted):
            complaints.append(f"{message.type}: {message.text} {message.location}")

    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(SOON_S * 1000)
    context.on("request", lambda request: asked.append(request.url))
    context.add_init_script(path=_axe())
    page = context.new_page()
    page.on("console", hear)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    yield page
    context.close()
    allowed = (f"{url}/", "data:", f"blob:{url}/")
    assert [one for one in asked if not one.startswith(allowed)] == []
    assert complaints == []


def _axe() -> Path:
    spec = importlib.util.find_spec("axe_playwright_python")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("axe.min.js")


def choose(page: Page, model: str) -> None:
    """Look at this model."""
    page.get_by_role("list", name="Models").get_by_role("button", name=model, exact=False).first.click()
    expect(page.locator("#try-title")).to_have_text(model)


def violations(page: Page, tags: list[str]) -> list[str]:
    """What axe finds wrong with the page as it stands, by the rules with these tags, in words."""
    found: list[dict[str, Any]] = page.evaluate(
        "tags => axe.run({runOnly: tags}).then(found => found.violations)", tags
    )
    return [f"{one['id']}: {node['target']} {node.get('failureSummary', '')}" for one in found for node in one["nodes"]]


def keep(page: Page, name: str) -> None:
    """A picture of the whole page, for people."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)


def draw(page: Page, strokes: list[list[tuple[float, float]]]) -> None:
    """Draw on the pad with the mouse; points are shares of its side."""
    box = page.locator(PAD).bounding_box()
    assert box
    for stroke in strokes:
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=2)
        page.mouse.up()


def settled(page: Page) -> None:
    """Wait until the answer shown is the one to what is drawn or filled in now."""
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
