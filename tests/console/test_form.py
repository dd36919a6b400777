"""The form that the console makes of a contract: filled in, sent, explained, and kept in step with the JSON."""

from __future__ import annotations

import json
import re
from typing import Any

from playwright.sync_api import Browser, Page, expect

from tests.console.conftest import EVIL
from tests.console.pages import choose, console, keep, settled
from tests.harness import Server, fake_http_server


def send(page: Page) -> None:
    page.get_by_role("button", name="Send").click()
    settled(page)


def test_a_form_is_filled_in_and_answered_with_its_timings(browser: Browser, server: Server) -> None:
    with console(browser, server.url) as page:
        choose(page, "rent")
        page.get_by_label("square_metres", exact=True).fill("80")
        page.get_by_label("rooms", exact=True).fill("3")
        send(page)
        expect(page.locator("#answer-status")).to_contain_text("200")
        expect(page.locator("#answer .values li")).to_have_text(["160", "6"])
        words = page.locator("#answer .timing .legend").inner_text()
        assert all(part in words for part in ("parse", "queue", "compute", "encode"))
        keep(page, "form")


def test_what_is_wrong_is_said_beside_its_field_and_the_sample_mends_it(browser: Browser, server: Server) -> None:
    with console(browser, server.url, refused=(400,)) as page:
        choose(page, "rent")
        box = page.get_by_label("rooms", exact=True)
        box.fill("many")
        send(page)
        expect(box).to_have_attribute("aria-invalid", "true")
        expect(box).to_be_focused()
        field = page.locator(".field", has=page.locator(f"#{box.get_attribute('id')}"))
        expect(field.locator(".wrong")).to_contain_text('"rooms" must be a number')
        expect(box).to_have_accessible_description(re.compile("must be a number"))
        expect(page.locator("#answer")).to_contain_text("BAD_INPUT")
        keep(page, "error")
        page.get_by_role("button", name="Use this sample").click()
        expect(box).not_to_have_attribute("aria-invalid", "true")
        send(page)
        expect(page.locator("#answer-status")).to_contain_text("200")


def test_form_and_json_say_the_same(browser: Browser, server: Server) -> None:
    with console(browser, server.url, refused=(400,)) as page:
        choose(page, "rent")
        page.get_by_label("rooms", exact=True).fill("4")
        page.get_by_role("tab", name="JSON").click()
        body = page.get_by_label("Body", exact=True)
        assert json.loads(body.input_value()) == {"square_metres": 60, "rooms": 4}
        body.fill('{"square_metres": 70, "rooms": 5}')
        page.get_by_role("tab", name="Form").click()
        expect(page.get_by_label("square_metres", exact=True)).to_have_value("70")
        expect(page.locator("#curl")).to_contain_text('{"square_metres":70,"rooms":5}')
        page.get_by_role("tab", name="JSON").click()
        body.fill('{"instances": [{"square_metres": 1, "rooms": 1}]}')
        send(page)
        expect(page.locator(".panel:visible .wrong")).to_contain_text("/instances/0/square_metres")
        keep(page, "json")


def test_the_arrow_keys_move_between_tabs_and_step_numbers(browser: Browser, server: Server) -> None:
    with console(browser, server.url) as page:
        choose(page, "rent")
        page.get_by_role("tab", name="Form").press("ArrowRight")
        expect(page.get_by_role("tab", name="JSON")).to_be_focused()
        expect(page.get_by_role("tab", name="JSON")).to_have_attribute("aria-selected", "true")
        page.get_by_role("tab", name="JSON").press("Home")
        box = page.get_by_label("rooms", exact=True)
        box.press("ArrowUp")
        expect(box).to_have_value("3")
        box.press("Enter")
        settled(page)
        expect(page.locator("#answer .values li")).to_have_text(["120", "6"])


