"""The databases and the instances of the fleet that grew most in a month, by their own latest sizes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated

from pydantic import Field
from sqlalchemy import Engine

from whalefall_capacity.store.postgres.one_statement import read_rows

MONTH = timedelta(days=30)
# The latest size may lie before the day, and the one that it is compared with before the month: at most a week.
REACH = timedelta(days=7)

# Each server's own latest day, and its own day a month before: by the BRIN index of the days in the range.
VISITS = """
WITH visits AS MATERIALIZED (
    SELECT s.instance_id, i.name AS instance, max(collected_date) AS day,
           max(collected_date) FILTER (WHERE collected_date <= CAST(:day AS date) - :month_days) AS base_day
    FROM instance_size_stats AS s
    JOIN instances AS i ON i.id = s.instance_id AND i.is_active AND i.deleted_at IS NULL
    WHERE collected_date BETWEEN CAST(:day AS date) - :reach_days AND :day
       OR collected_date BETWEEN CAST(:day AS date) - :month_days - :reach_days AND CAST(:day AS date) - :month_days
    GROUP BY s.instance_id, i.name
)
"""
# Nearly all servers share both days, so that these are few; the rows of a day lie together, by its BRIN index. A full
# join is hashed or merged, whatever the planner thinks of rows that were written a moment ago.
DATABASES = """
<visits>, compared AS MATERIALIZED (
    SELECT instance_id, database_name, latest.size_bytes, base.size_bytes AS base_size_bytes, latest.day, base.since
    FROM (SELECT s.instance_id, s.database_name, s.size_bytes, s.collected_date AS day
          FROM database_size_stats AS s
          JOIN visits ON visits.instance_id = s.instance_id AND visits.day = s.collected_date
          WHERE s.collected_date BETWEEN CAST(:day AS date) - :reach_days AND :day
            AND s.collected_date = ANY (ARRAY(SELECT DISTINCT day FROM visits))) AS latest
    FULL JOIN (SELECT s.instance_id, s.database_name, s.size_bytes, s.collected_date AS since
               FROM database_size_stats AS s
               JOIN visits ON visits.instance_id = s.instance_id AND visits.base_day = s.collected_date
               WHERE s.collected_date BETWEEN CAST(:day AS date) - :month_days - :reach_days
                                          AND CAST(:day AS date) - :month_days
                 AND s.collected_date = ANY (ARRAY(SELECT DISTINCT base_day FROM visits))) AS base
         USING (instance_id, database_name)
)
SELECT instance_id, visits.instance, database_name, compared.day, size_bytes, since,
       size_bytes - base_size_bytes AS change_bytes
FROM compared JOIN visits USING (instance_id)
WHERE size_bytes > base_size_bytes
ORDER BY size_bytes - base_size_bytes DESC, visits.instance, database_name
LIMIT :count
""".replace("<visits>", VISITS)
INSTANCES = """
<visits>
SELECT instance_id, visits.instance, NULL AS database_name, visits.day, latest.total_size_bytes AS size_bytes,
       visits.base_day AS since, latest.total_size_bytes - base.total_size_bytes AS change_bytes
FROM visits
JOIN instance_size_stats AS latest USING (instance_id)
JOIN instance_size_stats AS base USING (instance_id)
WHERE latest.collected_date = visits.day AND latest.missing_count = 0
  AND latest.collected_date BETWEEN CAST(:day AS date) - :reach_days AND :day
  AND base.collected_date = visits.base_day AND base.missing_count = 0
  AND base.collected_date BETWEEN CAST(:day AS date) - :month_days - :reach_days AND CAST(:day AS date) - :month_days
  AND latest.total_size_bytes > base.total_size_bytes
ORDER BY change_bytes DESC, visits.instance
LIMIT :count
""".replace("<visits>", VISITS)


@dataclass(frozen=True)
class Grower:
    """An instance or a database that grew."""

    instance_id: int
    instance: str
    database_name: Annotated[str | None, Field(description="null: the instance as a whole.")]
    day: Annotated[date, Field(description="The day of the size.")]
    size_bytes: int
    since: Annotated[date, Field(description="The day that the change is measured from.")]
    change_bytes: int


def growing_databases(engine: Engine, day: date, count: int) -> list[Grower]:
    """Return the *count* databases that grew most in the month until *day*."""
    return _growers(engine, DATABASES, day, count)


def growing_instances(engine: Engine, day: date, count: int) -> list[Grower]:
    """Return the *count* instances that grew most in the month until *day*."""
    return _growers(engine, INSTANCES, day, count)


def _growers(engine: Engine, statement: str, day: date, count: int) -> list[Grower]:
    spans = {"month_days": MONTH.days, "reach_days": REACH.days}
    return read_rows(engine, Grower, statement, day=day, count=count, **spans)
