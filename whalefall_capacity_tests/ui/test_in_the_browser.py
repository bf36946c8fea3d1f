"""The guarded UI in headless Chromium: a page of another origin changes nothing, an operator notices nothing.

What an operator sees and clicks goes to `screenshots/`. The tests go on from each other: the fleet is one server, held
until a run is watched to its end; its past is imported after that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
import yaml
from playwright.sync_api import Page, Response, WebSocket, expect

from whalefall_capacity_tests.browser import SCREENSHOTS, ZONE, open_page
from whalefall_capacity_tests.processes import Deployment, deployment, wait_for
from whalefall_capacity_tests.processes import run as run_command
from whalefall_capacity_tests.registry import PASSWORD_VARIABLE
from whalefall_capacity_tests.servers import PostgresqlServer
from whalefall_capacity_tests.slow_fleet import Gate, gate
from whalefall_capacity_tests.ui.pages import LAUNCH_MAINTENANCE, hostile_page, runs, schedules, stop_schedule

pytestmark = pytest.mark.slow

REBOUND = "rebound.example"
STATS = quote('group:"stats"', safe="")
ALL_GROUPS = "expanded=" + quote(
    ",".join(
        f"global@global:{group}" for group in ("fleet", "stats", "database_aggregations", "instance_aggregations")
    ),
    safe="",
)
PAST_DAYS = 40


@dataclass(frozen=True)
class Held:
    """`up` with one server in its fleet, which answers when the test lets it."""

    running: Deployment
    server: Gate
    folder: Path
    variables: dict[str, str]

    def run(self, *arguments: str | Path) -> int:
        """Run a command beside it and return its status."""
        return run_command([*map(str, arguments)], self.variables).returncode

    def apply(self, *more: dict[str, object]) -> None:
        """Make its server and *more* the fleet."""
        credential = {"username": "postgres", "password_env": PASSWORD_VARIABLE}
        server = {"name": "held", "engine": "postgresql", "host": "127.0.0.1", "port": self.server.port}
        entries = [one | {"credential": credential} for one in (server, *more)]
        file = self.folder / "fleet.yaml"
        file.write_text(yaml.safe_dump({"instances": entries}))
        assert self.run("fleet", "apply", file) == 0


@pytest.fixture(scope="module")
def held(postgresql: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    folder = tmp_path_factory.mktemp("guarded")
    variables = {
        "WHALEFALL_HOME": str(folder / "home"),
        "WHALEFALL_CONNECT_TIMEOUT_SECONDS": "300",
        PASSWORD_VARIABLE: "",
    }
    socket = postgresql.embedded.socket_dir / ".s.PGSQL.5432"
    with gate(socket) as closed, deployment(["up"], variables, folder / "up.log") as running:
        found = Held(running, closed, folder, variables)
        found.apply()
        yield found


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    # Where names are looked up, the name of the attacker leads to this machine (DNS rebinding).
    with open_page(f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1") as page:
        yield page


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["of the same site", "of another site"])
def test_a_page_of_another_origin_changes_nothing_and_reads_nothing(held: Held, page: Page, host: str) -> None:
    running = held.running
    before = (schedules(running), runs(running))
    documents = [stop_schedule(running, "daily_collection"), LAUNCH_MAINTENANCE]
    answers: list[tuple[str, int]] = []

    def note(answer: Response) -> None:
        answers.append((answer.url, answer.status))

    page.on("response", note)
    with hostile_page(running.url, documents) as port:
        page.goto(f"http://{host}:{port}/")
        page.wait_for_function("window.read !== undefined", timeout=120_000)
        assert page.evaluate("window.read") == []
    page.remove_listener("response", note)
    # The requests did get there, and were refused.
    refused = [status for url, status in answers if url.startswith(running.url)]
    assert len(refused) >= 15
    assert set(refused) <= {403, 405, 415}
    assert (schedules(running), runs(running)) == before


def test_what_the_page_tried_is_what_a_script_may_do(held: Held) -> None:
    stop = stop_schedule(held.running, "daily_maintenance")
    assert schedules(held.running)["daily_maintenance"]["status"] == "RUNNING"
    assert held.running.graphql(stop)["stopRunningSchedule"]["__typename"] == "ScheduleStateResult"
    assert schedules(held.running)["daily_maintenance"]["status"] == "STOPPED"
    launched = held.running.graphql(LAUNCH_MAINTENANCE)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess"
    run_id = launched["run"]["runId"]
    wait_for(lambda: held.running.run_status(run_id) == "SUCCESS", "end of the maintenance")


def test_a_name_that_was_made_to_point_at_us_gets_nothing(held: Held, page: Page) -> None:
    port = held.running.url.rpartition(":")[2]
    for path in ("/", "/runs", "/graphql?query={version}", "/server_info"):
        answer = page.goto(f"http://{REBOUND}:{port}{path}")
        assert answer is not None
        assert answer.status == 400
        assert "WHALEFALL_ALLOWED_HOSTS" in answer.text()
    options = "{method: 'POST', headers: {'Content-Type': 'application/json'}, body: '{\"query\": \"{version}\"}'}"
    assert page.evaluate(f"fetch('/graphql', {options}).then(answer => answer.status)") == 400


def test_the_lineage_graph_leads_from_the_servers_to_the_sizes(held: Held, page: Page) -> None:
    page.goto(f"{held.running.url}/asset-groups?{ALL_GROUPS}")
    for asset in ("mariadb", "mysql", "postgresql", "database_size_stats", "instance_size_stats"):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "lineage.png")


def test_the_console_is_served_beside_it(held: Held) -> None:
    wait_for(held.running.console_answers, "answer of the console")


def test_the_launchpad_opens_with_the_default_of_the_collection(held: Held, page: Page) -> None:
    page.goto(f"{held.running.url}/locations/whalefall_capacity/jobs/sync_databases/playground")
    expect(page.get_by_text("accept_empty").first).to_be_visible()
    expect(page.get_by_text("No errors")).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "launchpad.png")


def test_the_launchpad_of_the_maintenance_opens_with_a_dry_run(held: Held, page: Page) -> None:
    page.goto(f"{held.running.url}/locations/whalefall_capacity/jobs/partition_maintenance/playground")
    for option in ("dry_run: true", "confirm: false", "max_drops: 50"):
        expect(page.locator(".CodeMirror-line", has_text=option)).to_be_visible()
    expect(page.get_by_text("No errors")).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "maintenance-launchpad.png")


def launch_by_clicks(held: Held, page: Page) -> str:
    """Materialize today's stats in the UI, wait until the run is in the middle of it, and return its id."""
    before, waiting = [run["runId"] for run in runs(held.running)], held.server.waiting
    page.goto(f"{held.running.url}/asset-groups~{STATS}/")
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_role("button", name="Latest").click()
    page.screenshot(path=SCREENSHOTS / "materialize.png")
    page.get_by_role("button", name="Launch 1 run").click()
    new = wait_for(lambda: [run for run in runs(held.running) if run["runId"] not in before], "new run")
    wait_for(lambda: held.server.waiting == waiting + 1, "visit that is held")
    return str(new[0]["runId"])


