"""The browser that tests use: Debian's Chromium, without a window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.system_tools import system_tool

# A container's root has no sandbox of its own to give away, and its shared memory is often small.
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser for the length of the block. Its loop would be in the way of others', so it must end with its tests."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=system_tool("chromium"), args=ARGUMENTS) as launched,
    ):
        yield launched
