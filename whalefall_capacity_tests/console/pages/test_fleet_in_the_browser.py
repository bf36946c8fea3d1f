"""A console in headless Chromium on stores of the test's own: very many databases, a day with a gap, live tables."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from pydantic import SecretStr
from sqlalchemy import Engine, text

from whalefall_capacity.collection.sizes import Target
from whalefall_capacity.periods import PeriodType, days_to_windows
from whalefall_capacity.store.access import Role, set_user
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.table_partitions.create import STATS_TABLES, ensure_children
from whalefall_capacity.store.task_runs.summary import Extension, TaskSummary
from whalefall_capacity.store.task_runs.write import NewTaskRun, insert_task_run
from whalefall_capacity.tasks import SYNC_DATABASES
from whalefall_capacity_tests.clock import today
from whalefall_capacity_tests.collection import mysql_family
from whalefall_capacity_tests.conftest import TEMPLATE
from whalefall_capacity_tests.console.conftest import copied_store
from whalefall_capacity_tests.console.pages.browsing import NARROW, PASSWORD, visiting
from whalefall_capacity_tests.console.serving import Served, served
from whalefall_capacity_tests.registry import PASSWORD_VARIABLE, entry, register
from whalefall_capacity_tests.servers import FamilyServer, PostgresqlServer
from whalefall_capacity_tests.store.past import MIB, put_sizes

pytestmark = pytest.mark.slow

TIB = 2**40
# The largest that a visit believes.
BIGGEST = 2**53
# Beyond the ids that the servers of a fleet get here.
FIRST_LARGE = 901

# Five servers with 10,000 databases each: database n has n MiB and grows by n % 1,000 KiB in a week. The sixth has one
# of 40 TiB that never changes, and did not answer on the newest day.
SIZES = """
INSERT INTO database_size_stats (instance_id, database_name, collected_date, size_bytes, source, collected_at)
SELECT server, 'app_' || to_char(n, 'FM00000'), CAST(:day AS date) - back,
       n::bigint * 1048576 - (n % 1000) * 1024 * back / 7, 'measured', now()
FROM generate_series(1, 50000) AS n, unnest(ARRAY[0, 7, 30]) AS back, LATERAL (SELECT 1 + n % 5 AS server) AS s
UNION ALL
SELECT 6, 'warehouse', CAST(:day AS date) - back, 40 * 1099511627776, 'measured', now()
FROM unnest(ARRAY[1, 7, 30]) AS back
"""
TOTALS = """
INSERT INTO instance_size_stats (instance_id, collected_date, total_size_bytes, database_count, missing_count, source,
                                 collected_at)
SELECT instance_id, collected_date, sum(size_bytes), count(*), 0, 'measured', now()
FROM database_size_stats GROUP BY 1, 2
"""
INVENTORY = """
INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)
SELECT instance_id, database_name, min(collected_date), max(collected_date) FROM database_size_stats GROUP BY 1, 2
"""
SERVERS = """
INSERT INTO instances (id, name, db_type) SELECT n, 'server-' || n, 'postgresql' FROM generate_series(1, 6) AS n
"""


def fill(store: Engine, day: date) -> None:
    """Fill the store with the servers above, *day* being the newest."""
    days = [day - timedelta(days=back) for back in (0, 1, 7, 30)]
    with store.begin() as connection:
        ensure_children(connection, STATS_TABLES, days)
        for statement in (SERVERS, SIZES, TOTALS, INVENTORY):
            connection.execute(text(statement), {"day": day})
    for level in Level:
        aggregate(store, level, days_to_windows(days, PeriodType.DAILY))
    with store.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


@contextmanager
def console_on(store: Engine, folder: Path) -> Iterator[Served]:
    """Hold a console on *store*, with somebody who may look."""
    set_user(store, "admin", Role.ADMIN, SecretStr(PASSWORD))
    set_user(store, "viewer", Role.VIEW, SecretStr(PASSWORD))
    with served(store, folder) as running:
        yield running


@pytest.fixture(scope="module")
def newest() -> date:
    """The newest day of the servers above, also when the tests go on after midnight."""
    return today()


@pytest.fixture(scope="module")
def large(store_server: EmbeddedPostgres, newest: date, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A console on the servers above."""
    with copied_store(store_server, TEMPLATE) as store:
        fill(store, newest)
        with console_on(store, tmp_path_factory.mktemp("large")) as running:
            yield running


@dataclass(frozen=True)
class Small:
    """A console and its store, whose fleet is what a test makes it."""

    store: Engine
    console: Served


