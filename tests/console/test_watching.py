"""What the console shows of a server at work: charts, last requests, feedback, why it is degraded, that it is away."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from prediction_log.record import Kind, decode
from prediction_log.tail import read_all
from tests.console.conftest import LONG
from tests.console.pages import choose, console, draw, keep, settled
from tests.faults.asking import post, predict
from tests.harness import SOON_S, Server, fake_http_server, wait_until


@contextmanager
def load(url: str, model: str) -> Iterator[None]:
    """Somebody asks a model again and again meanwhile."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.01):
            predict(url, 1.0, model)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def figure(page: Page, title: str) -> str:
    """What a chart says in words."""
    label = page.get_by_role("img", name=title).get_attribute("aria-label")
    assert label
    return label


def test_charts_move_under_load(browser: Browser) -> None:
    with (
        fake_http_server([{"name": "double"}, {"name": LONG}], fronts=2) as server,
        console(browser, server.url) as page,
    ):
        line = page.locator(".chart path.line").first
        expect(page.locator("#live-text")).to_have_text("Ready")
        with load(server.url, "double"):
            wait_until(lambda: "answered 0," not in figure(page, "Requests per second"), SOON_S, "requests are seen")
            before = line.get_attribute("d")
            wait_until(lambda: line.get_attribute("d") != before, SOON_S, "the chart moves")
            wait_until(lambda: figure(page, "Latency").endswith(" ms"), SOON_S, "percentiles are seen")
            wait_until(lambda: "mean 1" in figure(page, "Rows in a batch"), SOON_S, "batches are seen")
            assert "1 of 1 up" in figure(page, "Workers")
            page.get_by_text("The same as a table").click()
            expect(page.locator("#numbers-table tbody tr").first).to_be_visible()
            keep(page, "load")
        page.locator("#scope").select_option(LONG)
        assert "answered 0," in figure(page, "Requests per second")


def test_feedback_on_an_answer_is_in_the_spool(browser: Browser, server: Server, spool: Path) -> None:
    with console(browser, server.url) as page:
        choose(page, "pictures")
        draw(page, [[(0.3, 0.2), (0.7, 0.2), (0.5, 0.8)]])
        settled(page)
        read = page.locator("#answer .verdict").inner_text()
        judge = page.locator("#answer .judge-line")
        judge.get_by_role("button", name="Wrong").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.get_by_label("The right class").select_option("7")
        page.get_by_role("button", name="Record it").click()
        expect(judge).to_contain_text("wrong, 7 would have been right")
        post(server.url, "/predict/vector", {"features": [1.0] * 10}, **{"X-Request-Id": "order-42"})
        row = page.locator("#requests-rows tr", has_text="order-42")
        row.get_by_role("button", name="Wrong").click()
        page.get_by_label("The right value").fill("2.5")
        page.get_by_role("button", name="Record it").click()
        expect(row).to_contain_text("2.5 would have been right")
        keep(page, "feedback")
        records = [decode(payload) for payload in read_all(spool)]
        told = [json.loads(one.features) for one in records if one.kind == Kind.FEEDBACK]
        assert {"row": 0, "label": "7"} in told, (told, read)
        assert {"row": 0, "label": 2.5} in told


def test_rows_stay_where_they_are_while_somebody_points_at_them(browser: Browser, server: Server) -> None:
    with console(browser, server.url) as page:
        post(server.url, "/predict/vector", {"features": [1.0] * 10}, **{"X-Request-Id": "the-first"})
        expect(page.locator("#requests-rows tr").first).to_contain_text("the-first")
        page.locator("#requests-rows tr").first.hover()
        post(server.url, "/predict/vector", {"features": [1.0] * 10}, **{"X-Request-Id": "the-second"})
        expect(page.locator("#held")).to_contain_text("1 newer")
        expect(page.locator("#requests-rows tr").first).to_contain_text("the-first")
        page.mouse.move(0, 0)
        expect(page.locator("#requests-rows tr").first).to_contain_text("the-second")


def test_a_stopped_worker_is_told_at_the_top_and_forgotten_when_it_is_well(browser: Browser) -> None:
    with fake_http_server([{"name": "double"}]) as server, console(browser, server.url) as page:
        expect(page.locator("#live-text")).to_have_text("Ready")
        worker = server.worker()
        os.kill(worker, signal.SIGSTOP)
        try:
            expect(page.locator("#banners")).to_contain_text("has not responded")
            expect(page.locator("#live-text")).to_have_text("Not ready")
            keep(page, "degraded")
        finally:
            os.kill(worker, signal.SIGCONT)
        expect(page.locator("#banners")).to_be_empty()
        server.kill(server.worker())
        expect(page.locator("#server-cards")).to_contain_text("1 (crashed 1)")


def test_a_server_that_goes_away_is_waited_for(browser: Browser) -> None:
    with fake_http_server([{"name": "double"}]) as first, console(browser, first.url, lost=True) as page:
        expect(page.locator("#live-text")).to_have_text("Ready")
        port = int(first.url.rpartition(":")[2])
        first.signal()
        first.wait()
        expect(page.locator("#banners")).to_contain_text("does not answer")
        expect(page.locator("#live-text")).to_have_text("No answer")
        keep(page, "away")
        with fake_http_server([{"name": "another"}], port=port):
            expect(page.locator("#live-text")).to_have_text("Ready")
            expect(page.locator("#banners")).to_be_empty()
            expect(page.locator("#models")).to_contain_text("another")


def test_fifty_models_are_found_by_a_part_of_their_name(browser: Browser) -> None:
    models = [{"name": f"model_{number:02d}"} for number in range(49)] + [{"name": LONG}]
    with fake_http_server(models) as server, console(browser, server.url) as page:
        expect(page.locator("#models li")).to_have_count(50)
        page.get_by_label("Filter models by name").fill("a_model_with")
        expect(page.locator("#models li")).to_have_count(1)
        expect(page.locator("#models-count")).to_have_text("1 of 50")
        choose(page, LONG)
        assert page.evaluate("document.documentElement.scrollWidth") == 1280
        page.get_by_label("Filter models by name").fill("")
        keep(page, "fifty")
        page.reload()
        expect(page.locator("#try-title")).to_have_text(LONG)
