"""The guarded UI in headless Chromium: a page of another origin changes nothing, an operator notices nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from playwright.sync_api import Page, Response, WebSocket, expect

from whalefall_capacity_tests.browser import SCREENSHOTS, open_page
from whalefall_capacity_tests.processes import Deployment, deployment, wait_for
from whalefall_capacity_tests.processes import run as run_command
from whalefall_capacity_tests.registry import PASSWORD_VARIABLE
from whalefall_capacity_tests.servers import PostgresqlServer
from whalefall_capacity_tests.slow_fleet import Gate, gate
from whalefall_capacity_tests.ui.pages import LAUNCH_MAINTENANCE, hostile_page, runs, schedules, stop_schedule

pytestmark = pytest.mark.slow

REBOUND = "rebound.example"
STATS = quote('group:"stats"', safe="")


@dataclass(frozen=True)
class Held:
    """`up` with one server in its fleet, which answers when the test lets it."""

    running: Deployment
    server: Gate


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
        credential = {"username": "postgres", "password_env": PASSWORD_VARIABLE}
        server = {"name": "held", "engine": "postgresql", "host": "127.0.0.1", "port": closed.port}
        file = folder / "fleet.yaml"
        file.write_text(yaml.safe_dump({"instances": [server | {"credential": credential}]}))
        assert run_command(["fleet", "apply", str(file)], variables).returncode == 0
        yield Held(running, closed)


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


def launch_by_clicks(held: Held, page: Page) -> str:
    """Materialize today's stats in the UI, wait until the run is in the middle of it, and return its id."""
    before, waiting = [run["runId"] for run in runs(held.running)], held.server.waiting
    page.goto(f"{held.running.url}/asset-groups~{STATS}/")
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_role("button", name="Latest").click()
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


def test_the_ui_follows_a_link_of_the_console(held: Held, page: Page, tmp_path: Path) -> None:
    link = tmp_path / "link.html"
    link.write_text(f'<a href="{held.running.url}/runs">runs</a>')
    page.goto(f"file://{link}")
    page.get_by_role("link", name="runs").click()
    expect(page.get_by_role("link", name="Deployment")).to_be_visible()
