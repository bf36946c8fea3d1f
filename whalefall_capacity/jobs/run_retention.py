"""Retention of what has no table partitions: task runs, Dagster's own runs with their events, accuracy of forecasts.

Runs of other code locations, which may share Dagster's storage, are left to whoever they belong to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg
from sqlalchemy import Engine

from whalefall_capacity.mirror.follow import FINAL_STATUSES, is_ours
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

    def before(days: int) -> datetime:
        return now - timedelta(days=days)

    return Forgotten(
        task_runs=_delete_task_runs(engine, before(settings.retention_task_runs_days), between_batches),
        dagster_runs=_delete_dagster_runs(instance, before(settings.retention_dagster_runs_days), between_batches),
        accuracy_rows=delete_old_accuracy(
            engine, add_months(today(settings.zone, now), -settings.retention_forecasts_months)
        ),
    )


def _delete_task_runs(engine: Engine, before: datetime, between_batches: Callable[[], None]) -> int:
    total = 0
    while deleted := delete_old_task_runs(engine, BATCH, before):
        total += deleted
        between_batches()
    return total


def _delete_dagster_runs(instance: dg.DagsterInstance, before: datetime, between_batches: Callable[[], None]) -> int:
    finished = dg.RunsFilter(created_before=before, statuses=list(FINAL_STATUSES))
    total = 0
    cursor: str | None = None
    while records := instance.get_run_records(finished, limit=BATCH, cursor=cursor, ascending=True):
        for record in records:
            run = record.dagster_run
            if is_ours(run):
                instance.delete_run(run.run_id)
                total += 1
            else:
                # Of the runs that stay the last: Dagster finds no place behind one that is gone.
                cursor = run.run_id
        between_batches()
    return total
