"""Pictures in the console: drawn on the pad with the demo's digits, dropped, chosen, and cleared again."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from inference_server import InferenceServer
from tests.console.drawings import HANDS
from tests.console.pages import PAD, choose, console, draw, keep, settled

ENOUGH = 27  # of 30


@pytest.fixture(scope="module")
def digits(demo_models: Path) -> Iterator[InferenceServer]:
    with InferenceServer(models=demo_models / "digits") as running:
        yield running


def jpeg(digit: bytes) -> bytes:
    """The same picture as a large JPEG."""
    out = io.BytesIO()
    Image.open(io.BytesIO(digit)).convert("RGB").resize((320, 320)).save(out, "JPEG")
    return out.getvalue()


def drop(page: Page, data: bytes, name: str, kind: str) -> None:
    """Drop a file on the place for pictures."""
    page.locator(".drop").evaluate(
        """(place, [data, name, kind]) => {
            const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, {type: kind}));
            place.dispatchEvent(new DragEvent("dragover", {dataTransfer: transfer, bubbles: true, cancelable: true}));
            place.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
        }""",
        [base64.b64encode(data).decode(), name, kind],
    )


def test_thirty_drawings_by_three_hands_are_read(browser: Browser, digits: InferenceServer) -> None:
    wrong = []
    with console(browser, digits.url) as page:
        expect(page.locator(PAD)).to_be_visible()
        for hand in HANDS:
            for digit in range(10):
                draw(page, hand.strokes(digit))
                settled(page)
                read = page.locator("#answer .verdict").inner_text()
                if read != str(digit):
                    wrong.append((hand.name, digit, read))
                if (hand.name, digit) == ("quick", 4):
                    keep(page, "drawn")
                page.get_by_role("button", name="Clear").click()
                expect(page.locator("#answer .empty")).to_be_visible()
    assert len(wrong) <= 30 - ENOUGH, wrong


def test_a_drawing_is_classified_while_it_is_drawn_by_one_request_at_a_time(
    browser: Browser, digits: InferenceServer
) -> None:
    with console(browser, digits.url) as page:
        sent: list[str] = []
        most = 0

        def begin(url: str) -> None:
            nonlocal most
            if "/classify/" in url:
                sent.append(url)
                most = max(most, len(sent))

        def end(url: str) -> None:
            if "/classify/" in url:
                sent.remove(url)

        page.on("request", lambda request: begin(request.url))
        page.on("requestfinished", lambda request: end(request.url))
        box = page.locator(PAD).bounding_box()
        assert box
        page.mouse.move(box["x"] + 60, box["y"] + 60)
        page.mouse.down()
        for step in range(12):
            page.mouse.move(box["x"] + 60 + 12 * step, box["y"] + 60, steps=2)
            if step == 6:  # the pen is still down
                expect(page.locator("#answer .bars li")).to_have_count(10)
        page.mouse.up()
        settled(page)
        assert most == 1
        assert page.locator("#answer .bars li").count() == 10


def test_undo_takes_a_stroke_back_and_clear_all(browser: Browser, digits: InferenceServer) -> None:
    with console(browser, digits.url) as page:
        pad = page.locator(PAD)
        expect(page.get_by_role("button", name="Undo")).to_be_disabled()
        draw(page, [[(0.2, 0.2), (0.8, 0.2)], [(0.8, 0.2), (0.4, 0.8)]])
        expect(pad).to_have_attribute("aria-label", "Drawing pad, 2 strokes")
        page.get_by_role("button", name="Undo").click()
        expect(pad).to_have_attribute("aria-label", "Drawing pad, 1 stroke")
        page.get_by_role("button", name="Clear").click()
        expect(pad).to_have_attribute("aria-label", "Drawing pad, empty")
        expect(page.locator("#answer .empty")).to_be_visible()


def test_a_dropped_jpeg_and_a_chosen_png_are_classified(
    browser: Browser, digits: InferenceServer, held_out_digits: list[tuple[bytes, int]]
) -> None:
    (first, number), (second, other) = held_out_digits[:2]
    with console(browser, digits.url) as page:
        choose(page, "digits")
        page.get_by_role("tab", name="Picture").click()
        drop(page, jpeg(first), "photo.jpg", "image/jpeg")
        settled(page)
        expect(page.locator("#answer .verdict")).to_have_text(str(number))
        expect(page.locator(".drop img")).to_be_visible()
        keep(page, "picture")
        page.locator(".drop input").set_input_files({"name": "b.png", "mimeType": "image/png", "buffer": second})
        expect(page.locator(".drop-text")).to_contain_text("b.png")
        settled(page)
        expect(page.locator("#answer .verdict")).to_have_text(str(other))


def test_what_is_no_picture_is_explained_where_it_was_dropped(browser: Browser, digits: InferenceServer) -> None:
    with console(browser, digits.url, refused=(400, 415)) as page:
        page.get_by_role("tab", name="Picture").click()
        drop(page, b"not a picture at all", "notes.png", "image/png")
        settled(page)
        expect(page.locator(".drop .wrong")).not_to_be_empty()
        expect(page.locator("#answer .refusal")).to_be_visible()
