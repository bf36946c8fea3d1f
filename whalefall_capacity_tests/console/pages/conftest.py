"""A browser for the tests of the pages, one a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from whalefall_capacity_tests.browser import open_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    with open_browser() as found:
        yield found
