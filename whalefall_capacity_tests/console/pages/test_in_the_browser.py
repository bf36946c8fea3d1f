"""The console in headless Chromium on demo data: what an operator sees and clicks. Pictures go to `screenshots/`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, StorageState, expect
from pydantic import SecretStr
from sqlalchemy import Engine, text

from whalefall_capacity.periods import PeriodType
from whalefall_capacity.store.access import Role, set_user
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.postgres.embedded import STORE_DATABASE, EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity_tests.browser import SCREENSHOTS
from whalefall_capacity_tests.console.pages.browsing import NARROW, PASSWORD, WIDE, visiting
from whalefall_capacity_tests.processes import Deployment, deployment, wait_for

pytestmark = pytest.mark.slow

PAGES = {
    "overview": "/",
    "instances": "/instances?top=10",
    "databases": "/databases?top=20",
    "databases-bar": "/databases?period_type=monthly&chart=bar&top=10",
    "instances-quarterly": "/instances?period_type=quarterly&periods=4",
    "databases-empty": "/databases?start_date=2001-01-01&end_date=2001-02-01",
    "instance-list": "/instances/list",
    "database-list": "/databases/list?sort=-size",
    "instance": "/instances/1",
    "runs": "/runs",
    "runs-sorted": "/runs?task_category=capacity&sort=-duration",
    "partitions": "/partitions",
    "partitions-open": "/partitions?table=database_size_stats",
    "not-found": "/nothing-here",
}
FITS = "document.documentElement.scrollWidth <= innerWidth"
GROW = """
WITH grown AS (
    UPDATE database_size_stats SET size_bytes = size_bytes + 512 * 1024 * 1024, updated_at = now()
    WHERE database_name = 'orders' AND collected_date = (SELECT max(collected_date) FROM database_size_stats)
    RETURNING instance_id, collected_date
)
UPDATE instance_size_stats AS total SET total_size_bytes = total_size_bytes + 512 * 1024 * 1024, updated_at = now()
FROM grown WHERE total.instance_id = grown.instance_id AND total.collected_date = grown.collected_date
"""
# A server that was measured yesterday as today, was not yet today, and is not where it is looked for.
AWAY = (
    """
    UPDATE database_size_stats AS before SET size_bytes = now.size_bytes FROM database_size_stats AS now
    WHERE before.instance_id = :id AND now.instance_id = :id AND now.database_name = before.database_name
      AND now.collected_date = (SELECT max(collected_date) FROM database_size_stats)
      AND before.collected_date = now.collected_date - 1
    """,
    """
    UPDATE instance_size_stats AS before SET total_size_bytes = now.total_size_bytes FROM instance_size_stats AS now
    WHERE before.instance_id = :id AND now.instance_id = :id
      AND now.collected_date = (SELECT max(collected_date) FROM instance_size_stats)
      AND before.collected_date = now.collected_date - 1
    """,
    "DELETE FROM database_size_stats WHERE instance_id = :id"
    " AND collected_date = (SELECT max(collected_date) FROM database_size_stats)",
    "DELETE FROM instance_size_stats WHERE instance_id = :id"
    " AND collected_date = (SELECT max(collected_date) FROM instance_size_stats)",
    "UPDATE instances SET host = :nowhere || host WHERE id = :id",
)


@dataclass(frozen=True)
class Demo:
    """The demo with its console, its store, and who has logged in."""

    url: str
    store: Engine
    dagster: Deployment
    sessions: dict[str, StorageState] = field(default_factory=dict)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("console")
    home = folder / "home"
    with deployment(["demo"], {"WHALEFALL_HOME": str(home)}, folder / "demo.log") as running:
        engine = create_store_engine(EmbeddedPostgres(home / "postgres").url(STORE_DATABASE))
        set_user(engine, "admin", Role.ADMIN, SecretStr(PASSWORD))
        set_user(engine, "operator", Role.OPERATOR, SecretStr(PASSWORD))
        set_user(engine, "viewer", Role.VIEW, SecretStr(PASSWORD))
        # The sensor starts weeks, months and quarters once the UI answers: until then their charts are empty.
        wait_for(lambda: _windows(engine) == {(level, period) for level in Level for period in PeriodType}, "windows")
        wait_for(running.console_answers, "answer of the console")
        yield Demo(running.console_url, engine, running)
        engine.dispose()


def _windows(store: Engine) -> set[tuple[str, str]]:
    """Return the levels and period types of which anything is calculated."""
    with store.connect() as connection:
        return {tuple(row) for row in connection.execute(text("SELECT level, period_type FROM aggregation_windows"))}


def newest_sizes(page: Page) -> list[str]:
    """Return the newest value of each series of the first table."""
    return page.locator("table[data-metric=size] tbody tr td:nth-of-type(1)").all_inner_texts()


def test_the_button_brings_the_newest_point_up_to_date(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/databases?top=5")
        before = newest_sizes(page)
        with demo.store.begin() as connection:
            connection.execute(text(GROW))
        with page.expect_request("**/aggregations/current") as request:
            page.get_by_role("button", name="Aggregate current period").click()
        assert request.value.post_data_json == {"scope": "database"}
        expect(page.locator("#current-status")).to_contain_text("Done: the charts are up to date.")
        bar = page.locator("#current-status progress")
        assert bar.get_attribute("value") == bar.get_attribute("max")
        assert newest_sizes(page) != before
        drawn = page.locator("#plot-size").evaluate("plot => plot.data.map(trace => trace.text.at(-1))")
        assert drawn == newest_sizes(page)
        page.screenshot(path=SCREENSHOTS / "console-databases-done.png")
        page.get_by_role("link", name="Show the run").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Aggregate current period")
        expect(page.locator(".status").first).to_have_text("completed")
        expect(page.locator("table.rows tbody tr")).to_have_count(3)
        expect(page.get_by_text("console · admin")).to_be_visible()


def test_the_button_of_the_run_centre_aggregates_all_levels(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/runs")
        with page.expect_request("**/aggregations/current") as request:
            page.get_by_role("button", name="Aggregate current period").click()
        assert request.value.post_data_json == {"scope": "all"}
        page.get_by_role("link", name="Show the run").click()
        expect(page.locator(".status").first).to_have_text("completed")
        expect(page.locator("table.rows tbody tr")).to_have_count(6)


def test_an_operator_collects_the_fleet_and_follows_the_run(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo, "operator") as page:
        page.goto("/runs")
        with page.expect_response("**/capacity/collections") as answer:
            page.get_by_role("button", name="Collect now").click()
        run_id = answer.value.json()["data"]["run_id"]
        expect(page.locator("#current-status")).to_contain_text("Done: the sizes are up to date.")
        row = page.get_by_role("row").filter(has=page.locator(f'[href="/runs/{run_id}"]'))
        expect(row.locator(".status")).to_have_text("completed")
        expect(row).to_contain_text("console · operator")
        page.get_by_role("link", name="Show the run").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Sync databases")
        expect(page.get_by_role("row").filter(has_text="collection")).to_have_count(3)


# The buttons that each role is offered, by page, and the operations that it may do.
BUTTONS = {
    "/": {"Collect now": "operator"},
    "/instances": {"Collect now": "operator", "Aggregate current period": "operator"},
    "/instances/1": {"Collect now": "operator"},
    "/databases": {"Collect now": "operator", "Aggregate current period": "operator"},
    "/runs": {"Collect now": "operator", "Aggregate current period": "operator"},
    "/partitions": {"Create ahead": "admin"},
}
OPERATIONS = {
    "/api/v1/capacity/collections": ("operator", {"instance_id": 1}),
    "/api/v1/capacity/aggregations/current": ("operator", {"scope": "instance"}),
    "/api/v1/task-runs/no-such-run/actions/cancel": ("operator", {}),
    "/api/v1/partitions": ("admin", {}),
    "/api/v1/partitions/actions/cleanup": ("admin", {"dry_run": True}),
}
MAY = {"viewer": set(), "operator": {"operator"}, "admin": {"operator", "admin"}}


@pytest.mark.parametrize("user", list(MAY))
def test_each_role_is_offered_what_it_may_do_and_the_api_refuses_the_rest(
    demo: Demo, browser: Browser, user: str
) -> None:
    with visiting(browser, demo, user) as page:
        for path, buttons in BUTTONS.items():
            page.goto(path)
            for name, role in buttons.items():
                expect(page.get_by_role("button", name=name)).to_have_count(int(role in MAY[user]))
        token = page.locator("meta[name=csrf-token]").get_attribute("content") or ""
        for path, (role, body) in OPERATIONS.items():
            answer = page.request.post(path, headers={"X-CSRFToken": token}, data=body)
            if role in MAY[user]:
                assert answer.status in (200, 202, 404), (path, answer.text())
            else:
                refused = answer.json()
                assert (answer.status, refused["message_code"]) == (403, "PERMISSION_REQUIRED"), path
                assert refused["message"] == f"this takes the role {role}"


@contextmanager
def server_away(demo: Demo, name: str) -> Iterator[int]:
    """Let nobody reach a server whose sizes of today are those of yesterday and not measured yet; yield its id."""
    # Who asks for a collection while one is open is given that one, and it has measured the server.
    wait_for(lambda: not _open_runs(demo.store), "end of every run")
    values = {"name": name, "nowhere": "/nowhere"}
    with demo.store.begin() as connection:
        instance_id: int = connection.execute(text("SELECT id FROM instances WHERE name = :name"), values).scalar_one()
        for statement in AWAY:
            connection.execute(text(statement), values | {"id": instance_id})
    try:
        yield instance_id
    finally:
        _come_back(demo, name)


def _open_runs(store: Engine) -> list[str]:
    with store.connect() as connection:
        return list(connection.execute(text("SELECT run_id FROM task_runs WHERE closed_at IS NULL")).scalars())


def _come_back(demo: Demo, name: str) -> None:
    with demo.store.begin() as connection:
        back = (
            "UPDATE instances SET host = right(host, -length('/nowhere')) WHERE name = :name AND host LIKE '/nowhere%'"
        )
        connection.execute(text(back), {"name": name})


def _collect(page: Page, instance_id: int) -> str:
    """Collect one server without its page, wait for the end of the run, and return its id."""
    token = page.locator("meta[name=csrf-token]").get_attribute("content") or ""
    answer = page.request.post(
        "/api/v1/capacity/collections", headers={"X-CSRFToken": token}, data={"instance_id": instance_id}
    )
    assert answer.status == 202, answer.text()
    run_id: str = answer.json()["data"]["run_id"]

    def ended() -> bool:
        run = page.request.get(f"/api/v1/task-runs/{run_id}").json()["data"]["run"]
        return run["status"] not in ("pending", "running")

    wait_for(ended, "end of the collection")
    return run_id


def test_the_daily_walk_from_a_failed_server_to_its_collection_and_back(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo, "operator") as page, server_away(demo, "demo-mariadb") as server:
        page.goto("/")
        failed_run = _collect(page, server)
        page.goto("/")
        measured, total = page.locator("#cards dd").nth(0), page.locator("#cards > div").nth(1).locator("dd")
        expect(measured).to_have_text("2 of 3")
        before = total.inner_text()
        line = page.locator("ul.attention li").filter(has=page.locator(f'[href="/instances/{server}"]'))
        expect(line).to_contain_text("demo-mariadb: connecting to /nowhere")
        expect(line.locator(f'[href="/runs/{failed_run}"]')).to_have_text("failed")

        line.get_by_role("link", name="demo-mariadb").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("demo-mariadb")
        expect(page.locator(".problem pre")).to_contain_text("/nowhere")
        _come_back(demo, "demo-mariadb")
        page.get_by_role("button", name="Collect now").click()
        expect(page.locator("#current-status")).to_contain_text("Done: the sizes are up to date.")
        expect(page.locator(".problem")).to_have_count(0)
        expect(page.locator("#state")).to_contain_text("measured")

        page.get_by_role("link", name="Show the run").click()
        item = page.locator("table.rows tbody tr").filter(has_text="collection")
        expect(item).to_have_count(1)
        expect(item.locator(f'[href="/instances/{server}"]')).to_have_text("demo-mariadb")
        expect(item.locator(".status")).to_have_text("completed")
        page.get_by_role("link", name="Run centre").click()
        # Runs of the sensors may be newer by now.
        ours = page.locator("#live tbody tr").filter(has_text="console · operator")
        expect(ours.first.locator(".status")).to_have_text("completed")

        page.get_by_role("link", name="Overview").click()
        expect(measured).to_have_text("3 of 3")
        expect(total).to_have_text(before)
        expect(page.locator("ul.attention").filter(has_text="demo-mariadb")).to_have_count(0)


def test_the_run_centre_is_filtered_and_sorted_and_says_so_in_its_url(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/runs")
        page.locator("[name=task_category]").select_option("capacity")
        page.wait_for_url("**/runs?task_category=capacity")
        page.get_by_role("link", name="Took").click()
        page.wait_for_url("**/runs?task_category=capacity&sort=-duration*")
        expect(page.locator("th[aria-sort=descending]")).to_have_text("Took")
        page.locator("[name=trigger_source]").select_option("manual")
        page.wait_for_url(lambda url: "sort=-duration" in url and "trigger_source=manual" in url)
        expect(page.locator("#live tbody tr")).to_have_count(1)


def test_a_table_opens_by_keyboard_and_its_partitions_are_searched(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/partitions")
        expect(page.locator("tr.part")).to_have_count(0)
        page.get_by_role("link", name="instance_size_stats", exact=True).focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/partitions?table=instance_size_stats*")
        expect(page.locator("tr.part").first).to_contain_text("instance_size_stats_")
        expect(page.locator("[aria-expanded=true]")).to_have_text("instance_size_stats")
        page.locator("[name=search]").fill("weekly")
        page.keyboard.press("Enter")
        page.wait_for_url("**/partitions?search=weekly")
        expect(page.locator("tr.table-line")).to_have_count(2)


def test_an_admin_creates_table_partitions_ahead(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/partitions")
        page.get_by_role("button", name="Create ahead").click()
        expect(page.locator("#create-status")).to_have_text(
            re.compile(r"Nothing was due\.|\d+ table partitions created")
        )


def tick(page: Page, field: str, *labels: str) -> None:
    """Open the list of a field with several answers, tick some of them, and close it by keyboard."""
    field_list = page.locator(f"details[data-several]:has([name={field}])")
    field_list.locator("summary").click()
    for label in labels:
        field_list.get_by_label(label, exact=True).check()
    page.keyboard.press("Escape")


def test_filters_narrow_the_charts_and_stand_in_the_url(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/databases")
        tick(page, "db_type", "postgresql", "mariadb")
        page.wait_for_url("**/databases?db_type=postgresql&db_type=mariadb*")
        tick(page, "instance_id", "demo-postgresql", "demo-mariadb")
        page.wait_for_url("**instance_id=*&instance_id=*")
        tick(page, "database_name", "shop", "orders")
        page.wait_for_url("**database_name=*&database_name=*")
        expect(page.locator("table[data-metric=size] tbody tr")).to_have_count(2)
        expect(page.get_by_text("2 chosen")).to_have_count(3)
        page.locator("details[data-several]:has([name=db_type]) summary").click()
        page.locator("[name=db_type][value=postgresql]").uncheck()
        page.get_by_role("heading", level=1).click()
        page.wait_for_url(lambda url: "db_type=mariadb" in url and "db_type=postgresql" not in url)
        for name in page.locator("table[data-metric=size] tbody th").all_inner_texts():
            assert name.endswith("(demo-mariadb)")


def test_a_list_of_choices_is_searched(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/instances")
        choices = page.locator("details[data-several]:has([name=instance_id])")
        choices.locator("summary").click()
        choices.get_by_role("searchbox").fill("MARIA")
        expect(choices.locator("label:visible")).to_have_text(["demo-mariadb"])


def test_a_window_in_progress_is_drawn_as_one(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/instances?period_type=quarterly&periods=4")
        expect(page.locator(".chart-head .in-progress").first).to_contain_text("is in progress")
        dashes = page.locator("#plot-size").evaluate("plot => plot.data.map(trace => trace.line.dash)")
        assert dashes == ["solid", "dash"] * 3
        page.goto("/instances?period_type=quarterly&periods=4&chart=bar")
        pale = page.locator("#plot-size").evaluate("plot => plot.data[0].marker.opacity")
        assert pale == [1, 1, 1, 0.45]
        page.goto("/instances/1?period_type=monthly&periods=4")
        expect(page.locator(".chart-head .in-progress")).to_contain_text("is in progress")
        dashes = page.locator("#plot-size").evaluate("plot => plot.data.map(trace => trace.line.dash)")
        assert dashes == ["solid", "dash"]


def test_the_overview_leads_to_what_it_names(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo, "viewer") as page:
        page.goto("/")
        expect(page.locator("#plot-size")).to_have_attribute("data-drawn", "1")
        expect(page.locator("#cards")).to_contain_text("3 of 3")
        page.get_by_role("link", name="30 days", exact=True).click()
        page.wait_for_url("**/?days=30")
        expect(page.locator("table.series thead th")).to_have_count(31)
        page.locator("#ranking li a").first.click()
        page.wait_for_url("**/instances/*")
        page.go_back()
        page.locator("section[aria-labelledby=largest-databases] li a").first.click()
        page.wait_for_url("**/instances/*/database?name=*")


def test_a_filtered_view_opens_from_its_url(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/databases?db_type=mariadb&period_type=weekly&periods=6&top=20&chart=bar")
        expect(page.locator("[name=db_type]:checked")).to_have_value("mariadb")
        expect(page.locator("[name=period_type]")).to_have_value("weekly")
        expect(page.locator("table[data-metric=size] thead th")).to_have_count(7)
        kinds = page.locator("#plot-size").evaluate("plot => plot.data.map(trace => trace.type)")
        assert set(kinds) == {"bar"}


def test_periods_can_be_switched(demo: Demo, browser: Browser) -> None:
    labels = {
        "quarterly": r"^\d{4} Q\d",
        "monthly": r"^\d{4}-\d\d(?!-)",
        "weekly": r"^\d{4} W\d\d",
        "daily": r"^\d{4}-\d\d-\d\d",
    }
    with visiting(browser, demo) as page:
        page.goto("/instances")
        for period, label in labels.items():
            page.locator("[name=period_type]").select_option(period)
            page.wait_for_url(f"**period_type={period}*")
            expect(page.locator("table[data-metric=size] thead th").nth(1)).to_have_text(re.compile(label))
            for metric in ("size", "change", "percent"):
                expect(page.locator(f"#plot-{metric}")).to_have_attribute("data-drawn", "3")


def test_an_instance_leads_to_its_databases(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/instances?period_type=monthly")
        page.locator("table[data-metric=size]").get_by_role("link", name="demo-mariadb").click()
        page.wait_for_url("**/databases?*")
        expect(page.locator("[name=period_type]")).to_have_value("monthly")
        for name in page.locator("table[data-metric=size] tbody th").all_inner_texts():
            assert name.endswith("(demo-mariadb)")


def test_the_table_can_be_downloaded(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/databases?period_type=weekly&periods=4&database_name=shop")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download as CSV: Size").click()
        assert download.value.suggested_filename == "databases-size-weekly.csv"
        lines = Path(download.value.path()).read_text().splitlines()
        assert lines[0] == "instance,database,period_start,period_end,avg_size_bytes"
        assert lines[1].startswith("demo-postgresql,shop,")


def test_a_run_is_cancelled_in_the_run_centre(demo: Demo, browser: Browser) -> None:
    (daemon,) = demo.dagster.services("dagster._daemon")
    with visiting(browser, demo) as page:
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto("/runs")
        # Nobody takes the run from the queue for as long as the daemon stands still.
        daemon.suspend()
        try:
            with page.expect_response("**/aggregations/current") as answer:
                page.get_by_role("button", name="Aggregate current period").click()
            run_id = answer.value.json()["data"]["run_id"]
            page.goto("/runs")
            row = page.get_by_role("row").filter(has=page.locator(f'[data-cancel="{run_id}"]'))
            expect(row.locator(".status")).to_have_text("pending")
            row.get_by_role("button", name="Cancel").click()
            page.goto(f"/runs/{run_id}")
            expect(page.locator(".status").first).to_have_text("cancelled")
            expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
        finally:
            daemon.resume()
        # Whether it is still in the queue then, or has just been taken out of it.
        wait_for(lambda: demo.dagster.run_status(run_id) == "CANCELED", "end of the run")
        page.goto(f"/runs/{run_id}")
        expect(page.locator(".status").first).to_have_text("cancelled")
        page.goto("/runs")
        page.screenshot(path=SCREENSHOTS / "console-runs-cancelled.png")


def test_without_the_csrf_token_the_button_does_nothing_and_says_why(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/instances")
        page.locator("meta[name=csrf-token]").evaluate("tag => tag.remove()")
        page.get_by_role("button", name="Aggregate current period").click()
        expect(page.locator("#current-status")).to_contain_text("It could not be started")


def test_an_expired_session_leads_to_the_login_and_back(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/databases?top=10")
        page.context.clear_cookies(name="whalefall_session")
        page.get_by_role("button", name="Aggregate current period").click()
        page.wait_for_url("**/login?next=*")
        page.fill("[name=name]", "admin")
        page.fill("[name=password]", PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url("**/databases?top=10")


def test_language_and_theme_are_remembered(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/instances")
        page.get_by_role("link", name="中文").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("实例容量")
        page.get_by_role("link", name="深色").click()
        page.goto("/databases")
        expect(page.get_by_role("heading", level=1)).to_have_text("数据库容量")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 27)"


def test_the_pages_work_by_keyboard_and_show_where_one_is(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/instances")
        seen = []
        for _ in range(20):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "() => [document.activeElement.innerText || document.activeElement.name,"
                " getComputedStyle(document.activeElement).outlineStyle]"
            )
            seen.append(focused)
        assert [name for name, outline in seen if outline != "solid"] == []
        assert seen[0][0] == "Skip to content"
        assert "Aggregate current period" in [name for name, _ in seen]


@pytest.fixture(scope="module")
def found(demo: Demo, browser: Browser) -> dict[str, str]:
    """The paths of pages that have an id in them."""
    with visiting(browser, demo) as page:
        page.goto("/runs")
        run = page.locator("table.rows tbody th a").first.get_attribute("href") or ""
        page.goto("/instances/1")
        database = page.locator("#databases tbody th a").first.get_attribute("href") or ""
    return {"run": run, "database": database, "tables": database.replace("/database?", "/database/tables?")}


def resize(page: Page, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})


# Each width, scheme and language once; whether a page fits is asked in both languages at both widths.
@pytest.mark.parametrize(
    ("size", "scheme", "language"),
    [(WIDE, "light", "en-GB"), (NARROW, "dark", "zh-CN")],
    ids=["wide-light-en", "narrow-dark-zh"],
)
def test_every_page_fits_and_has_no_serious_accessibility_fault(
    demo: Demo, browser: Browser, found: dict[str, str], size: tuple[int, int], scheme: str, language: str
) -> None:
    variant = f"{'wide' if size == WIDE else 'narrow'}-{scheme}-{language[:2]}"
    faults = []
    with visiting(browser, demo, None, size, scheme=scheme, locale=language) as page:
        page.goto("/login")
        page.screenshot(path=SCREENSHOTS / f"console-login-{variant}.png")
        faults += _serious(page, "login")
    with visiting(browser, demo, "admin", size, scheme=scheme, locale=language) as page:
        for name, path in {**PAGES, **found}.items():
            page.goto(path)
            expect(page.locator(".plot:not([data-drawn])")).to_have_count(0)
            page.screenshot(path=SCREENSHOTS / f"console-{name}-{variant}.png", full_page=True)
            faults += _serious(page, name)
            assert page.evaluate(FITS), f"{name} is too wide"
            resize(page, NARROW if size == WIDE else WIDE)
            wait_for(lambda: page.evaluate(FITS), f"width of {name} that fits the other screen")
            resize(page, size)
    assert faults == []


def test_a_list_leads_to_an_instance_its_databases_and_their_tables(demo: Demo, browser: Browser) -> None:
    engines = {"demo-postgresql": "public", "demo-mariadb": "InnoDB", "demo-mysql": "InnoDB"}
    with demo.store.connect() as connection:
        names = list(connection.execute(text("SELECT name FROM instances ORDER BY name")).scalars())
    with visiting(browser, demo, "viewer") as page:
        for name in names:
            page.goto("/instances/list")
            page.get_by_role("link", name=name, exact=True).click()
            expect(page.get_by_role("heading", level=1)).to_have_text(name)
            expect(page.locator("#plot-size")).to_have_attribute("data-drawn", "1")
            assert page.locator(".calendar td.imported, .calendar td.measured").count() > 0
            page.locator("#databases tbody th a").first.click()
            page.get_by_role("link", name="Read them from the server now").click()
            expect(page.get_by_role("heading", level=1)).to_contain_text("Tables of ")
            expect(page.locator("table.list tbody tr").first).to_contain_text(engines[name])


def test_a_list_is_searched_sorted_and_downloaded(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/databases/list")
        page.get_by_role("link", name="Latest size").click()
        page.wait_for_url("**sort=-size*")
        expect(page.locator("th[aria-sort=descending]")).to_contain_text("Latest size")
        page.get_by_label("postgresql", exact=True).check()
        page.wait_for_url(lambda url: "db_type=postgresql" in url and "sort=-size" in url)
        page.get_by_role("searchbox", name="Search").fill("SHO")
        page.keyboard.press("Enter")
        page.wait_for_url("**search=SHO*")
        expect(page.locator("table.list tbody th")).to_have_text(["shop"])
        with page.expect_download() as download:
            page.get_by_role("link", name="CSV of all rows").click()
        lines = Path(download.value.path()).read_text().splitlines()
        assert lines[0].startswith("instance,database_name,db_type,status,")
        assert [line.split(",")[1] for line in lines[1:]] == ["shop"]


def test_a_chart_is_zoomed_by_dragging_across_it(demo: Demo, browser: Browser) -> None:
    with visiting(browser, demo) as page:
        page.goto("/instances/1")
        plot = page.locator("#plot-size")
        expect(plot).to_have_attribute("data-drawn", "1")
        shown = "plot => plot._fullLayout.xaxis.range[1] - plot._fullLayout.xaxis.range[0]"
        before = plot.evaluate(shown)
        box = plot.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] / 2, steps=5)
        page.mouse.up()
        assert plot.evaluate(shown) < before


def _serious(page: Page, name: str) -> list[str]:
    results = Axe().run(page)
    return [
        f"{name}: {fault['id']}: {fault['nodes'][0]['html'][:120]}"
        for fault in results.response["violations"]
        if fault["impact"] in {"serious", "critical"}
    ]