def test_numbers_are_pasted_over_a_vector(browser: Browser, server: Server) -> None:
    with console(browser, server.url) as page:
        choose(page, "vector")
        page.get_by_label(", 1 of 10").evaluate(
            """box => {
                const data = new DataTransfer();
                data.setData("text", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10");
                box.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}));
            }"""
        )
        send(page)
        expect(page.locator("#answer .values li").last).to_have_text("20")
        keep(page, "vector")


def test_a_block_of_numbers_is_text_and_a_huge_answer_is_shortened(browser: Browser, server: Server) -> None:
    with console(browser, server.url) as page:
        choose(page, "block")
        page.locator(".panel:visible textarea").fill(" ".join(["1.5"] * 2000))
        expect(page.locator(".panel:visible .hint")).to_contain_text("2000 of 2000 values")
        send(page)
        expect(page.locator("#answer")).to_contain_text("values, 1,936 of them not shown")
        expect(page.locator("#answer .values li")).to_have_count(64)
        keep(page, "block")


def test_null_for_nan_is_said_in_words(browser: Browser, server: Server) -> None:
    with console(browser, server.url) as page:
        choose(page, "nothing")
        send(page)
        expect(page.locator("#answer")).to_contain_text("null not a finite number")


def test_labels_and_descriptions_with_markup_are_text(browser: Browser, server: Server) -> None:
    with console(browser, server.url) as page:
        page.on("dialog", lambda dialog: dialog.dismiss())
        choose(page, "flowers")
        page.get_by_role("tab", name="JSON").click()
        page.get_by_label("Body", exact=True).fill('{"features": [0, 0, 0, 0]}')
        send(page)
        expect(page.locator("#answer .verdict")).to_have_text(EVIL)
        choose(page, "rent")
        expect(page.locator("#about-text")).to_contain_text(EVIL)
        assert page.locator("img").count() == 0


def test_the_curl_line_is_what_was_sent(browser: Browser, server: Server) -> None:
    with console(browser, server.url) as page:
        choose(page, "vector")
        page.get_by_text("The same from a terminal").click()
        command = page.locator("#curl").inner_text()
        assert command.startswith("curl -d '{")
        assert command.endswith(f"'{server.url}/predict/vector'")


def test_the_page_says_what_may_run_in_it(browser: Browser, server: Server) -> None:
    with console(browser, server.url) as page:
        answer = page.request.get(server.url)
        policy = answer.headers["content-security-policy"]
        for part in (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "require-trusted-types-for 'script'",
        ):
            assert part in policy
        assert "unsafe" not in policy


def test_several_inputs_are_filled_in_each_in_its_way(browser: Browser) -> None:
    inputs = [["age", "float32", []], ["name", "string", []], ["member", "bool", []], ["places", "float32", [None, 2]]]
    mixed = {"name": "mixed", "kind": "echo", "inputs": inputs}
    with fake_http_server([mixed]) as running, console(browser, running.url) as page:
        page.get_by_label("age", exact=True).fill("7")
        page.get_by_label("name", exact=True).fill("Ada <b>")
        page.get_by_label("member", exact=True).select_option("true")
        page.get_by_label("places", exact=True).fill("1 2 3 4 5 6")
        send(page)
        expect(page.locator("#answer .outputs > dd")).to_contain_text(["7", "Ada <b>", "true", "3 × 2 values"])  # noqa: RUF001
        keep(page, "mixed")


def test_another_version_is_chosen_and_answers(browser: Browser) -> None:
    versions: list[dict[str, Any]] = [{"name": "double"}, {"name": "double", "version": "2", "factor": 5}]
    with fake_http_server(versions) as running, console(browser, running.url) as page:
        send(page)
        expect(page.locator("#answer .meta")).to_contain_text("version 2")
        page.get_by_label("Version to ask").select_option("1")
        expect(page.locator("#endpoint")).to_have_text("POST /predict/double?version=1")
        send(page)
        expect(page.locator("#answer .meta")).to_contain_text("version 1")
