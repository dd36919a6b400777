"""Make the README's pictures of the console: a live server with the demo models, some load, a digit drawn by mouse.

    scripts/picture_console.py [--out docs]

Writes console.png and console-dark.png. Needs what requirements-dev.txt lists and Debian's chromium.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from inference_server import InferenceServer  # noqa: E402 - only ours, so only now

MODELS = ROOT / "models" / "saved"
WIDTH, HEIGHT = 1280, 1296
COLOURS = 256  # of the picture's palette: the page has few
LOAD_S = 25.0  # so much of the charts is filled
FOUR = [[(0.6, 0.14), (0.26, 0.6), (0.78, 0.6)], [(0.66, 0.36), (0.63, 0.88)]]
BODIES: dict[str, list[dict[str, Any]]] = {
    "dummy": [{"features": [0.1 * number for number in range(10)]}],
    "linear_regression": [{"instances": [{"feature": number / 7} for number in range(24)]}, {"feature": 2.0}],
    "two_features": [{"feature1": 0.5, "feature2": -1.5}, {"feature1": 0.5, "feature2": "a"}],
}


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="Make the README's pictures of the console.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="the folder for console.png, console-dark.png")
    parser.add_argument("--models", type=Path, default=MODELS, help="the folder of the demo models")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("needs chromium (Debian package chromium)")
    if not (arguments.models / "digits").is_dir():
        sys.exit(f"there is no model digits in {arguments.models}: scripts/create_demo_models.py makes it")
    with (
        TemporaryDirectory() as log,
        InferenceServer(models=arguments.models, default_model="dummy", prediction_log_dir=log) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        for name, picture in pictures(browser, server.url):
            path = arguments.out / name
            path.write_bytes(packed(picture))
            print(f"{path}: {path.stat().st_size // 1024} KiB")
        browser.close()
    return 0


def pictures(browser: Browser, url: str) -> Iterator[tuple[str, bytes]]:
    """(file name, PNG) of the page in both colours, after the same load."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", reduced_motion="reduce")
    page.goto(f"{url}/?model=digits")
    page.locator("canvas.pad").wait_for()
    with load(url):
        page.wait_for_timeout(LOAD_S * 1000)
        draw(page)
        yield "console.png", page.screenshot()
        page.emulate_media(color_scheme="dark")
        yield "console-dark.png", page.screenshot()


def draw(page: Page) -> None:
    """A four, and its answer."""
    box = page.locator("canvas.pad").bounding_box()
    if box is None:
        raise RuntimeError("the pad is not to be seen")
    for stroke in FOUR:
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=8)
        page.mouse.up()
    page.locator("#answer[aria-busy=false] .verdict").wait_for()


@contextmanager
def load(url: str) -> Iterator[None]:
    """A few clients, at a pace that rises and falls, until the block ends."""
    over = threading.Event()

    def ask(model: str, bodies: list[dict[str, Any]], pause_s: float) -> None:
        connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
        for number in itertools.count():
            body = bodies[0] if number % 23 else bodies[-1]
            connection.request("POST", f"/predict/{model}", json.dumps(body))  # one of them is refused, to be seen
            connection.getresponse().read()
            if over.wait(pause_s * (1 + (number // 60) % 3)):
                break
        connection.close()

    threads = [
        threading.Thread(target=ask, args=(model, bodies, 0.006 * (1 + number)))
        for number, (model, bodies) in enumerate(BODIES.items())
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def packed(png: bytes) -> bytes:
    """The same picture with a palette."""
    out = BytesIO()
    picture = Image.open(BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    sys.exit(main())
