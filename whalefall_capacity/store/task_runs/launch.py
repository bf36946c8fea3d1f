"""Launching a run from the API: one at a time decides whether to join a run that is open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from sqlalchemy import Connection, Engine, text

from whalefall_capacity.store.postgres.advisory_locks import lock_launch

SET_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '20s'"
OPEN_RUN_COVERING = """
SELECT run_id FROM task_runs
WHERE task_key = :task_key AND status IN ('pending', 'running')
  AND summary_json #>> '{common,inputs,scope}' IN ('all', :scope)
  AND summary_json #>> '{common,scope,time,date}' = :day
ORDER BY created_at LIMIT 1
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