def test_a_run_is_terminated_by_clicks(held: Held, page: Page) -> None:
    run_id = launch_by_clicks(held, page)
    page.goto(f"{held.running.url}/runs/{run_id}")
    page.get_by_role("button", name="Terminate").click()
    page.get_by_role("button", name="Terminate 1 run").click()
    wait_for(lambda: held.running.run_status(run_id) == "CANCELED", "end of the run")


def test_the_page_of_a_run_follows_it_live_over_the_websocket(held: Held, page: Page) -> None:
    run_id = launch_by_clicks(held, page)
    refused: list[str] = []
    sockets: list[WebSocket] = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)
    page.on("websocket", lambda opened: sockets.append(opened))
    page.goto(f"{held.running.url}/runs/{run_id}")
    expect(page.get_by_text('Started execution of step "size_stats.shards".')).to_be_visible()
    expect(page.get_by_text("RUN_SUCCESS")).to_have_count(0)
    held.server.open()
    expect(page.get_by_text("RUN_SUCCESS")).to_be_visible(timeout=120_000)
    page.screenshot(path=SCREENSHOTS / "guarded-run.png")
    assert sockets != []
    assert refused == []


def test_the_coverage_check_passed(held: Held, page: Page) -> None:
    page.goto(f"{held.running.url}/assets/database_size_stats?view=checks&checkDetail=fleet_coverage")
    expect(page.get_by_text("1 of 1 instances reported their sizes").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "check.png")


