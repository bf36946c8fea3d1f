"""Task runs and their items as the run centre reads them: every way in which they may change.

Whoever changes anything of a task run locks its row first, so that the counters always equal the items: they grow with
each change, and are counted anew at the end. A terminal status is never left (a trigger refuses it); a task run is
closed once, when its run is over: no item open, counters, time and summary final. Times are of the clock of whoever did
the work; JSON never holds a secret.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, text

from whalefall_capacity.store.postgres.one_statement import write
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs.summary import Metric, TaskSummary


class ItemType(StrEnum):
    """Kind of an item; its key is the instance id, or the name of the table partition."""

    COLLECTION = "collection"
    DATABASE_AGGREGATION = "database_aggregation"
    INSTANCE_AGGREGATION = "instance_aggregation"
    TABLE_PARTITION = "table_partition"


@dataclass(frozen=True)
class NewTaskRun:
    """A task run before its work began."""

    run_id: str
    task_key: str
    task_name: str
    task_category: str
    trigger_source: str
    summary: TaskSummary
    created_by: str | None = None
    result_url: str | None = None


@dataclass(frozen=True)
class LockedTaskRun:
    """A task run whose row this transaction has locked."""

    run_id: str
    task_key: str
    status: Status
    created_at: datetime
    closed_at: datetime | None
    read_at: datetime
    summary: TaskSummary


@dataclass(frozen=True)
class Item:
    """A unit of work that a task run will do."""

    item_type: ItemType
    key: str
    name: str
    instance_id: int | None = None


@dataclass(frozen=True)
class InstanceItems:
    """Units of work of one type, an instance each: of the fleet, and of those that have stats from *first* to *last*.

    *of_fleet*: whether the instances of today's fleet belong to it, of *instance_ids* if that is given.
    """

    item_type: ItemType
    first: date
    last: date
    of_fleet: bool = True
    with_stats: bool = True
    instance_ids: Sequence[int] | None = None


@dataclass(frozen=True)
class ItemUpdate:
    """A change of an item: its new status, and what is known by then."""

    item_type: ItemType
    key: str
    status: Status
    started_at: datetime | None = None
    completed_at: datetime | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class RunEnd:
    """End of the Dagster run of a task run: COMPLETED, FAILED or CANCELLED."""

    status: Status
    ended_at: datetime
    error: str | None = None


@dataclass(frozen=True)
class Counts:
    """Numbers of items of a task run, by their status."""

    total: int
    completed: int
    failed: int
    cancelled: int


INSERT_RUN = """
INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, created_by, result_url,
                       summary_json)
VALUES (:run_id, :task_key, :task_name, :task_category, :trigger_source, 'pending', :created_by, :result_url,
        CAST(:summary AS jsonb))
ON CONFLICT (run_id) DO NOTHING
"""
LOCK_RUN = """
SELECT run_id, task_key, status, created_at, closed_at, now() AS read_at, summary_json AS summary
FROM task_runs
WHERE run_id = :run_id FOR NO KEY UPDATE
"""
START_RUN = """
UPDATE task_runs SET status = 'running', started_at = :started_at, updated_at = now()
WHERE run_id = :run_id AND status = 'pending'
"""
WRITE_SUMMARY = """
UPDATE task_runs SET summary_json = CAST(:summary AS jsonb), updated_at = now() WHERE run_id = :run_id
"""
HAS_ITEMS = "SELECT EXISTS (SELECT FROM task_run_items WHERE run_id = :run_id)"
INSERT_ITEMS = """
WITH added AS (
    INSERT INTO task_run_items (run_id, item_type, item_key, item_name, instance_id, status)
    SELECT :run_id, declared.*, 'pending'
    FROM unnest(CAST(:types AS text[]), CAST(:keys AS text[]), CAST(:names AS text[]), CAST(:instance_ids AS integer[]))
         AS declared
    ON CONFLICT (run_id, item_type, item_key) DO NOTHING
    RETURNING 1)
