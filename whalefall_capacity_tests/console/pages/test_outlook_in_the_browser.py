"""Forecasts in headless Chromium, on a made-up fleet: the list, the fan, what if, the accuracy. Pictures as well."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect
from pydantic import SecretStr

from whalefall_capacity.store.access import Role, set_user
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity_tests.browser import SCREENSHOTS, page_of
from whalefall_capacity_tests.console.conftest import copied_store
from whalefall_capacity_tests.console.forecasts import DATED, GIB, STALE, UNEVEN, forecast, put_fleet
from whalefall_capacity_tests.console.pages.browsing import PASSWORD, visiting
from whalefall_capacity_tests.console.serving import Served, served

pytestmark = pytest.mark.slow

INSTANCE = f"/instances/{DATED}"
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 360, "height": 780}


@pytest.fixture(scope="module")
def console(
    store_server: EmbeddedPostgres, past: str, day: date, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A console on forecasts of two days."""
    with copied_store(store_server, past) as store:
        put_fleet(store, day)
        forecast(store, [day - timedelta(days=1), day])
        for role in (Role.ADMIN, Role.VIEW):  # without an admin nobody logs in
            set_user(store, role.value, role, SecretStr(PASSWORD))
        with served(store, tmp_path_factory.mktemp("outlook")) as running:
            yield running


@pytest.fixture
def page(console: Served, browser: Browser) -> Iterator[Page]:
    """A page of somebody who may look; what the browser says against us fails the test."""
    with visiting(browser, console, Role.VIEW.value) as page:
        yield page


def answer_in_place(body: str, route: Route) -> None:
    """Answer as a proxy does whose console is away."""
    route.fulfill(status=502, body=body)


def test_what_a_proxy_answers_in_place_of_the_console_is_told_by_its_status(console: Served, browser: Browser) -> None:
    with page_of(browser) as page:
        page.goto(f"{console.url}/login")
        page.fill("[name=name]", Role.ADMIN.value)
        page.fill("[name=password]", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: not url.endswith("/login"))
        page.goto(f"{console.url}/instances")
        status, button = page.locator("#current-status"), page.get_by_role("button", name="Aggregate current period")
        for body in ("<html>Bad Gateway</html>", '{"detail": "Bad Gateway"}'):
            page.route("**/aggregations/current", functools.partial(answer_in_place, body))
            button.click()
            expect(status).to_have_text(
                "It could not be started: The console did not answer (HTTP 502); a proxy may have answered in its "
                "place. Try again in a moment."
            )
            expect(button).to_be_enabled()


def fan(page: Page) -> dict[str, Any]:
    """Return what is drawn of the fan: the last label and the last size of each line."""
    expect(page.locator("#plot-size")).to_have_attribute("data-drawn", "1")
    lines: dict[str, Any] = page.locator("#plot-size").evaluate(
        "plot => Object.fromEntries(plot.data.filter(trace => trace.meta)"
        ".map(trace => [trace.meta, [trace.x.at(-1), trace.y.at(-1)]]))"
    )
    return lines


def after(day: date, days: int) -> str:
    return str(day + timedelta(days=days))


def test_the_list_leads_to_an_instance_whose_chart_has_the_lines_to_the_limit(
    console: Served, page: Page, day: date
) -> None:
    page.goto(console.url)
    page.get_by_role("link", name="Capacity", exact=True).click()
    rows = page.locator("table.outlook tbody tr")
    expect(rows).to_have_count(6)
    expect(rows.nth(1).locator("td").first).to_have_text(
        f"Full about {after(day, 60)} ({after(day, 53)} \N{EN DASH} {after(day, 69)})"
    )
    page.get_by_role("link", name="dated", exact=True).click()
    expect(page.locator(".answer")).to_contain_text(f"Full about {after(day, 60)}")
    assert fan(page) == {f"fan {key}": [after(day, 69), 459 * GIB] for key in ("latest", "earliest", "expected")} | {
        "limit": [after(day, 69), 459 * GIB]
    }
    expect(page.locator("#waterfall tfoot")).to_contain_text("100.0 %")
    expect(page.locator("#waterfall svg.fall rect")).to_have_count(3)