def test_the_ui_follows_a_link_of_the_console(held: Held, page: Page, tmp_path: Path) -> None:
    link = tmp_path / "link.html"
    link.write_text(f'<a href="{held.running.url}/runs">runs</a>')
    page.goto(f"file://{link}")
    page.get_by_role("link", name="runs").click()
    expect(page.get_by_role("link", name="Deployment")).to_be_visible()


@pytest.fixture(scope="module")
def past(held: Held) -> date:
    """Import a past of two databases, until yesterday, and return the day that is measured after it."""
    today = datetime.now(ZoneInfo(ZONE)).date()
    lines = [
        f"held,{database},{today - timedelta(days=back)},{size - back * 2**20}"
        for back in range(1, PAST_DAYS + 1)
        for database, size in (("shop", 2**30), ("crm", 2**28))
    ]
    file = held.folder / "past.csv"
    file.write_text("\n".join(["instance,database,date,size_bytes", *lines]))
    assert held.run("history", "import", file) == 0
    return today


def test_the_partition_is_green_and_says_what_was_measured(held: Held, page: Page, past: date) -> None:
    page.goto(f"{held.running.url}/assets/database_size_stats?view=partitions&partition={past}")
    expect(page.get_by_text("Materialized (41)")).to_be_visible()
    # The run that was terminated failed to materialize today, which was done after it.
    expect(page.get_by_text("Failed (0)")).to_be_visible()
    expect(page.get_by_text("biggest_databases").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "partition.png")


@pytest.mark.usefixtures("past")
def test_the_total_size_is_plotted_over_time(held: Held, page: Page) -> None:
    page.goto(f"{held.running.url}/assets/instance_size_stats")
    page.get_by_role("button", name="Plots").click()
    plot = page.get_by_text("total_size_bytes", exact=True).last
    expect(plot).to_be_visible()
    page.get_by_text("When graphing values by partition").scroll_into_view_if_needed()
    expect(page.locator("canvas").last).to_be_in_viewport()
    page.screenshot(path=SCREENSHOTS / "plots.png")


@pytest.mark.usefixtures("past")
def test_a_check_leads_to_its_documentation_and_can_be_executed_alone(held: Held, page: Page) -> None:
    page.goto(f"{held.running.url}/assets/database_size_aggregations/weekly?view=checks")
    page.get_by_text("recomputed", exact=True).first.click()
    expect(page.get_by_text("docs/checks.md#recomputed").first).to_be_visible()
    page.get_by_role("button", name="execute Execute", exact=True).click()
    expect(page.get_by_text("match a recomputation from their stats").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "recomputed.png")


@pytest.mark.usefixtures("past")
def test_an_aggregation_shows_its_columns_and_plots_the_size_of_the_fleet(held: Held, page: Page) -> None:
    page.goto(f"{held.running.url}/assets/database_size_aggregations/daily?view=overview")
    expect(page.get_by_text("size, on the last day with data, in bytes").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "columns.png")
    page.get_by_role("button", name="Plots").click()
    expect(page.get_by_text("closing_size_bytes", exact=True).last).to_be_visible()
    page.locator("canvas").first.scroll_into_view_if_needed()
    page.screenshot(path=SCREENSHOTS / "aggregation-plots.png")


def test_a_failed_check_says_what_to_do_next(held: Held, page: Page) -> None:
    held.apply({"name": "held-gone", "engine": "postgresql", "host": "127.0.0.1", "port": 1})
    assert held.run("collect") == 1

    page.goto(f"{held.running.url}/assets/database_size_stats?view=checks&checkDetail=fleet_coverage")
    expect(page.get_by_text("1 of 2 instances reported their sizes").first).to_be_visible()
    expect(page.get_by_text("held-gone").first).to_be_visible()
    expect(page.get_by_text("docs/checks.md#fleet_coverage").first).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "failed-check.png")
