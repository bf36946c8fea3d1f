"""The task runs of WhaleFall that are about capacity, ended and closed, with their items by instance.

A month of runs is one transaction: runs and their items in a COPY each. A run that is here already stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from psycopg2 import sql
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.periods import add_months, month_starts
from whalefall_capacity.store.moving_in.fleet import Fleet
from whalefall_capacity.store.moving_in.report import Account, Outcome
from whalefall_capacity.store.moving_in.source import Source
from whalefall_capacity.store.task_runs.summary import Extension, TaskSummary
from whalefall_capacity.store.task_runs.write import ItemType
from whalefall_capacity.tasks import AGGREGATE_CURRENT, CALCULATE_DATABASE, SYNC_DATABASES

RUNS = "task_runs"
ITEMS = "task_run_items"
# By task, which is called the same on both sides, what its items by instance are here.
TASKS = {
    SYNC_DATABASES: ItemType.COLLECTION,
    CALCULATE_DATABASE: ItemType.INSTANCE_AGGREGATION,
    AGGREGATE_CURRENT: ItemType.INSTANCE_AGGREGATION,
}
ITEM_TYPE = "instance"
UNFINISHED = "it had not ended in WhaleFall when it was taken along"

MONTHS = "SELECT CAST(min(started_at) AS date) AS first, CAST(max(started_at) AS date) AS last FROM task_runs"
RUN_ROWS = sql.SQL("""
SELECT CAST(r.run_id AS text), CAST(r.task_key AS text), CAST(r.trigger_source AS text), CAST(r.status AS text),
       r.started_at, r.completed_at, CAST(u.username AS text), CAST(r.error_message AS text), r.created_at
FROM task_runs AS r
LEFT JOIN users AS u ON u.id = r.created_by
WHERE r.started_at >= {first} AND r.started_at < {after}
""")
ITEM_ROWS = sql.SQL("""
SELECT CAST(i.run_id AS text), CAST(i.item_type AS text), map.instance_id,
       CAST(coalesce(i.item_name, i.item_key) AS text), CAST(i.status AS text), i.started_at, i.completed_at,
       CAST(i.metrics_json AS jsonb), CAST(i.details_json AS jsonb), CAST(i.error_message AS text)
FROM task_run_items AS i
JOIN task_runs AS r ON r.run_id = i.run_id
LEFT JOIN {map}
  ON map.source_id = coalesce(i.instance_id, CAST(substring(i.item_key FROM '^[0-9]{{1,9}}$') AS integer))
WHERE r.started_at >= {first} AND r.started_at < {after}
""")
MOVED_RUNS_TABLE = """
CREATE TEMPORARY TABLE moved_runs (
    run_id text NOT NULL, task_key text NOT NULL, trigger_source text NOT NULL, status text NOT NULL,
    started_at timestamptz NOT NULL, completed_at timestamptz, created_by text, error_message text,
    created_at timestamptz NOT NULL
) ON COMMIT DROP
"""
MOVED_ITEMS_TABLE = """
CREATE TEMPORARY TABLE moved_items (
    run_id text NOT NULL, item_type text NOT NULL, instance_id integer, item_name text NOT NULL, status text NOT NULL,
    started_at timestamptz, completed_at timestamptz, metrics jsonb, details jsonb, error_message text
) ON COMMIT DROP
"""
DECIDED_RUNS_TABLE = """
CREATE TEMPORARY TABLE decided_runs ON COMMIT DROP AS
SELECT moved.*, CASE WHEN NOT moved.task_key = ANY (:tasks) THEN 'skipped'
                     WHEN here.run_id IS NOT NULL THEN 'kept'
                     WHEN moved.created_at < :kept_since THEN 'old' ELSE 'created' END AS outcome
FROM moved_runs AS moved
LEFT JOIN task_runs AS here ON here.run_id = moved.run_id
"""
RUN_OUTCOMES = """
SELECT outcome, CASE WHEN outcome = 'skipped' THEN task_key END AS task_key, count(*) AS rows
FROM decided_runs GROUP BY 1, 2 ORDER BY 1, 2
"""
DECIDED_ITEMS_TABLE = """
CREATE TEMPORARY TABLE decided_items ON COMMIT DROP AS
SELECT item.*, run.task_key, run.completed_at AS run_completed_at, run.started_at AS run_started_at,
       CASE WHEN run.outcome <> 'created' THEN run.outcome
            WHEN item.item_type <> :item_type THEN 'other'
            WHEN item.instance_id IS NULL THEN 'lost'
            WHEN item.number > 1 THEN 'again' ELSE 'created' END AS outcome
FROM (SELECT *, row_number() OVER (PARTITION BY run_id, item_type, instance_id ORDER BY started_at) AS number
      FROM moved_items) AS item
JOIN decided_runs AS run USING (run_id)
"""
ITEM_OUTCOMES = """
SELECT instance_id, outcome, count(*) AS rows FROM decided_items GROUP BY 1, 2 ORDER BY 1, 2
"""
# A terminal status is final here, and nothing of a run that is over is open.
INSERT_RUNS = """
INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, started_at, completed_at,
                       created_by, progress_total, progress_completed, progress_failed, summary_json, error_message,
                       created_at, closed_at)
SELECT run.run_id, run.task_key, task.name, task.category,
       CASE WHEN trigger_source IN ('scheduled', 'manual', 'api') THEN trigger_source ELSE 'manual' END,
       CASE WHEN run.status IN ('completed', 'completed_with_errors', 'failed', 'cancelled') THEN run.status
            ELSE 'failed' END,
       run.started_at, coalesce(run.completed_at, items.last_at, run.started_at), run.created_by,
       coalesce(items.total, 0), coalesce(items.completed, 0), coalesce(items.failed, 0), task.summary,
       CASE WHEN run.status IN ('completed', 'completed_with_errors', 'failed', 'cancelled') THEN run.error_message
            ELSE coalesce(run.error_message, :unfinished) END,
       run.created_at, now()
