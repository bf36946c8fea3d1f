"""Runs in a Dagster instance: brought into the status that a test needs without any work, or in their own process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster import DagsterEvent, DagsterEventType, DagsterRunStatus
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test
from sqlalchemy import Engine, text

from whalefall_capacity.settings import PROJECT_ROOT
from whalefall_capacity_tests.processes import wait_for

DAY = {"dagster/partition": "2026-06-22"}


def queued_run(
    instance: dg.DagsterInstance,
    job: str = "sync_databases",
    tags: Mapping[str, str] | None = None,
    location: str = "whalefall_capacity",
) -> str:
    """Create a run of a job of the code *location* that waits in the queue, and return its id."""
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), "__repository__")
    run = create_run_for_test(
        instance,
        job,
        status=DagsterRunStatus.QUEUED,
        tags=dict(tags or {}),
        remote_job_origin=RemoteJobOrigin(repository, job),
    )
    return str(run.run_id)


def local_run(instance: dg.DagsterInstance, job: str) -> str:
    """Create a run of a process of its own, as the command line does, and return its id."""
    return str(create_run_for_test(instance, job).run_id)


def report(instance: dg.DagsterInstance, run_id: str, event_type: DagsterEventType, message: str = "") -> None:
    """Let the run have an event, and with it the status that follows."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_dagster_event(DagsterEvent(event_type.value, run.job_name, message=message), run_id)


def started_run(instance: dg.DagsterInstance, job: str = "sync_databases", **options: Any) -> str:
    """Create a run that works, as far as Dagster knows."""
    run_id = queued_run(instance, job, **options)
    report(instance, run_id, DagsterEventType.RUN_START)
    return run_id


def status_of(instance: dg.DagsterInstance, run_id: str) -> DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def task_run(store: Engine, run_id: str, columns: str = "status") -> Any:
    """Return one column of a task run, or several as a tuple; None when there is no task run."""
    with store.connect() as connection:
        query = text(f"SELECT {columns} FROM task_runs WHERE run_id = :run_id")
        row = connection.execute(query, {"run_id": run_id}).one_or_none()
    if row is None:
        return None
    return row[0] if len(row) == 1 else tuple(row)


def item_statuses(store: Engine, run_id: str) -> dict[str, str]:
    """Return the status of each item by its key."""
    with store.connect() as connection:
        query = text("SELECT item_key, status FROM task_run_items WHERE run_id = :run_id ORDER BY id")
        return {row.item_key: row.status for row in connection.execute(query, {"run_id": run_id})}


def cancel_by_run_centre(store: Engine, run_id: str) -> None:
    """Write what the run centre writes."""
    with store.begin() as connection:
        statement = text("UPDATE task_runs SET status = 'cancelled', completed_at = now() WHERE run_id = :run_id")
        connection.execute(statement, {"run_id": run_id})


@contextmanager
def run_in_own_process(
    instance: dg.DagsterInstance, module: str, *arguments: str
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Let a module of the tests execute a run; yield its process, killed at the end, and the id of the started run."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", f"whalefall_capacity_tests.{module}", *arguments], env=environment
    )
    started = dg.RunsFilter(statuses=[DagsterRunStatus.STARTED])
    try:
        wait_for(lambda: instance.get_runs(started) or process.poll() is not None, "started run")
        (run,) = instance.get_runs(started)
        yield process, run.run_id
    finally:
        process.kill()
        process.wait()