@pytest.fixture(scope="module")
def small(store_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with copied_store(store_server, TEMPLATE) as store, pytest.MonkeyPatch.context() as environment:
        # Of the servers that the tests register later.
        environment.setenv(PASSWORD_VARIABLE, "")
        with console_on(store, tmp_path_factory.mktemp("small")) as running:
            yield Small(store, running)


def heads(page: Page) -> list[str]:
    """Return the heads of the rows of a list."""
    return page.locator("table.list tbody th").all_inner_texts()


def test_fifty_thousand_databases_are_searched_sorted_paged_and_downloaded(large: Served, browser: Browser) -> None:
    with visiting(browser, large, "viewer") as page:
        page.goto("/databases/list")
        expect(page.get_by_text("50,001 in all")).to_be_visible()
        page.get_by_role("link", name="Latest size").click()
        page.wait_for_url("**sort=-size*")
        assert heads(page)[:3] == ["warehouse", "app_50000", "app_49999"]
        page.get_by_role("link", name="Next").click()
        page.wait_for_url("**page=2*")
        assert heads(page)[0] == "app_49951"
        expect(page.get_by_text("51\N{EN DASH}100 of 50,001")).to_be_visible()
        page.get_by_role("link", name="Change in 7 days").click()
        page.wait_for_url("**sort=-change_7_days*")
        assert {name[-3:] for name in heads(page)} == {"999"}
        page.get_by_role("searchbox", name="Search").fill("APP_4999")
        page.keyboard.press("Enter")
        page.wait_for_url("**search=APP_4999*")
        expect(page.get_by_text("10 in all")).to_be_visible()
        assert heads(page)[0] == "app_49999"
        page.goto("/databases/list?sort=-size")
        with page.expect_download() as download:
            page.get_by_role("link", name="CSV of all rows").click()
        with Path(download.value.path()).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 50_001
        assert [(row["database_name"], row["size_bytes"]) for row in rows[:2]] == [
            ("warehouse", str(40 * 2**40)),
            ("app_50000", str(50_000 * 2**20)),
        ]


def test_on_a_gap_day_no_card_falls_and_the_page_says_who_is_missing(
    large: Served, browser: Browser, newest: date
) -> None:
    with visiting(browser, large, "viewer") as page:
        page.goto("/instances?top=10")
        expect(page.locator("#missing")).to_have_text(
            f"5 of 6 instances measured on the newest day, {newest}. Missing, and counted with their latest sizes: "
            f"server-6 ({newest - timedelta(days=1)})."
        )
        cards = page.locator("#cards dd").all_inner_texts()
        # 40 TiB and the sum of 1 to 50,000 MiB: without the sixth it were 1.16 PiB.
        assert [cards[0], cards[2]] == ["6", "1.20 PiB"]
        page.goto("/databases?top=20")
        largest = page.locator("table[data-metric=size] tbody th").all_inner_texts()
        changed = page.locator("table[data-metric=change] tbody th").all_inner_texts()
        assert largest[0] == "warehouse (server-6)"
        assert len(changed) == 20
        assert [name for name in changed if name.startswith("warehouse")] == []
        page.goto("/")
        expect(page.locator("section[aria-labelledby=attention]")).to_contain_text("server-6")


def know_live(store: Engine, target: Target) -> int:
    """Make the server the fleet, with the database `live`, and return its id."""
    name = f"live-{target.engine}"
    instance_id = register(store, entry(name, target))[name]
    known = (
        "INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)"
        " VALUES (:id, 'live', current_date, current_date)"
    )
    with store.begin() as connection:
        connection.execute(text(f"{known} ON CONFLICT DO NOTHING"), {"id": instance_id})
    return instance_id


def tables_shown(page: Page, instance_id: int) -> list[str]:
    """Read the tables of the database by the link on its page, and return their names in the order shown."""
    page.goto(f"/instances/{instance_id}/database?name=live")
    page.get_by_role("link", name="Read them from the server now").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tables of live")
    return heads(page)


def test_tables_of_postgresql_are_shown_largest_first(
    small: Small, browser: Browser, postgresql: PostgresqlServer
) -> None:
    with postgresql.database("live"):
        with postgresql.connect("live") as cursor:
            cursor.execute("CREATE TABLE little AS SELECT 1 AS n")
            cursor.execute("CREATE TABLE items AS SELECT n FROM generate_series(1, 50000) AS n")
        instance_id = know_live(small.store, postgresql.target())
        with visiting(browser, small.console, "viewer") as page:
            # Beside them the server's own table of large objects, which is part of the size.
            assert tables_shown(page, instance_id) == ["items", "pg_largeobject", "little"]
            expect(page.locator("table.list tbody tr").first.locator("td").first).to_have_text("public")
            expect(page.get_by_text("The account does not see every table")).to_have_count(0)


@pytest.mark.parametrize("engine", ["mariadb", "mysql"])
def test_tables_of_the_mysql_family_are_shown_largest_first_and_what_the_account_lacks_is_said(
    small: Small, browser: Browser, engine: str, request: pytest.FixtureRequest
) -> None:
    server: FamilyServer = request.getfixturevalue(engine)
    little = mysql_family.INNODB.replace("items", "little")
    hidden = mysql_family.INNODB.replace("items", "hidden")
    with mysql_family.databases(server, "live") as cursor:
        mysql_family.run(cursor, "live", little, hidden, mysql_family.INNODB, mysql_family.ROWS, "ANALYZE TABLE items")
        with mysql_family.account(server, "SELECT ON live.items", "SELECT ON live.little", name="narrow") as narrow:
            instance_id = know_live(small.store, narrow)
            with visiting(browser, small.console, "viewer") as page:
                assert tables_shown(page, instance_id) == ["items", "little"]
                expect(page.locator(".problem")).to_contain_text("The account does not see every table.")
                expect(page.locator(".problem pre")).to_contain_text("GRANT SHOW VIEW ON *.* TO ")
                know_live(small.store, server.target())
                page.reload()
                expect(page.locator("table.list tbody th")).to_have_count(3)
                assert heads(page)[0] == "items"
                expect(page.locator(".problem")).to_have_count(0)


# The daily growth of each size.
HARDLY_GROWING = {40 * TIB: 20 * MIB, BIGGEST: 1}


def test_a_large_size_that_hardly_changes_has_whole_figures_beside_its_chart(small: Small, browser: Browser) -> None:
    days = [today() - timedelta(days=back) for back in range(5)]
    large = dict(enumerate(HARDLY_GROWING.items(), FIRST_LARGE))
    for instance_id, (size, grown) in large.items():
        put_sizes(small.store, [(instance_id, "warehouse", day, size - n * grown) for n, day in enumerate(days)])
    for level in Level:
        aggregate(small.store, level, days_to_windows(days, PeriodType.DAILY))
    with visiting(browser, small.console, "viewer", NARROW) as page:
        for instance_id in large:
            page.goto(f"/instances/{instance_id}")
            assert_whole_figures(page)


def assert_whole_figures(page: Page) -> None:
    """Check that the figures at the axis differ from each other, and that none is cut off."""
    ticks = page.locator("#plot-size .ytick text")
    expect(ticks.first).to_be_visible()
    left = page.locator("#plot-size").bounding_box()
    boxes = [tick.bounding_box() for tick in ticks.all()]
    texts = ticks.all_text_contents()
    assert left is not None
    assert all(box is not None and box["x"] >= left["x"] for box in boxes), texts
    assert 2 <= len(texts) == len(set(texts)) <= 8, texts


def test_a_run_whose_console_is_restarted_is_followed_again_and_not_said_to_have_failed(
    small: Small, browser: Browser
) -> None:
    with small.store.begin() as connection:
        task, summary = SYNC_DATABASES, TaskSummary(ext=Extension(type=SYNC_DATABASES.key))
        insert_task_run(connection, NewTaskRun("run-1", task.key, "Sync", task.category, "api", summary))
    launched = {"success": True, "message": "", "data": {"run_id": "run-1"}}
    with visiting(browser, small.console) as page:
        page.goto("/instances")
        page.route("**/capacity/collections", lambda route: route.fulfill(status=202, json=launched))
        page.route("**/task-runs/run-1?*", lambda route: route.fulfill(body="A proxy's own page"))
        button, status = page.get_by_role("button", name="Collect now"), page.locator("#current-status")
        button.click()
        expect(status).to_contain_text("It was started, but cannot be followed just now: The console did not answer")
        expect(button).to_be_disabled()
        page.unroute("**/task-runs/run-1?*")
        expect(status).to_contain_text("Waiting for Dagster")
        with small.store.begin() as connection:
            connection.execute(text("UPDATE task_runs SET status = 'completed', completed_at = now()"))
        expect(status).to_contain_text("Done")
        expect(button).to_be_enabled()
