"""A run is alive as long as the process that executes it, whoever executes its steps, and no longer."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType, DagsterRunStatus
from sqlalchemy import Engine

from whalefall_capacity.dagster_private import execute_run
from whalefall_capacity.definitions import defs
from whalefall_capacity.mirror.reconcile import WORKER_GONE, Cursor, reconcile
from whalefall_capacity.periods import utc_now
from whalefall_capacity.resources.run_process import KeptAlive
from whalefall_capacity.store.postgres.advisory_locks import without_worker
from whalefall_capacity_tests.processes import wait_for
from whalefall_capacity_tests.resources.runs import run_in_own_process, status_of, task_run
from whalefall_capacity_tests.resources.runs_elsewhere import (
    PID_FILE,
    fails_by_itself,
    is_alive_meanwhile,
    is_cancelled_by_force,
)

# Times of runs are those of Dagster's storage, of task runs those of the store.
pytestmark = pytest.mark.real_clock

MODULE = "resources.runs_elsewhere"
LOG = logging.getLogger("reconciliation")
STEP_EVENTS = {DagsterEventType.STEP_WORKER_STARTING, DagsterEventType.STEP_WORKER_STARTED, DagsterEventType.STEP_START}


def is_alive(store: Engine, run_id: str) -> bool:
    with store.connect() as connection:
        return not without_worker(connection, [run_id])


def reconcile_for_minutes(store: Engine, instance: dg.DagsterInstance) -> None:
    """Reconcile as the sensor does, at times that lie minutes apart."""
    cursor, now = Cursor(), utc_now()
    for minutes in range(4):
        cursor = reconcile(store, instance, cursor, now + timedelta(minutes=minutes), LOG)


@pytest.mark.slow
def test_a_run_whose_step_waits_for_a_worker_is_alive_until_its_process_is_killed(
    store: Engine, shared_instance: dg.DagsterInstance
) -> None:
    with run_in_own_process(shared_instance, MODULE, "waits_for_a_worker") as (process, run_id):
        wait_for(lambda: is_alive(store, run_id), "lock")
        reconcile_for_minutes(store, shared_instance)
        assert status_of(shared_instance, run_id) is DagsterRunStatus.STARTED
        assert task_run(store, run_id) == "running"
        assert shared_instance.all_logs(run_id, of_type=STEP_EVENTS) == []
        process.kill()
        wait_for(lambda: not is_alive(store, run_id), "end of the lock")
    reconcile_for_minutes(store, shared_instance)
    assert status_of(shared_instance, run_id) is DagsterRunStatus.FAILURE
    assert task_run(store, run_id, "status, error_message") == ("failed", WORKER_GONE)


@pytest.mark.slow
def test_a_run_whose_step_waits_for_a_worker_ends_when_it_is_cancelled(
    store: Engine, shared_instance: dg.DagsterInstance
) -> None:
    with run_in_own_process(shared_instance, MODULE, "waits_for_a_worker") as (process, run_id):
        wait_for(lambda: is_alive(store, run_id), "lock")
        run = shared_instance.get_run_by_id(run_id)
        assert run is not None
        # As Dagster's launcher does.
        shared_instance.report_run_canceling(run)
        process.send_signal(signal.SIGINT)
        wait_for(lambda: process.poll() is not None, "end of the process")
    reconcile_for_minutes(store, shared_instance)
    assert status_of(shared_instance, run_id) is DagsterRunStatus.CANCELED
    assert task_run(store, run_id) == "cancelled"


@pytest.mark.slow
def test_a_step_that_outlives_the_process_of_its_run_does_not_keep_the_run_alive(
    store: Engine, shared_instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    pid_file = tmp_path / "step.pid"
    os.environ[PID_FILE] = str(pid_file)
    try:
        with run_in_own_process(shared_instance, MODULE, "has_an_endless_step") as (process, run_id):
            wait_for(pid_file.exists, "step")
            wait_for(lambda: is_alive(store, run_id), "lock")
            process.kill()
            wait_for(lambda: not is_alive(store, run_id), "end of the lock")
            # It is still there.
            os.kill(int(pid_file.read_text()), 0)
        reconcile_for_minutes(store, shared_instance)
        assert task_run(store, run_id, "status, error_message") == ("failed", WORKER_GONE)
    finally:
        if pid_file.exists():
            with suppress(ProcessLookupError):
                os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_a_run_that_is_executed_where_it_was_created_is_alive_meanwhile(
    store: Engine, dagster_instance: dg.DagsterInstance
) -> None:
    result = is_alive_meanwhile.execute_in_process(instance=dagster_instance)
    assert result.success
    # The server gives a lock back a moment after its session has taken leave.
    wait_for(lambda: not is_alive(store, result.run_id), "end of the lock")


@pytest.mark.parametrize(
    ("job", "status"),
    [(is_cancelled_by_force, DagsterRunStatus.CANCELED), (fails_by_itself, DagsterRunStatus.FAILURE)],
    ids=["cancelled", "failed"],
)
@pytest.mark.usefixtures("store")
def test_a_run_that_was_cancelled_by_force_stays_cancelled_when_its_steps_fail_because_of_that(
    dagster_instance: dg.DagsterInstance, job: dg.JobDefinition, status: DagsterRunStatus
) -> None:
    run_id = dg.execute_job(dg.reconstructable(job), dagster_instance).run_id
    assert status_of(dagster_instance, run_id) is status


@pytest.mark.parametrize("is_over", [False, True], ids=["canceling", "canceled"])
@pytest.mark.usefixtures("store")
def test_a_run_that_is_cancelled_after_its_worker_has_looked_never_begins_its_work(
    dagster_instance: dg.DagsterInstance, is_over: bool
) -> None:
    seen_by_worker = dagster_instance.create_run_for_job(fails_by_itself, status=DagsterRunStatus.STARTING)
    dagster_instance.report_run_canceling(seen_by_worker)
    if is_over:
        dagster_instance.report_run_canceled(seen_by_worker)
    job = dg.reconstructable(fails_by_itself)
    execute_run(job, seen_by_worker, dagster_instance, raise_on_error=False)
    assert status_of(dagster_instance, seen_by_worker.run_id) is DagsterRunStatus.CANCELED
    steps = dagster_instance.get_records_for_run(seen_by_worker.run_id, of_type=DagsterEventType.STEP_START, limit=1)
    assert steps.records == []


def test_the_executor_of_every_job_keeps_its_runs_alive() -> None:
    executors = {job.name: job.executor_def for job in defs.resolve_all_job_defs()}
    assert len(executors) > 7
    assert [name for name, executor in executors.items() if not isinstance(executor, KeptAlive)] == []


def test_an_executor_that_is_kept_alive_keeps_its_name_and_configuration() -> None:
    few = KeptAlive(dg.multiprocess_executor.configured({"max_concurrent": 3}, name="few"))
    assert (few.name, few.description) == ("few", dg.multiprocess_executor.description)
    assert few.get_requirements({}) == dg.multiprocess_executor.get_requirements({})


class Addressed(dg.Executor):
    """An executor with something of its own, as Celery's has the arguments of its application."""

    address = "redis.example"

    @property
    def retries(self) -> Any:
        raise NotImplementedError

    def execute(self, plan_context: Any, execution_plan: Any) -> Any:
        raise NotImplementedError


def test_what_an_executor_alone_has_is_found_when_it_is_kept_alive() -> None:
    kept: Any = KeptAlive(dg.ExecutorDefinition("addressed", executor_creation_fn=lambda _: Addressed()))
    assert kept.executor_creation_fn(None).address == "redis.example"