UPDATE task_runs SET progress_total = progress_total + (SELECT count(*) FROM added), updated_at = now()
WHERE run_id = :run_id AND EXISTS (SELECT FROM added)
"""
INSERT_INSTANCE_ITEMS = """
WITH concerned AS (
    SELECT id FROM instances
    WHERE :of_fleet AND is_active AND deleted_at IS NULL
      AND (CAST(:instance_ids AS bigint[]) IS NULL OR id = ANY (CAST(:instance_ids AS bigint[])))
    UNION
    SELECT instance_id FROM instance_size_stats WHERE :with_stats AND collected_date BETWEEN :first AND :last),
added AS (
    INSERT INTO task_run_items (run_id, item_type, item_key, item_name, instance_id, status)
    SELECT :run_id, :item_type, CAST(id AS text), name, id, 'pending'
    FROM concerned JOIN instances USING (id)
    ORDER BY concerned.id
    ON CONFLICT (run_id, item_type, item_key) DO NOTHING
    RETURNING 1)
UPDATE task_runs SET progress_total = progress_total + (SELECT count(*) FROM added), updated_at = now()
WHERE run_id = :run_id AND EXISTS (SELECT FROM added)
"""
# An item that moved was open before: its new status alone says by how much the counters grow. To count all items would
# take a quarter of a second in a run over 100,000 instances. LIMIT 1 has each item looked up by the unique index, also
# in a run whose items the planner knows nothing of yet and would read all of.
UPDATE_ITEMS = """
WITH moved AS (
    UPDATE task_run_items AS item
    SET status = changed.status, started_at = coalesce(item.started_at, changed.started_at),
        completed_at = changed.completed_at, metrics_json = changed.metrics, details_json = changed.details,
        error_message = changed.error, updated_at = now()
    FROM unnest(CAST(:types AS text[]), CAST(:keys AS text[]), CAST(:statuses AS text[]),
                CAST(:started_ats AS timestamptz[]), CAST(:completed_ats AS timestamptz[]), CAST(:metrics AS jsonb[]),
                CAST(:details AS jsonb[]), CAST(:errors AS text[]))
         AS changed (item_type, item_key, status, started_at, completed_at, metrics, details, error)
    CROSS JOIN LATERAL (
        SELECT known.id FROM task_run_items AS known
        WHERE known.run_id = :run_id AND known.item_type = changed.item_type AND known.item_key = changed.item_key
        LIMIT 1) AS found
    WHERE item.id = found.id
      AND (item.status = 'pending' OR item.status = 'running' AND changed.status <> 'running')
    RETURNING item.status),
ended AS (
    SELECT count(*) FILTER (WHERE status = 'completed') AS completed,
           count(*) FILTER (WHERE status IN ('failed', 'cancelled')) AS failed
    FROM moved)
UPDATE task_runs
SET progress_completed = progress_completed + ended.completed, progress_failed = progress_failed + ended.failed,
    updated_at = now()
FROM ended
WHERE run_id = :run_id AND ended.completed + ended.failed > 0
"""
CLOSE_ITEMS = """
UPDATE task_run_items SET status = :status, completed_at = :ended_at, error_message = :error, updated_at = now()
WHERE run_id = :run_id AND status IN ('pending', 'running')
"""
COUNT_ITEMS = """
SELECT count(*) AS total, count(*) FILTER (WHERE status = 'completed') AS completed,
       count(*) FILTER (WHERE status = 'failed') AS failed, count(*) FILTER (WHERE status = 'cancelled') AS cancelled
FROM task_run_items WHERE run_id = :run_id
"""
UPDATE_COUNTERS = """
UPDATE task_runs
SET progress_total = :total, progress_completed = :completed, progress_failed = :failed, updated_at = now()
WHERE run_id = :run_id AND (progress_total, progress_completed, progress_failed) <> (:total, :completed, :failed)
"""
CLOSE_RUN = """
UPDATE task_runs
SET status = :status, started_at = coalesce(started_at, :started_at), completed_at = coalesce(completed_at, :ended_at),
    error_message = coalesce(error_message, :error), summary_json = CAST(:summary AS jsonb), closed_at = now(),
    updated_at = now()
WHERE run_id = :run_id
"""
RUN_STATUS = "SELECT status FROM task_runs WHERE run_id = :run_id"
MISCOUNTED = """
SELECT run_id FROM task_runs
LEFT JOIN (SELECT run_id, count(*) AS total, count(*) FILTER (WHERE status = 'completed') AS completed,
                  count(*) FILTER (WHERE status IN ('failed', 'cancelled')) AS failed
           FROM task_run_items GROUP BY run_id) AS items USING (run_id)
