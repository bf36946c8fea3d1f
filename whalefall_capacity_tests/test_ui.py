"""The Dagster UI in headless Chromium: what an operator sees and clicks. Pictures go to `screenshots/`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
import yaml
from playwright.sync_api import Page, expect

from whalefall_capacity_tests.browser import SCREENSHOTS, ZONE, open_page
from whalefall_capacity_tests.processes import Deployment, deployment, wait_for
from whalefall_capacity_tests.processes import run as run_command

pytestmark = pytest.mark.slow

# Newest first: beside what a person starts, the sensor starts runs of its own.
RUNS = """
query { runsOrError(limit: 20) { ... on Runs { results { runId status tags { key value } } } } }
"""
STATS = 'group:"stats"'
ALL_GROUPS = "expanded=" + quote(
    ",".join(
        f"global@global:{group}" for group in ("fleet", "stats", "database_aggregations", "instance_aggregations")
    ),
    safe="",
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("ui")
    with deployment(["demo"], {"WHALEFALL_HOME": str(folder / "home")}, folder / "demo.log") as running:
        yield running


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_page() as page:
        yield page


def test_the_lineage_graph_leads_from_the_servers_to_the_sizes(demo: Deployment, page: Page) -> None:
    page.goto(f"{demo.url}/asset-groups?{ALL_GROUPS}")
    for asset in ("mariadb", "mysql", "postgresql", "database_size_stats", "instance_size_stats"):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "lineage.png")


def test_the_console_is_served_beside_it(demo: Deployment) -> None:
    wait_for(demo.console_answers, "answer of the console")


def test_one_click_on_materialize_measures_today(demo: Deployment, page: Page) -> None:
    today = datetime.now(ZoneInfo(ZONE)).date().isoformat()
    before = _runs_of(demo, today)
    page.goto(f"{demo.url}/asset-groups~{quote(STATS, safe='')}/")
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_role("button", name="Latest").click()
    page.screenshot(path=SCREENSHOTS / "materialize.png")
    page.get_by_role("button", name="Launch 1 run").click()

    wait_for(lambda: len(_runs_of(demo, today)) > len(before), "new run")
    status = wait_for(
        lambda: (latest := _runs_of(demo, today)[0]) in {"SUCCESS", "FAILURE"} and latest, "end of the run"
    )
    assert status == "SUCCESS"


def test_the_partition_is_green_and_says_what_was_measured(demo: Deployment, page: Page) -> None:
    today = datetime.now(ZoneInfo(ZONE)).date().isoformat()
    page.goto(f"{demo.url}/assets/database_size_stats?view=partitions&partition={today}")
    expect(page.get_by_text("Materialized (401)")).to_be_visible()
    expect(page.get_by_text("Failed (0)")).to_be_visible()
    expect(page.get_by_text("biggest_databases").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "partition.png")


def test_the_total_size_is_plotted_over_time(demo: Deployment, page: Page) -> None:
    page.goto(f"{demo.url}/assets/instance_size_stats")
    page.get_by_role("button", name="Plots").click()
    plot = page.get_by_text("total_size_bytes", exact=True).last
    expect(plot).to_be_visible()
    page.get_by_text("When graphing values by partition").scroll_into_view_if_needed()
    expect(page.locator("canvas").last).to_be_in_viewport()
    page.screenshot(path=SCREENSHOTS / "plots.png")


def test_the_coverage_check_passed(demo: Deployment, page: Page) -> None:
    servers = len(_fleet(demo)["instances"])
    page.goto(f"{demo.url}/assets/database_size_stats?view=checks&checkDetail=fleet_coverage")
    expect(page.get_by_text(f"{servers} of {servers} instances reported their sizes").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "check.png")


def test_a_check_leads_to_its_documentation_and_can_be_executed_alone(demo: Deployment, page: Page) -> None:
    page.goto(f"{demo.url}/assets/database_size_aggregations/weekly?view=checks")
    page.get_by_text("recomputed", exact=True).first.click()
    expect(page.get_by_text("docs/checks.md#recomputed").first).to_be_visible()
    page.get_by_role("button", name="execute Execute", exact=True).click()
    expect(page.get_by_text("match a recomputation from their stats").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "recomputed.png")


def test_an_aggregation_shows_its_columns_and_plots_the_size_of_the_fleet(demo: Deployment, page: Page) -> None:
    page.goto(f"{demo.url}/assets/database_size_aggregations/daily?view=overview")
    expect(page.get_by_text("size, on the last day with data, in bytes").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "columns.png")
    page.get_by_role("button", name="Plots").click()
    expect(page.get_by_text("closing_size_bytes", exact=True).last).to_be_visible()
    page.locator("canvas").first.scroll_into_view_if_needed()
    page.screenshot(path=SCREENSHOTS / "aggregation-plots.png")


def test_the_launchpad_opens_with_the_default_of_the_collection(demo: Deployment, page: Page) -> None:
    page.goto(f"{demo.url}/locations/whalefall_capacity/jobs/sync_databases/playground")
    expect(page.get_by_text("accept_empty").first).to_be_visible()
    expect(page.get_by_text("No errors")).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "launchpad.png")


def test_the_launchpad_of_the_maintenance_opens_with_a_dry_run(demo: Deployment, page: Page) -> None:
    page.goto(f"{demo.url}/locations/whalefall_capacity/jobs/partition_maintenance/playground")
    for option in ("dry_run: true", "confirm: false", "max_drops: 50"):
        expect(page.locator(".CodeMirror-line", has_text=option)).to_be_visible()
    expect(page.get_by_text("No errors")).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "maintenance-launchpad.png")


def test_a_failed_check_says_what_to_do_next(demo: Deployment, page: Page, tmp_path: Path) -> None:
    fleet = _fleet(demo)
    servers = len(fleet["instances"])
    file = tmp_path / "fleet.yaml"
    gone = {"name": "demo-gone", "engine": "postgresql", "host": "127.0.0.1", "port": 1}
    fleet["instances"].append(gone | {"credential": fleet["instances"][0]["credential"]})
    file.write_text(yaml.safe_dump(fleet))
    settings = {"WHALEFALL_HOME": str(_home(demo))}
    assert run_command(["fleet", "apply", str(file)], settings).returncode == 0
    assert run_command(["collect"], settings).returncode == 1

    page.goto(f"{demo.url}/assets/database_size_stats?view=checks&checkDetail=fleet_coverage")
    expect(page.get_by_text(f"{servers} of {servers + 1} instances reported their sizes").first).to_be_visible()
    expect(page.get_by_text("demo-gone").first).to_be_visible()
    expect(page.get_by_text("docs/checks.md#fleet_coverage").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "failed-check.png")


def _home(demo: Deployment) -> Path:
    return demo.log.parent / "home"


def _fleet(demo: Deployment) -> dict[str, list[Any]]:
    """The fleet file of the demo: without a MySQL server it has two instances, else three."""
    fleet: dict[str, list[Any]] = yaml.safe_load((_home(demo) / "demo" / "fleet.yaml").read_text())
    return fleet


def _runs_of(demo: Deployment, day: str) -> list[str]:
    """Return the statuses of the runs for the partition *day*, newest first."""
    runs = demo.graphql(RUNS)["runsOrError"]["results"]
    return [run["status"] for run in runs if {"key": "dagster/partition", "value": day} in run["tags"]]
