"""Launching a run from the API: one at a time decides whether to join a run that is open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from sqlalchemy import Connection, Engine, text

from whalefall_capacity.store.postgres.advisory_locks import lock_launch
from whalefall_capacity.tasks import SYNC_DATABASES

SET_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '20s'"
OPEN_RUN_COVERING = """
SELECT run_id FROM task_runs
WHERE task_key = :task_key AND status IN ('pending', 'running')
  AND summary_json #>> '{common,inputs,scope}' IN ('all', :scope)
  AND summary_json #>> '{common,scope,time,date}' = :day
ORDER BY created_at LIMIT 1
"""


# The open ones are few, and found by the index of what is not closed. The item is found by the key of its table: a
# server whose visit has ended in that run is visited again by another one.
OPEN_RUN_COLLECTING = """
SELECT r.run_id FROM task_runs AS r
WHERE r.closed_at IS NULL AND r.task_key = :task_key AND r.status IN ('pending', 'running')
  AND r.summary_json #>> '{common,scope,time,date}' = :day
  AND (r.summary_json #> '{common,scope,target,instance_ids}' IS NULL
       OR r.summary_json #> '{common,scope,target,instance_ids}' @> to_jsonb(CAST(:instance_id AS integer)))
  AND NOT EXISTS (
      SELECT FROM task_run_items AS i
      WHERE i.run_id = r.run_id AND i.item_type = 'collection' AND i.item_key = CAST(:instance_id AS text)
        AND i.status NOT IN ('pending', 'running'))
ORDER BY r.created_at LIMIT 1
"""


@contextmanager
def launching(engine: Engine, task_key: str) -> Iterator[Connection]:
    """Hold a transaction in which nobody else decides whether to launch a run of *task_key*."""
    with engine.begin() as connection:
        connection.execute(text(SET_LOCK_TIMEOUT))
        lock_launch(connection, task_key)
        yield connection


def open_run_covering(connection: Connection, task_key: str, scope: str, day: date) -> str | None:
    """Return the id of an open run of *task_key* over *day* whose scope contains *scope*."""
    values = {"task_key": task_key, "scope": scope, "day": day.isoformat()}
    run_id: str | None = connection.execute(text(OPEN_RUN_COVERING), values).scalar()
    return run_id


def open_run_collecting(connection: Connection, day: date, instance_id: int | None) -> str | None:
    """Return the id of an open run that measures the fleet on *day*, or has yet to visit one instance of it."""
    values = {"task_key": SYNC_DATABASES.key, "day": day.isoformat(), "instance_id": instance_id}
    run_id: str | None = connection.execute(text(OPEN_RUN_COLLECTING), values).scalar()
    return run_id