WHERE (progress_total, progress_completed, progress_failed)
      <> (coalesce(items.total, 0), coalesce(items.completed, 0), coalesce(items.failed, 0))
"""
RUN_STATES = "SELECT run_id, status, closed_at IS NOT NULL AS is_closed FROM task_runs"
NOT_CLOSED = "SELECT run_id, status FROM task_runs WHERE closed_at IS NULL ORDER BY run_id"
# A task run that is not closed stays, however old: something is wrong with it that has to be seen.
DELETE_OLD = """
DELETE FROM task_runs WHERE run_id IN (
    SELECT run_id FROM task_runs WHERE created_at < :before AND closed_at IS NOT NULL
    ORDER BY created_at LIMIT :batch FOR UPDATE SKIP LOCKED)
"""
LONGEST_TEXT = 10_000
UNREPORTED = "the run ended before this item reported a result"


def insert_task_run(connection: Connection, new: NewTaskRun) -> None:
    """Make the task run, pending, unless it is there."""
    values = {name: getattr(new, name) for name in NewTaskRun.__dataclass_fields__ if name != "summary"}
    connection.execute(text(INSERT_RUN), values | {"summary": new.summary.model_dump_json()})


def lock_task_run(connection: Connection, run_id: str) -> LockedTaskRun | None:
    """Return the task run, locked to the end of the transaction; None when there is none."""
    row = connection.execute(text(LOCK_RUN), {"run_id": run_id}).mappings().one_or_none()
    if row is None:
        return None
    summary = TaskSummary.model_validate(row["summary"])
    return LockedTaskRun(**{**row, "status": Status(row["status"]), "summary": summary})


def task_run_status(connection: Connection, run_id: str) -> Status | None:
    """Return the status of a task run; None when there is none."""
    status = connection.execute(text(RUN_STATUS), {"run_id": run_id}).scalar()
    return None if status is None else Status(status)


def start_task_run(connection: Connection, run_id: str, started_at: datetime) -> None:
    """Say that the work began; a task run that is not pending stays as it is."""
    connection.execute(text(START_RUN), {"run_id": run_id, "started_at": started_at})


def write_summary(connection: Connection, run_id: str, summary: TaskSummary) -> None:
    """Replace the summary of a task run that is locked."""
    connection.execute(text(WRITE_SUMMARY), {"run_id": run_id, "summary": summary.model_dump_json()})


def has_items(connection: Connection, run_id: str) -> bool:
    """Tell whether a task run has any item."""
    return bool(connection.execute(text(HAS_ITEMS), {"run_id": run_id}).scalar_one())


def declare_items(connection: Connection, run_id: str, items: Sequence[Item | InstanceItems]) -> None:
    """Add *items*, pending, to a task run that is locked; those that it has stay as they are."""
    for group in items:
        if isinstance(group, InstanceItems):
            connection.execute(text(INSERT_INSTANCE_ITEMS), {"run_id": run_id, **asdict(group)})
    single = [item for item in items if isinstance(item, Item)]
    if single:
        values = {
            "run_id": run_id,
            "types": [item.item_type.value for item in single],
            "keys": [item.key for item in single],
            "names": [_storable(item.name) for item in single],
            "instance_ids": [item.instance_id for item in single],
        }
        connection.execute(text(INSERT_ITEMS), values)


def update_items(connection: Connection, run_id: str, updates: Sequence[ItemUpdate]) -> None:
    """Update items of a task run that is locked, once an item; what would leave a terminal status does nothing."""
    values = {
        "run_id": run_id,
        "types": [update.item_type.value for update in updates],
        "keys": [update.key for update in updates],
        "statuses": [update.status.value for update in updates],
        "started_ats": [update.started_at for update in updates],
        "completed_ats": [update.completed_at for update in updates],
        "metrics": [_json(update.metrics) for update in updates],
        "details": [_json(update.details) for update in updates],
        "errors": [_storable(update.error) for update in updates],
    }
    connection.execute(text(UPDATE_ITEMS), values)


def update_counters(connection: Connection, run_id: str) -> Counts:
    """Bring the counters of a task run that is locked in line with its items, and return them."""
    counts = Counts(*connection.execute(text(COUNT_ITEMS), {"run_id": run_id}).one())
    values = {"total": counts.total, "completed": counts.completed, "failed": counts.failed + counts.cancelled}
    connection.execute(text(UPDATE_COUNTERS), values | {"run_id": run_id})
    return counts


def close_task_run(connection: Connection, run: LockedTaskRun, end: RunEnd, started_at: datetime | None) -> None:
    """Make everything of *run* final, which is locked and not closed: its run is over.

    A terminal status that the run centre wrote stays, and decides what its open items become.
    """
    outcome = run.status if run.status.is_terminal else end.status
    error_of_run = _storable(end.error)
    error = UNREPORTED if outcome is Status.COMPLETED else error_of_run
    values = {"run_id": run.run_id, "ended_at": end.ended_at}
    item_status = Status.CANCELLED if outcome is Status.CANCELLED else Status.FAILED
    connection.execute(text(CLOSE_ITEMS), values | {"status": item_status.value, "error": error})
    counts = update_counters(connection, run.run_id)
    status = run.status if run.status.is_terminal else final_status(end.status, counts)
    values |= {"status": status.value, "started_at": started_at, "error": error_of_run or _error(status, counts)}
    summary = close_summary(run.summary, counts, end.status).model_dump_json()
    connection.execute(text(CLOSE_RUN), values | {"summary": summary})


def final_status(ending: Status, counts: Counts) -> Status:
    """Return the status of a task run whose run ended as *ending*, from what became of its items."""
    if ending is not Status.COMPLETED or counts.completed == counts.total:
        return ending
    return Status.COMPLETED_WITH_ERRORS if counts.completed else Status.FAILED


def close_summary(summary: TaskSummary, counts: Counts, ending: Status) -> TaskSummary:
    """Return *summary* with the counts of the items; it says so when there was nothing to do."""
    summary = summary.with_metrics(
        Metric(key="items_total", label="Items", value=counts.total),
        Metric(key="items_completed", label="Completed", value=counts.completed),
        Metric(key="items_failed", label="Failed", value=counts.failed, tone="danger" if counts.failed else ""),
        Metric(key="items_cancelled", label="Cancelled", value=counts.cancelled),
    )
    if ending is Status.COMPLETED and not counts.total and not summary.common.flags.skipped:
        return summary.as_skipped("there was nothing to do")
    return summary


def task_run_states(connection: Connection) -> dict[str, tuple[Status, bool]]:
    """Return, of every task run, the status and whether it is closed."""
    return {row.run_id: (Status(row.status), row.is_closed) for row in connection.execute(text(RUN_STATES))}


def not_closed(connection: Connection) -> dict[str, Status]:
    """Return, of every task run whose run is not known to be over, the status."""
    return {row.run_id: Status(row.status) for row in connection.execute(text(NOT_CLOSED))}


def miscounted(connection: Connection) -> list[str]:
    """Return the run ids of task runs whose counters differ from their items."""
    return list(connection.execute(text(MISCOUNTED)).scalars())


def delete_old_task_runs(engine: Engine, batch: int, before: datetime) -> int:
    """Delete up to *batch* closed task runs, with their items, that are older; return how many."""
    return write(engine, DELETE_OLD, before=before, batch=batch)


def _error(status: Status, counts: Counts) -> str | None:
    return f"all of {counts.total} items failed" if status is Status.FAILED and not counts.completed else None


def _json(content: Mapping[str, Any]) -> str | None:
    return json.dumps(_storable(content), ensure_ascii=False) if content else None


def _storable(content: Any) -> Any:
    """Return *content* with texts as PostgreSQL can hold them, and none endless: errors quote what others say."""
    if isinstance(content, str):
        return content[:LONGEST_TEXT].replace("\x00", "?").encode(errors="replace").decode()
    if isinstance(content, Mapping):
        return {_storable(key): _storable(value) for key, value in content.items()}
    return [_storable(value) for value in content] if isinstance(content, list) else content
