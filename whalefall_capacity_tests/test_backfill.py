"""A winter's backfill of all eight aggregation assets in the running Dagster UI: through its API, and by clicks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import Engine, text

from whalefall_capacity.asset_keys import aggregation_key
from whalefall_capacity.periods import PeriodType, windows_between
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import migrate
from whalefall_capacity_tests.browser import SCREENSHOTS, open_page
from whalefall_capacity_tests.processes import Deployment, deployment, wait_for
from whalefall_capacity_tests.store.past import put_sizes

pytestmark = pytest.mark.slow

FIRST, LAST = date(2025, 12, 1), date(2026, 2, 28)
LEVELS = tuple(Level)
LAUNCH = """
mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } ... on UnauthorizedError { message }
} }
"""
BACKFILL = """
query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status error { message } }
} }
"""
BACKFILLS = """
query { partitionBackfillsOrError(limit: 20) { ... on PartitionBackfills { results { id } } } }
"""
RUNS = """
query($id: String!) { runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {
  ... on Runs { results { runId status } }
} }
"""
PARTITIONS = """
query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  partitionStats { numMaterialized numFailed }
} } }
"""
VERSIONS = """
SELECT tableoid::regclass::text, ctid::text, xmin::text FROM {} ORDER BY 1, 2
"""


@pytest.fixture(scope="module")
def winter(store_server: EmbeddedPostgres) -> Iterator[Engine]:
    """A store with the stats of a winter."""
    store_server.create_databases("winter", "winter_dagster")
    engine = create_store_engine(store_server.url("winter"))
    migrate(engine)
    days = [FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1)]
    put_sizes(
        engine, [(n, f"db{m}", day, n * 10_000 + m * day.toordinal()) for n in (1, 2) for m in range(3) for day in days]
    )
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def running(
    winter: Engine, store_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("backfill")
    settings = {
        "WHALEFALL_HOME": str(folder / "home"),
        "WHALEFALL_STORE_URL": winter.url.render_as_string(hide_password=False),
        "WHALEFALL_DAGSTER_URL": store_server.url("winter_dagster").get_secret_value(),
    }
    with deployment(["up"], settings, folder / "up.log") as deployed:
        yield deployed


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_page() as page:
        yield page


def keys_of(period_type: PeriodType) -> tuple[str, str]:
    windows = windows_between(FIRST, LAST, period_type)
    return windows[0].start.isoformat(), windows[-1].start.isoformat()


def row_versions(store: Engine) -> list[Any]:
    """Return where every aggregation row stands and which transaction wrote it."""
    with store.connect() as connection:
        return [list(connection.execute(text(VERSIONS.format(f"{level.value}_size_aggregations")))) for level in LEVELS]


def materialized(running: Deployment, level: Level, period_type: PeriodType) -> tuple[int, int]:
    path = list(aggregation_key(level, period_type).path)
    stats = running.graphql(PARTITIONS, key={"path": path})["assetNodeOrError"]["partitionStats"]
    return stats["numMaterialized"], stats["numFailed"]


def backfills(running: Deployment) -> list[str]:
    return [found["id"] for found in running.graphql(BACKFILLS)["partitionBackfillsOrError"]["results"]]


def finished(running: Deployment, backfill: str) -> bool:
    found = running.graphql(BACKFILL, id=backfill)["partitionBackfillOrError"]
    assert found["status"] not in {"COMPLETED_FAILED", "FAILED", "CANCELED"}, (found, events(running, backfill))
    return bool(found["status"] == "COMPLETED_SUCCESS")


def events(running: Deployment, backfill: str) -> dict[str, str]:
    """Return what the runs of a backfill that did not go well say."""
    runs = running.graphql(RUNS, id=backfill)["runsOrError"]["results"]
    return {run["runId"]: running.run_messages(run["runId"]) for run in runs if run["status"] != "SUCCESS"}


def test_through_the_api_it_is_four_runs_and_every_partition_is_green(running: Deployment, winter: Engine) -> None:
    ranges = [
        {
            "assetKey": {"path": list(aggregation_key(level, period_type).path)},
            "partitions": {"ranges": [{"start": keys_of(period_type)[0], "end": keys_of(period_type)[1]}]},
        }
        for period_type in PeriodType
        for level in Level
    ]
    launched = running.graphql(LAUNCH, params={"partitionsByAssets": ranges})["launchPartitionBackfill"]
    backfill = launched["backfillId"]
    wait_for(lambda: finished(running, backfill), "end of the backfill")
    runs = running.graphql(RUNS, id=backfill)["runsOrError"]["results"]
    assert [run["status"] for run in runs] == ["SUCCESS"] * 4
    for period_type, expected in zip(PeriodType, (90, 13, 3, 2), strict=True):
        assert [materialized(running, level, period_type) for level in Level] == [(expected, 0)] * 2
    with winter.connect() as connection:
        counts = connection.execute(
            text("SELECT period_type, count(*) FROM database_size_aggregations GROUP BY 1 ORDER BY 2 DESC")
        )
        assert [tuple(row) for row in counts] == [
            ("daily", 90 * 6),
            ("weekly", 13 * 6),
            ("monthly", 3 * 6),
            ("quarterly", 2 * 6),
        ]


def launch_by_clicks(running: Deployment, page: Page, period_type: PeriodType) -> None:
    selection = " or ".join(f'key:"{"/".join(aggregation_key(level, period_type).path)}"' for level in Level)
    page.goto(f"{running.url}/asset-groups~{quote(selection, safe='')}/")
    page.get_by_role("button", name="Materialize all").click()
    # Dagster has no event of these stats: it asks whether they are there.
    page.get_by_role("button", name="Confirm").click()
    page.get_by_text("Show all partitions").click()
    first, last = keys_of(period_type)
    chosen = page.locator("input[type=text]").last
    chosen.fill(f"[{first}...{last}]")
    chosen.press("Enter")
    page.screenshot(path=SCREENSHOTS / f"backfill-{period_type.value}.png")
    page.get_by_role("button", name="Launch backfill").click()
    page.get_by_text("Show all partitions").wait_for(state="detached")


def test_by_clicks_a_second_time_no_row_changes(running: Deployment, winter: Engine, page: Page) -> None:
    before = row_versions(winter)
    earlier = set(backfills(running))
    for period_type in PeriodType:
        launch_by_clicks(running, page, period_type)
    launched = wait_for(lambda: len(new := set(backfills(running)) - earlier) == 4 and new, "four backfills")
    wait_for(lambda: all(finished(running, backfill) for backfill in launched), "end of the backfills")
    for backfill in launched:
        runs = running.graphql(RUNS, id=backfill)["runsOrError"]["results"]
        assert [run["status"] for run in runs] == ["SUCCESS"]
    assert row_versions(winter) == before


def test_the_page_of_a_winters_backfill_shows_that_all_went_well(running: Deployment, page: Page) -> None:
    # The oldest is the one of all eight assets.
    page.goto(f"{running.url}/runs/b/{backfills(running)[-1]}")
    expect(page.get_by_text("Succeeded", exact=True).first).to_be_visible()
    for asset in ("database_size_aggregations / daily", "instance_size_aggregations / quarterly"):
        expect(page.get_by_text(asset).first).to_be_visible()
    expect(page.get_by_text("100% completed")).to_have_count(8)
    page.screenshot(path=SCREENSHOTS / "backfill-page.png")


def test_the_asset_page_shows_windows_and_growth(running: Deployment, page: Page) -> None:
    key = "/".join(aggregation_key(Level.DATABASE, PeriodType.MONTHLY).path)
    page.goto(f"{running.url}/assets/{key}?view=partitions&partition=2026-02-01")
    expect(page.get_by_text("Materialized (3)")).to_be_visible()
    expect(page.get_by_text("top_growers").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "aggregation.png")
