"""Task runs that somebody should know of: those under way, and those that failed lately and were not made good."""

from __future__ import annotations

from sqlalchemy import Engine

from whalefall_capacity.store.postgres.one_statement import read_rows, typed
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs.read import RUN_COLUMNS, TaskRun

# By the partial index of the runs that are not closed; of those the open ones.
OPEN_RUNS = "WHERE closed_at IS NULL AND status IN ('pending', 'running') ORDER BY created_at, id LIMIT :most"
# The failed runs by the partial index of their times. One is made good when a later run of its task over its days
# completed that covers its part of the fleet, or when each item that failed in it completed in such a run, however the
# others fared there. Runs without days are told apart by their names.
FAILED_RUNS = """
WHERE run_id IN (
    WITH recent AS MATERIALIZED (
        SELECT run_id, task_key, status, created_at, closed_at, days.first, days.last,
               CASE WHEN days.first IS NULL THEN task_name END AS name,
               coalesce(summary_json #> '{common,scope,target}', '{}') - 'instance_ids' AS target,
               summary_json #> '{common,scope,target,instance_ids}' AS instance_ids
        FROM task_runs
        CROSS JOIN LATERAL (
            SELECT CAST(coalesce(summary_json #>> '{common,inputs,first}', day) AS date) AS first,
                   CAST(coalesce(summary_json #>> '{common,inputs,last}', day) AS date) AS last
            FROM (SELECT summary_json #>> '{common,scope,time,date}' AS day) AS one) AS days
        WHERE created_at >= (
            SELECT min(created_at) FROM task_runs
            WHERE status IN ('failed', 'completed_with_errors') AND closed_at > now() - CAST('3 days' AS interval))
    ), failed AS MATERIALIZED (
        SELECT * FROM recent
        WHERE status IN ('failed', 'completed_with_errors') AND closed_at > now() - CAST('3 days' AS interval)
    ), later AS MATERIALIZED (
        SELECT failed.run_id AS failed_id, later.run_id,
               later.status = 'completed' AND later.target @> failed.target
               AND (later.instance_ids IS NULL OR later.instance_ids @> failed.instance_ids) AS covers_all
        FROM failed
        JOIN recent AS later ON later.task_key = failed.task_key AND later.created_at > failed.created_at
         AND (later.first <= failed.first AND later.last >= failed.last OR later.name = failed.name)
    ), items AS MATERIALIZED (
        SELECT item.run_id AS failed_id,
               EXISTS (SELECT FROM later
                       JOIN task_run_items AS again ON again.run_id = later.run_id AND again.status = 'completed'
                        AND again.item_type = item.item_type AND again.item_key = item.item_key
                       WHERE later.failed_id = item.run_id) AS is_done
        FROM failed
        JOIN task_run_items AS item ON item.run_id = failed.run_id AND item.status IN ('failed', 'cancelled')
    )
    SELECT run_id FROM failed
    WHERE NOT EXISTS (SELECT FROM later WHERE later.failed_id = failed.run_id AND covers_all)
      AND NOT coalesce((SELECT bool_and(is_done) FROM items WHERE items.failed_id = failed.run_id), false)
)
ORDER BY closed_at DESC LIMIT :most
"""


def open_runs(engine: Engine, most: int) -> list[TaskRun]:
    """Return the runs that are waiting or under way, oldest first."""
    return read_rows(engine, typed(TaskRun, status=Status), RUN_COLUMNS + OPEN_RUNS, most=most)


def failed_runs(engine: Engine, most: int) -> list[TaskRun]:
    """Return the runs of the last days that failed, or failed in part, newest first."""
    return read_rows(engine, typed(TaskRun, status=Status), RUN_COLUMNS + FAILED_RUNS, most=most)
