"""Headless Chromium in the operator's zone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, expect, sync_playwright

from whalefall_capacity.settings import PROJECT_ROOT
from whalefall_capacity_tests.processes import PATIENCE_SECONDS

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Of everything that a page is expected to show, in all tests of a process.
PATIENCE_MILLISECONDS = 1000 * PATIENCE_SECONDS
expect.set_options(timeout=PATIENCE_MILLISECONDS)
ZONE = "Asia/Shanghai"
SCREENSHOTS = PROJECT_ROOT / "screenshots"


@contextmanager
def open_browser(*options: str) -> Iterator[Browser]:
    """Hold a browser, with more *options*; the pictures of its pages go to SCREENSHOTS."""
    SCREENSHOTS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*CHROMIUM_OPTIONS, *options])
        yield browser
        browser.close()


@contextmanager
def open_page(*options: str) -> Iterator[Page]:
    """Hold a browser, with more *options*, with one page."""
    with open_browser(*options) as browser, page_of(browser) as page:
        yield page


@contextmanager
def page_of(browser: Browser) -> Iterator[Page]:
    """Hold a page of a browser that knows nothing of its other pages."""
    # The operator's browser is in the zone of the fleet: the UI's "last 90 days" end on the browser's date.
    page = browser.new_page(viewport={"width": 1600, "height": 1000}, timezone_id=ZONE)
    page.set_default_timeout(PATIENCE_MILLISECONDS)
    yield page
    page.close()
