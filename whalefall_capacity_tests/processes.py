"""The program as its users start it: commands that end, and the UI that serves until it is stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psutil

from whalefall_capacity.dagster_private import PARTITION_NAME_TAG
from whalefall_capacity.settings import PREFIX, Settings
from whalefall_capacity.supervisor import stop_families

REPOSITORY = {"repositoryLocationName": "whalefall_capacity", "repositoryName": "__repository__"}
LAUNCH = """
mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
} }
"""
RUN_STATUS = "query($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"
RUN_EVENTS = """
query($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events { ... on MessageEvent { message } } } } }
"""
# How long a test waits for what is sure to come: a machine that does five things at once is no failure.
PATIENCE_SECONDS = 300.0
DEFAULT_ZONE: str = Settings.model_fields["timezone"].default
PROGRAM = str(Path(sys.executable).parent / "whalefall-capacity")


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with *variables* as its only settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "DAGSTER_"))}
    return kept | dict(variables)


def run(arguments: list[str], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its streams and status."""
    return subprocess.run(
        [PROGRAM, *arguments],
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def start(
    arguments: list[str],
    variables: Mapping[str, str],
    log: Path,
    program: str = PROGRAM,
    folder: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own, its streams in *log*, by default in the current folder."""
    with log.open("wb") as stream:
        return subprocess.Popen(
            [program, *arguments],
            cwd=folder,
            env=environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Poll until *condition* is true and return its value; fail when it does not become so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within {PATIENCE_SECONDS:g} s"
        time.sleep(0.1)
    return value


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def processes_below(folder: Path) -> list[str]:
    """Return the command lines of running processes that name *folder*."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        if str(folder) in command and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            found.append(command)
    return found


@dataclass(frozen=True)
class Deployment:
    """A running program with its Dagster UI, and its console beside it."""

    process: subprocess.Popen[bytes]
    url: str
    console_url: str
    log: Path
    token: str | None = None

    def with_token(self, token: str) -> Deployment:
        """Return the same, whose UI asks for a login and gets a token."""
        return replace(self, token=token)

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """Send a query to the UI's API and return its data."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"content-type": "application/json"},
        )
        if self.token is not None:
            request.add_header("authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 - our own server
            content: dict[str, Any] = json.load(answer)
        assert "errors" not in content, content
        data: dict[str, Any] = content["data"]
        return data

    def launch_collection(self, day: date, *tags: str) -> str:
        """Launch the collection of *day* from the UI, with *tags*, and return its run id."""
        values = {PARTITION_NAME_TAG: day.isoformat()} | dict.fromkeys(tags, "yes")
        params = {
            "selector": REPOSITORY | {"jobName": "sync_databases"},
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in values.items()]},
        }
        run_id: str = self.graphql(LAUNCH, params=params)["launchRun"]["run"]["runId"]
        return run_id

    def run_status(self, run_id: str) -> str:
        """Return the status of a run as Dagster has it."""
        status: str = self.graphql(RUN_STATUS, run=run_id)["runOrError"]["status"]
        return status

    def run_messages(self, run_id: str) -> str:
        """Return what the events of a run say."""
        return str(self.graphql(RUN_EVENTS, run=run_id)["logsForRun"])

    def services(self, words: str) -> list[psutil.Process]:
        """Return the children of the supervisor that have *words* in their command line."""
        return [child for child in psutil.Process(self.process.pid).children() if words in _command(child)]

    def console_answers(self) -> bool:
        """Does the console answer?"""
        return console_answers(self.console_url)

    def serves(self) -> bool:
        """Does the UI answer?"""
        assert self.process.poll() is None, self.log.read_text(errors="replace")
        try:
            urllib.request.urlopen(f"{self.url}/server_info", timeout=5).close()  # noqa: S310 - our own server
        except (urllib.error.URLError, OSError):
            return False
        return True


def console_answers(url: str) -> bool:
    """Does the console at *url* answer?"""
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=5) as answer:  # noqa: S310 - our own server
            return bool(answer.read() == b"ok\n")
    except OSError:
        return False


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def schedules_half_a_day_away(zone: str) -> dict[str, str]:
    """Return settings under which nothing becomes due by itself while a test runs, whatever the hour."""
    hour = (datetime.now(ZoneInfo(zone)).hour + 12) % 24
    return {f"{PREFIX}{name}_SCHEDULE": f"0 {hour} * * *" for name in ("COLLECTION", "MAINTENANCE")}


@contextmanager
def deployment(
    command: list[str],
    variables: Mapping[str, str],
    log: Path,
    program: str = PROGRAM,
    folder: Path | None = None,
) -> Iterator[Deployment]:
    """Hold `whalefall-capacity COMMAND` for the length of the block, from the moment that its UI answers.

    No schedule becomes due meanwhile unless *variables* say when: a collection of today in the middle of a test fails
    on its servers, and a maintenance drops its past.
    """
    port, console_port = free_port(), free_port()
    ports = {f"{PREFIX}WEBSERVER_PORT": str(port), f"{PREFIX}CONSOLE_PORT": str(console_port)}
    quiet = schedules_half_a_day_away(variables.get(f"{PREFIX}TIMEZONE", DEFAULT_ZONE))
    process = start(command, quiet | ports | dict(variables), log, program, folder)
    running = Deployment(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{console_port}", log)
    try:
        wait_for(running.serves, "answer of the Dagster UI")
        yield running
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE_SECONDS)
        finally:
            stop_families([process.pid])