def test_what_if_is_asked_by_keyboard_and_stands_in_the_url(console: Served, page: Page, day: date) -> None:
    page.goto(f"{console.url}{INSTANCE}?periods=14")
    page.locator("details.what-if summary").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Another limit").fill("429 GiB")
    page.keyboard.press("Enter")
    page.wait_for_url("**?periods=14&if_limit=429+GiB")
    expect(page.locator("#what-if-answer")).to_contain_text(f"Full about {after(day, 30)}")
    assert fan(page)["limit"] == [after(day, 35), 429 * GIB]
    page.get_by_label("Import of").fill("20GiB")
    page.get_by_label("Day of the import").fill(after(day, 3))
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#what-if-answer")).to_contain_text(f"Full about {after(day, 10)}")
    page.locator("#filters [name=periods]").fill("7")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "periods=7" in url and "if_import=20GiB" in url and "if_limit=429+GiB" in url)
    page.get_by_role("link", name="Reset").click()
    page.wait_for_url("**?periods=7")
    expect(page.locator("#what-if-answer")).to_have_count(0)


def test_conditions_that_cannot_be_are_said_beside_the_form(console: Served, page: Page) -> None:
    page.goto(f"{console.url}{INSTANCE}?if_import=20GiB")
    expect(page.get_by_role("alert")).to_have_text("Day of the import: give the day of the import")
    expect(page.get_by_label("Import of")).to_have_value("20GiB")


def test_what_is_refused_has_no_lines(console: Served, page: Page) -> None:
    page.goto(f"{console.url}/instances/{STALE}")
    assert fan(page) == {}
    page.goto(f"{console.url}/instances/{UNEVEN}")
    assert sorted(fan(page)) == ["fan earliest", "limit"]


@pytest.mark.parametrize(
    ("size", "theme", "language", "title"),
    [(WIDE, "light", "en", "Capacity"), (NARROW, "dark", "zh", "容量预测")],
    ids=["wide-light-en", "narrow-dark-zh"],
)
def test_the_pages_fit_and_have_no_serious_accessibility_fault(
    console: Served, page: Page, size: Any, theme: str, language: str, title: str
) -> None:
    page.set_viewport_size(size)
    pages = {
        "capacity": "/capacity",
        "capacity-instance": INSTANCE,
        "capacity-what-if": f"{INSTANCE}?if_limit=600GiB",
        "capacity-refused": f"/instances/{STALE}",
        "accuracy": "/capacity/accuracy?level=database&horizon=30",
    }
    for name, path in pages.items():
        page.goto(f"{console.url}{path}{'&' if '?' in path else '?'}theme={theme}&lang={language}")
        expect(page.locator(".plot[data-drawn]")).to_have_count(page.locator(".plot").count())
        expect(page.get_by_role("link", name=title, exact=True)).to_be_visible()
        page.screenshot(path=SCREENSHOTS / f"console-{name}-{size['width']}-{theme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide"
        faults = [
            f"{name}: {fault['id']}: {fault['nodes'][0]['html'][:120]}"
            for fault in Axe().run(page).response["violations"]
            if fault["impact"] in {"serious", "critical"}
        ]
        assert faults == []


def test_the_accuracy_is_drawn_beside_the_simple_methods(console: Served, page: Page) -> None:
    page.goto(f"{console.url}/capacity")
    page.get_by_role("link", name="How good forecasts were").click()
    page.get_by_role("link", name="30", exact=True).first.click()
    page.wait_for_url("**/capacity/accuracy?horizon=30")
    expect(page.locator("#plot-error")).to_have_attribute("data-drawn", "3")
    names = page.locator("#plot-error").evaluate("plot => plot.data.map(trace => trace.name)")
    assert names == ["this forecast", "no growth", "least squares of 90 days"]
    expect(page.locator("table.accuracy").last.locator("tbody tr")).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV of all rows").click()
    assert download.value.suggested_filename == "forecast-accuracy.csv"
