"""Reconciliation of Dagster's runs with the task runs that the run centre reads.

`reconcile` is one round of the sensor: it handles runs that changed, task runs that are not closed, cancellations that
the run centre asked for, and runs whose worker is gone. `audit` compares everything from scratch, on request.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg
from dagster import DagsterRunStatus
from pydantic import BaseModel, Field
from sqlalchemy import Engine

from whalefall_capacity.mirror.follow import is_ours, mirror
from whalefall_capacity.run_states import goes_on
from whalefall_capacity.store.postgres.advisory_locks import without_worker
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs.write import (
    lock_task_run,
    miscounted,
    not_closed,
    task_run_states,
    update_counters,
)

# How long the liveness lock of a started run must be free before the run counts as dead.
DEAD_AFTER = timedelta(seconds=30)
# Workers' clocks differ, and a row may become visible after the time it carries.
OVERLAP = timedelta(seconds=60)
# Without a cursor; the audit covers older runs.
FIRST_LOOK_BACK = timedelta(days=1)
PAGE = 500
WORKER_GONE = "The run's worker is gone: no process has held its liveness lock for 30 seconds."
WORKING = (DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING)


class Cursor(BaseModel):
    """State that one round of reconciliation passes to the next."""

    seen: datetime | None = None
    without_worker_since: dict[str, datetime] = Field(default_factory=dict)


@dataclass(frozen=True)
class Repair:
    """A repair that the audit made."""

    run_id: str
    repair: str


def reconcile(
    engine: Engine, instance: dg.DagsterInstance, cursor: Cursor, now: datetime, log: logging.Logger
) -> Cursor:
    """Bring task runs in line with their runs and return the cursor for the next round.

    An error with one run is logged and does not affect the others; the next round tries again.
    """
    since_last = dg.RunsFilter(updated_after=(cursor.seen or now - FIRST_LOOK_BACK) - OVERLAP)
    changed = {record.dagster_run.run_id for record in instance.get_run_records(since_last)}
    with engine.connect() as connection:
        statuses = not_closed(connection)
    open_runs = set(statuses)
    to_cancel = [run_id for run_id, status in statuses.items() if status is Status.CANCELLED]
    # Cancellations first: a run that leaves the queue is then closed in the same round.
    _each(to_cancel, lambda run_id: _cancel(instance, run_id), log)
    _each(changed | open_runs, lambda run_id: mirror(engine, instance, run_id), log)
    without = _without_worker(engine, instance, open_runs)
    # A clock that was set back: what is noted lies ahead, and would have to be waited for.
    since = {run_id: min(cursor.without_worker_since.get(run_id, now), now) for run_id in without}
    dead = [run_id for run_id, first in since.items() if now - first >= DEAD_AFTER]
    _each(dead, lambda run_id: _end_dead_run(engine, instance, run_id), log)
    return Cursor(seen=now, without_worker_since=since)


def audit(
    engine: Engine,
    instance: dg.DagsterInstance,
    since: datetime,
    patience: timedelta = DEAD_AFTER,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Repair]:
    """Compare task runs and runs from scratch, repair the differences, and return the repairs.

    Runs that Dagster created before *since* do not get a new task run. Takes *patience* longer if started runs seem
    to have no worker.
    """
    with engine.connect() as connection:
        before = task_run_states(connection)
        wrong = miscounted(connection)
    known = {run_id for run_id, (_, is_closed) in before.items() if is_closed}
    for run_id in {*_our_runs(instance, since)} | before.keys():
        if run_id not in known:
            mirror(engine, instance, run_id)
    for run_id in _still_without_worker(engine, instance, before, patience, sleep):
        _end_dead_run(engine, instance, run_id)
    for run_id in wrong:
        with engine.begin() as connection:
            lock_task_run(connection, run_id)
            update_counters(connection, run_id)
    with engine.connect() as connection:
        after = task_run_states(connection)
    repairs = [Repair(run_id, "counters did not match the items") for run_id in wrong]
    for run_id, (status, _) in after.items():
        if run_id not in before:
            repairs.append(Repair(run_id, f"had no task run; now {status.value}"))
        elif before[run_id] != after[run_id]:
            repairs.append(Repair(run_id, f"was {before[run_id][0].value}; now {status.value}"))
    return repairs


def _each(run_ids: Iterable[str], action: Callable[[str], None], log: logging.Logger) -> None:
    for run_id in run_ids:
        try:
            action(run_id)
        except Exception:
            log.exception("run %s could not be reconciled; the next round tries again", run_id)


def _our_runs(instance: dg.DagsterInstance, since: datetime) -> Iterator[str]:
    cursor = None
    while records := instance.get_run_records(dg.RunsFilter(created_after=since), limit=PAGE, cursor=cursor):
        yield from (record.dagster_run.run_id for record in records if is_ours(record.dagster_run))
        cursor = records[-1].dagster_run.run_id


def _cancel(instance: dg.DagsterInstance, run_id: str) -> None:
    """Stop a run that the run centre cancelled: remove it from the queue, or interrupt its worker."""
    run = instance.get_run_by_id(run_id)
    if goes_on(run):
        instance.run_coordinator.cancel_run(run_id)


def _without_worker(engine: Engine, instance: dg.DagsterInstance, run_ids: Iterable[str]) -> set[str]:
    """Return the started runs among *run_ids* whose liveness lock is free."""
    ids = list(run_ids)
    if not ids:
        return set()
    runs = instance.get_runs(dg.RunsFilter(run_ids=ids, statuses=list(WORKING)))
    with engine.connect() as connection:
        return without_worker(connection, [run.run_id for run in runs])


def _still_without_worker(
    engine: Engine,
    instance: dg.DagsterInstance,
    run_ids: Iterable[str],
    patience: timedelta,
    sleep: Callable[[float], None],
) -> set[str]:
    """Return the runs among *run_ids* that have no worker throughout *patience*; checks once a second."""
    suspects = _without_worker(engine, instance, run_ids)
    for _ in range(int(patience.total_seconds())):
        if not suspects:
            break
        sleep(1)
        suspects &= _without_worker(engine, instance, suspects)
    return suspects


def _end_dead_run(engine: Engine, instance: dg.DagsterInstance, run_id: str) -> None:
    """Report to Dagster that a run has ended because its worker is gone, and close its task run."""
    run = instance.get_run_by_id(run_id)
    if run is not None and run.status is DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, WORKER_GONE)
    elif run is not None and not run.is_finished:
        instance.report_run_failed(run, WORKER_GONE)
    mirror(engine, instance, run_id)
