"""Rules of dagster.yaml for runs, in a deployment that runs.

One collection works at a time; a run whose worker died is executed again, once, and one that failed is not.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import migrate
from whalefall_capacity_tests.processes import Deployment, deployment, run, wait_for
from whalefall_capacity_tests.registry import PASSWORD_VARIABLE, entry, refusing, register, silent
from whalefall_capacity_tests.servers import PostgresqlServer
from whalefall_capacity_tests.summaries import check_summaries

pytestmark = pytest.mark.slow

RUN = """
query($run: ID!) { runOrError(runId: $run) { ... on Run { status startTime endTime tags { key value } } } }
"""
RUNS = "{ runsOrError { ... on Runs { results { runId parentRunId status } } } }"
TASK_RUNS = "SELECT run_id, status FROM task_runs WHERE task_key = 'sync_databases'"


@pytest.fixture(scope="module")
def store(store_server: EmbeddedPostgres) -> Iterator[Engine]:
    store_server.create_databases("queued", "queued_dagster")
    engine = create_store_engine(store_server.url("queued"))
    migrate(engine)
    yield engine
    check_summaries(engine)
    engine.dispose()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("queued")


@pytest.fixture(scope="module")
def variables(store: Engine, store_server: EmbeddedPostgres, folder: Path) -> dict[str, str]:
    """Settings of the processes; a server that does not speak is waited for as long as the test needs."""
    return {
        "WHALEFALL_HOME": str(folder / "home"),
        "WHALEFALL_STORE_URL": store.url.render_as_string(hide_password=False),
        "WHALEFALL_DAGSTER_URL": store_server.url("queued_dagster").get_secret_value(),
        "WHALEFALL_CONNECT_TIMEOUT_SECONDS": "300",
        PASSWORD_VARIABLE: "",
    }


@pytest.fixture(scope="module")
def running(variables: dict[str, str], folder: Path) -> Iterator[Deployment]:
    with deployment(["up"], variables, folder / "up.log") as up:
        yield up


def launch(up: Deployment) -> str:
    return up.launch_collection(datetime.now(ZoneInfo("Asia/Shanghai")).date())


def state(up: Deployment, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = up.graphql(RUN, run=run_id)["runOrError"]
    return found


def in_state(up: Deployment, run_id: str, *statuses: str) -> dict[str, Any]:
    """Wait until the run has one of *statuses* and return what Dagster knows of it."""
    wait_for(lambda: state(up, run_id)["status"] in statuses, f"run that is {' or '.join(statuses)}")
    return state(up, run_id)


def will_retry(up: Deployment, run_id: str) -> str:
    """Wait until the run failed and return whether Dagster will execute it again, which it says after that."""
    in_state(up, run_id, "FAILURE")

    def decision() -> str | None:
        tags = {tag["key"]: tag["value"] for tag in state(up, run_id)["tags"]}
        return tags.get("dagster/will_retry")

    return str(wait_for(decision, "decision to execute the run again or not"))


def retries(up: Deployment, run_id: str) -> list[str]:
    results = up.graphql(RUNS)["runsOrError"]["results"]
    return [result["runId"] for result in results if result["parentRunId"] == run_id]


def wait_for_visit(store: Engine, run_id: str) -> None:
    """Wait until the run visits a server."""
    visits = "SELECT count(*) FROM task_run_items WHERE status = 'running' AND run_id = :run_id"

    def is_visiting() -> bool:
        with store.connect() as connection:
            return bool(connection.execute(text(visits), {"run_id": run_id}).scalar())

    wait_for(is_visiting, "visit")


def worker_of(up: Deployment, run_id: str) -> int:
    """Return the process that works for a run."""
    messages = up.run_messages(run_id)
    found = re.search(r"Executing steps in process \(pid: (\d+)\)", messages) or re.search(
        r"Started process for run \(pid: (\d+)\)", messages
    )
    assert found, messages
    return int(found[1])


def test_a_run_whose_worker_died_is_executed_again_once_and_one_that_failed_is_not(
    running: Deployment, store: Engine, postgresql: PostgresqlServer
) -> None:
    with store.connect() as connection:
        before = {row.run_id for row in connection.execute(text(TASK_RUNS))}
    register(store, refusing("gone"))
    failed = launch(running)
    assert will_retry(running, failed) == "false"

    with silent("silent") as tarpit:
        register(store, entry("pg", postgresql.target()), tarpit)
        died = launch(running)
        wait_for_visit(store, died)
        os.kill(worker_of(running, died), signal.SIGKILL)
        assert will_retry(running, died) == "true"
        [again] = wait_for(lambda: retries(running, died), "run that executes it again")
        wait_for_visit(store, again)
        os.kill(worker_of(running, again), signal.SIGKILL)
        assert will_retry(running, again) == "false"
    assert retries(running, again) == []
    assert retries(running, failed) == []

    def task_runs() -> dict[str, str]:
        with store.connect() as connection:
            return {row.run_id: row.status for row in connection.execute(text(TASK_RUNS)) if row.run_id not in before}

    wait_for(lambda: task_runs() == dict.fromkeys((failed, died, again), "failed"), "end of every task run")
    for run_id in (failed, died, again):
        words = [f": started (manual, run {run_id[:8]})", ": failed after "]

        def lines(run_id: str = run_id) -> list[str]:
            return [line for line in running.log.read_text().splitlines() if f"run {run_id[:8]})" in line]

        wait_for(lambda: len(lines()) >= 2, "line of the end")
        assert all(word in line for word, line in zip(words, lines(), strict=True)), lines()


def test_a_second_collection_waits_for_the_first_and_the_command_line_for_none(
    running: Deployment, store: Engine, variables: dict[str, str], postgresql: PostgresqlServer
) -> None:
    with silent("silent") as tarpit:
        register(store, entry("pg", postgresql.target()), tarpit)
        first = launch(running)
        wait_for_visit(store, first)
        second = launch(running)
        in_state(running, second, "QUEUED")
        done = run(["collect", "--instance", "pg"], variables)
        assert done.returncode == 0, done.stderr
        # It had the time of a whole collection to start, in a queue that is looked at every second.
        assert state(running, second)["status"] == "QUEUED"
        assert state(running, first)["status"] == "STARTED"
    ended = in_state(running, first, "SUCCESS")
    began = in_state(running, second, "SUCCESS")
    assert began["startTime"] >= ended["endTime"]
