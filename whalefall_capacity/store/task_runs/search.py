"""Searching the run centre: task runs by filters, in an order, and what there is to filter by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field
from sqlalchemy import Engine

from whalefall_capacity.store.postgres.one_statement import read_rows, read_value, typed
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs.read import MOST_ROWS, RUN_COLUMNS, TaskRun

TriggerSource = Literal["scheduled", "manual", "api"]


class RunOrder(StrEnum):
    """An order of task runs; a minus sign is the other way round."""

    CREATED = "created"
    CREATED_DESCENDING = "-created"
    TASK = "task"
    TASK_DESCENDING = "-task"
    STATUS = "status"
    STATUS_DESCENDING = "-status"
    DURATION = "duration"
    DURATION_DESCENDING = "-duration"
    FAILED = "failed"
    FAILED_DESCENDING = "-failed"


@dataclass(frozen=True)
class RunFilter:
    """A filter of task runs; None lets every value through."""

    status: Status | None = None
    task_key: str | None = None
    task_category: str | None = None
    trigger_source: TriggerSource | None = None
    created_by: str | None = None


@dataclass(frozen=True)
class TaskRunPage:
    """Some runs of a list; *total* counts no further than MOST_ROWS."""

    runs: Sequence[TaskRun]
    total: int


@dataclass(frozen=True)
class RunOptions:
    """The values that task runs can be filtered by."""

    task_keys: Sequence[str]
    task_categories: Sequence[str]
    created_by: Annotated[Sequence[str], Field(description="Whoever asked for a run, the first 500 by name.")]


# With values in place of the parameters PostgreSQL drops the conditions that let everything through. What is kept of
# task runs is bounded by their retention: the newest come from task_runs_created_at_idx, any other order is a sort of
# those rows of which only the first few are kept.
OF_FILTER = """
WHERE (CAST(:status AS text) IS NULL OR status = :status)
  AND (CAST(:task_key AS text) IS NULL OR task_key = :task_key)
  AND (CAST(:task_category AS text) IS NULL OR task_category = :task_category)
  AND (CAST(:trigger_source AS text) IS NULL OR trigger_source = :trigger_source)
  AND (CAST(:created_by AS text) IS NULL OR created_by = :created_by)
"""
# Runs of equal rank stay newest first.
ORDER_BY = {
    RunOrder.CREATED: "created_at, id",
    RunOrder.CREATED_DESCENDING: "created_at DESC, id DESC",
    RunOrder.TASK: "task_name, created_at DESC, id DESC",
    RunOrder.TASK_DESCENDING: "task_name DESC, created_at DESC, id DESC",
    RunOrder.STATUS: "status, created_at DESC, id DESC",
    RunOrder.STATUS_DESCENDING: "status DESC, created_at DESC, id DESC",
    RunOrder.DURATION: "completed_at - started_at NULLS LAST, created_at DESC, id DESC",
    RunOrder.DURATION_DESCENDING: "completed_at - started_at DESC NULLS LAST, created_at DESC, id DESC",
    RunOrder.FAILED: "progress_failed, created_at DESC, id DESC",
    RunOrder.FAILED_DESCENDING: "progress_failed DESC, created_at DESC, id DESC",
}
COUNT = f"SELECT count(*) FROM (SELECT FROM task_runs {OF_FILTER} LIMIT :most) AS counted"  # noqa: S608 - two constants
OPTIONS = """
SELECT ARRAY(SELECT DISTINCT task_key FROM task_runs ORDER BY task_key) AS task_keys,
       ARRAY(SELECT DISTINCT task_category FROM task_runs ORDER BY task_category) AS task_categories,
       ARRAY(SELECT DISTINCT created_by FROM task_runs WHERE created_by IS NOT NULL ORDER BY created_by LIMIT 500)
           AS created_by
"""


def list_task_runs(
    engine: Engine,
    limit: int,
    offset: int = 0,
    wanted: RunFilter = RunFilter(),
    order: RunOrder = RunOrder.CREATED_DESCENDING,
) -> TaskRunPage:
    """Return a page of the runs that *wanted* lets through."""
    values = asdict(wanted)
    statement = f"{RUN_COLUMNS} {OF_FILTER} ORDER BY {ORDER_BY[order]} LIMIT :limit OFFSET :offset"
    runs = read_rows(engine, typed(TaskRun, status=Status), statement, **values, limit=limit, offset=offset)
    return TaskRunPage(runs, read_value(engine, COUNT, **values, most=MOST_ROWS))


def run_options(engine: Engine) -> RunOptions:
    """Return what there is to filter by."""
    return read_rows(engine, RunOptions, OPTIONS)[0]
