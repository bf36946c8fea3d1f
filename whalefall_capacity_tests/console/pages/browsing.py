"""Visits to a running console in headless Chromium, by somebody who has logged in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from playwright.sync_api import Browser, BrowserContext, Page, StorageState

from whalefall_capacity_tests.browser import PATIENCE_MILLISECONDS, ZONE

PASSWORD = "a password for tests"
WIDE, NARROW = (1600, 1000), (360, 780)


class Place(Protocol):
    """A running console, and what the browsers of those who have logged in there keep."""

    @property
    def url(self) -> str: ...

    @property
    def sessions(self) -> dict[str, StorageState]: ...


@contextmanager
def visiting(
    browser: Browser, place: Place, user: str | None = "admin", size: tuple[int, int] = WIDE, **options: str
) -> Iterator[Page]:
    """Hold a page of somebody who has logged in; what its console says against us fails the test.

    Each user logs in once at a console, and is still logged in when he comes again.
    """
    context: BrowserContext = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        timezone_id=ZONE,
        base_url=place.url,
        locale=options.get("locale", "en-GB"),
        color_scheme=options.get("scheme", "light"),  # type: ignore[arg-type]
        storage_state=place.sessions.get(user) if user is not None else None,
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MILLISECONDS)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console", lambda m: complaints.append(m.text) if m.type == "error" and "status of 4" not in m.text else None
    )
    if user is not None and user not in place.sessions:
        page.goto("/login")
        page.fill("[name=name]", user)
        page.fill("[name=password]", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: not url.endswith("/login"))
        place.sessions[user] = context.storage_state()
    yield page
    context.close()
    assert complaints == []
