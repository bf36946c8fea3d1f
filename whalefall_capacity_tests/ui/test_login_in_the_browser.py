"""The UI with a login in headless Chromium: anonymous, viewer and admin, and what a logout ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Page, expect
from pydantic import SecretStr
from sqlalchemy import Engine

from whalefall_capacity.store.access import Role, create_token, set_user
from whalefall_capacity.store.postgres.embedded import STORE_DATABASE, EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity_tests.browser import SCREENSHOTS, open_browser
from whalefall_capacity_tests.console.conftest import PASSWORD
from whalefall_capacity_tests.processes import Deployment, deployment, wait_for
from whalefall_capacity_tests.ui.pages import LAUNCH_MAINTENANCE, runs, schedules, stop_schedule

pytestmark = pytest.mark.slow

MAINTENANCE = "/locations/whalefall_capacity/jobs/partition_maintenance/playground"
# What a viewer can try by hand in the tools of the browser, on the page of the UI itself.
SEND = """
async ([document, how]) => {
  if (how === "websocket") {
    const socket = new WebSocket(location.origin.replace("http", "ws") + "/graphql", "graphql-ws");
    socket.onopen = () => socket.send(JSON.stringify({id: "1", type: "start", payload: {query: document}}));
    return await new Promise((resolve) => { socket.onclose = (closed) => resolve(closed.code); });
  }
  const link = "/graphql?query=" + encodeURIComponent(document);
  const headers = {"Content-Type": "application/json"};
  const body = JSON.stringify({query: document});
  const answer = how === "get" ? await fetch(link) : await fetch("/graphql", {method: "POST", headers, body});
  return answer.status;
}
"""


@dataclass(frozen=True)
class Protected:
    """`up` with a login before the Dagster UI, and its store; *running* asks with the token of an admin."""

    running: Deployment
    store: Engine


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    folder = tmp_path_factory.mktemp("protected")
    home = folder / "home"
    variables = {"WHALEFALL_HOME": str(home), "WHALEFALL_UI_LOGIN": "true"}
    with deployment(["up"], variables, folder / "up.log") as running:
        engine = create_store_engine(EmbeddedPostgres(home / "postgres").url(STORE_DATABASE))
        for role in Role:
            set_user(engine, role.value, role, SecretStr(PASSWORD))
        token = create_token(engine, "tests", Role.ADMIN).get_secret_value()
        wait_for(running.console_answers, "answer of the console")
        yield Protected(running.with_token(token), engine)
        engine.dispose()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        yield found


@contextmanager
def visiting(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, locale="en-GB")
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


def log_in(page: Page, url: str, name: str) -> None:
    """Fill in the form to which *url* leads whoever is nobody."""
    page.goto(url)
    page.fill("[name=name]", name)
    page.fill("[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(url)


def test_anonymous_sees_the_login_and_nothing_else(protected: Protected, browser: Browser) -> None:
    with visiting(browser) as page:
        page.goto(f"{protected.running.url}/runs?statuses=x")
        assert page.url == f"{protected.running.url}/whalefall/login?next=%2Fruns%3Fstatuses%3Dx"
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        page.screenshot(path=SCREENSHOTS / "ui-login.png")
        for how in ("post", "get"):
            assert page.evaluate(SEND, ["{ version }", how]) == 401
        assert page.evaluate(SEND, ["subscription { x }", "websocket"]) == 1006


def test_a_viewer_sees_everything_and_cannot_launch(protected: Protected, browser: Browser) -> None:
    running = protected.running
    before = (schedules(running), runs(running))
    documents = [stop_schedule(running, "daily_collection"), LAUNCH_MAINTENANCE]
    with visiting(browser) as page:
        log_in(page, f"{running.url}/assets/database_size_stats", "view")
        expect(page.get_by_role("tab", name="Partitions")).to_be_visible()
        expect(page.get_by_role("button", name="Materialize")).to_be_disabled()
        page.screenshot(path=SCREENSHOTS / "ui-viewer.png")
        page.goto(f"{running.url}{MAINTENANCE}")
        expect(page.get_by_role("tab", name="Overview")).to_be_visible()
        page.screenshot(path=SCREENSHOTS / "ui-viewer-job.png")
        expect(page.get_by_role("button", name="Launch Run")).to_have_count(0)
        for document in documents:
            assert [page.evaluate(SEND, [document, how]) for how in ("post", "get", "websocket")] == [403, 405, 1008]
    assert (schedules(running), runs(running)) == before


def test_an_admin_launches_by_clicks(protected: Protected, browser: Browser) -> None:
    running = protected.running
    with visiting(browser) as page:
        log_in(page, f"{running.url}{MAINTENANCE}", "admin")
        expect(page.get_by_text("No errors")).to_be_visible()
        page.get_by_role("button", name="Launch Run").click()
        wait_for(lambda: [run["status"] for run in runs(running)] == ["SUCCESS"], "run of the admin")
        page.goto(f"{running.url}/assets/database_size_stats")
        expect(page.get_by_role("tab", name="Partitions")).to_be_visible()
        expect(page.get_by_role("button", name="Materialize")).to_be_enabled()


def test_the_console_starts_runs_in_the_name_of_the_admin_who_asks_it(protected: Protected, browser: Browser) -> None:
    with visiting(browser) as page:
        log_in(page, f"{protected.running.console_url}/instances", "admin")
        with page.expect_response("**/aggregations/current") as answer:
            page.get_by_role("button", name="Aggregate current period").click()
        assert answer.value.status == 202
    assert runs(protected.running)[0]["jobName"] == "capacity_aggregate_current"


def test_a_logout_from_the_console_ends_the_ui(protected: Protected, browser: Browser) -> None:
    running = protected.running
    with visiting(browser) as page:
        log_in(page, f"{running.console_url}/instances", "admin")
        # One session for both: cookies know no ports.
        page.goto(f"{running.url}/runs")
        assert page.url == f"{running.url}/runs"
        (cookie,) = [found for found in page.context.cookies() if found["name"] == "whalefall_session"]
        page.goto(f"{running.console_url}/instances")
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")
        # Not forgotten by the browser alone: whoever kept a copy is nobody, too.
        page.context.add_cookies([{"name": cookie["name"], "value": cookie["value"], "url": running.url}])
        # For reading within a second, for changes at once.
        wait_for(lambda: page.goto(f"{running.url}/runs") and "/whalefall/login" in page.url, "login")
        for how in ("post", "get"):
            assert page.evaluate(SEND, [LAUNCH_MAINTENANCE, how]) == 401


def test_a_logout_from_the_ui_ends_the_console(protected: Protected, browser: Browser) -> None:
    running = protected.running
    with visiting(browser) as page:
        log_in(page, f"{running.url}/whalefall/", "view")
        page.screenshot(path=SCREENSHOTS / "ui-account.png")
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url(f"{running.url}/whalefall/login")
        page.goto(f"{running.console_url}/instances")
        assert page.url.startswith(f"{running.console_url}/login")
