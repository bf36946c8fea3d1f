"""Pages of other origins, and what is asked of the Dagster UI in the tests of its guard and login."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from whalefall_capacity_tests.processes import REPOSITORY, Deployment

HOSTILE = Path(__file__).with_name("hostile.html")
SCHEDULES = """
query($repository: RepositorySelector!) { schedulesOrError(repositorySelector: $repository) {
  ... on Schedules { results { name scheduleState { id status } } }
} }
"""
RUNS = "query { runsOrError { ... on Runs { results { runId status jobName } } } }"
LAUNCH_MAINTENANCE = """
mutation { launchRun(executionParams: {
  selector: {
    repositoryLocationName: "whalefall_capacity", repositoryName: "__repository__", jobName: "partition_maintenance"
  },
  runConfigData: "{\\"ops\\": {\\"plan\\": {\\"config\\": {\\"dry_run\\": false}}}}"
}) { __typename ... on LaunchRunSuccess { run { runId } } } }
"""


def schedules(running: Deployment) -> dict[str, dict[str, str]]:
    """Return the state of each schedule by its name."""
    found = running.graphql(SCHEDULES, repository=REPOSITORY)["schedulesOrError"]["results"]
    return {schedule["name"]: schedule["scheduleState"] for schedule in found}


def stop_schedule(running: Deployment, name: str) -> str:
    """Return the document that stops a schedule."""
    return f'mutation {{ stopRunningSchedule(id: "{schedules(running)[name]["id"]}") {{ __typename }} }}'


def runs(running: Deployment) -> list[dict[str, Any]]:
    """Return the runs, newest first."""
    found: list[dict[str, Any]] = running.graphql(RUNS)["runsOrError"]["results"]
    return found


@contextmanager
def hostile_page(target: str, documents: list[str]) -> Iterator[int]:
    """Hold a server of a page that tries everything with *documents* against *target*, and yield its port."""
    content = HOSTILE.read_text(encoding="utf-8").replace("TARGET", target).replace("DOCUMENTS", json.dumps(documents))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