FROM decided_runs AS run
JOIN jsonb_to_recordset(CAST(:tasks AS jsonb)) AS task (key text, name text, category text, summary jsonb)
  ON task.key = run.task_key
LEFT JOIN (SELECT run_id, count(*) AS total, count(*) FILTER (WHERE status = 'completed') AS completed,
                  count(*) FILTER (WHERE status <> 'completed') AS failed, max(completed_at) AS last_at
           FROM decided_items WHERE outcome = 'created' GROUP BY run_id) AS items USING (run_id)
WHERE run.outcome = 'created'
"""
# Sizes in whole MiB, such as size_mb or total_size_mb, become bytes under the name that sizes have here.
INSERT_ITEMS = """
INSERT INTO task_run_items (run_id, item_type, item_key, item_name, instance_id, status, started_at, completed_at,
                            metrics_json, details_json, error_message)
SELECT run_id, CAST(:item_types AS jsonb) ->> task_key, CAST(instance_id AS text), item_name, instance_id,
       CASE WHEN status IN ('completed', 'failed', 'cancelled') THEN status ELSE 'failed' END,
       started_at, coalesce(completed_at, run_completed_at, started_at, run_started_at),
       (SELECT jsonb_object_agg(
            CASE WHEN is_size THEN regexp_replace(key, '_mb$', '_bytes') ELSE key END,
            CASE WHEN is_size THEN to_jsonb(trunc(CAST(value #>> '{}' AS numeric) * 1048576)) ELSE value END)
        FROM (SELECT key, value, right(key, 3) = '_mb' AND jsonb_typeof(value) = 'number' AS is_size
              FROM jsonb_each(CASE jsonb_typeof(metrics) WHEN 'object' THEN metrics ELSE '{}' END)) AS entries),
       details,
       CASE WHEN status IN ('completed', 'failed', 'cancelled') THEN error_message
            ELSE coalesce(error_message, :unfinished) END
FROM decided_items
WHERE outcome = 'created'
"""
COUNTED_RUNS = {
    "skipped": (Outcome.SKIPPED, "of the task {task}: not about capacity"),
    "old": (Outcome.SKIPPED, "older than WHALEFALL_RETENTION_TASK_RUNS_DAYS: the next maintenance would delete it"),
    "kept": (Outcome.KEPT, ""),
    "created": (Outcome.CREATED, ""),
}
COUNTED_ITEMS = {
    "kept": (Outcome.KEPT, "its task run is here already"),
    "skipped": (Outcome.SKIPPED, "its task run is not about capacity"),
    "old": (Outcome.SKIPPED, "its task run is older than those that are kept here"),
    "other": (Outcome.SKIPPED, "not of an instance"),
    "again": (Outcome.SKIPPED, "a second item of the same instance"),
    "lost": (Outcome.SKIPPED, "its instance is not there"),
    "created": (Outcome.CREATED, ""),
}


@dataclass(frozen=True)
class TaskRunsMove:
    """A migration of task runs under way."""

    engine: Engine
    source: Source
    fleet: Fleet
    apply: bool
    account: Account
    kept_since: datetime

    def months(self) -> None:
        """Move all task runs, oldest month first."""
        (span,) = self.source.rows(MONTHS)
        if span["first"] is not None:
            for month in month_starts(span["first"], span["last"]):
                self._month(month)

    def _month(self, month: date) -> None:
        values = {"first": sql.Literal(month), "after": sql.Literal(add_months(month, 1))}
        with self.engine.begin() as connection:
            connection.execute(text(MOVED_RUNS_TABLE))
            self.source.copy_into(connection, RUN_ROWS.format(**values), "moved_runs")
            connection.execute(text(MOVED_ITEMS_TABLE))
            self.source.copy_into(connection, ITEM_ROWS.format(map=self.fleet.as_table(), **values), "moved_items")
            self._decide(connection)
            if self.apply:
                self._insert(connection)

    def _decide(self, connection: Connection) -> None:
        values = {"tasks": [task.key for task in TASKS], "kept_since": self.kept_since}
        connection.execute(text(DECIDED_RUNS_TABLE), values)
        for row in connection.execute(text(RUN_OUTCOMES)):
            outcome, reason = COUNTED_RUNS[row.outcome]
            self.account.add(RUNS, None, outcome, row.rows, reason.format(task=row.task_key))
        connection.execute(text(DECIDED_ITEMS_TABLE), {"item_type": ITEM_TYPE})
        for row in connection.execute(text(ITEM_OUTCOMES)):
            outcome, reason = COUNTED_ITEMS[row.outcome]
            self.account.add(ITEMS, self.fleet.names.get(row.instance_id), outcome, row.rows, reason)

    def _insert(self, connection: Connection) -> None:
        tasks = [
            {"key": task.key, "name": task.name, "category": task.category, "summary": _summary(task.key)}
            for task in TASKS
        ]
        connection.execute(text(INSERT_RUNS), {"tasks": json.dumps(tasks), "unfinished": UNFINISHED})
        item_types = {task.key: item_type.value for task, item_type in TASKS.items()}
        connection.execute(text(INSERT_ITEMS), {"item_types": json.dumps(item_types), "unfinished": UNFINISHED})


def _summary(task_key: str) -> Mapping[str, object]:
    """Return the summary of a run that was taken along: WhaleFall's own has another form."""
    summary = TaskSummary(ext=Extension(type=task_key)).with_highlight("taken along from WhaleFall")
    return summary.model_dump(mode="json")
