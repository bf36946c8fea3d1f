"""Task runs that somebody should know of: those under way, and those that failed lately and were not made good."""

from __future__ import annotations

from sqlalchemy import Engine

from whalefall_capacity.store.postgres.one_statement import read_rows, typed
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs.read import RUN_COLUMNS, TaskRun

# By the partial index of the runs that are not closed; of those the open ones.
OPEN_RUNS = "WHERE closed_at IS NULL AND status IN ('pending', 'running') ORDER BY created_at, id LIMIT :most"
# By the partial index of the failed runs' times. A later run of the same name, which says task and days, made it good.
FAILED_RUNS = """
WHERE status IN ('failed', 'completed_with_errors') AND closed_at > now() - CAST('3 days' AS interval)
  AND NOT EXISTS (SELECT FROM task_runs AS later
                  WHERE later.created_at > task_runs.created_at AND later.task_name = task_runs.task_name
                    AND later.status = 'completed')
ORDER BY closed_at DESC LIMIT :most
"""


def open_runs(engine: Engine, most: int) -> list[TaskRun]:
    """Return the runs that are waiting or under way, oldest first."""
    return read_rows(engine, typed(TaskRun, status=Status), RUN_COLUMNS + OPEN_RUNS, most=most)


def failed_runs(engine: Engine, most: int) -> list[TaskRun]:
    """Return the runs of the last days that failed, or failed in part, newest first."""
    return read_rows(engine, typed(TaskRun, status=Status), RUN_COLUMNS + FAILED_RUNS, most=most)
