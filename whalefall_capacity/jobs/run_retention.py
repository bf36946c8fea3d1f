"""Retention of what has no table partitions: task runs, Dagster's own runs with their events, accuracy of forecasts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import dagster as dg
from sqlalchemy import Engine

from whalefall_capacity.mirror.follow import FINAL_STATUSES
from whalefall_capacity.periods import add_months, today
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.insight.write import delete_old_accuracy
from whalefall_capacity.store.task_runs.write import delete_old_task_runs

BATCH = 100


@dataclass(frozen=True)
class Forgotten:
    """The numbers of deleted runs and rows of accuracy."""

    task_runs: int
    dagster_runs: int
    accuracy_rows: int


def forget_old_runs(
    engine: Engine,
    instance: dg.DagsterInstance,
    settings: Settings,
    now: datetime,
    between_batches: Callable[[], None] = lambda: None,
) -> Forgotten:
    """Delete finished runs beyond their retention, in small batches, one transaction each.

    *between_batches* may raise to stop; runs deleted until then stay deleted.
    """

    def delete_older(days: int, delete_batch: Callable[[datetime], int]) -> int:
        total = 0
        while deleted := delete_batch(now - timedelta(days=days)):
            total += deleted
            between_batches()
        return total

    return Forgotten(
        task_runs=delete_older(settings.retention_task_runs_days, partial(delete_old_task_runs, engine, BATCH)),
        dagster_runs=delete_older(settings.retention_dagster_runs_days, partial(_delete_dagster_runs, instance)),
        accuracy_rows=delete_old_accuracy(
            engine, add_months(today(settings.zone, now), -settings.retention_forecasts_months)
        ),
    )


def _delete_dagster_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    finished = dg.RunsFilter(created_before=before, statuses=list(FINAL_STATUSES))
    records = instance.get_run_records(finished, limit=BATCH, ascending=True)
    for record in records:
        instance.delete_run(record.dagster_run.run_id)
    return len(records)
