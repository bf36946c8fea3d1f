"""The mirror: one function that brings a task run in line with its Dagster run.

It works from the state of the run, not from events, which may be lost or late: no matter how often and from how many
processes `mirror` is called, the task run ends as the run did. The row is locked before the run's record is read, so
that of two callers the one that writes last has also read last.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus
from sqlalchemy import Connection, Engine

from whalefall_capacity.asset_keys import KEYS_OF_JOB
from whalefall_capacity.mirror.run_plan import asset_keys_of, read_plan
from whalefall_capacity.settings import Settings, load_settings
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs.write import (
    LockedTaskRun,
    NewTaskRun,
    RunEnd,
    close_task_run,
    insert_task_run,
    lock_task_run,
    start_task_run,
    write_summary,
)
from whalefall_capacity.tasks import LOCATION, OP_JOBS

# The name in pyproject.toml, and the one that Dagster's own commands use when they are given the module.
LOCATIONS = (LOCATION, f"{LOCATION}.definitions")
WAITING = (DagsterRunStatus.NOT_STARTED, DagsterRunStatus.QUEUED, DagsterRunStatus.STARTING)
FINAL_STATUSES = {
    DagsterRunStatus.SUCCESS: Status.COMPLETED,
    DagsterRunStatus.FAILURE: Status.FAILED,
    DagsterRunStatus.CANCELED: Status.CANCELLED,
}
# The console writes the task run in the transaction in which it launches the run: Dagster may not have it yet.
LAUNCH_GRACE = timedelta(seconds=60)
COMPLETED_DESPITE_CANCEL = "cancelled, but the work had already completed"
LONGEST_ERROR = 4000


def mirror(engine: Engine, instance: dg.DagsterInstance, run_id: str) -> None:
    """Bring the task run of *run_id* in line with Dagster's run, creating it if there is none yet."""
    with engine.begin() as connection:
        task_run = lock_task_run(connection, run_id)
        if task_run is None:
            run = instance.get_run_by_id(run_id)
            if run is None or not is_ours(run):
                return
            # Of two who insert it, one waits here for the other; then both lock the one row that there is.
            insert_task_run(connection, new_task_run(run, load_settings()))
            task_run = lock_task_run(connection, run_id)
            assert task_run is not None
        record = instance.get_run_record_by_id(run_id)
        if record is None:
            _give_up(connection, task_run)
        else:
            _follow(connection, instance, task_run, record)


def is_ours(run: dg.DagsterRun) -> bool:
    """Tell whether a run belongs to this project; other code locations may share the storage."""
    origin = run.remote_job_origin
    if origin is not None:
        return origin.location_name in LOCATIONS
    # Runs of the command line, ours or Dagster's, execute in its own process and have no location.
    return run.job_name in KEYS_OF_JOB or run.job_name in OP_JOBS or bool(asset_keys_of(run))


def is_local(run: dg.DagsterRun) -> bool:
    """Tell whether the whole run is executed by the process that created it: its job exists only there."""
    return run.job_code_origin is None


def new_task_run(run: dg.DagsterRun, settings: Settings) -> NewTaskRun:
    """Return the task run that *run* starts with."""
    plan = read_plan(run)
    return NewTaskRun(
        run_id=run.run_id,
        task_key=plan.task.key,
        task_name=plan.task_name,
        task_category=plan.task.category,
        trigger_source=plan.trigger_source,
        summary=plan.summary(settings.timezone),
        created_by=plan.created_by,
        result_url=settings.run_url.format(run_id=run.run_id),
    )


def failure_text(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return why a run failed: the innermost cause of its first failed step, or the failure of the run itself."""
    steps = instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_FAILURE, limit=1).records
    for record in steps:
        event = record.event_log_entry.get_dagster_event()
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return data.user_failure_data.description[:LONGEST_ERROR]
        error = data.error
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return error.message.strip()[:LONGEST_ERROR]
    ends = instance.get_records_for_run(run_id, of_type=DagsterEventType.RUN_FAILURE, limit=1, ascending=False).records
    for record in ends:
        if message := record.event_log_entry.get_dagster_event().message:
            return message[:LONGEST_ERROR]
    return "the run failed; the Dagster UI shows its log"


def _give_up(connection: Connection, task_run: LockedTaskRun) -> None:
    if task_run.closed_at is None and task_run.read_at - task_run.created_at > LAUNCH_GRACE:
        ending = RunEnd(
            Status.FAILED, task_run.read_at, "Dagster has no run with this id: it was never launched, or was deleted"
        )
        close_task_run(connection, task_run, ending, started_at=None)


def _follow(
    connection: Connection, instance: dg.DagsterInstance, task_run: LockedTaskRun, record: dg.RunRecord
) -> None:
    status = record.dagster_run.status
    if task_run.closed_at is not None:
        if task_run.status is Status.CANCELLED and status is DagsterRunStatus.SUCCESS:
            write_summary(connection, task_run.run_id, task_run.summary.with_highlight(COMPLETED_DESPITE_CANCEL))
    elif status in FINAL_STATUSES:
        close_task_run(connection, *_closing(instance, task_run, record))
    elif status not in WAITING:
        # Including statuses that this version of the program does not know.
        start_task_run(connection, task_run.run_id, _time(record.start_time) or record.update_timestamp)


def _closing(
    instance: dg.DagsterInstance, task_run: LockedTaskRun, record: dg.RunRecord
) -> tuple[LockedTaskRun, RunEnd, datetime | None]:
    status = FINAL_STATUSES[record.dagster_run.status]
    if task_run.status is Status.CANCELLED and status is Status.COMPLETED:
        task_run = replace(task_run, summary=task_run.summary.with_highlight(COMPLETED_DESPITE_CANCEL))
    error = failure_text(instance, task_run.run_id) if status is Status.FAILED else None
    ended_at = _time(record.end_time) or record.update_timestamp
    return task_run, RunEnd(status, ended_at, error), _time(record.start_time)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
