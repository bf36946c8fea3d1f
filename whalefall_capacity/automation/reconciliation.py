"""Sensors that keep task runs in line with their runs."""

from __future__ import annotations

import dagster as dg

from whalefall_capacity.mirror.follow import mirror
from whalefall_capacity.mirror.reconcile import Cursor, reconcile
from whalefall_capacity.periods import utc_now
from whalefall_capacity.resources.store import store_engine


@dg.sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    # The daemon checks every five seconds; with an interval of five, every other check would come slightly too early.
    minimum_interval_seconds=1,
    description="Mirrors every run into task_runs, stops runs that the run centre cancelled, and closes the task runs "
    "whose worker is gone.",
)
def task_runs_follow_runs(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    cursor = Cursor.model_validate_json(context.cursor) if context.cursor else Cursor()
    # The cursor is written only when the round is over; a round that is repeated finds everything in line.
    with store_engine() as engine:
        after = reconcile(engine, context.instance, cursor, utc_now(), context.log)
    return dg.SensorResult(skip_reason="task runs are in line with their runs", cursor=after.model_dump_json())


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    # Usually the sensor above was first. This one starts from Dagster's own record of failures, and so closes the task
    # run of a failed run though the other is stopped, or fails.
    minimum_interval_seconds=30,
    description="Writes the reason why a run failed into its task run.",
)
def task_runs_hear_failures(context: dg.RunFailureSensorContext) -> None:
    with store_engine() as engine:
        mirror(engine, context.instance, context.dagster_run.run_id)
