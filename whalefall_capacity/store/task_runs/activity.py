"""Recent task runs in numbers: by how they ended, with their duration; and those that are open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, text

# By task_runs_created_at_idx, and the open ones by the partial index of what is not closed.
RECENT = """
SELECT task_key, status, count(*) AS runs,
       coalesce(sum(extract(epoch FROM completed_at - started_at)), 0)::float AS seconds
FROM task_runs WHERE created_at > now() - CAST('1 day' AS interval)
GROUP BY task_key, status ORDER BY task_key, status
"""
OPEN = """
SELECT task_key, status, count(*) AS runs, max(extract(epoch FROM now() - created_at))::float AS seconds
FROM task_runs WHERE closed_at IS NULL AND status IN ('pending', 'running')
GROUP BY task_key, status ORDER BY task_key, status
"""


@dataclass(frozen=True)
class Activity:
    """The runs of one task with one status."""

    task_key: str
    status: str
    runs: int
    seconds: float


def recent_activity(engine: Engine) -> Sequence[Activity]:
    """Return the runs that were created within a day; *seconds* are what those that ended took together."""
    return _activity(engine, RECENT)


def open_activity(engine: Engine) -> Sequence[Activity]:
    """Return the runs that wait or work; *seconds* are the age of the oldest."""
    return _activity(engine, OPEN)


def _activity(engine: Engine, statement: str) -> Sequence[Activity]:
    with engine.connect() as connection:
        return [Activity(**row) for row in connection.execute(text(statement)).mappings()]
