"""The run centre's side of task runs: reading them, and asking to cancel one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy import Engine, text

from whalefall_capacity.store.postgres.one_statement import read_rows, typed, write
from whalefall_capacity.store.postgres.statuses import ItemStatus, Status
from whalefall_capacity.store.task_runs.visit_details import VisitDetails

# Rows that can be paged through, and how far they are counted.
MOST_ROWS = 10_000


@dataclass(frozen=True)
class TaskRun:
    """One run."""

    run_id: Annotated[str, Field(description="The Dagster run id.")]
    task_key: str
    task_name: str
    task_category: str
    trigger_source: Literal["scheduled", "manual", "api"]
    status: Status
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    created_by: str | None
    progress_total: int
    progress_completed: int
    progress_failed: Annotated[int, Field(description="Failed and cancelled items.")]
    summary_json: Mapping[str, Any] | None
    result_url: str | None
    error_message: str | None

    @property
    def has_ended(self) -> bool:
        """Is everything of it final? One that is to be cancelled has that status before its work has stopped."""
        return self.status.is_terminal and self.completed_at is not None


@dataclass(frozen=True)
class TaskRunItem(VisitDetails):
    """One unit of a run: an instance, or a table partition."""

    item_type: str
    item_key: str
    item_name: str
    instance_id: int | None
    status: ItemStatus
    started_at: datetime | None
    completed_at: datetime | None
    metrics_json: Mapping[str, Any] | None
    details_json: Mapping[str, Any] | None
    error_message: str | None


RUN_COLUMNS = """
SELECT run_id, task_key, task_name, task_category, trigger_source, status, created_at, started_at, completed_at,
       created_by, progress_total, progress_completed, progress_failed, summary_json, result_url, error_message
FROM task_runs
"""
# What is open, and what may have come and gone between two looks; an index for each of the three.
RECENT = """
WHERE closed_at IS NULL OR run_id = ANY(:run_ids) OR created_at > now() - interval '5 minutes'
ORDER BY created_at, id
"""
# What needs attention comes first.
ITEMS = """
SELECT item_type, item_key, item_name, instance_id, status, started_at, completed_at, metrics_json, details_json,
       error_message
FROM task_run_items WHERE run_id = :run_id
ORDER BY array_position(ARRAY['failed', 'cancelled', 'running', 'pending', 'completed'], status), item_name, item_type,
         item_key
LIMIT :limit OFFSET :offset
"""
ITEM_COUNTS = "SELECT status, count(*) AS items FROM task_run_items WHERE run_id = :run_id GROUP BY status"
# A terminal status is final; the reconciliation stops the Dagster run of one that is cancelled.
CANCEL = """
UPDATE task_runs SET status = 'cancelled', updated_at = now()
WHERE run_id = :run_id AND status IN ('pending', 'running')
"""


def list_recent_task_runs(engine: Engine, run_ids: Collection[str]) -> list[TaskRun]:
    """Return the runs that are open, those of *run_ids*, and those of the last minutes, oldest first."""
    return read_rows(engine, typed(TaskRun, status=Status), RUN_COLUMNS + RECENT, run_ids=list(run_ids))


def get_task_run(engine: Engine, run_id: str) -> TaskRun | None:
    """Return one run."""
    found = read_rows(engine, typed(TaskRun, status=Status), RUN_COLUMNS + "WHERE run_id = :run_id", run_id=run_id)
    return found[0] if found else None


def list_items(engine: Engine, run_id: str, limit: int, offset: int = 0) -> list[TaskRunItem]:
    """Return items of a run, those that need attention first."""
    return read_rows(engine, typed(TaskRunItem, status=Status), ITEMS, run_id=run_id, limit=limit, offset=offset)


def count_items(engine: Engine, run_id: str) -> dict[str, int]:
    """Return the number of items per status."""
    with engine.connect() as connection:
        return {row.status: row.items for row in connection.execute(text(ITEM_COUNTS), {"run_id": run_id})}


def request_cancel(engine: Engine, run_id: str) -> bool:
    """Ask for the end of a run; False when it has ended already, or is not known."""
    return write(engine, CANCEL, run_id=run_id) == 1
